//! Whether the database is still that of this node's server, and nobody has taken it from the node.
//!
//! Keeps: each connection of a node holds a lock, shared, that `heal` and `migrate` need for themselves: as long as one
//! exists, they do not begin. A node whose connections were cut off looks again with each new one, once it has the lock.
//! If the database was healed or moved meanwhile, the node uses it no more and all of its connections end. The poll asks
//! as well, for changes by hand. Leaves out: how these commands wait (`alone`), and what clients are told (`server`).

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tokio_postgres::SimpleQueryMessage;

use super::connect::Conn;
use super::failed::Failed;
use super::schema::{LOCK, MIGRATING, MOVED};
use super::tables::Tables;
use crate::model::RemoteId;

/// The key of the lock, as SQL. Each set of tables has its own.
pub(super) fn key(Tables { meta, .. }: &Tables) -> String {
    format!("hashtextextended(coalesce(current_schema(), '') || '.{meta}', {LOCK})")
}

/// See the module's description.
pub(super) struct Served {
    /// What a new connection asks.
    ask: String,
    /// The remote id of this node's server. Not set before the tables are there.
    remote_id: OnceLock<RemoteId>,
    /// Why the database cannot be used any more.
    lost: watch::Sender<Option<Arc<str>>>,
}

impl Served {
    pub(super) fn new(tables: &Tables) -> Self {
        let Tables { meta, remote_id, .. } = tables;
        // Two statements: what is read must be newer than the lock.
        let ask = format!(
            "SELECT pg_try_advisory_lock_shared({}); SELECT m.version, encode(r.remote_id, 'hex') FROM {meta} AS m \
             LEFT JOIN {remote_id} AS r ON r.singleton = 1",
            key(tables)
        );
        Self { ask, remote_id: OnceLock::new(), lost: watch::Sender::new(None) }
    }

    /// From now on, the database must have this remote id.
    pub(super) fn is(&self, remote_id: RemoteId) {
        // It is set once, at the start.
        let _ = self.remote_id.set(remote_id);
    }

    /// Takes the lock for the life of `conn`, then looks whose the database is.
    pub(super) async fn enter(&self, conn: &Conn) -> Result<(), Failed> {
        if self.remote_id.get().is_none() {
            // The tables are prepared under another lock, and later connections look.
            return Ok(());
        }
        let answers = conn.client.simple_query(&self.ask).await?;
        let mut rows = answers.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        if rows.next().and_then(|row| row.get(0)) != Some("t") {
            return Err(Failed::before_anything(
                "the database is being healed or moved: `eventlog-server heal` or `migrate` is at work",
            ));
        }
        let row = rows.next();
        let version = row.and_then(|row| row.get(0)).and_then(|version| version.parse().ok());
        let found =
            row.and_then(|row| row.get(1)).and_then(|hex| u128::from_str_radix(hex, 16).ok());
        let found = found.and_then(|id| RemoteId::from_slice(&id.to_be_bytes()));
        self.check(version, found)
    }

    /// Fails if the database is not that of this node's server any more, from then on for good.
    pub(super) fn check(
        &self,
        version: Option<i32>,
        found: Option<RemoteId>,
    ) -> Result<(), Failed> {
        self.check_kept()?;
        let (Some(version), Some(found)) = (version, found) else {
            // Somebody may be about to restore it.
            return Err(Failed::before_anything("the database has no remote id"));
        };
        let own = self.remote_id.get().copied();
        let what = if version == MIGRATING || version == MOVED {
            "the server was moved away from the database, or is being moved into it again"
                .to_owned()
        } else if own.is_some_and(|own| own != found) {
            format!("the database has another remote id ({found}): it was healed or replaced")
        } else {
            return Ok(());
        };
        let told = format!(
            "{what} while this node ran. The node uses it no more, refuses writes and closes its connections to clients: start this \
             node again"
        );
        self.lost.send_if_modified(|lost| {
            let is_new = lost.is_none();
            if is_new {
                log::error!("{told}");
                *lost = Some(told.into());
            }
            is_new
        });
        self.check_kept()
    }

    /// Fails if the database was taken from this node.
    pub(super) fn check_kept(&self) -> Result<(), Failed> {
        self.lost.borrow().as_ref().map_or(Ok(()), |told| Err(Failed::before_anything(&**told)))
    }

    /// Why the database cannot be used any more, from the moment when that is so.
    pub(super) fn lost(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.lost.subscribe()
    }
}

/// Resolves once the database was taken from the node, with the reason. Never if that does not happen.
pub(super) async fn is_lost(mut lost: watch::Receiver<Option<Arc<str>>>) -> Arc<str> {
    let told = lost.wait_for(Option::is_some).await.map(|told| told.clone());
    match told {
        Ok(Some(told)) => told,
        Ok(None) | Err(_) => std::future::pending().await,
    }
}
