//! The records of one kind, also kept in memory, because they are looked at with each request.
//!
//! Keeps: a record is shown once it is durable; what is shown is what is durable, whatever happens to the call that
//! changed it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix::ArbiterHandle;
use futures_util::FutureExt;
use parking_lot::RwLock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::{Records, RecordsUnavailable};

/// How many are read at a time.
const PAGE: usize = 1_000;

/// How long to wait before reading records again after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module's description.
pub(crate) struct Kept<T> {
    records: Arc<dyn Records>,
    /// The names of this kind begin with this, followed by a slash.
    kind: &'static str,
    /// The state of affairs until they are read, for the log.
    until_read: &'static str,
    all: RwLock<HashMap<Box<str>, Arc<T>>>,
    count: AtomicUsize,
    is_read: AtomicBool,
    /// Held from the change of a record until its change in memory, so that both happen in the same order.
    turn: Mutex<()>,
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Kept<T> {
    /// The records of this kind; nothing is read yet. The log describes the time until then as `until_read`.
    pub(crate) fn new(
        records: Arc<dyn Records>,
        kind: &'static str,
        until_read: &'static str,
    ) -> Self {
        let (all, turn) = (RwLock::default(), Mutex::default());
        let (count, is_read) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { records, kind, until_read, all, count, is_read, turn }
    }

    /// Reads them: at once if they are at hand, otherwise on `thread`, repeatedly until they are read. Then `found`
    /// gets them, before [`is_read`](Self::is_read) is true.
    pub(crate) fn start(
        self: &Arc<Self>,
        thread: &ArbiterHandle,
        found: impl Fn(&HashMap<Box<str>, Arc<T>>) + Send + Sync + 'static,
    ) {
        if let Some(Ok(())) = self.read(&found).now_or_never() {
            return;
        }
        let kept = self.clone();
        // Only a thread that has stopped refuses this.
        thread.spawn(async move {
            while let Err(error) = kept.read(&found).await {
                log::warn!("{}: {error}", kept.until_read);
                tokio::time::sleep(AGAIN).await;
            }
        });
    }

    /// Reads them again, because another server has changed some. `found` gets all current ones, and the previous ones.
    pub(crate) async fn read_again(
        &self,
        found: impl Fn(&HashMap<Box<str>, Arc<T>>, &HashMap<Box<str>, Arc<T>>),
    ) -> Result<(), RecordsUnavailable> {
        // Nobody changes them here meanwhile, except for changes that are found then as well.
        let before = self.all.read().clone();
        self.read(|all| found(all, &before)).await
    }

    async fn read(
        &self,
        found: impl Fn(&HashMap<Box<str>, Arc<T>>),
    ) -> Result<(), RecordsUnavailable> {
        let _turn = self.turn.lock().await;
        let mut all = HashMap::new();
        let mut after: Box<str> = format!("{}/", self.kind).into();
        loop {
            let page = self.page_after(&after, PAGE).await?;
            let last = page.last().map(|(name, _)| self.record(name));
            all.extend(page);
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
        self.count.store(all.len(), Ordering::Release);
        found(&all);
        *self.all.write() = all;
        self.is_read.store(true, Ordering::Release);
        Ok(())
    }

    /// The records of this kind in the page after the record `after`.
    async fn page_after(
        &self,
        after: &str,
        count: usize,
    ) -> Result<Vec<(Box<str>, Arc<T>)>, RecordsUnavailable> {
        let page = self.records.list(after, count).await?;
        let of_kind = page.iter().map_while(|(name, value)| {
            Some((name.strip_prefix(self.kind)?.strip_prefix('/')?, value))
        });
        let parsed = of_kind.map(|(name, value)| {
            let malformed = |error| RecordsUnavailable::new(format!("record {name:?}: {error}"));
            Ok((name.into(), Arc::new(serde_json::from_slice(value).map_err(malformed)?)))
        });
        parsed.collect()
    }

    fn record(&self, name: &str) -> Box<str> {
        format!("{}/{name}", self.kind).into()
    }

    /// Whether they were read.
    pub(crate) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Acquire)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// The record `name`.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<T>> {
        self.all.read().get(name).cloned()
    }

    /// Passes all of them to `look`. Blocks changes meanwhile.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&HashMap<Box<str>, Arc<T>>) -> R) -> R {
        look(&self.all.read())
    }

    /// At most `count` of them after the name `after`, in the order of their names.
    pub(crate) async fn page(
        &self,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<(Box<str>, Arc<T>)>, RecordsUnavailable> {
        self.page_after(&self.record(after.unwrap_or_default()), count).await
    }

    /// Sets the record `name`, durably; returns the previous one. The caller must run it to completion.
    pub(crate) async fn set(
        &self,
        name: &str,
        value: T,
    ) -> Result<Option<Arc<T>>, RecordsUnavailable> {
        let bytes = serde_json::to_vec(&value).map_err(RecordsUnavailable::new)?;
        let _turn = self.turn.lock().await;
        self.records.set(&self.record(name), &bytes).await?;
        let mut all = self.all.write();
        let before = all.insert(name.into(), Arc::new(value));
        self.count.store(all.len(), Ordering::Release);
        Ok(before)
    }

    /// Removes the record `name` if it `is_wanted`, durably; returns it. The caller must run it to completion.
    pub(crate) async fn remove(
        &self,
        name: &str,
        is_wanted: impl Fn(&T) -> bool,
    ) -> Result<Option<Arc<T>>, RecordsUnavailable> {
        let _turn = self.turn.lock().await;
        if !self.get(name).is_some_and(|value| is_wanted(&value)) {
            return Ok(None);
        }
        self.records.remove(&self.record(name)).await?;
        let mut all = self.all.write();
        let before = all.remove(name);
        self.count.store(all.len(), Ordering::Release);
        Ok(before)
    }
}
