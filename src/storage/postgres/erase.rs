//! Erasing: the content of single entries is removed, and their ids stay.
//!
//! Keeps: an erased entry stays a row of Effect's table, without event, key and payload, so that the index still knows its id. The facts
//! of its append record the erasure, in the same transaction.

use super::connect::Conn;
use super::facts::{self, Encoder, Run, What};
use super::failed::Failed;
use super::read::{number, sequence};
use super::tables::Statements;
use crate::model::Sequence;

/// Erases the entries of a store with these sequences, in the current transaction. The sequences are ascending and exist.
pub(super) async fn erase_rows(
    conn: &mut Conn,
    sql: &Statements,
    store: &str,
    gone: &[Sequence],
) -> Result<(), Failed> {
    let appends = conn.prepare(&sql.erase.appends).await?;
    let note = conn.prepare(&sql.erase.note).await?;
    let empty = conn.prepare(&sql.erase.empty).await?;
    let numbers: Vec<i64> = gone.iter().map(|at| number(*at)).collect();
    let (mut firsts, mut changed) = (Vec::new(), Vec::new());
    for row in conn.client.query(&appends, &[&store, &numbers]).await? {
        let (first, last): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let told: Option<&[u8]> = row.try_get(2)?;
        let runs = runs_of((first, last), told)?;
        firsts.push(first);
        changed.push(erased(&runs, gone));
    }
    conn.client.execute(&note, &[&store, &firsts, &changed]).await?;
    conn.client.execute(&empty, &[&store, &numbers]).await?;
    Ok(())
}

fn runs_of((first, last): (i64, i64), told: Option<&[u8]>) -> Result<Vec<Run>, Failed> {
    let at = |number| sequence(number).map_err(|error| Failed::new(error.to_string()));
    let (first, last) = (at(first)?, at(last)?);
    let Some(told) = told else { return Ok(vec![Run { first, last, what: What::Foreign }]) };
    facts::decode(first, told)
        .ok_or_else(|| Failed::new(format!("the note of the entries from {first} on is malformed")))
}

/// The runs after the entries `gone` were erased.
fn erased(runs: &[Run], gone: &[Sequence]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    for Run { first, last, what } in runs {
        let mut next = *first;
        let within = gone.partition_point(|at| at < first)..gone.partition_point(|at| at <= last);
        // A gap contains nothing to erase.
        let within = if *what == What::Gap { &[][..] } else { gone.get(within).unwrap_or(&[]) };
        for at in within {
            if *at > next {
                encoder.add(at.since(next), what.clone());
            }
            encoder.add(1, What::Erased);
            next = at.next();
        }
        if next <= *last {
            encoder.add(last.next().since(next), what.clone());
        }
    }
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Origin;

    #[test]
    fn runs_are_cut_where_something_is_erased() {
        let at = |n: u64| Sequence::ZERO.plus(n);
        let origin = What::Written(Origin::Server { run_handlers: true });
        let runs = [
            Run { first: at(5), last: at(8), what: origin.clone() },
            Run { first: at(9), last: at(10), what: What::Gap },
            Run { first: at(11), last: at(11), what: What::Foreign },
        ];
        let gone = [1, 5, 7, 8, 9, 11, 12].map(at);
        let read = facts::decode(at(5), &erased(&runs, &gone)).expect("runs");
        let read: Vec<_> = read.into_iter().map(|run| (run.last.get(), run.what)).collect();
        let expected = [
            (5, What::Erased),
            (6, origin),
            (8, What::Erased),
            (10, What::Gap),
            (11, What::Erased),
        ];
        assert_eq!(read, expected);
    }
}
