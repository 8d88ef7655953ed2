//! Puts aside entries that exceed `entry_bytes_max`, so that the client's later writes are not held up behind them.
//!
//! Keeps: an entry of a store is put aside once, whoever sends it again, and is durable before that counts; the total
//! of all keys and that of each key are limited. Leaves out: who may write (`session::large`), and where they are kept
//! ([`Quarantine`]).

mod known;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix::ArbiterHandle;
use futures_util::FutureExt;
use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use self::known::{Known, NoRoom, counted};
use crate::actors::limits::LiveLimits;
use crate::model::{Batch, EntryId, PublicKey, StoreId};
use crate::protocol::rpc::large::LargeEntry;
use crate::services::quarantine::PART_BYTES;
use crate::services::{Quarantine, QuarantineUnavailable, Quarantined};

/// How many are read at a time at the start.
const PAGE: usize = 1_000;
/// How long to wait before reading again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often to look whether another process has changed the list.
const FOLLOW_EVERY: Duration = Duration::from_secs(5);
/// Parts that are made durable at a time: about 1 MiB.
const PARTS_AT_ONCE: usize = 21;
/// How much of a long text is kept in the description of an entry, in bytes.
const TEXT_BYTES_SAID: u64 = 256;

/// Why an entry cannot be put aside.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AsideError {
    /// A limit is reached.
    #[error(
        "quarantine: entry {slot} ({id}) has {bytes} bytes, more than entry_bytes_max, and the quarantine is \
         full: {used} of {bytes_max} bytes are in use ({setting}); see `eventlog-server quarantine list`"
    )]
    Full { slot: usize, id: EntryId, bytes: u64, used: u64, bytes_max: u64, setting: &'static str },
    /// Trying again may help.
    #[error("quarantine: {0}")]
    Unavailable(#[from] QuarantineUnavailable),
}

/// See the module's description.
pub(crate) struct Aside {
    quarantine: Arc<dyn Quarantine>,
    limits: Arc<LiveLimits>,
    known: RwLock<Known>,
    /// The number of entries in `known`, for callers that write a lot and rarely ask.
    count: AtomicUsize,
    is_read: AtomicBool,
    /// Held while an entry is added.
    turn: Mutex<()>,
    /// How many times an entry arrived for which there was no space.
    pub(crate) refused: Counter,
}

impl Aside {
    /// Reads which entries there are: at once if they are at hand, otherwise on `thread`, repeatedly until it succeeds.
    pub(crate) fn start(
        quarantine: Arc<dyn Quarantine>,
        limits: Arc<LiveLimits>,
        thread: &ArbiterHandle,
    ) -> Arc<Self> {
        let aside = Arc::new(Self {
            quarantine,
            limits,
            known: RwLock::default(),
            count: AtomicUsize::new(0),
            is_read: AtomicBool::new(false),
            turn: Mutex::default(),
            refused: Counter::default(),
        });
        if let Some(Ok(())) = aside.read_first().now_or_never() {
            return aside;
        }
        let reading = Arc::clone(&aside);
        // Only a thread that has stopped refuses this.
        thread.spawn(async move {
            while let Err(error) = reading.read_first().await {
                log::warn!("nothing goes into quarantine: {error}");
                tokio::time::sleep(AGAIN).await;
            }
            reading.follow().await;
        });
        aside
    }

    /// Takes in what other processes put aside and remove, for as long as the task lives; returns if there are no others.
    async fn follow(&self) {
        loop {
            tokio::time::sleep(FOLLOW_EVERY).await;
            match self.look().await {
                Ok(true) => {}
                Ok(false) => return,
                // The storage says so too.
                Err(error) => log::debug!("the quarantine is not followed: {error}"),
            }
        }
    }

    /// Reads the list again if another process has changed it. Returns whether there can be others.
    pub(crate) async fn look(&self) -> Result<bool, QuarantineUnavailable> {
        let _turn = self.turn.lock().await;
        self.take_in().await
    }

    /// The same, while nothing is added here.
    async fn take_in(&self) -> Result<bool, QuarantineUnavailable> {
        let Some(state) = self.quarantine.state().await? else { return Ok(false) };
        if state != self.known.read().state() {
            self.read_all().await?;
        }
        Ok(true)
    }

    async fn read_first(&self) -> Result<(), QuarantineUnavailable> {
        let _turn = self.turn.lock().await;
        self.quarantine.sweep().await?;
        self.read_all().await
    }

    /// Reads the whole list, while nothing is added here.
    async fn read_all(&self) -> Result<(), QuarantineUnavailable> {
        let (mut known, mut after, mut twice) = (Known::default(), 0, Vec::new());
        loop {
            let page = self.quarantine.list(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.number;
            for entry in page {
                let number = entry.number;
                if !known.add(entry) {
                    twice.push(number);
                }
            }
        }
        // It was durable, and the answer that said so was lost; or two processes got it at once.
        for number in twice {
            self.quarantine.remove(number).await?;
        }
        self.count.store(known.figures().0, Ordering::Release);
        *self.known.write() = known;
        self.is_read.store(true, Ordering::Release);
        Ok(())
    }

    /// The entries of a batch for `store` that are in quarantine: the limit was raised, and the client has sent them
    /// again.
    pub(crate) fn of(&self, store: &StoreId, batch: &Batch) -> Box<[u64]> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Box::default();
        }
        let known = self.known.read();
        batch.ids().filter_map(|id| known.find(store, &id)).collect()
    }

    /// These were stored: they no longer need to be in quarantine.
    pub(crate) fn stored(self: &Arc<Self>, numbers: Box<[u64]>) {
        if numbers.is_empty() {
            return;
        }
        let aside = Arc::clone(self);
        tokio::spawn(async move {
            for number in numbers {
                match aside.remove(number).await {
                    Ok(None) => {}
                    Ok(Some(entry)) => log::info!(
                        "entry {} was sent again and is now stored: it is no longer in quarantine as {number}",
                        entry.entry_id
                    ),
                    Err(error) => log::warn!("entry {number} is left in quarantine: {error}"),
                }
            }
        });
    }

    /// The entry with this id, written to `store`.
    fn find(&self, store: &StoreId, id: &EntryId) -> Option<u64> {
        self.known.read().find(store, id)
    }

    pub(crate) fn get(&self, number: u64) -> Option<Arc<Quarantined>> {
        self.known.read().get(number).cloned()
    }

    pub(crate) fn page(&self, after: u64, count: usize) -> Vec<Arc<Quarantined>> {
        self.known.read().page(after, count)
    }

    /// How many entries there are, and how many bytes.
    pub(crate) fn figures(&self) -> (usize, u64) {
        self.known.read().figures()
    }

    /// Whether `entry` of `key` can be put aside, together with what `before` counts for the same write; returns what
    /// both count.
    pub(crate) fn check(
        &self,
        key: &PublicKey,
        store: &StoreId,
        entry: &LargeEntry,
        before: u64,
    ) -> Result<u64, AsideError> {
        if !self.is_read.load(Ordering::Acquire) {
            return Err(QuarantineUnavailable::new("it is not read yet").into());
        }
        let known = self.known.read();
        if known.find(store, &entry.id).is_some() {
            return Ok(before);
        }
        let more = before.saturating_add(counted(entry.lengths().into_iter().sum()));
        known.check(key, more, &self.limits.get()).map_err(|no_room| {
            self.refused.inc();
            let NoRoom { used, bytes_max, setting } = no_room;
            let (slot, id, bytes) = (entry.slot, entry.id, entry.bytes());
            AsideError::Full { slot, id, bytes, used, bytes_max, setting }
        })?;
        Ok(more)
    }

    /// Puts `entry` aside, durably; `None` if it is already there. Once polled, it continues even if nobody waits for
    /// it.
    pub(crate) async fn put(
        self: &Arc<Self>,
        key: PublicKey,
        store: StoreId,
        entry: LargeEntry,
    ) -> Result<Option<Arc<Quarantined>>, AsideError> {
        let aside = Arc::clone(self);
        // The bytes to write are read from a disk.
        let put = move || Handle::current().block_on(aside.put_here(key, store, &entry));
        let done = tokio::task::spawn_blocking(put).await;
        done.unwrap_or_else(|gone| Err(QuarantineUnavailable::new(gone).into()))
    }

    async fn put_here(
        &self,
        key: PublicKey,
        store: StoreId,
        entry: &LargeEntry,
    ) -> Result<Option<Arc<Quarantined>>, AsideError> {
        let _turn = self.turn.lock().await;
        self.take_in().await?;
        if self.find(&store, &entry.id).is_some() {
            return Ok(None);
        }
        self.check(&key, &store, entry, 0)?;
        let number = self.quarantine.begin().await?;
        let quarantined = match self.keep(number, (key, store), entry).await {
            Ok(quarantined) => quarantined,
            Err(error) => {
                // Some or all of it may be stored. What cannot be removed now is swept at the next start, or found to
                // be a duplicate.
                if let Err(error) = self.quarantine.remove(number).await {
                    log::debug!("entry {number} is left in quarantine: {error}");
                }
                return Err(error.into());
            }
        };
        let mut known = self.known.write();
        known.add(quarantined);
        self.count.store(known.figures().0, Ordering::Release);
        Ok(known.get(number).cloned())
    }

    async fn keep(
        &self,
        number: u64,
        (public_key, store_id): (PublicKey, StoreId),
        entry: &LargeEntry,
    ) -> Result<Quarantined, QuarantineUnavailable> {
        let [event_bytes, primary_key_bytes, payload_bytes] = entry.lengths();
        let bytes = event_bytes + primary_key_bytes + payload_bytes;
        let (mut at, mut first) = (0, 0_u32);
        while at < bytes {
            let mut parts = Vec::with_capacity(PARTS_AT_ONCE);
            while at < bytes && parts.len() < PARTS_AT_ONCE {
                let mut part = vec![0; (bytes - at).min(PART_BYTES as u64) as usize];
                entry.read_at(at, &mut part).map_err(QuarantineUnavailable::new)?;
                at += part.len() as u64;
                parts.push(part);
            }
            let count = parts.len() as u32;
            self.quarantine.write(number, first, parts).await?;
            first = first
                .checked_add(count)
                .ok_or_else(|| QuarantineUnavailable::new("too many parts"))?;
        }
        let text = |at: u64, len: u64| {
            let mut text = vec![0; len.min(TEXT_BYTES_SAID) as usize];
            entry.read_at(at, &mut text).map_err(QuarantineUnavailable::new)?;
            Ok::<_, QuarantineUnavailable>(String::from_utf8_lossy(&text).into_owned())
        };
        let quarantined = Quarantined {
            number,
            public_key,
            store_id,
            entry_id: entry.id,
            event: text(0, event_bytes)?,
            primary_key: text(event_bytes, primary_key_bytes)?,
            event_bytes,
            primary_key_bytes,
            payload_bytes,
            received_millis: EntryId::now().created_at_millis(),
        };
        self.quarantine.finish(&quarantined).await?;
        Ok(quarantined)
    }

    /// The part of the content of `entry` that contains byte `at`, from that byte on.
    pub(crate) async fn read(
        &self,
        entry: &Quarantined,
        at: u64,
    ) -> Result<Vec<u8>, QuarantineUnavailable> {
        let lost = || QuarantineUnavailable::new("a part of the entry is not there");
        let index = u32::try_from(at / PART_BYTES as u64).map_err(|_| lost())?;
        let part = self.quarantine.read(entry.number, index).await?.ok_or_else(lost)?;
        let from = (at % PART_BYTES as u64) as usize;
        match part.get(from..) {
            Some(rest) if !rest.is_empty() => Ok(rest.to_vec()),
            Some(_) | None => Err(lost()),
        }
    }

    /// Removes an entry, durably; returns it. The caller must run it to completion.
    pub(crate) async fn remove(
        &self,
        number: u64,
    ) -> Result<Option<Arc<Quarantined>>, QuarantineUnavailable> {
        if self.get(number).is_none() {
            return Ok(None);
        }
        self.quarantine.remove(number).await?;
        let mut known = self.known.write();
        let removed = known.remove(number);
        self.count.store(known.figures().0, Ordering::Release);
        Ok(removed)
    }
}
