//! How many bytes each key has written, for its quota: durable, next to what administrators set.
//!
//! Keeps: durable entries are counted, once; counts are saved every few seconds and at an orderly end, so a crash loses
//! only what came since. Leaves out: what a key may write (`quotas`), and what stores hold, which storage knows.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::ArbiterHandle;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use crate::model::{Origin, PublicKey, Segment, record_len};
use crate::services::{Records, RecordsUnavailable};

/// The prefix of the names of these records.
const KIND: &str = "usage/";

/// How often counts are saved.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// How long to wait before reading counts again after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// How many are read or written at a time: together they share few syncs.
const PAGE: usize = 1_000;
const WRITES_MAX: usize = 64;

/// The counts of all keys that are counted.
pub(crate) struct Usage {
    records: Arc<dyn Records>,
    counts: Mutex<Counts>,
    is_read: AtomicBool,
    /// Held while counts are saved, so that an older count never replaces a newer one.
    saving: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Counts {
    bytes: HashMap<PublicKey, u64>,
    /// The keys whose current counts are not saved.
    unsaved: HashSet<PublicKey>,
}

impl Counts {
    fn add(&mut self, key: &PublicKey, bytes: u64) {
        match self.bytes.get_mut(key) {
            Some(count) => *count = count.saturating_add(bytes),
            None => {
                self.bytes.insert(key.clone(), bytes);
            }
        }
        if !self.unsaved.contains(key) {
            self.unsaved.insert(key.clone());
        }
    }
}

impl Usage {
    pub(crate) fn new(records: Arc<dyn Records>) -> Self {
        let saving = tokio::sync::Mutex::default();
        Self { records, counts: Mutex::default(), is_read: AtomicBool::new(false), saving }
    }

    /// Reads the saved counts, and from then on saves changes, on `thread`, for as long as this exists.
    pub(crate) fn start(self: &Arc<Self>, thread: &ArbiterHandle) {
        let usage = Arc::downgrade(self);
        // Only a thread that has stopped refuses this.
        thread.spawn(async move {
            loop {
                let Some(read) = with(&usage, async |usage| usage.read().await).await else {
                    return;
                };
                match read {
                    Ok(()) => break,
                    Err(error) => log::warn!("what keys have written cannot be read: {error}"),
                }
                tokio::time::sleep(AGAIN).await;
            }
            loop {
                tokio::time::sleep(SAVE_EVERY).await;
                let Some(saved) = with(&usage, async |usage| usage.save().await).await else {
                    return;
                };
                if let Err(error) = saved {
                    log::warn!("what keys have written is not saved yet: {error}");
                }
            }
        });
    }

    /// Whether they were read.
    pub(crate) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Acquire)
    }

    async fn read(&self) -> Result<(), RecordsUnavailable> {
        let (mut after, mut found): (Box<str>, Vec<(PublicKey, u64)>) = (KIND.into(), Vec::new());
        loop {
            let page = self.records.list(&after, PAGE).await?;
            let of_kind =
                page.iter().map_while(|(name, value)| Some((name.strip_prefix(KIND)?, value)));
            let mut count = 0;
            for (name, value) in of_kind {
                count += 1;
                let text = std::str::from_utf8(value).ok();
                let bytes = text.and_then(|text| text.parse().ok());
                let (Ok(key), Some(bytes)) = (name.parse(), bytes) else {
                    return Err(RecordsUnavailable::new(format!("record {name:?} is no count")));
                };
                found.push((key, bytes));
            }
            match page.last() {
                Some((last, _)) if count == page.len() => after = last.clone(),
                Some(_) | None => break,
            }
        }
        let mut counts = self.counts.lock();
        found.into_iter().for_each(|(key, bytes)| {
            *counts.bytes.entry(key).or_default() += bytes;
        });
        self.is_read.store(true, Ordering::Release);
        Ok(())
    }

    /// These segments are durable.
    pub(crate) fn add(&self, segments: &[Segment]) {
        let mut counts = self.counts.lock();
        for segment in segments {
            match segment.origins() {
                [run] => {
                    if let Origin::Client(key) = &run.origin {
                        counts.add(key, segment.records().len() as u64);
                    }
                }
                _ => {
                    for (origin, (_, entry)) in segment.origin_of_each().zip(segment.iter()) {
                        if let Origin::Client(key) = origin {
                            counts.add(key, record_len(&entry) as u64);
                        }
                    }
                }
            }
        }
    }

    /// How many bytes `key` has written.
    pub(crate) fn of(&self, key: &PublicKey) -> u64 {
        self.counts.lock().bytes.get(key).copied().unwrap_or_default()
    }

    /// Resets `key` to zero, durably; returns what it had written.
    pub(crate) async fn reset(&self, key: &PublicKey) -> Result<u64, RecordsUnavailable> {
        let _turn = self.saving.lock().await;
        self.records.remove(&record(key)).await?;
        let mut counts = self.counts.lock();
        counts.unsaved.remove(key);
        Ok(counts.bytes.remove(key).unwrap_or_default())
    }

    /// Saves everything that changed.
    pub(crate) async fn save(&self) -> Result<(), RecordsUnavailable> {
        let _turn = self.saving.lock().await;
        let unsaved: Vec<(PublicKey, u64)> = {
            let mut counts = self.counts.lock();
            let Counts { bytes, unsaved } = &mut *counts;
            let with_count = |key: PublicKey| bytes.get(&key).map(|count| (key.clone(), *count));
            std::mem::take(unsaved).into_iter().filter_map(with_count).collect()
        };
        let write = async |(key, bytes): (PublicKey, u64)| {
            let set = self.records.set(&record(&key), bytes.to_string().as_bytes()).await;
            set.map_err(|error| (key, error))
        };
        let mut written = stream::iter(unsaved).map(write).buffer_unordered(WRITES_MAX);
        let mut failed = Ok(());
        while let Some(one) = written.next().await {
            if let Err((key, error)) = one {
                // It is saved next time, with its value at that time.
                self.counts.lock().unsaved.insert(key);
                failed = Err(error);
            }
        }
        failed
    }
}

fn record(key: &PublicKey) -> String {
    format!("{KIND}{key}")
}

/// The result of `act`, unless nobody is left to count for.
async fn with<T>(usage: &Weak<Usage>, act: impl AsyncFnOnce(&Usage) -> T) -> Option<T> {
    let usage = usage.upgrade()?;
    Some(act(&usage).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Batch, SegmentBuilder, Sequence};
    use crate::services::records::MemoryRecords;
    use crate::testing::key;

    fn segments(origins: &[Origin]) -> Vec<Segment> {
        let id = "018bcfe5-6800-70e1-8101-010101010101".parse().expect("a UUID");
        let entry = crate::model::EntryRef { id, event: "E", primary_key: "k", payload: &[7; 79] };
        let batch = Batch::from_entries([entry]);
        let mut builder = SegmentBuilder::new(Sequence::FIRST);
        for origin in origins {
            builder.push(batch.record(0).expect("one"), origin);
        }
        builder.finish()
    }

    #[tokio::test]
    async fn what_clients_write_is_counted_written_down_and_read_again() {
        let records = Arc::new(MemoryRecords::default());
        let usage = Usage::new(records.clone());
        let client = |name| Origin::Client(key(name));
        let server = Origin::Server { run_handlers: true };
        usage.add(&segments(&[client("a/b"), client("a/b")]));
        usage.add(&segments(&[client("bob"), server, client("a/b")]));
        assert_eq!((usage.of(&key("a/b")), usage.of(&key("bob"))), (300, 100));
        usage.save().await.expect("written");
        usage.add(&segments(&[client("bob")]));
        let after_crash = Usage::new(records.clone());
        after_crash.read().await.expect("read");
        assert_eq!((after_crash.of(&key("a/b")), after_crash.of(&key("bob"))), (300, 100));
        assert_eq!(after_crash.reset(&key("bob")).await, Ok(100));
        let again = Usage::new(records);
        again.read().await.expect("read");
        assert_eq!((again.of(&key("a/b")), again.of(&key("bob"))), (300, 0));
    }
}
