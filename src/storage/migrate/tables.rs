//! The tables besides entries: the differences between a directory and a database.
//!
//! Keeps: pairs are compared in the order of their keys, one at a time from each place.

use std::cmp::Ordering;

use super::MigrateError;
use crate::storage::StorageError;
use crate::storage::postgres::moving::{Changes, Pair, Session};
use crate::storage::sled::{Dump, Keyspace};

/// The maximum number of changes in one commit, or of their bytes.
const CHANGES_MAX: usize = 1_000;
const CHANGES_BYTES: usize = 4 << 20;

/// A difference between the pairs of both places.
enum Difference {
    /// The second place does not have this pair of the first.
    Set(Pair),
    /// The first place does not have this key of the second.
    Gone(Vec<u8>),
}

/// Passes all differences to `found`. Returns the number of pairs of the first place.
fn differences(
    mut one: impl Iterator<Item = Result<Pair, StorageError>>,
    mut other: impl Iterator<Item = Result<Pair, StorageError>>,
    mut found: impl FnMut(Difference) -> Result<(), MigrateError>,
) -> Result<u64, MigrateError> {
    let (mut first, mut second) = (one.next().transpose()?, other.next().transpose()?);
    let mut count = 0;
    loop {
        let order = match (&first, &second) {
            (None, None) => return Ok(count),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((key, _)), Some((of_other, _))) => key.cmp(of_other),
        };
        let (of_one, of_other) = (
            if order.is_le() { first.take() } else { None },
            if order.is_ge() { second.take() } else { None },
        );
        count += u64::from(of_one.is_some());
        match (of_one, of_other) {
            (Some(pair), Some(same)) if pair == same => {}
            (Some(pair), _) => found(Difference::Set(pair))?,
            (None, Some((key, _))) => found(Difference::Gone(key))?,
            (None, None) => {}
        }
        if order.is_le() {
            first = one.next().transpose()?;
        }
        if order.is_ge() {
            second = other.next().transpose()?;
        }
    }
}

/// Makes the tables of the database equal to those of the directory.
pub(super) fn copy(from: &Dump, to: &mut Session) -> Result<(), MigrateError> {
    for table in Keyspace::TABLES {
        let (rows, mut writer) = to.table(table);
        let mut changes = Changes::default();
        differences(from.table(table), rows, |difference| {
            match difference {
                Difference::Set(pair) => {
                    changes.bytes += pair.0.len() + pair.1.len();
                    changes.set.push(pair);
                }
                Difference::Gone(key) => changes.gone.push(key),
            }
            let count = changes.set.len() + changes.gone.len();
            if count >= CHANGES_MAX || changes.bytes >= CHANGES_BYTES {
                writer.write(&mut changes)?;
            }
            Ok(())
        })?;
        writer.write(&mut changes)?;
    }
    Ok(())
}

/// Fails unless both are equal. Returns the number of pairs.
pub(super) fn compare(directory: &Dump, database: &mut Session) -> Result<u64, MigrateError> {
    let mut count = 0;
    for table in Keyspace::TABLES {
        let (rows, _) = database.table(table);
        count += differences(directory.table(table), rows, |_| {
            Err(MigrateError::Differs(format!("the table {}", table.name())))
        })?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_found_whichever_place_has_more() {
        let pairs = |all: &[(u8, u8)]| {
            let pairs = all.iter().map(|(key, value)| Ok((vec![*key], vec![*value])));
            pairs.collect::<Vec<_>>().into_iter()
        };
        let one = [(1, 1), (2, 2), (4, 4), (9, 9)];
        let other = [(0, 0), (2, 3), (4, 4), (5, 5)];
        let (mut set, mut gone) = (Vec::new(), Vec::new());
        let count = differences(pairs(&one), pairs(&other), |difference| {
            match difference {
                Difference::Set((key, value)) => set.push((key[0], value[0])),
                Difference::Gone(key) => gone.push(key[0]),
            }
            Ok(())
        });
        assert_eq!(count.expect("compared"), 4);
        assert_eq!((&set[..], &gone[..]), (&[(1, 1), (2, 2), (9, 9)][..], &[0, 5][..]));
        for same in [&one[..], &[]] {
            let count = differences(pairs(same), pairs(same), |_| panic!("it is the same"));
            assert_eq!(count.expect("compared"), same.len() as u64);
        }
    }
}
