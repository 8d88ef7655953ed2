//! Replay, driven through the whole module on the memory storage.

mod failing;
mod groups;
mod handling;
#[cfg(feature = "sled")]
mod recovery;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::model::{Batch, Entry, EntryId, Origin, PublicKey, SegmentBuilder, Sequence, StoreId};
use crate::services::journal::{
    EventJournal, JournalChanges, JournalError, JournalPair, JournalRange, MemoryJournal,
    journal_origin,
};
use crate::storage::memory::MemoryStorage;
use crate::storage::{Storage, StoreLog};

#[derive(Debug, Serialize, Deserialize)]
struct Added {
    id: String,
    title: String,
}

impl Event for Added {
    const TAG: &'static str = "Added";
    fn primary_key(&self) -> String {
        self.id.clone()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Done {
    id: String,
}

impl Event for Done {
    const TAG: &'static str = "Done";
    fn primary_key(&self) -> String {
        self.id.clone()
    }
}

struct Todos;

impl EventGroup for Todos {
    type Events = (Added, Done);
    type Codec = Msgpack;
}

/// What the handlers did, one line each.
type Seen = Arc<Mutex<Vec<String>>>;

/// Handlers that record what they get. The title says what else they do: `fail`, `panic`, `wait` for a permit.
struct Model {
    seen: Seen,
    /// How many handlers have begun to wait for a permit.
    waiting: AtomicUsize,
    permits: tokio::sync::Semaphore,
}

impl Model {
    fn new() -> Arc<Self> {
        let (waiting, permits) = (AtomicUsize::new(0), tokio::sync::Semaphore::new(0));
        Arc::new(Self { seen: Seen::default(), waiting, permits })
    }

    async fn until_one_waits(&self) {
        until(|| self.waiting.load(SeqCst) == 1).await;
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }
}

async fn added(model: Arc<Model>, added: Committed<Added>) -> Result<(), String> {
    if added.title == "wait" {
        model.waiting.fetch_add(1, SeqCst);
        model.permits.acquire().await.map_err(|error| error.to_string())?.forget();
    }
    model.seen.lock().push(format!("{} {} {}", added.store(), added.sequence(), added.title));
    assert!(added.title != "panic", "told to panic");
    if added.title == "fail" { Err("told to fail".to_owned()) } else { Ok(()) }
}

fn handlers(model: &Arc<Model>) -> Handlers<Todos, Model, ()> {
    Todos::handlers(Arc::clone(model)).on(added).on(async |model, done: Committed<Done>| {
        model.seen.lock().push(format!("{} {} done", done.store(), done.sequence()));
    })
}

fn processor(model: &Arc<Model>, journal: Arc<dyn EventJournal>) -> Arc<Processor> {
    let group = handlers(model).invalidates(["todos"]).invalidates_on::<Done, _>(["done"]);
    Arc::new(Processor::builder(journal).group(group).build().expect("one type per tag"))
}

/// A store whose feed a test appends to.
struct Feed {
    store: StoreId,
    log: Arc<dyn StoreLog>,
    head: watch::Sender<Sequence>,
}

impl Feed {
    fn new(storage: &MemoryStorage, store: &str) -> Self {
        let store = StoreId::new(store).expect("a store id");
        let log = storage.open(&store).expect("memory opens");
        let head = watch::channel(log.head()).0;
        Self { store, log, head }
    }

    async fn append(&self, origin: &Origin, entries: &[Entry]) {
        let batch = Batch::from_entries(entries.iter().map(Entry::as_ref));
        let mut segments = SegmentBuilder::new(self.log.head().next());
        for slot in 0..batch.len() {
            segments.push(batch.record(slot).expect("a slot"), origin);
        }
        self.log.append(segments.finish()).await.expect("appended");
        self.head.send_replace(self.log.head());
    }

    /// One `Added` per title, all of primary key `k`, from a client.
    async fn add(&self, titles: &[&str]) {
        let entries: Vec<Entry> = titles.iter().map(|title| entry("k", title)).collect();
        self.append(&client(), &entries).await;
    }

    fn read(&self) -> ReadFeed {
        let log = Arc::clone(&self.log);
        Arc::new(move |from, bytes_max| log.read(from, bytes_max))
    }

    fn open(&self, read: ReadFeed) -> OpenFeed {
        let log = Arc::clone(&self.log);
        let trimmed = Arc::new(move || log.trimmed());
        let (store, erasures, head) = (self.store.clone(), Arc::new(|| 0), self.head.subscribe());
        OpenFeed { store, read, trimmed, erasures, head }
    }

    fn replay(&self, processor: &Arc<Processor>) -> JoinHandle<()> {
        let (processor, feed) = (Arc::clone(processor), self.open(self.read()));
        processor.opened(&feed);
        tokio::spawn(async move { processor.replay(feed).await })
    }

    /// Replays to the head and ends.
    async fn replay_to_the_end(self, processor: &Arc<Processor>) {
        let replay = self.replay(processor);
        drop(self.head);
        replay.await.expect("no panic");
    }
}

fn client() -> Origin {
    Origin::Client(PublicKey::new("alice").expect("a key"))
}

fn entry(id: &str, title: &str) -> Entry {
    let added = Added { id: id.to_owned(), title: title.to_owned() };
    let payload = Msgpack::encode(&added).expect("encodes").into();
    let (event, primary_key) = (Added::TAG.to_owned(), added.primary_key());
    Entry { id: EntryId::now(), event, primary_key, payload }
}

/// Waits until `done`, for longer than anything takes that is going to happen.
async fn until(mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("in time");
}
