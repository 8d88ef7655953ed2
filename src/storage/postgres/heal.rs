//! Turns a database that may be an older copy into another server: what `heal` does with a data directory.
//!
//! Keeps: no sequence that a client may have seen is assigned again, in stores that the copy has: each continues far
//! above its head, and the jump is a gap that is read like any other; ids stay known. All of it is one transaction.
//! Leaves out: a store that the copy does not have, which begins at 1 again. Its clients begin again as well, because
//! the remote id is a different one.

use super::alone::alone;
use super::connect::{Conn, on_connection};
use super::facts;
use super::failed::Failed;
use super::read::number;
use super::tables::{RECORD_BYTES, Tables};
use super::{Postgres, PostgresError, PostgresOptions};
use crate::model::{RemoteId, Segment, Sequence};

/// How far above its head each store continues, as on sled.
const JUMP: u64 = 1_000_000_000;

impl Postgres {
    /// Gives the database in `options` a new remote id, and makes each of its stores continue 1,000,000,000 above its
    /// head; returns how many stores that are. For a database that was restored to an earlier state. Refused while
    /// nodes use it, or have until a moment ago, unless [`PostgresOptions::nodes_are_dead`] is set. Blocks.
    pub fn heal(options: &PostgresOptions) -> Result<u64, PostgresError> {
        on_connection(options, |conn, tables| heal(conn, tables, options.nodes_are_dead))
    }
}

async fn heal(mut conn: Conn, tables: Tables, nodes_are_dead: bool) -> Result<u64, Failed> {
    alone(&conn, &tables, nodes_are_dead).await?;
    let Tables { entries, stores, appends, remote_id, nodes, .. } = tables;
    let commits = conn.commits();
    let client = &mut conn.client;
    // If it is dropped without a commit, it is rolled back.
    let transaction = client.transaction().await?;
    let own = RemoteId::random();
    let own: &[u8] = own.as_bytes();
    transaction.execute(&format!("UPDATE {remote_id} SET remote_id = $1"), &[&own]).await?;
    // Without its row, no node appends anything.
    transaction.execute(&format!("DELETE FROM {nodes}"), &[]).await?;
    let last = format!(
        "LATERAL (SELECT last, gaps, bytes FROM {appends} WHERE store_id = s.store_id ORDER BY first DESC LIMIT 1) AS a"
    );
    // What somebody else wrote and nobody has recorded yet: the gap comes after it.
    let note = format!(
        "INSERT INTO {appends} (store_id, first, last, gaps, bytes) SELECT s.store_id, coalesce(a.last, 0) + 1, s.next_sequence - 1, \
         coalesce(a.gaps, 0), coalesce(a.bytes, 0) + (SELECT coalesce(sum({RECORD_BYTES}), 0) FROM {entries} AS e \
             WHERE e.store_id = s.store_id AND e.sequence > coalesce(a.last, 0)) \
         FROM {stores} AS s LEFT JOIN {last} ON true WHERE s.next_sequence - 1 > coalesce(a.last, 0)"
    );
    transaction.batch_execute(&note).await?;
    let jump = format!(
        "WITH s AS (UPDATE {stores} SET next_sequence = next_sequence + $1::bigint WHERE next_sequence > 1 \
             RETURNING store_id, next_sequence - $1::bigint AS first, next_sequence - 1 AS last) \
         INSERT INTO {appends} (store_id, first, last, gaps, bytes, facts) \
         SELECT s.store_id, s.first, s.last, a.gaps + $1::bigint, a.bytes, $2::bytea FROM s, {last}"
    );
    let gap = facts::encode(Segment::gaps(Sequence::FIRST, Sequence::ZERO.plus(JUMP)).iter());
    let jump_by = number(Sequence::ZERO.plus(JUMP));
    let healed = transaction.execute(&jump, &[&jump_by, &gap]).await?;
    transaction.commit().await?;
    commits.check()?;
    Ok(healed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::postgres::PostgresStorage;
    use crate::storage::{Storage, StoreSize};
    use crate::testing::cluster::cluster;
    use crate::testing::on_postgres::{database, is_there, open};
    use crate::testing::storage::{all_ids, append, ids};
    use crate::testing::store;

    #[test]
    fn a_database_that_was_put_back_goes_on_far_above_what_clients_may_have_seen() {
        if !is_there() {
            return;
        }
        let url = database();
        let written = ids(3);
        let before = {
            let storage = PostgresStorage::new(open(&url));
            append(&*storage.open(&store("s")).expect("open"), &written, 10);
            let refused = Postgres::heal(&PostgresOptions::new(&*url)).expect_err("it is used");
            assert!(refused.to_string().contains("stop all"), "{refused}");
            storage.remote_id()
        };
        cluster().expect("a cluster").sql(
            &url,
            "INSERT INTO effect_events_stores VALUES ('theirs', 2);
             INSERT INTO effect_events VALUES ('theirs', 1, decode(repeat('ab', 16), 'hex'), 'Noted', 'k', '\\x0102')",
        );
        // The connections of the node end after it.
        let healed = (0..3_000).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            Postgres::heal(&PostgresOptions::new(&*url)).ok()
        });
        assert_eq!(healed, Some(2));
        let storage = PostgresStorage::new(open(&url));
        assert_ne!(storage.remote_id(), before);
        let at = |n: u64| Sequence::ZERO.plus(n);
        let log = storage.open(&store("s")).expect("open");
        assert_eq!(log.head(), at(3 + JUMP));
        assert_eq!(log.lookup(&written).expect("a look"), [1, 2, 3].map(|n| Some(at(n))));
        assert_eq!(append(&*log, &ids(1), 10)[0].first(), at(4 + JUMP));
        assert_eq!(all_ids(&*log)[..3], written);
        let size = storage.size(&store("theirs")).expect("a size");
        let expected =
            StoreSize { head: at(1 + JUMP), trimmed: at(0), entries: 1, bytes: size.bytes };
        assert_eq!((size, size.bytes), (expected, 16 + 6 + 2 + 3));
        let read = storage.open(&store("theirs")).expect("open").read(at(1), 1 << 20);
        assert_eq!(read.expect("a read").iter().flat_map(Segment::ids).count(), 1);
    }
}
