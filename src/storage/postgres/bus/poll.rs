//! What a node asks the database now and then: heads of open stores, changes of keys and records, and whether it can be
//! used.
//!
//! Keeps: what a lost notification would have reported is found anyway; a store of which the database has lost entries is refused, also
//! if nobody writes to it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::super::connect::Conn;
use super::super::failed::Failed;
use super::super::fence::register;
use super::super::read::sequence;
use super::super::tables::{CHANGED_KEYS_MAX, Tables};
use super::super::text::{from_column, to_column};
use super::super::trim::trimmed;
use super::{AGAIN, Bus};
use crate::model::{PublicKey, RemoteId, Sequence, StoreId};
use crate::storage::KeysChanged;

/// How often heads are requested. Without notifications, it is more often.
const POLL_EVERY: Duration = Duration::from_secs(1);
const POLL_WITHOUT_LISTENER: Duration = Duration::from_millis(100);
/// How many heads are requested at a time.
const HEADS_AT_ONCE: usize = 1_000;
/// How often a node records in the database that it is there; one that was not seen for an hour is removed.
const SEEN_EVERY: Duration = Duration::from_secs(10);

/// The minimum time between two lines that say that the database is lost.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// By store: its head, how far it is trimmed, and the number of its last erasure.
type Heads = HashMap<StoreId, (Sequence, Sequence, u64)>;

/// Decides what is logged when the database cannot be used: one line at the beginning and one at the end, and nothing about failures
/// that follow at once.
#[derive(Default)]
struct Outage {
    since: Option<Instant>,
    said: Option<Instant>,
    is_said: bool,
}

impl Outage {
    fn say(&mut self, failed: Option<&Failed>) {
        match (failed, self.since) {
            (Some(failed), None) => {
                self.since = Some(Instant::now());
                self.is_said = self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY);
                if self.is_said {
                    self.said = Some(Instant::now());
                    log::warn!("the database cannot be used, writes are refused: {failed}");
                }
            }
            (None, Some(since)) => {
                self.since = None;
                if self.is_said {
                    let seconds = since.elapsed().as_secs_f64();
                    log::info!("the database can be used again, after {seconds:.1} s");
                }
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}

impl Bus {
    /// Asks for heads and changes now and then, for as long as the task lives.
    pub(in super::super) async fn poll(self: Arc<Self>) {
        let mut conn: Option<Conn> = None;
        let mut outage = Outage::default();
        loop {
            let listens = self.listens.load(Ordering::Acquire);
            let pause = if listens { POLL_EVERY } else { POLL_WITHOUT_LISTENER };
            // Either is a reason to ask.
            let _ = timeout(pause, self.poll_now.notified()).await;
            let polled = self.poll_once(&mut conn).await;
            let is_good = polled.is_ok();
            outage.say(polled.as_ref().err());
            *self.trouble.lock() = polled.err().map(|failed| failed.to_string());
            if !is_good {
                self.standby.over();
                conn = None;
                sleep(AGAIN).await;
            }
        }
    }

    /// Reports what has changed since the database was last asked. This node appends again once that is applied.
    async fn tell_changes(
        &self,
        conn: &mut Conn,
        changes: u64,
        heard_of: u64,
    ) -> Result<(), Failed> {
        let known = self.changes.load(Ordering::Acquire);
        let is_asked = self.fence.is_asked(heard_of);
        if changes == known && is_asked {
            // It has heard of all changes, unless one is being applied.
            return Ok(());
        }
        let table = &self.tables.changed_keys;
        let sql = format!("SELECT change, public_key FROM {table} WHERE change > $1");
        let rows = conn.client.query(&sql, &[&known.cast_signed()]).await?;
        let mut own = self.own_changes.lock();
        let is_own = |change: u64| own.contains(&change);
        let (mut keys, mut of_keys) = (Vec::new(), HashSet::new());
        for row in &rows {
            let (change, key): (i64, &str) = (row.try_get(0)?, row.try_get(1)?);
            let key = PublicKey::new(&*from_column(key))
                .map_err(|error| Failed::new(error.to_string()))?;
            of_keys.insert(change.cast_unsigned());
            if !is_own(change.cast_unsigned()) {
                keys.push(key);
            }
        }
        let is_few = changes >= known && changes - known < CHANGED_KEYS_MAX as u64;
        let all_own = is_few && (known + 1..=changes).all(is_own);
        let only_own_keys =
            all_own && (known + 1..=changes).all(|change| of_keys.contains(&change));
        own.retain(|change| *change > changes);
        drop(own);
        self.changes.store(changes, Ordering::Release);
        if all_own && is_asked {
            // They raise no row: nothing of it refuses an append.
            return Ok(());
        }
        let taken_in = self.fence.when_taken_in(heard_of);
        if self.told_changes.lock().is_none() {
            // Some may be gone by now; and a number that went back belongs to another database.
            let keys = is_few.then_some(keys);
            // Once the server has ended, nobody follows any more.
            let _ = self.changed.send(KeysChanged {
                keys,
                only_own_keys,
                taken_in: Box::new(taken_in),
            });
        }
        Ok(())
    }

    /// Records now and then that this node is there, and removes those that are gone.
    async fn say_seen(&self, conn: &mut Conn) -> Result<(), Failed> {
        {
            let mut said = self.said_seen.lock();
            if said.is_some_and(|said| said.elapsed() < SEEN_EVERY) {
                return Ok(());
            }
            *said = Some(Instant::now());
        }
        let Tables { nodes, node, .. } = &*self.tables;
        // Appends lock the row, for as long as they wait for a standby. Then it says so another time.
        let say = format!(
            "SET LOCAL lock_timeout = '500ms'; UPDATE {nodes} SET seen = now() WHERE node = '{node}'; \
             DELETE FROM {nodes} WHERE seen < now() - interval '1 hour'"
        );
        match conn.client.batch_execute(&say).await.map_err(Failed::from) {
            Err(failed) if !failed.is_worth_repeating() => Err(failed),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// A connection that waits for no standby: what is written on it may be lost with the server.
    async fn connect(&self) -> Result<Conn, Failed> {
        let (conn, _) = self.connector.connect(None).await?;
        conn.client.batch_execute("SET synchronous_commit = local").await?;
        Ok(conn)
    }

    async fn poll_once(&self, kept: &mut Option<Conn>) -> Result<(), Failed> {
        if kept.as_ref().is_none_or(|conn| conn.client.is_closed()) {
            *kept = Some(self.connect().await?);
        }
        let Some(conn) = kept.as_mut() else { return Ok(()) };
        let waits = self.standby.look(conn).await?;
        let Tables { meta, nodes, node, remote_id, .. } = &*self.tables;
        let ask = format!(
            "SELECT m.changes, n.changes, m.erasures, m.version, r.remote_id FROM {meta} AS m LEFT JOIN {nodes} AS n ON n.node = $1 \
             LEFT JOIN {remote_id} AS r ON r.singleton = 1"
        );
        let statement = conn.prepare(&ask).await?;
        let row = conn.client.query_one(&statement, &[node]).await?;
        let (changes, heard_of): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        let erasures: i64 = row.try_get(2)?;
        if let Some(served) = &self.connector.served {
            let found: Option<&[u8]> = row.try_get(4)?;
            served.check(Some(row.try_get(3)?), found.and_then(RemoteId::from_slice))?;
        }
        match heard_of {
            Some(heard_of) => {
                self.tell_changes(conn, changes.cast_unsigned(), heard_of.cast_unsigned()).await?;
            }
            // It was considered gone, but was not: whatever it has heard does not count.
            None => {
                let registered = register(conn, &self.tables).await?;
                self.tell_changes(conn, registered.max(changes.cast_unsigned()), registered)
                    .await?;
            }
        }
        if !waits {
            self.say_seen(conn).await?;
        }
        self.erased.follow(conn, &self.tables, erasures.cast_unsigned()).await;
        let behind = self.ask_heads(conn).await?;
        if !behind.is_empty() {
            *kept = Some(self.refuse(&behind).await?);
        }
        Ok(())
    }

    /// Asks for the heads of the open stores. Returns those that are below what this node knows, with that.
    async fn ask_heads(&self, conn: &mut Conn) -> Result<Vec<(StoreId, Sequence)>, Failed> {
        // Taken before the question: what this node appends meanwhile may not be in the answer.
        let open = self.open.heads();
        let (mut trimmed_elsewhere, mut behind) = (Vec::new(), Vec::new());
        for some in open.chunks(HEADS_AT_ONCE) {
            let found = self.heads(conn, some).await?;
            for (store, known) in some {
                let (head, trimmed, erasures) = found.get(store).copied().unwrap_or_default();
                if head < *known {
                    behind.push((store.clone(), *known));
                    continue;
                }
                self.open.hear(store, head);
                let known = self.open.trimmed(store);
                if trimmed > known.0 || erasures > known.1 {
                    trimmed_elsewhere.push(store.clone());
                }
            }
        }
        for store in trimmed_elsewhere {
            let (trimmed, _) = trimmed(conn, &self.tables.sql, &store)
                .await
                .map_err(|error| Failed::new(error.to_string()))?;
            self.open.hear_trimmed(&store, trimmed);
        }
        Ok(behind)
    }

    /// The head of each store in the database, how far it is trimmed, and the number of its last erasure.
    async fn heads(
        &self,
        conn: &mut Conn,
        stores: &[(StoreId, Sequence)],
    ) -> Result<Heads, Failed> {
        let names: Vec<_> = stores.iter().map(|(store, _)| to_column(store.as_str())).collect();
        let statement = conn.prepare(&self.tables.sql.heads).await?;
        let mut found = HashMap::with_capacity(stores.len());
        for row in conn.client.query(&statement, &[&names]).await? {
            let (name, next, trimmed, erasures): (&str, i64, i64, i64) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            let Ok(store) = StoreId::new(&*from_column(name)) else { continue };
            // What is no sequence is below every head.
            let (head, trimmed) = (sequence(next - 1), sequence(trimmed));
            let (head, trimmed) = (head.unwrap_or_default(), trimmed.unwrap_or_default());
            found.insert(store, (head, trimmed, erasures.cast_unsigned()));
        }
        Ok(found)
    }

    /// Refuses these stores from now on, unless the database has what this node knows of them after all: an old connection may still
    /// lead to a server that was the primary before. Returns a new connection.
    async fn refuse(&self, behind: &[(StoreId, Sequence)]) -> Result<Conn, Failed> {
        let mut conn = self.connect().await?;
        for some in behind.chunks(HEADS_AT_ONCE) {
            let found = self.heads(&mut conn, some).await?;
            for (store, known) in some {
                let head = found.get(store).map(|(head, ..)| *head).unwrap_or_default();
                if head < *known {
                    let told = self.open.lose(store, head, *known);
                    log::error!(store:%; "{told}");
                }
            }
        }
        Ok(conn)
    }
}
