//! A group of handlers as the processor knows it: typed, as [`Handlers`](super::Handlers) collects them, or for any
//! events, chosen while the program runs.
//!
//! Both kinds have a name, under which their positions are kept in each store, and are run by the same code (`lane`):
//! beginning, order, retries, dead letters, pauses and rewinds are the same. A group of the second kind is an
//! [`EntryHandler`], which receives entries as they are stored, many at once, and says how far it came:
//!
//! ```
//! # use std::sync::Arc;
//! # use eventlog_server::model::StoreId;
//! # use eventlog_server::processing::{BatchOutcome, CommittedEntry, EntryHandler, GroupOptions, Processor};
//! # use eventlog_server::services::journal::MemoryJournal;
//! # use futures_util::future::BoxFuture;
//! struct Forward { events: String }
//!
//! impl EntryHandler for Forward {
//!     fn wants(&self, _: &StoreId, event: &str) -> bool {
//!         event.starts_with(&self.events)
//!     }
//!
//!     fn handle<'a>(&'a self, store: &'a StoreId, entries: &'a [CommittedEntry]) -> BoxFuture<'a, BatchOutcome> {
//!         Box::pin(async move {
//!             println!("{store}: {} entries", entries.len());
//!             BatchOutcome::done(entries.len())
//!         })
//!     }
//! }
//!
//! # let journal = Arc::new(MemoryJournal::new());
//! let forward = Forward { events: "Todo".to_owned() };
//! let options = GroupOptions::named("forward").from_now();
//! let processor = Processor::builder(journal).entry_group(options, forward).build();
//! # assert!(processor.is_ok());
//! ```
//!
//! Keeps: what is common to all groups. Leaves out: running them (`lane`), where they begin (`begin`).

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::failure::Failure;
use super::handlers::EventHandler;
use crate::model::{EntryId, Origin, RemoteEntry, RemoteId, Sequence, StoreId};

/// How often an entry is tried by default, if the handler asks for retries.
pub const TRIES_MAX: u32 = 16;
/// How many dead letters a group keeps by default. While there are as many, it pauses.
pub const DEAD_LETTERS_MAX: usize = 1_000;

/// How a group is kept and run, of either kind.
#[derive(Clone, Debug)]
#[must_use]
pub struct GroupOptions {
    pub(super) name: Option<String>,
    pub(super) begin: Option<BeginAt>,
    pub(super) tries_max: u32,
    pub(super) letters_max: usize,
    pub(super) in_transaction: bool,
}

impl Default for GroupOptions {
    fn default() -> Self {
        let (tries_max, letters_max) = (TRIES_MAX, DEAD_LETTERS_MAX);
        Self { name: None, begin: None, tries_max, letters_max, in_transaction: false }
    }
}

/// Where a group begins that the journal does not know yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BeginAt {
    Start,
    Now,
}

impl GroupOptions {
    /// Positions are kept under this name: it must stay the same when the code changes.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// Begins with the first entry of every store when the journal first sees the group.
    pub const fn from_start(mut self) -> Self {
        self.begin = Some(BeginAt::Start);
        self
    }

    /// Begins with what is committed after the journal first sees the group.
    pub const fn from_now(mut self) -> Self {
        self.begin = Some(BeginAt::Now);
        self
    }

    /// How often an entry is tried whose handler returns [`Failure::retry`](super::Failure::retry), including the first
    /// time; then it has failed for good. [`TRIES_MAX`] by default. A restart begins to count again.
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries_max = tries.max(1);
        self
    }

    /// Keeps this many failed entries, and pauses the group in all stores while there are as many, until some are
    /// retried or dismissed: no failure is lost. [`DEAD_LETTERS_MAX`] by default, and at least one.
    pub fn dead_letters(mut self, letters: usize) -> Self {
        self.letters_max = letters.max(1);
        self
    }
}

/// A group that receives entries of any events, as they are stored, many at once.
///
/// In each store, one call runs at a time, in the order of the feed. After a crash entries can come again, at most
/// [`ProcessorBuilder::repeats_max`](super::ProcessorBuilder::repeats_max) of them.
pub trait EntryHandler: Send + Sync + 'static {
    /// Whether it wants the entries of `event` in `store`.
    fn wants(&self, store: &StoreId, event: &str) -> bool;

    /// Most entries of one call.
    fn entries_max(&self) -> usize {
        100
    }

    /// Handles some of the first `entries`, of which there is at least one.
    fn handle<'a>(
        &'a self,
        store: &'a StoreId,
        entries: &'a [CommittedEntry],
    ) -> BoxFuture<'a, BatchOutcome>;

    /// Reports that entries of any event were erased: what was derived from them should be removed as well. They may
    /// have been handled or not, and do not come again. Called at least once for each, even while the group pauses or
    /// handles another entry of the store; once more after a call of `handle` that was given one of them meanwhile. Failures
    /// are repeated.
    fn erased<'a>(
        &'a self,
        store: &'a StoreId,
        entries: &'a [ErasedEntry],
    ) -> BoxFuture<'a, Result<(), Failure>> {
        let _ = (store, entries);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What is left of an erased entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErasedEntry {
    /// Its sequence in its store.
    pub sequence: Sequence,
    /// Its id.
    pub id: EntryId,
}

/// A committed entry as it is stored, and who wrote it.
#[derive(Clone, Debug)]
pub struct CommittedEntry {
    /// The entry, with its sequence.
    pub entry: Arc<RemoteEntry>,
    /// A client, by its public key, or the server.
    pub origin: Origin,
}

/// How far an [`EntryHandler`] came.
#[derive(Debug)]
#[must_use]
pub struct BatchOutcome {
    pub(super) done: usize,
    pub(super) failure: Option<Failure>,
}

impl BatchOutcome {
    /// The first `done` entries are handled; the rest comes again with the next call.
    pub const fn done(done: usize) -> Self {
        Self { done, failure: None }
    }

    /// The first `done` entries are handled, and the next one failed. After a temporary failure, the rest comes again
    /// after its pause; otherwise that one entry goes to the dead letters.
    pub fn failed(done: usize, failure: impl Into<Failure>) -> Self {
        Self { done, failure: Some(failure.into()) }
    }
}

/// A group of a [`Processor`](super::Processor).
pub(super) struct Group {
    pub(super) name: Arc<str>,
    pub(super) options: GroupOptions,
    pub(super) runs: Runs,
    pub(super) paused: AtomicBool,
    /// What the journal last said about that: another node may have written it.
    pub(super) heard_paused: AtomicBool,
    /// How many dead letters it has.
    pub(super) letters: AtomicUsize,
    /// Changes when somebody pauses, resumes or rewinds it, or handles its dead letters.
    pub(super) changed: watch::Sender<()>,
    /// Asks the group's own database for its position.
    pub(super) own_position: Option<OwnPosition>,
    /// What typed handlers do when entries are erased.
    pub(super) on_erased: Option<OnErased>,
}

/// Called for the erased entries of a store.
pub(super) type OnErased =
    Box<dyn Fn(StoreId, Vec<ErasedEntry>) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// The last sequence of a store that the application's own database has; `None` if it knows nothing about the store.
pub(super) type OwnPosition = Box<
    dyn Fn(StoreId, RemoteId) -> BoxFuture<'static, Result<Option<Sequence>, String>> + Send + Sync,
>;

/// What a group does with entries.
pub(super) enum Runs {
    Typed(HashMap<&'static str, EventProcessing>),
    Entries(Box<dyn EntryHandler>),
}

/// What is done with the entries of one event.
pub(super) struct EventProcessing {
    pub(super) handler: EventHandler,
    pub(super) invalidates: Vec<Arc<str>>,
}

impl Group {
    pub(super) fn new(name: Arc<str>, options: GroupOptions, runs: Runs) -> Self {
        let (paused, letters) = (AtomicBool::new(false), AtomicUsize::new(0));
        let changed = watch::Sender::new(());
        let (own_position, on_erased) = (None, None);
        let heard_paused = AtomicBool::new(false);
        Self {
            name,
            options,
            runs,
            paused,
            heard_paused,
            letters,
            changed,
            own_position,
            on_erased,
        }
    }

    /// Whether it has as many dead letters as it may keep, and pauses because of that.
    pub(super) fn is_full(&self) -> bool {
        self.letters.load(Relaxed) >= self.options.letters_max
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Relaxed) || self.is_full()
    }

    pub(super) fn tell(&self) {
        self.changed.send_replace(());
    }

    /// Tells it that these entries of a store were erased. The error says why it did not hear.
    pub(super) async fn tell_erased(
        &self,
        store: &StoreId,
        entries: &[ErasedEntry],
    ) -> Result<(), Box<str>> {
        let heard = match (&self.runs, &self.on_erased) {
            (Runs::Entries(handler), _) => handler.erased(store, entries),
            (Runs::Typed(_), Some(erased)) => erased(store.clone(), entries.to_vec()),
            (Runs::Typed(_), None) => return Ok(()),
        };
        match AssertUnwindSafe(heard).catch_unwind().await {
            Ok(heard) => heard.map_err(|failure| failure.message.into()),
            Err(_) => Err("it panicked".into()),
        }
    }

    pub(super) fn wants(&self, store: &StoreId, event: &str) -> bool {
        match &self.runs {
            Runs::Typed(events) => events.contains_key(event),
            Runs::Entries(handler) => handler.wants(store, event),
        }
    }
}
