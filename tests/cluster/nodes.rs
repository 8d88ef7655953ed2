//! Writers and readers at several nodes; what they saw is compared with the promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eventlog_server::client::{EventLogRemote, Options};
use eventlog_server::model::{Entry, Sequence};
use futures_util::StreamExt;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::Node;
use crate::support::history::History;
use crate::support::random::Random;
use crate::support::socket::Socket;
use crate::support::{entry, key};

/// Longer than anything takes that is going to happen.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many entries are kept for others to send again.
const SHARED_MAX: usize = 200;

/// Clients that write to all nodes, and read.
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Vec<(u64, String)>>>,
    readers: Vec<JoinHandle<Vec<(u64, String)>>>,
    acked: Arc<Mutex<usize>>,
}

fn options() -> Options {
    Options { reconnect_delay_max: Duration::from_millis(300), ..Options::default() }
}

async fn connect(url: &str) -> EventLogRemote {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match EventLogRemote::connect(url, options()).await {
            Ok(remote) => return remote,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Load {
    /// Two writers and a reader at each node.
    pub async fn start(nodes: &[&Node]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, acked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let mut random = Random::seeded_by("EVENTLOG_CHAOS_SEED");
        let (mut writers, mut readers) = (Vec::new(), Vec::new());
        for node in nodes {
            let remote = connect(&node.url()).await;
            for name in ["alice", "bob"] {
                let writing = Writing {
                    remote: remote.clone(),
                    name,
                    random: random.split(),
                    stop: stop.clone(),
                    shared: shared.clone(),
                    acked: acked.clone(),
                };
                writers.push(tokio::spawn(writing.run()));
            }
            readers.push(tokio::spawn(read(remote, stop.clone())));
        }
        Self { stop, writers, readers, acked }
    }

    /// Waits until this many more entries are acknowledged.
    pub async fn goes_on(&self, count: usize) {
        let wanted = *self.acked.lock() + count;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while *self.acked.lock() < wanted {
            assert!(tokio::time::Instant::now() < deadline, "{} of {wanted}", *self.acked.lock());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it, without checking the results; returns how many entries were acknowledged.
    pub async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for task in join_all(self.writers).await {
            task.expect("a writer");
        }
        for task in join_all(self.readers).await {
            task.expect("a reader");
        }
        *self.acked.lock()
    }

    /// Ends it: every node's feed is what was acknowledged, and readers have seen a beginning of it.
    pub async fn check(self, nodes: &[&Node]) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let written = tokio::time::timeout(PATIENCE, join_all(self.writers)).await;
        let mut history = History::default();
        let mut highest = 0;
        for writer in written.expect("every write is answered") {
            for (sequence, name) in writer.expect("a writer") {
                history.acked(sequence, &name);
                highest = highest.max(sequence);
            }
        }
        history.check_acks(highest);
        let mut feeds = Vec::new();
        for node in nodes {
            let mut socket = Socket::connect(&node.url()).await;
            socket.subscribe(&key("carol"), 0).await;
            let feed = socket.next_entries(highest as usize).await;
            let feed: Vec<_> =
                feed.into_iter().map(|(at, entry)| (at, entry.id.to_string())).collect();
            history.check_feed(&feed);
            feeds.push(feed);
        }
        for reader in self.readers {
            let seen = reader.await.expect("a reader");
            assert!(!seen.is_empty(), "it has seen something");
            assert_eq!(seen[..], feeds[0][..seen.len()], "in order, without a gap");
        }
        highest
    }
}

struct Writing {
    remote: EventLogRemote,
    name: &'static str,
    random: Random,
    stop: Arc<AtomicBool>,
    /// What was recently written, at any node.
    shared: Arc<Mutex<Vec<Entry>>>,
    acked: Arc<Mutex<usize>>,
}

impl Writing {
    async fn run(mut self) -> Vec<(u64, String)> {
        let mut answered = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let batch = self.batch();
            let sequences = self.write(&batch).await;
            *self.acked.lock() += batch.len();
            let names = batch.iter().map(|entry| entry.id.to_string());
            answered.extend(sequences.into_iter().zip(names));
            tokio::time::sleep(self.random.millis_below(10)).await;
        }
        answered
    }

    /// Fresh entries, and now and then some that others have sent, or are sending.
    fn batch(&mut self) -> Vec<Entry> {
        let mut batch: Vec<_> =
            (0..=self.random.below(5)).map(|_| entry("Note", "key", b"\x02\x20a")).collect();
        let mut shared = self.shared.lock();
        if self.random.one_in(3) && !shared.is_empty() {
            let at = self.random.below(shared.len() as u64) as usize;
            batch.push(shared[at].clone());
        }
        if shared.len() >= SHARED_MAX {
            let at = self.random.below(shared.len() as u64) as usize;
            shared.swap_remove(at);
        }
        shared.push(batch[0].clone());
        batch
    }

    /// Until it is acknowledged, as clients do.
    async fn write(&mut self, batch: &[Entry]) -> Vec<u64> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match self.remote.write(&key(self.name), batch.to_vec()).await {
                Ok(sequences) => return sequences.iter().map(|sequence| sequence.get()).collect(),
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn read(remote: EventLogRemote, stop: Arc<AtomicBool>) -> Vec<(u64, String)> {
    let mut seen: Vec<(u64, String)> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let next = seen.last().map_or(0, |(last, _)| last + 1);
        let mut changes = remote.changes(&key("carol"), Sequence::new(next).expect("a sequence"));
        // A refusal ends a stream: then it begins again after what was seen.
        while !stop.load(Ordering::Relaxed) {
            match tokio::time::timeout(Duration::from_millis(200), changes.next()).await {
                Ok(Some(Ok(change))) => {
                    seen.push((change.remote_sequence.get(), change.entry.id.to_string()));
                }
                Ok(Some(Err(_)) | None) => break,
                Err(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    seen
}
