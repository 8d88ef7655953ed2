//! Access to stores, open or not.
//!
//! Keeps: every request is answered, and the caller does not have to care whether the store is open, was closed
//! meanwhile, or died; writes for one store are accepted in order. Leaves out: which stores are open (`open`), which
//! store a key has (`registry`).

use std::sync::Arc;

use actix::Addr;
use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::feed::{Feed, FeedSubscription};
use super::inbox::Inbox;
use super::newcomers::TooMany;
use super::open::{Job, OpenStores};
use super::permit::Permit;
use super::registry::{AppendFromServer, RegistryActor, Resolve, Said};
use super::reply::{Reply, WriteFailure};
use super::store::{FinishStore, StoreHandle};
use crate::core::store::{Acked, Sender, Write};
use crate::core::validate::validate;
use crate::model::{Batch, Entry, Origin, PublicKey, RemoteEntry, Sequence, StoreId};
use crate::processing::{WriteEntries, WriteError, WriteOutcome};
use crate::services::RegistryError;
use crate::storage::{Heard, StorageError};

/// The stores of a server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Stores {
    registry: Addr<RegistryActor>,
    open: Arc<OpenStores>,
}

/// Why a key cannot be served.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

impl Stores {
    pub(crate) const fn new(registry: Addr<RegistryActor>, open: Arc<OpenStores>) -> Self {
        Self { registry, open }
    }

    /// The actor that maps keys to stores.
    pub(crate) const fn registry(&self) -> &Addr<RegistryActor> {
        &self.registry
    }

    /// See [`Storage::heard`](crate::storage::Storage::heard).
    pub(crate) fn heard(&self) -> Option<Heard> {
        self.open.deps().storage.heard()
    }

    /// The store of a key, opened if it is not open; `said` is what the caller's proof says about it.
    pub(crate) async fn resolve(
        &self,
        key: &PublicKey,
        said: Option<Said>,
    ) -> Result<StoreHandle, ResolveError> {
        let asked = self.registry.send(Resolve { key: key.clone(), said }).await;
        let store = asked.unwrap_or_else(|error| Err(unavailable(error).into()))?;
        Ok(self.open(&store).await?)
    }

    /// The store, opened if it is not open. It may be closed again by the time it is used: then call this again.
    pub(crate) async fn open(&self, store: &StoreId) -> Result<StoreHandle, StorageError> {
        let (answer, opened) = oneshot::channel();
        self.open.want(store, Job::Open(answer));
        opened.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Sends writes to a store, each answered through its [`Reply`]. They are accepted before this returns: a later
    /// write, through this or a [`StoreHandle`] obtained later, comes after them.
    pub(crate) fn append(&self, store: &StoreId, writes: Vec<Write<Reply>>) {
        self.open.want(store, Job::Append(writes));
    }

    /// Subscribes to the feed of a store, see [`Feed::subscribe`](super::feed::Feed::subscribe).
    pub(crate) async fn subscribe(
        &self,
        store: &StoreId,
        inbox: Arc<Inbox>,
    ) -> Result<FeedSubscription, StorageError> {
        let (answer, subscribed) = oneshot::channel();
        self.open.want(store, Job::Subscribe(inbox, answer));
        subscribed.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Validates and appends the server's own entries. If it is dropped after its first poll, the write continues.
    pub(crate) async fn write(&self, write: AppendFromServer) -> Result<WriteOutcome, WriteError> {
        let AppendFromServer { store_id, entries, run_handlers } = write;
        let batch = Batch::from_entries(entries.iter().map(Entry::as_ref));
        validate(&batch, &self.open.deps().limits.get())?;
        let origin = Origin::Server { run_handlers };
        self.write_batch(&store_id, (batch, origin), entries, None).await
    }

    /// [`Stores::write`] as a value.
    pub(crate) fn writes(&self) -> WriteEntries {
        let stores = self.clone();
        Arc::new(move |store_id, entries, run_handlers| {
            let stores = stores.clone();
            async move { stores.write(AppendFromServer { store_id, entries, run_handlers }).await }
                .boxed()
        })
    }

    /// Appends `batch`, which has these `entries`, was validated, and allowed with this `permit`. If it is dropped after its first poll, the write
    /// continues.
    pub(crate) async fn write_batch(
        &self,
        store: &StoreId,
        (batch, origin): (Batch, Origin),
        entries: Vec<Entry>,
        permit: Option<Permit>,
    ) -> Result<WriteOutcome, WriteError> {
        let (sender, answer) = oneshot::channel();
        let reply = Reply::caller(sender).with_permit(permit);
        self.append(store, vec![Write { batch, origin, sender: Sender::SERVER, reply }]);
        match answer.await {
            Ok(Ok(acked)) => Ok(outcome(&acked, entries)),
            Ok(Err(WriteFailure::Definite(cause))) => Err(WriteError::Definite(cause)),
            Ok(Err(refused @ (WriteFailure::Full { .. } | WriteFailure::Refused(_)))) => {
                Err(WriteError::Definite(refused.to_string().into()))
            }
            Ok(Err(WriteFailure::Indefinite(cause))) => Err(WriteError::Indefinite(cause)),
            // A reply answers even when it is dropped.
            Err(_) => Err(WriteError::Indefinite("the store stopped".into())),
        }
    }

    /// Whether a key was used with a store, as far as that can be read.
    pub(crate) async fn was_used(&self, key: &PublicKey) -> bool {
        !matches!(self.open.deps().storage.used_keys().get(key).await, Ok(None))
    }

    /// The last sequence of a store that is open.
    pub(crate) fn head(&self, store: &StoreId) -> Option<Sequence> {
        self.open.get(store).map(|open| open.feed.head())
    }

    /// The names of the open stores that come after `after`, in their order, at most `count`.
    pub(crate) fn open_after(&self, after: Option<&StoreId>, count: usize) -> Vec<StoreId> {
        let is_behind = |store: &StoreId| after.is_none_or(|after| store > after);
        let open = self.open.all().into_iter().map(|store| store.feed.store().clone());
        let mut names: Vec<StoreId> = open.filter(is_behind).collect();
        names.sort_unstable();
        names.truncate(count);
        names
    }

    /// The feeds of the open stores.
    pub(crate) fn open_feeds(&self) -> impl Iterator<Item = Arc<Feed>> + use<> {
        self.open.all().into_iter().map(|store| store.feed.clone())
    }

    /// The entries a second that a store got when that was measured last; `None` if it is not open.
    pub(crate) fn rate_millis(&self, store: &StoreId) -> Option<u64> {
        self.open.get(store).map(|open| open.feed.rate_millis())
    }

    /// How many subscriptions a store has. Does not open it.
    pub(crate) fn subscribers(&self, store: &StoreId) -> usize {
        self.open.get(store).map_or(0, |open| open.feed.subscriber_count())
    }

    /// Finishes all stores: what they accepted is answered, then they stop.
    pub(crate) async fn finish(&self) {
        let finishing = self.open.all().into_iter().map(|store| store.addr.send(FinishStore));
        futures_util::future::join_all(finishing).await;
    }
}

/// Never used, because a [`Job`] is always answered.
fn stopped() -> StorageError {
    StorageError::unavailable("the server stops")
}

pub(crate) fn unavailable(error: impl std::fmt::Display) -> RegistryError {
    RegistryError::Unavailable { key: None, message: error.to_string().into() }
}

/// The answer for the writer: for each fresh sequence, its first slot is the one that was committed.
fn outcome(acked: &Acked, entries: Vec<Entry>) -> WriteOutcome {
    let sequence_numbers: Vec<Sequence> = acked.slots.iter().collect();
    let mut next = acked.fresh.first;
    let mut committed = Vec::with_capacity(acked.fresh.count as usize);
    for (sequence, entry) in sequence_numbers.iter().zip(entries) {
        if *sequence == next && (committed.len() as u64) < acked.fresh.count {
            committed.push(RemoteEntry { remote_sequence: next, entry });
            next = next.next();
        }
    }
    WriteOutcome { sequence_numbers, committed }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use actix::{Actor, Arbiter, System};
    use futures_util::FutureExt;

    use super::*;
    use crate::actors::connections::Connections;
    use crate::actors::limits::LiveLimits;
    use crate::actors::metrics::Metrics;
    use crate::actors::newcomers::{Kind, Newcomers};
    use crate::actors::quotas::Quotas;
    use crate::actors::registry::Keys;
    use crate::actors::resolved::Resolved;
    use crate::actors::store::StoreDeps;
    use crate::actors::usage::Usage;
    use crate::model::{EntryId, EntryRef, Limits};
    use crate::services::records::MemoryRecords;
    use crate::services::registry::MemoryRegistry;
    use crate::storage::memory::MemoryStorage;
    use crate::testing::fault::{Faults, FaultyStorage};

    const SOON: Duration = Duration::from_millis(10);

    /// Stores that close after `idle`, their storage, and the thread that waits for openings.
    fn stores(idle: Duration) -> (Stores, FaultyStorage, Arbiter) {
        let storage = FaultyStorage::new(Arc::new(MemoryStorage::new()));
        let limits = Limits { store_idle_timeout: idle, ..Limits::default() };
        let limits = Arc::new(LiveLimits::new(limits));
        let (metrics, home) = (Arc::new(Metrics::default()), Arbiter::new());
        let usage = Arc::new(Usage::new(Arc::new(MemoryRecords::default())));
        let quotas = Quotas::new(crate::model::Quotas::default(), usage, metrics.clone());
        let quotas = Arc::new(quotas);
        let deps = StoreDeps { storage: Arc::new(storage.clone()), metrics, limits, quotas };
        let threads = vec![Arbiter::new().handle(), Arbiter::new().handle()];
        let open = OpenStores::new(Arc::new(deps), threads, home.handle(), None);
        let newcomers = Arc::new(Newcomers::new(Kind::PublicKeys, 10, 10));
        let registry = Arc::new(MemoryRegistry::new());
        let keys = Keys::new(registry, Arc::new(storage.clone()), newcomers);
        let (connections, resolved) =
            (Arc::new(Connections::new(1)), Arc::new(Resolved::new(SOON)));
        let registry = RegistryActor::new(keys, open.clone(), connections, resolved);
        (Stores::new(registry.start(), open), storage, home)
    }

    fn name() -> StoreId {
        StoreId::new("team").expect("a name")
    }

    type Answer = oneshot::Receiver<Result<Acked, WriteFailure>>;

    /// A write of one entry, and where its answer arrives.
    fn write() -> (Vec<Write<Reply>>, Answer) {
        let entry = EntryRef { id: EntryId::now(), event: "E", primary_key: "", payload: b"" };
        let (sender, answer) = oneshot::channel();
        let origin = Origin::Server { run_handlers: true };
        let batch = Batch::from_entries([entry]);
        (
            vec![Write { batch, origin, sender: Sender::SERVER, reply: Reply::caller(sender) }],
            answer,
        )
    }

    async fn sequence(answer: Answer) -> u64 {
        let acked = answer.await.expect("an answer").expect("acknowledged");
        acked.slots.iter().next().expect("a slot").get()
    }

    #[test]
    fn what_waits_for_a_store_comes_in_order_and_before_what_its_handle_is_given() {
        System::new().block_on(async {
            let (stores, _, home) = stores(Duration::from_secs(60));
            let (release, released) = mpsc::channel::<()>();
            home.spawn(async move {
                let _ = released.recv();
            });
            let (writes, first) = write();
            stores.append(&name(), writes);
            let store = name();
            let mut opened = Box::pin(stores.open(&store));
            assert!(opened.as_mut().now_or_never().is_none(), "the store is open too early");
            let mut subscribed = Box::pin(stores.subscribe(&store, Arc::new(Inbox::new())));
            assert!(subscribed.as_mut().now_or_never().is_none());
            let (writes, second) = write();
            stores.append(&name(), writes);
            release.send(()).expect("it waits");
            let handle = opened.await.expect("open");
            let (writes, third) = write();
            assert!(handle.append(writes).is_ok());
            assert_eq!(sequence(third).await, 3);
            assert_eq!((sequence(first).await, sequence(second).await), (1, 2));
            let subscribed = subscribed.await.expect("subscribed");
            assert!(Arc::ptr_eq(subscribed.feed(), &handle.feed), "a store is open once");
            assert_eq!(stores.subscribers(&name()), 1);
        });
    }

    #[test]
    fn a_store_that_was_closed_is_opened_again_by_whoever_writes_to_it() {
        System::new().block_on(async {
            let (stores, ..) = stores(SOON);
            let (writes, first) = write();
            stores.append(&name(), writes);
            assert_eq!(sequence(first).await, 1);
            let handle = stores.open(&name()).await.expect("open");
            while handle.is_open() || stores.open.get(&name()).is_some() {
                tokio::time::sleep(SOON).await;
            }
            let (writes, second) = write();
            let Err(writes) = handle.append(writes) else { panic!("a closed store takes writes") };
            stores.append(&name(), writes);
            assert_eq!(sequence(second).await, 2);
        });
    }

    #[test]
    fn a_resolved_key_is_released_once_its_answer_no_longer_counts() {
        System::new().block_on(async {
            let (stores, ..) = stores(Duration::from_secs(60));
            let (key, resolved) = (PublicKey::new("alice").expect("a name"), Resolved::new(SOON));
            let handle = stores.open(&name()).await.expect("open");
            let now = tokio::time::Instant::now().into_std();
            let asked = resolved.asking(now);
            resolved.remember(&key, &handle, asked, None);
            resolved.release(now + SOON / 2);
            assert!(resolved.get(&key, asked).is_some_and(|found| found.store.is(&handle)));
            resolved.release(now + SOON);
            assert!(resolved.get(&key, asked).is_none());
        });
    }

    #[test]
    fn a_store_that_cannot_be_opened_refuses_for_certain_and_is_tried_again() {
        System::new().block_on(async {
            let (stores, storage, _) = stores(Duration::from_secs(60));
            storage.set(Faults { opening: true, ..Faults::default() });
            let (writes, answer) = write();
            stores.append(&name(), writes);
            let refused = answer.await.expect("an answer");
            assert!(matches!(refused, Err(WriteFailure::Definite(_))), "{refused:?}");
            assert!(stores.open(&name()).await.is_err());
            storage.set(Faults::default());
            let (writes, answer) = write();
            stores.append(&name(), writes);
            assert_eq!(sequence(answer).await, 1);
        });
    }

    #[test]
    fn whoever_waits_for_a_store_is_answered_when_the_server_stops() {
        System::new().block_on(async {
            let (stores, _, home) = stores(Duration::from_secs(60));
            let (release, released) = mpsc::channel::<()>();
            home.spawn(async move {
                let _ = released.recv();
            });
            let mut waiting = Box::pin(async { stores.open(&name()).await });
            assert!(waiting.as_mut().now_or_never().is_none());
            home.stop();
            drop(release);
            home.join().expect("no panic");
            assert!(waiting.await.is_err());
            assert!(stores.open(&name()).await.is_err());
        });
    }
}
