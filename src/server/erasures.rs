//! Erases entries of stores when an administrator requests it.
//!
//! Keeps: an erasure that has begun is recorded and completed, even after a restart: in the journal, in the store
//! itself, and in memory, and handlers are told. Leaves out: what an erasure does (`processing`, `storage`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use actix::ArbiterHandle;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::erase_store::WHOLE;
use super::handle::Server;
use super::quarantine::QuarantineError;
use crate::actors::audit::{self, By};
use crate::actors::feed::Feed;
use crate::actors::store::StoreHandle;
use crate::actors::stores::Stores;
use crate::model::{EntryId, Sequence, StoreId};
use crate::processing::compaction::Compaction;
use crate::processing::{ErasedEntry, GroupError, Processor, TrimError, erase, of_primary_key};
use crate::services::records::Kept;
use crate::services::{Quarantined, Records, RecordsUnavailable, RegistryError, StoreRegistry};
use crate::storage::{AppendError, Storage, StorageError};

/// How many entries are erased at a time.
pub(super) const AT_ONCE: usize = 1_000;
/// How often the server looks for unfinished erasures.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long an erasure that another server has begun must be unfinished until this one finishes it.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(20);
/// How many entries in quarantine are read at a time.
const QUARANTINE_PAGE: usize = 1_000;

/// What to erase in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Erase {
    /// The entries with these ids.
    Ids(Vec<EntryId>),
    /// All entries with this primary key that exist now.
    PrimaryKey(String),
    /// The whole store and its keys. What is written later to a store of this name comes after it.
    Store,
}

/// What was erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// The number of entries of the store. Entries that were erased before count if their ids were given.
    pub entries: u64,
    /// Ids that the store does not know.
    pub unknown: Vec<EntryId>,
    /// The number of entries in quarantine.
    pub quarantined: u64,
    /// The number of keys that the store has lost.
    pub keys: u64,
}

/// Not everything was erased. The call should be repeated.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EraseError {
    /// There is no such store.
    #[error("store {0:?} does not exist")]
    NoSuchStore(StoreId),
    /// The storage cannot erase. Nothing was done.
    #[error("nothing was erased: {0}")]
    Cannot(Arc<str>),
    /// Something failed.
    #[error(transparent)]
    Failed(#[from] TrimError),
    /// The start of the erasure cannot be recorded.
    #[error(transparent)]
    Records(#[from] RecordsUnavailable),
    /// The entries are erased, but a group of handlers could not be told yet; it is told again later.
    #[error("the entries are erased; {0}")]
    NotTold(String),
    /// The keys of a store could not be removed.
    #[error(transparent)]
    Keys(#[from] RegistryError),
    /// The entries in quarantine could not be erased.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
}

impl From<StorageError> for EraseError {
    fn from(error: StorageError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<GroupError> for EraseError {
    fn from(error: GroupError) -> Self {
        Self::NotTold(error.to_string())
    }
}

/// An erasure that has begun.
#[derive(Serialize, Deserialize)]
pub(super) struct Begun {
    entries: Vec<(u64, String)>,
    /// The last sequence of the store, if the whole store is erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) up_to: Option<u64>,
}

impl Begun {
    fn new(entries: &[(Sequence, EntryId)]) -> Self {
        let entries = entries.iter().map(|(at, id)| (at.get(), id.to_string())).collect();
        Self { entries, up_to: None }
    }

    /// An erasure of a whole store up to `last`. `first` has one of its entries, if there is one.
    pub(super) fn whole(first: &[(Sequence, EntryId)], last: Sequence) -> Self {
        Self { up_to: Some(last.get()), ..Self::new(first) }
    }

    pub(super) fn entries(&self) -> Vec<(Sequence, EntryId)> {
        let read = |(at, id): &(u64, String)| Some((Sequence::new(*at).ok()?, id.parse().ok()?));
        self.entries.iter().filter_map(read).collect()
    }
}

/// Erases entries of the stores of a server.
pub(super) struct Erasures {
    pub(super) stores: Stores,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) registry: Arc<dyn StoreRegistry>,
    pub(super) processor: Option<Arc<Processor>>,
    compaction: Compaction,
    /// The keys are the store's name, a slash and a sequence.
    pub(super) begun: Arc<Kept<Begun>>,
    /// The names of long erasures that are still being carried out by their callers.
    pub(super) under_way: Mutex<BTreeSet<String>>,
    /// The names of those that this server has begun and not finished.
    pub(super) own: Mutex<BTreeSet<String>>,
}

impl Erasures {
    /// Starts to look for unfinished erasures, on `home`.
    pub(super) fn start(
        (stores, compaction, storage, registry): (
            &Stores,
            &Compaction,
            Arc<dyn Storage>,
            Arc<dyn StoreRegistry>,
        ),
        processor: Option<Arc<Processor>>,
        records: Arc<dyn Records>,
        home: &ArbiterHandle,
    ) -> Arc<Self> {
        let begun =
            Arc::new(Kept::new(records, "erase", "erasures that were begun cannot be read"));
        begun.start(home, |_| {});
        let (stores, compaction) = (stores.clone(), compaction.clone());
        let erasures = Arc::new(Self {
            stores,
            storage,
            registry,
            processor,
            compaction,
            begun,
            under_way: Mutex::default(),
            own: Mutex::default(),
        });
        let looking = erasures.clone();
        // Only a thread that has stopped refuses this. The task ends with the thread.
        home.spawn(async move { looking.run().await });
        erasures
    }

    async fn run(&self) {
        // What is found at first was begun before this server was started.
        let mut known: Option<HashMap<Box<str>, Instant>> = None;
        let mut is_said = false;
        loop {
            let all = self.begun.look(|all| {
                all.iter().map(|(name, begun)| (name.clone(), begun.clone())).collect::<Vec<_>>()
            });
            let now = Instant::now();
            let delay = if known.is_some() { TAKE_OVER_AFTER } else { Duration::ZERO };
            let before = known.take().unwrap_or_default();
            let when = |name: &str| before.get(name).copied().unwrap_or(now + delay);
            let due: HashMap<_, _> =
                all.iter().map(|(name, _)| (name.clone(), when(name))).collect();
            for (name, begun) in all {
                let store = name.rsplit_once('/').and_then(|(store, _)| StoreId::new(store).ok());
                let Some(store) = store else { continue };
                let is_due = due.get(&name).is_none_or(|due| *due <= now);
                if self.under_way.lock().contains(&*name)
                    || !(is_due || self.own.lock().contains(&*name))
                {
                    continue;
                }
                if let Err(error) = self.carry_out_begun(&store, &name, &begun).await {
                    log::warn!("store {store}: erased later, or told again: {error}");
                }
            }
            known = self.begun.is_read().then_some(due);
            self.tell_again(&mut is_said).await;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn carry_out_begun(
        &self,
        store: &StoreId,
        name: &str,
        begun: &Begun,
    ) -> Result<(), EraseError> {
        let last = begun.up_to.and_then(|last| Sequence::new(last).ok());
        let Some(last) = last.filter(|_| name.ends_with(WHOLE)) else {
            return self.carry_out(store, name, &begun.entries()).await;
        };
        self.carry_out_whole(&By::Process, store, last, &begun.entries()).await?;
        self.begun.remove(name, |begun| begun.up_to == Some(last.get())).await?;
        self.own.lock().remove(name);
        Ok(())
    }

    /// Erases these entries, at most [`AT_ONCE`].
    pub(super) async fn erase(
        &self,
        store: &StoreId,
        entries: &[(Sequence, EntryId)],
    ) -> Result<(), EraseError> {
        let Some((first, _)) = entries.first() else { return Ok(()) };
        let name = format!("{store}/{first}-{}", EntryId::now());
        self.own.lock().insert(name.clone());
        self.begun.set(&name, Begun::new(entries)).await?;
        self.carry_out(store, &name, entries).await
    }

    async fn carry_out(
        &self,
        store: &StoreId,
        name: &str,
        entries: &[(Sequence, EntryId)],
    ) -> Result<(), EraseError> {
        let opened = self.stores.open(store).await?;
        // This keeps the store open. If it was closed in between, that discarded what it shows.
        let _lease = opened.feed.lease();
        let last = entries.iter().map(|(at, _)| *at).max();
        if let Some(last) = last {
            // What is shown a moment later would stay in memory. Once closed, the feed shows nothing more.
            let _ = opened.feed.watch_head().wait_for(|head| *head >= last).await;
        }
        let journal = self.processor.as_ref().map(|processor| &**processor.journal());
        erase(journal, store, &opened.feed.log(), entries).await?;
        self.tell(store, &opened.feed, entries).await?;
        self.begun.remove(name, |_| true).await?;
        self.own.lock().remove(name);
        Ok(())
    }

    /// Removes from memory what was made of these entries, which are erased, and tells handlers.
    pub(super) async fn tell(
        &self,
        store: &StoreId,
        feed: &Feed,
        entries: &[(Sequence, EntryId)],
    ) -> Result<(), EraseError> {
        feed.erased(&entries.iter().map(|(at, _)| *at).collect());
        let (compaction, of) = (self.compaction.clone(), store.clone());
        blocking(move || {
            compaction.forget(&of);
            Ok(())
        })
        .await?;
        if let Some(processor) = &self.processor {
            let told =
                entries.iter().map(|(sequence, id)| ErasedEntry { sequence: *sequence, id: *id });
            processor.tell_erased(store, &told.collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    /// Opens a store whose feed has everything that was stored so far, also by other servers.
    pub(super) async fn up_to_date(&self, store: &StoreId) -> Result<StoreHandle, EraseError> {
        let (storage, of) = (self.storage.clone(), store.clone());
        let stored = blocking(move || storage.size(&of)).await?.head;
        let opened = self.stores.open(store).await?;
        // If it is closed meanwhile, it is opened again with all of it.
        let _ = opened.feed.watch_head().wait_for(|head| *head >= stored).await;
        Ok(opened)
    }

    async fn erase_ids(&self, store: &StoreId, ids: &[EntryId]) -> Result<Erased, EraseError> {
        let log = self.up_to_date(store).await?.feed.log();
        let mut erased = Erased::default();
        for part in ids.chunks(AT_ONCE) {
            let (log, asked) = (log.clone(), part.to_vec());
            let known = blocking(move || log.lookup(&asked)).await?;
            let mut found = Vec::new();
            for (id, at) in part.iter().zip(known) {
                match at {
                    Some(at) => found.push((at, *id)),
                    None => erased.unknown.push(*id),
                }
            }
            self.erase(store, &found).await?;
            erased.entries += found.len() as u64;
        }
        Ok(erased)
    }

    async fn erase_key(&self, store: &StoreId, key: &str) -> Result<Erased, EraseError> {
        let feed = self.up_to_date(store).await?.feed.clone();
        let (log, head) = (feed.log(), feed.head());
        let (mut next, mut erased) = (log.trimmed().next(), Erased::default());
        while next <= head {
            let (of_log, of_key) = (log.clone(), key.to_owned());
            let (found, read_to) =
                blocking(move || of_primary_key(&*of_log, &of_key, (next, head), AT_ONCE)).await?;
            self.erase(store, &found).await?;
            erased.entries += found.len() as u64;
            next = read_to.next();
        }
        erased.entries += self.erase_trimmed(store, key).await?;
        Ok(erased)
    }

    /// Erases what files still have of the trimmed entries of a key. Returns their number.
    async fn erase_trimmed(&self, store: &StoreId, key: &str) -> Result<u64, EraseError> {
        let (storage, of, of_key) = (self.storage.clone(), store.clone(), key.to_owned());
        let found = blocking(move || storage.trimmed_of_key(&of, &of_key)).await?;
        for part in found.chunks(AT_ONCE) {
            self.erase(store, part).await?;
        }
        Ok(found.len() as u64)
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(run).await.map_err(StorageError::unavailable)?
}

impl Erase {
    fn matches(&self, store: &StoreId, entry: &Quarantined) -> bool {
        entry.store_id == *store
            && match self {
                Self::Store => true,
                Self::Ids(ids) => ids.contains(&entry.entry_id),
                // For a very long key, its beginning.
                Self::PrimaryKey(key) => {
                    entry.primary_key_bytes == key.len() as u64
                        && key.starts_with(&entry.primary_key)
                }
            }
    }
}

impl Server {
    /// Removes the content of entries permanently, from a store and from its entries in quarantine: event, primary key,
    /// payload and who wrote them. Ids and sequences stay. An erasure that has begun is completed whatever happens to
    /// the call. Repeating it is safe.
    pub async fn erase(&self, store: &StoreId, what: Erase) -> Result<Erased, EraseError> {
        self.erase_by(By::Process, store, what).await
    }

    pub(super) async fn erase_by(
        &self,
        by: By,
        store: &StoreId,
        what: Erase,
    ) -> Result<Erased, EraseError> {
        let (storage, asked) = (self.inner().storage.clone(), store.clone());
        let size = blocking(move || storage.size(&asked)).await?;
        let quarantined = self.of_quarantine(store, &what).await?;
        if size.entries == 0 && size.trimmed == Sequence::ZERO && quarantined.is_empty() {
            return Err(EraseError::NoSuchStore(store.clone()));
        }
        // Check this before anything is recorded. Otherwise, it would be retried forever.
        let log = self.inner().erasures.stores.open(store).await?.feed.log();
        if let Err(AppendError::Definite(why)) = log.erase(&[]).await {
            return Err(EraseError::Cannot(why));
        }
        let (server, store) = (self.clone(), store.clone());
        // Completed even if the caller is gone.
        let done =
            tokio::spawn(async move { server.erase_all(&by, &store, what, quarantined).await });
        done.await.map_err(StorageError::unavailable)?
    }

    async fn erase_all(
        &self,
        by: &By,
        store: &StoreId,
        what: Erase,
        quarantined: Vec<u64>,
    ) -> Result<Erased, EraseError> {
        // Log it first, so that a failure in between appears in the audit lines.
        let kind = match &what {
            Erase::Ids(ids) => format!("ids={}", ids.len()),
            // The key may be the very thing to erase.
            Erase::PrimaryKey(_) => "ids=primary-key".to_owned(),
            Erase::Store => "ids=all".to_owned(),
        };
        audit::note(by, format_args!("action=erase store={:?} {kind}", store.as_str()));
        let erasures = &self.inner().erasures;
        let mut erased = match &what {
            Erase::Ids(ids) => erasures.erase_ids(store, ids).await?,
            Erase::PrimaryKey(key) => erasures.erase_key(store, key).await?,
            Erase::Store => erasures.erase_store(by, store).await?,
        };
        if !quarantined.is_empty() {
            let storage = self.inner().storage.clone();
            blocking(move || storage.content_is_erased()).await?;
        }
        for number in quarantined {
            if let Some(quarantine) = self.quarantine() {
                match quarantine.remove_by(by.clone(), number).await {
                    Ok(entry) => {
                        erased.quarantined += 1;
                        erased.unknown.retain(|id| *id != entry.entry_id);
                    }
                    Err(QuarantineError::NoSuchEntry(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if erased.quarantined > 0 {
            // A scrub that ran meanwhile may have been too early.
            let storage = self.inner().storage.clone();
            blocking(move || storage.content_is_erased()).await?;
        }
        let Erased { entries, unknown, quarantined, keys } = &erased;
        let (name, unknown) = (store.as_str(), unknown.len());
        audit::note(
            by,
            format_args!(
                "action=erased store={name:?} entries={entries} unknown={unknown} quarantined={quarantined} keys={keys}"
            ),
        );
        Ok(erased)
    }

    /// The numbers of the store's entries in quarantine.
    pub(super) async fn of_quarantine(
        &self,
        store: &StoreId,
        what: &Erase,
    ) -> Result<Vec<u64>, QuarantineError> {
        let Some(quarantine) = self.quarantine() else { return Ok(Vec::new()) };
        quarantine.look().await?;
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let page = quarantine.list(after, QUARANTINE_PAGE);
            let Some(last) = page.last() else { return Ok(found) };
            after = last.number;
            found.extend(page.iter().filter(|it| what.matches(store, it)).map(|it| it.number));
        }
    }
}
