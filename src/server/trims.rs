//! Trims stores: when an administrator says so, and as the configuration says.
//!
//! Keeps: a trim that has to wait for a group is written down, and made when the group has come far enough, also after
//! a restart; it is always known which groups are waited for. Leaves out: what a trim does (`processing`, `storage`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::ArbiterHandle;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::handle::Server;
use crate::actors::audit::{self, By};
use crate::actors::stores::Stores;
use crate::model::{Retention, RetentionRule, Sequence, StoreId};
use crate::processing::{Processor, TrimError, Trimming, trim};
use crate::services::records::Kept;
use crate::services::{EventJournal, Records, RecordsUnavailable};
use crate::storage::{Keep, Storage, StorageError, StoreSize};

/// How often to look whether the groups that are waited for have come far enough.
const WISHES_EVERY: Duration = Duration::from_secs(2);
/// How long after the start to look first.
const FIRST: Duration = Duration::from_millis(50);
/// After this many of those looks, what the configuration does not keep is trimmed.
const RETENTION_EVERY: u32 = 15;
/// How many stores are checked at a time.
const PAGE: usize = 1_000;

/// Up to where a store is to be trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// The first sequence that is kept. Beyond the head, nothing is kept.
    Sequence(Sequence),
    /// Keep everything committed at this time or later, in milliseconds since 1970. Up to ten minutes more may be kept.
    Millis(u64),
}

/// A trim was not made.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerTrimError {
    /// There is no such store.
    #[error("store {0:?} does not exist")]
    NoSuchStore(StoreId),
    /// Something failed. The call should be repeated.
    #[error(transparent)]
    Failed(#[from] TrimError),
    /// The waiting trim cannot be written down; as much as possible is trimmed.
    #[error(transparent)]
    Records(#[from] RecordsUnavailable),
}

impl From<StorageError> for ServerTrimError {
    fn from(error: StorageError) -> Self {
        Self::Failed(error.into())
    }
}

/// What a trim takes away, if no group is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Going {
    /// How many entries, erased ones too.
    pub entries: u64,
    /// The last one.
    pub last: Sequence,
    /// By when that was committed: milliseconds since 1970; `None` if the storage does not say.
    pub committed_by: Option<u64>,
}

/// What a trim of `store` would take away. Blocks on disk reads.
pub fn going(
    storage: &dyn Storage,
    store: &StoreId,
    before: Before,
) -> Result<Going, StorageError> {
    let size = storage.size(store)?;
    let last = last_of(storage, store, before)?.min(size.head);
    if last <= size.trimmed {
        return Ok(Going { entries: 0, last: size.trimmed, committed_by: None });
    }
    // The fewest entries that are kept without a further trim than this one.
    let (mut kept, mut most) = (0, size.entries);
    while kept < most {
        let some = kept.midpoint(most);
        let keep = Keep { entries_max: Some(some), ..Keep::default() };
        if storage.beyond(store, &keep)? <= last {
            most = some;
        } else {
            kept = some + 1;
        }
    }
    let times = storage.times(store, last, 1)?;
    let committed_by = times.and_then(|times| times.first().map(|(_, time_ms)| *time_ms));
    Ok(Going { entries: size.entries - kept, last, committed_by })
}

/// The last sequence that is to be trimmed.
fn last_of(
    storage: &dyn Storage,
    store: &StoreId,
    before: Before,
) -> Result<Sequence, StorageError> {
    match before {
        Before::Sequence(first) => Ok(first.prev()),
        Before::Millis(since) => {
            storage.beyond(store, &Keep { since_ms: Some(since), ..Keep::default() })
        }
    }
}

/// A trim that waits.
#[derive(Serialize, Deserialize)]
struct Wish {
    /// The last sequence to trim.
    last: u64,
}

/// Trims the stores of a server.
pub(super) struct Trims {
    stores: Stores,
    storage: Arc<dyn Storage>,
    processor: Option<Arc<Processor>>,
    /// The keys are names of stores.
    wishes: Arc<Kept<Wish>>,
    retention: RwLock<Retention>,
    /// Which groups the stores wait for.
    waiting: Mutex<BTreeMap<StoreId, Vec<Arc<str>>>>,
    look: Notify,
}

impl Trims {
    /// Starts to look, on `home`.
    pub(super) fn start(
        (stores, storage): (Stores, Arc<dyn Storage>),
        processor: Option<Arc<Processor>>,
        records: Arc<dyn Records>,
        retention: Retention,
        home: &ArbiterHandle,
    ) -> Arc<Self> {
        let wishes =
            Arc::new(Kept::new(records, "trim", "trims that wait for groups cannot be read"));
        wishes.start(home, |_| {});
        let (retention, waiting) = (RwLock::new(retention), Mutex::default());
        let look = Notify::new();
        let trims = Arc::new(Self { stores, storage, processor, wishes, retention, waiting, look });
        let looking = trims.clone();
        // Only a thread that has stopped refuses this. The task ends with the thread.
        home.spawn(async move { looking.run().await });
        trims
    }

    async fn run(&self) {
        let mut rounds = 0;
        loop {
            // The metric says for whom trims wait after the first look.
            let every = if rounds == 0 { FIRST } else { WISHES_EVERY };
            let is_asked = tokio::select! {
                () = tokio::time::sleep(every) => false,
                () = self.look.notified() => true,
            };
            self.grant_wishes().await;
            let is_due = is_asked || rounds % RETENTION_EVERY == 0;
            if is_due && let Err(error) = self.keep_to_retention().await {
                log::warn!("trimming by [[retention]] is put off: {error}");
            }
            rounds += 1;
        }
    }

    fn journal(&self) -> Option<&dyn EventJournal> {
        self.processor.as_ref().map(|processor| &**processor.journal())
    }

    /// The number of stores that wait for each group.
    pub(super) fn waiting(&self) -> BTreeMap<Arc<str>, u64> {
        let mut groups: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for group in self.waiting.lock().values().flatten() {
            *groups.entry(group.clone()).or_default() += 1;
        }
        groups
    }

    /// Trims as far as groups permit, or with `force` all the way.
    async fn trim(
        &self,
        store: &StoreId,
        last: Sequence,
        force: bool,
    ) -> Result<Trimming, ServerTrimError> {
        let opened = self.stores.open(store).await?;
        // This keeps the store open. If it was closed in between, that discarded what it shows.
        let _lease = opened.feed.lease();
        if let Some(processor) = &self.processor {
            // The positions at which groups begin in this store have to be known.
            let begun = processor.begin(&[(store.clone(), opened.feed.head())]).await;
            begun.map_err(TrimError::from)?;
        }
        let last = last.min(opened.feed.head());
        let trimmed = trim(self.journal(), store, &opened.feed.log(), last, force).await?;
        opened.feed.trimmed();
        let behind = if trimmed.trimmed < trimmed.wanted { &trimmed.behind[..] } else { &[] };
        let mut waiting = self.waiting.lock();
        if behind.is_empty() {
            waiting.remove(store);
        } else {
            let groups = behind.iter().map(|group| group.name.clone()).collect();
            waiting.insert(store.clone(), groups);
        }
        Ok(trimmed)
    }

    /// Like [`Trims::trim`], but writes down what has to wait.
    async fn trim_or_wait(
        &self,
        store: &StoreId,
        last: Sequence,
        force: bool,
    ) -> Result<Trimming, ServerTrimError> {
        let trimmed = self.trim(store, last, force).await?;
        if trimmed.trimmed < trimmed.wanted {
            self.wishes.set(store.as_str(), Wish { last: trimmed.wanted.get() }).await?;
        } else {
            // The later one counts.
            self.wishes.remove(store.as_str(), |_| true).await?;
        }
        Ok(trimmed)
    }

    async fn grant_wishes(&self) {
        let wished = self.wishes.look(|all| {
            all.iter().map(|(store, wish)| (store.clone(), wish.last)).collect::<Vec<_>>()
        });
        for (name, last) in wished {
            let Some((store, last)) = StoreId::new(&*name).ok().zip(Sequence::new(last).ok())
            else {
                continue;
            };
            let granted = async {
                let trimmed = self.trim(&store, last, false).await?;
                if trimmed.trimmed >= trimmed.wanted {
                    log::info!("store {store}: trimmed up to {} as requested", trimmed.trimmed);
                    self.wishes.remove(&name, |wish| wish.last == last.get()).await?;
                }
                Ok::<_, ServerTrimError>(())
            };
            if let Err(error) = granted.await {
                log::warn!("store {store}: trimmed later: {error}");
            }
        }
    }

    async fn keep_to_retention(&self) -> Result<(), ServerTrimError> {
        let retention = self.retention.read().clone();
        if retention.rules.is_empty() {
            return Ok(());
        }
        let (mut after, mut trimmed) = (None, 0);
        loop {
            let (page, last) = self.beyond(&retention, after.take()).await?;
            for (store, beyond) in page {
                let before = self.storage_trimmed(&store).await?;
                match self.trim(&store, beyond, false).await {
                    Ok(done) => trimmed += u64::from(done.trimmed > before),
                    Err(error) => log::warn!("store {store}: trimmed later: {error}"),
                }
            }
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        if trimmed > 0 {
            log::info!("{trimmed} stores were trimmed to what [[retention]] keeps");
        }
        Ok(())
    }

    async fn storage_trimmed(&self, store: &StoreId) -> Result<Sequence, StorageError> {
        let (storage, store) = (self.storage.clone(), store.clone());
        Ok(blocking(move || storage.size(&store)).await?.trimmed)
    }

    /// The stores of a page that have more than is kept, each with the last entry to trim; and where the next page
    /// begins.
    async fn beyond(
        &self,
        retention: &Retention,
        after: Option<StoreId>,
    ) -> Result<(Vec<(StoreId, Sequence)>, Option<StoreId>), StorageError> {
        let (storage, retention) = (self.storage.clone(), retention.clone());
        blocking(move || {
            let page = storage.stores(after.as_ref(), PAGE)?;
            let last = page.last().map(|(store, _)| store.clone());
            let mut beyond = Vec::new();
            for (store, size) in page {
                let rule = retention.of_store(store.as_str());
                let Some(keep) = rule.and_then(|rule| keep(rule, &size)) else { continue };
                let to = storage.beyond(&store, &keep)?;
                if to > size.trimmed {
                    beyond.push((store, to));
                }
            }
            Ok((beyond, last))
        })
        .await
    }
}

/// What to look for in a store of this size; `None` if it has no more than is kept.
fn keep(rule: &RetentionRule, size: &StoreSize) -> Option<Keep> {
    #[expect(clippy::disallowed_methods, reason = "how old an entry may be is told by the clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = rule.age_max.map(|age| now.saturating_sub(age).as_millis() as u64);
    let keep = Keep {
        entries_max: rule.entries_max.filter(|most| size.entries > *most),
        bytes_max: rule.bytes_max.filter(|most| size.bytes > *most),
        since_ms: since.filter(|_| size.entries > 0),
    };
    (keep != Keep::default()).then_some(keep)
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(read).await.map_err(StorageError::unavailable)?
}

impl Server {
    /// Makes the feed of `store` begin later, for good. What a group of handlers has not processed yet is waited for:
    /// the trim is written down and made later. With `force` it does not wait. A later call replaces the waiting trim.
    pub async fn trim(
        &self,
        store: &StoreId,
        before: Before,
        force: bool,
    ) -> Result<Trimming, ServerTrimError> {
        self.trim_by(By::Process, store, before, force).await
    }

    /// What [`Server::trim`] would take away.
    pub async fn going(&self, store: &StoreId, before: Before) -> Result<Going, ServerTrimError> {
        let (storage, asked) = (self.inner().storage.clone(), store.clone());
        let (size, going) =
            blocking(move || Ok((storage.size(&asked)?, going(&*storage, &asked, before)?)))
                .await?;
        if size.entries == 0 && size.trimmed == Sequence::ZERO {
            return Err(ServerTrimError::NoSuchStore(store.clone()));
        }
        Ok(going)
    }

    pub(super) async fn trim_by(
        &self,
        by: By,
        store: &StoreId,
        before: Before,
        force: bool,
    ) -> Result<Trimming, ServerTrimError> {
        let (storage, asked) = (self.inner().storage.clone(), store.clone());
        let (size, last) =
            blocking(move || Ok((storage.size(&asked)?, last_of(&*storage, &asked, before)?)))
                .await?;
        if size.entries == 0 && size.trimmed == Sequence::ZERO {
            return Err(ServerTrimError::NoSuchStore(store.clone()));
        }
        let trims = self.inner().trims.clone();
        let name = store.clone();
        // Completed even if the caller is gone.
        let done = tokio::spawn(async move { trims.trim_or_wait(&name, last, force).await });
        let trimmed = done.await.map_err(StorageError::unavailable)??;
        let behind: BTreeSet<&str> = trimmed.behind.iter().map(|group| &*group.name).collect();
        audit::note(
            &by,
            format_args!(
                "action=trim store={:?} trimmed={} wanted={} force={force} behind={behind:?}",
                store.as_str(),
                trimmed.trimmed,
                trimmed.wanted
            ),
        );
        Ok(trimmed)
    }

    /// Sets what is kept of each store from now on, instead of [`Builder::retention`](super::Builder::retention). What
    /// is already trimmed does not come back.
    pub fn set_retention(&self, retention: Retention) {
        let trims = &self.inner().trims;
        *trims.retention.write() = retention;
        // The groups that are still waited for are found again.
        trims.waiting.lock().clear();
        trims.look.notify_one();
    }
}
