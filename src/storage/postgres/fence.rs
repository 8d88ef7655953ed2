//! Which changes of keys and records this node has heard of; the database checks that with each append.
//!
//! Keeps: once a removal, revocation or change of grants was answered at any node, nothing is appended that a node had
//! allowed before it applied that, however long it has waited. Each node has a row with the last change that it must have
//! heard of. A change raises it in the rows of all nodes, in its own transaction; an append locks its node's row, for share,
//! and happens only if the row says what the node had applied when the writes were allowed. So an append is either before the
//! change, which waits for it, or finds that it is behind. A write of which everything is known is answered after a look at
//! that row. Leaves out: what is done about a change (`server`), and how
//! writes are checked again (`actors::store`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::connect::Conn;
use super::database::Postgres;
use super::failed::Failed;
use super::tables::Tables;
use crate::storage::{AppendError, Heard};

/// How long an append that was allowed before a change waits for that to be applied.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// What its writers are told if it is not.
const KEYS_CHANGED: &str = "keys or rights have changed meanwhile, try again";

/// See the module's description.
pub(super) struct Fence {
    heard_of: AtomicU64,
    turns: Mutex<Turns>,
    moved: Notify,
}

/// The order in which changes are applied.
struct Turns {
    /// How many were passed on.
    asked: u64,
    /// What the row said at the last one.
    heard_of: u64,
    /// The last one that was applied.
    applied: u64,
}

/// A change that is being applied; dropping this means that it is applied.
pub(super) struct TakingIn {
    fence: Arc<Fence>,
    turn: u64,
    heard_of: u64,
}

impl Fence {
    pub(super) fn new(heard_of: u64) -> Arc<Self> {
        let turns = Mutex::new(Turns { asked: 0, heard_of, applied: 0 });
        Arc::new(Self { heard_of: AtomicU64::new(heard_of), turns, moved: Notify::new() })
    }

    /// The value that the node's row must have for what is allowed now.
    pub(super) fn heard(&self) -> Heard {
        Heard(self.heard_of.load(Ordering::Acquire))
    }

    /// Whether everybody was already told to check what the row demands, if it says `heard_of`.
    pub(super) fn is_asked(&self, heard_of: u64) -> bool {
        self.turns.lock().heard_of == heard_of
    }

    /// The row says `heard_of`, and everybody is told to check again.
    pub(super) fn when_taken_in(self: &Arc<Self>, heard_of: u64) -> TakingIn {
        let mut turns = self.turns.lock();
        turns.asked += 1;
        turns.heard_of = heard_of;
        TakingIn { fence: self.clone(), turn: turns.asked, heard_of }
    }

    /// Why an append was refused that was allowed when this node had heard of `heard`. Waits for the change to be applied, for a
    /// while: before, nothing that is checked again would be appended either.
    pub(super) async fn refused(&self, heard: Heard) -> AppendError {
        let moved = async {
            loop {
                let moved = self.moved.notified();
                if self.heard() != heard {
                    return;
                }
                moved.await;
            }
        };
        match tokio::time::timeout(WAIT_MAX, moved).await {
            Ok(()) => AppendError::Stale,
            Err(_) => AppendError::Definite(KEYS_CHANGED.into()),
        }
    }
}

impl Drop for TakingIn {
    fn drop(&mut self) {
        let mut turns = self.fence.turns.lock();
        if self.turn > turns.applied {
            turns.applied = self.turn;
            // It may be less than before: the row was made anew in a database that has lost changes.
            self.fence.heard_of.store(self.heard_of, Ordering::Release);
        }
        drop(turns);
        self.fence.moved.notify_waiters();
    }
}

/// Fails as an append does that was allowed when this node had heard of `heard`.
pub(super) async fn still_allowed(postgres: Postgres, heard: Heard) -> Result<(), AppendError> {
    match is_last(&postgres, heard).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            postgres.bus().ask_soon();
            Err(postgres.fence().refused(heard).await)
        }
        Err(failed) => Err(AppendError::Definite(failed.to_string().into())),
    }
}

/// Whether nothing has changed since this node had heard of `heard`.
async fn is_last(postgres: &Postgres, Heard(heard): Heard) -> Result<bool, Failed> {
    let mut conn = postgres.conn().await?;
    let Tables { nodes, node, .. } = &**postgres.tables();
    let sql = format!("SELECT FROM {nodes} WHERE node = $1 AND changes = $2");
    let statement = conn.prepare(&sql).await?;
    Ok(conn.client.query_opt(&statement, &[node, &heard.cast_signed()]).await?.is_some())
}

/// Gives this node its row, with the last change so far; returns that.
pub(super) async fn register(conn: &mut Conn, tables: &Tables) -> Result<u64, Failed> {
    let Tables { meta, nodes, node, .. } = tables;
    // The lock prevents a change between the look and the row.
    let sql = format!(
        "WITH m AS (SELECT changes FROM {meta} FOR SHARE) \
         INSERT INTO {nodes} SELECT $1, changes, now() FROM m ON CONFLICT (node) DO UPDATE SET seen = now() RETURNING changes"
    );
    let row = conn.client.query_one(&sql, &[node]).await?;
    Ok(row.try_get::<_, i64>(0)?.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_is_taken_in_and_an_earlier_one_takes_nothing_back() {
        let fence = Fence::new(3);
        let (four, five) = (fence.when_taken_in(4), fence.when_taken_in(5));
        assert_eq!(fence.heard(), Heard(3));
        drop(five);
        drop(four);
        assert_eq!(fence.heard(), Heard(5));
        drop(fence.when_taken_in(2));
        assert_eq!(fence.heard(), Heard(2), "the row was made anew in an older copy");
    }
}
