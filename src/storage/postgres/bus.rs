//! How nodes tell each other who appended, and how far the heads are.
//!
//! Keeps: nothing is true because of a message here. A notification is a hint for many stores at once. It is sent in
//! its own transaction: a NOTIFY in the transaction of a write would make all commits of the database wait for each
//! other. A poll finds what was lost, each second, and at once when the listener is connected again. A node that hears
//! of no other node only sends that it is there. Leaves out: what a store does when it hears of a head
//! (`actors::store`).

mod poll;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::connect::{Conn, Connector};
use super::erased::NodeLedger;
use super::failed::Failed;
use super::fence::Fence;
use super::open::OpenLogs;
use super::standby::Standby;
use super::tables::Tables;
use crate::model::{Sequence, StoreId};
use crate::storage::{KeysChanged, Node};

/// The minimum time between two notifications. What happens meanwhile is sent with the next one.
const NOTIFY_EVERY: Duration = Duration::from_millis(2);
/// The maximum size of a notification is 8,000 bytes.
const PAYLOAD_BYTES_MAX: usize = 7_500;
/// How often a node reports that it is there.
const HERE_EVERY: Duration = Duration::from_secs(5);
/// A node that sent nothing for this long is gone.
const GONE_AFTER: Duration = Duration::from_secs(20);
/// How long to wait before a failed step is retried.
const AGAIN: Duration = Duration::from_millis(500);

/// A message between nodes.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// The sender.
    node: String,
    /// Heads that have moved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    heads: Vec<(String, u64)>,
    /// Whether keys or records have changed, or something was erased.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    changes: bool,
    /// Whether handlers have moved, or the nodes' claims on them have changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    handlers: bool,
    /// Whether the node has just started and asks which other nodes exist.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    asks: bool,
}

/// See the module's description.
pub(super) struct Bus {
    connector: Connector,
    tables: Arc<Tables>,
    open: Arc<OpenLogs>,
    fence: Arc<Fence>,
    erased: Arc<NodeLedger>,
    moved: Mutex<HashMap<StoreId, Sequence>>,
    says_changes: AtomicBool,
    says_here: AtomicBool,
    says_handlers: AtomicBool,
    /// Woken when other nodes report that handlers moved.
    handlers_moved: Arc<Notify>,
    wake: Notify,
    poll_now: Notify,
    others: Mutex<HashMap<String, Instant>>,
    listens: AtomicBool,
    /// The number of changes of keys and records when the database was asked last.
    changes: AtomicU64,
    /// The changes that this node has made since then. It knows about them.
    own_changes: Mutex<HashSet<u64>>,
    changed: mpsc::UnboundedSender<KeysChanged>,
    /// `Some` until somebody asks for it.
    told_changes: Mutex<Option<mpsc::UnboundedReceiver<KeysChanged>>>,
    /// Why the database could not be used at the last attempt.
    trouble: Mutex<Option<String>>,
    heard: AtomicU64,
    standby: Standby,
    said_seen: Mutex<Option<Instant>>,
}

impl Bus {
    pub(super) fn new(
        connector: Connector,
        tables: Arc<Tables>,
        (open, fence, erased): (Arc<OpenLogs>, Arc<Fence>, Arc<NodeLedger>),
        changes: u64,
    ) -> Arc<Self> {
        let (changed, told_changes) = mpsc::unbounded_channel();
        Arc::new(Self {
            connector,
            tables,
            open,
            fence,
            erased,
            moved: Mutex::default(),
            says_changes: AtomicBool::new(false),
            says_here: AtomicBool::new(false),
            says_handlers: AtomicBool::new(false),
            handlers_moved: Arc::default(),
            wake: Notify::new(),
            poll_now: Notify::new(),
            others: Mutex::default(),
            listens: AtomicBool::new(false),
            changes: AtomicU64::new(changes),
            own_changes: Mutex::default(),
            changed,
            told_changes: Mutex::new(Some(told_changes)),
            trouble: Mutex::default(),
            heard: AtomicU64::new(0),
            standby: Standby::default(),
            said_seen: Mutex::default(),
        })
    }

    /// This node moved the head of `store`.
    pub(super) fn moved(&self, store: &StoreId, head: Sequence) {
        // The head will be shown anyway.
        let _ = self.open.check_head(store, head);
        if !self.has_others() {
            return;
        }
        self.moved.lock().insert(store.clone(), head);
        self.wake.notify_one();
    }

    /// This node changed keys or records. The change has this number.
    pub(super) fn changed(&self, number: u64) {
        self.own_changes.lock().insert(number);
        self.says_changes.store(true, Ordering::Release);
        self.wake.notify_one();
        self.poll_now.notify_one();
    }

    /// This node has erased something: others ask the database at once.
    pub(super) fn erased(&self) {
        if self.has_others() {
            self.says_changes.store(true, Ordering::Release);
            self.wake.notify_one();
        }
        self.poll_now.notify_one();
    }

    /// Handlers have moved at this node, or its claims on them have changed.
    pub(super) fn moved_handlers(&self) {
        if self.has_others() {
            self.says_handlers.store(true, Ordering::Release);
            self.wake.notify_one();
        }
    }

    /// Woken when handlers have moved at other nodes.
    pub(super) const fn handlers_moved(&self) -> &Arc<Notify> {
        &self.handlers_moved
    }

    /// Follows the changes of keys and records. Only the first call returns them.
    pub(super) fn changes(&self) -> Option<mpsc::UnboundedReceiver<KeysChanged>> {
        self.told_changes.lock().take()
    }

    /// The number of changes when the database was asked last.
    #[cfg(test)]
    pub(super) fn known_changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Makes the task ask the database soon.
    pub(super) fn ask_soon(&self) {
        self.poll_now.notify_one();
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// Whether commits wait for a standby.
    pub(super) const fn standby(&self) -> &Standby {
        &self.standby
    }

    /// The number of other nodes that were heard of recently.
    pub(super) fn others(&self) -> u64 {
        self.others.lock().len() as u64
    }

    /// This node and the others that were heard of recently, in the order of their names.
    pub(super) fn nodes(&self) -> Vec<Node> {
        let others = self.others.lock();
        let others = others.iter().filter(|(_, heard)| heard.elapsed() < GONE_AFTER);
        let mut others: Vec<Node> = others
            .map(|(name, heard)| Node { name: name.clone(), heard: Some(heard.elapsed()) })
            .collect();
        others.sort_by(|one, other| one.name.cmp(&other.name));
        others.insert(0, Node { name: self.tables.node.clone(), heard: None });
        others
    }

    fn has_others(&self) -> bool {
        !self.others.lock().is_empty()
    }

    /// Sends what this node has to say, for as long as the task lives.
    pub(super) async fn send(self: Arc<Self>) {
        let mut conn: Option<Conn> = None;
        loop {
            if timeout(HERE_EVERY, self.wake.notified()).await.is_err() {
                self.says_here.store(true, Ordering::Release);
            }
            let due = |_: &String, heard: &mut Instant| heard.elapsed() < GONE_AFTER;
            self.others.lock().retain(due);
            for told in self.take_messages(false) {
                if let Err(failed) = self.notify(&mut conn, &told).await {
                    log::debug!("nodes are not notified: {failed}");
                    conn = None;
                    sleep(AGAIN).await;
                    break;
                }
            }
            sleep(NOTIFY_EVERY).await;
        }
    }

    /// The pending messages, as many as necessary.
    fn take_messages(&self, asks: bool) -> Vec<String> {
        let moved = std::mem::take(&mut *self.moved.lock());
        let changes = self.says_changes.swap(false, Ordering::AcqRel);
        let here = self.says_here.swap(false, Ordering::AcqRel);
        let handlers = self.says_handlers.swap(false, Ordering::AcqRel);
        let mut all = Vec::new();
        let mut told =
            Told { node: self.tables.node.clone(), changes, handlers, asks, ..Told::default() };
        let mut bytes = 0;
        for (store, head) in moved {
            // Each byte of a name takes at most six bytes.
            let more = store.as_str().len() * 6 + 24;
            if bytes + more > PAYLOAD_BYTES_MAX && !told.heads.is_empty() {
                let next = Told { node: self.tables.node.clone(), ..Told::default() };
                all.push(std::mem::replace(&mut told, next));
                bytes = 0;
            }
            bytes += more;
            told.heads.push((store.as_str().to_owned(), head.get()));
        }
        if here || asks || changes || handlers || !told.heads.is_empty() {
            all.push(told);
        }
        all.iter().filter_map(|told| serde_json::to_string(told).ok()).collect()
    }

    async fn notify(&self, conn: &mut Option<Conn>, told: &str) -> Result<(), Failed> {
        if conn.as_ref().is_none_or(|conn| conn.client.is_closed()) {
            let (connected, _) = self.connector.connect(None).await?;
            // A hint need not be durable, and must not wait for a standby.
            connected.client.batch_execute("SET synchronous_commit = off").await?;
            *conn = Some(connected);
        }
        let Some(connected) = conn.as_mut() else { return Ok(()) };
        let statement = connected.prepare("SELECT pg_notify($1, $2)").await?;
        connected.client.execute(&statement, &[&self.tables.channel, &told]).await?;
        Ok(())
    }

    /// Receives the messages of other nodes for as long as the task lives.
    pub(super) async fn listen(self: Arc<Self>) {
        loop {
            if let Err(failed) = self.listen_once().await {
                log::debug!("notifications are not heard: {failed}");
            }
            self.listens.store(false, Ordering::Release);
            sleep(AGAIN).await;
        }
    }

    async fn listen_once(&self) -> Result<(), Failed> {
        let (sender, mut heard) = mpsc::unbounded_channel();
        let (conn, _) = self.connector.connect(Some(sender)).await?;
        conn.client.batch_execute(&format!("LISTEN {}", self.tables.channel)).await?;
        self.listens.store(true, Ordering::Release);
        // Asking finds earlier messages.
        self.poll_now.notify_one();
        for told in self.take_messages(true) {
            let notify = "SELECT pg_notify($1, $2)";
            conn.client.execute(notify, &[&self.tables.channel, &told]).await?;
        }
        // Ends with the connection.
        while let Some(told) = heard.recv().await {
            self.hear(&told);
        }
        Err(Failed::new("the connection ended"))
    }

    fn hear(&self, told: &str) {
        // Any other message here was not sent by our nodes.
        let Ok(Told { node, heads, changes, handlers, asks }) = serde_json::from_str(told) else {
            return;
        };
        if node == self.tables.node {
            return;
        }
        self.heard.fetch_add(1, Ordering::Relaxed);
        let is_new = self.others.lock().insert(node, Instant::now()).is_none();
        if is_new || asks {
            self.says_here.store(true, Ordering::Release);
            self.wake.notify_one();
        }
        for (store, head) in heads {
            if let (Ok(store), Ok(head)) = (StoreId::new(store), Sequence::new(head)) {
                self.open.hear(&store, head);
            }
        }
        if changes {
            self.poll_now.notify_one();
        }
        if handlers {
            self.handlers_moved.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_short_if_there_is_little_and_understood_if_there_is_more_to_come() {
        let told = Told { node: "a".to_owned(), ..Told::default() };
        assert_eq!(serde_json::to_string(&told).expect("text"), r#"{"node":"a"}"#);
        let told: Told =
            serde_json::from_str(r#"{"node":"a","heads":[["s",3]],"more":1}"#).expect("read");
        assert_eq!(told.heads, [("s".to_owned(), 3)]);
    }
}
