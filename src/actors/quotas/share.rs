//! What one key, or one store, has used of its quota.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::exceeded::{Exceeded, Of, What};
use crate::core::quota::{Bucket, Rate};
use crate::model::Quota;

/// When to come back for something that becomes free when somebody else leaves.
const COME_BACK: Duration = Duration::from_secs(10);

/// What one key or store has used of its quota.
pub(super) struct Share {
    of: Of,
    used: Mutex<Used>,
}

pub(super) struct Used {
    writes: Option<Paced>,
    bytes: Option<Paced>,
    subscriptions: Place,
    connections: Place,
    /// How many bytes it may have written, if it is a key.
    bytes_stored: Option<u64>,
    under_way: UnderWay,
}

/// The stored bytes that were taken and are not known to be stored yet.
struct UnderWay {
    bytes: u64,
    /// The known stored bytes at the last look.
    stored: u64,
    taken_at: Instant,
}

/// Bytes that are not known to be stored after this time never will be: they were duplicates, or failed.
const UNDER_WAY_MAX: Duration = Duration::from_secs(10);

impl UnderWay {
    fn look(&mut self, stored: u64, now: Instant) {
        self.bytes = match now.saturating_duration_since(self.taken_at) {
            since if since > UNDER_WAY_MAX => 0,
            _ => self.bytes.saturating_sub(stored.saturating_sub(self.stored)),
        };
        self.stored = stored;
    }
}

/// A rate, and what is left of it.
pub(super) struct Paced {
    pub(super) rate: Rate,
    pub(super) bucket: Bucket,
}

/// How many there are, and the limit.
struct Place {
    count: usize,
    most: Option<usize>,
}

impl Used {
    fn none(quota: &Quota, now: Instant) -> Self {
        let paced = |per_second: Option<u64>| {
            let rate = Rate::new(per_second?, quota.burst);
            Some(Paced { rate, bucket: Bucket::full(now) })
        };
        let place = |most| Place { count: 0, most };
        Self {
            writes: paced(quota.writes_per_second),
            bytes: paced(quota.bytes_per_second),
            subscriptions: place(quota.subscriptions),
            connections: place(quota.connections),
            bytes_stored: quota.bytes_stored,
            under_way: UnderWay { bytes: 0, stored: 0, taken_at: now },
        }
    }

    /// The limit of what it may have written, if `stored` has used it up.
    pub(super) fn is_full(&mut self, stored: u64, now: Instant) -> Option<u64> {
        let most = self.bytes_stored?;
        self.under_way.look(stored, now);
        (stored.saturating_add(self.under_way.bytes) >= most).then_some(most)
    }

    /// Whether its written bytes are limited.
    pub(super) const fn is_stored(&self) -> bool {
        self.bytes_stored.is_some()
    }

    /// Applies another quota; what is used stays used.
    fn set(&mut self, quota: &Quota, now: Instant) {
        let before = std::mem::replace(self, Self::none(quota, now));
        for (paced, before) in [(&mut self.writes, before.writes), (&mut self.bytes, before.bytes)]
        {
            if let (Some(paced), Some(before)) = (paced, before) {
                paced.bucket = before.bucket;
            }
        }
        self.subscriptions.count = before.subscriptions.count;
        self.connections.count = before.connections.count;
        self.under_way = before.under_way;
    }

    /// The parts that have a rate.
    pub(super) fn paced(&self) -> impl Iterator<Item = (What, &Paced)> {
        let writes = self.writes.iter().map(|writes| (What::Writes, writes));
        writes.chain(self.bytes.iter().map(|bytes| (What::Bytes, bytes)))
    }

    pub(super) fn take_write(&mut self, bytes: u64, now: Instant) {
        for (paced, tokens) in [(&mut self.writes, 1), (&mut self.bytes, bytes)] {
            if let Some(Paced { rate, bucket }) = paced {
                bucket.take(rate, tokens, now);
            }
        }
        if self.is_stored() {
            self.under_way.bytes = self.under_way.bytes.saturating_add(bytes);
            self.under_way.taken_at = now;
        }
    }

    const fn place(&mut self, what: What) -> Option<&mut Place> {
        match what {
            What::Subscriptions => Some(&mut self.subscriptions),
            What::Connections => Some(&mut self.connections),
            What::Writes | What::Bytes | What::Stored | What::Names => None,
        }
    }
}

impl Share {
    pub(super) fn new(of: Of, quota: &Quota, now: Instant) -> Self {
        Self { of, used: Mutex::new(Used::none(quota, now)) }
    }

    pub(super) fn set(&self, quota: &Quota, now: Instant) {
        self.used.lock().set(quota, now);
    }

    pub(super) fn lock(&self) -> (Of, MutexGuard<'_, Used>) {
        (self.of, self.used.lock())
    }

    /// Counts one more of `what`, until it is dropped.
    pub(super) fn count(
        self: &Arc<Self>,
        what: What,
        is_there_already: bool,
    ) -> Result<CountedOne, Exceeded> {
        if let Some(place) = self.used.lock().place(what) {
            if let Some(most) = place.most
                && !is_there_already
                && place.count >= most
            {
                return Err(Exceeded { of: self.of, what, most: most as u64, wait: COME_BACK });
            }
            place.count += 1;
        }
        Ok(CountedOne { share: self.clone(), what })
    }

    /// Whether a new one in its place would be the same.
    pub(super) fn is_unused(&self, now: Instant) -> bool {
        self.used.lock().paced().all(|(_, paced)| paced.bucket.is_full(now))
    }
}

/// One that is counted, until this is dropped.
pub(crate) struct CountedOne {
    share: Arc<Share>,
    what: What,
}

impl Drop for CountedOne {
    fn drop(&mut self) {
        if let Some(place) = self.share.used.lock().place(self.what) {
            place.count -= 1;
        }
    }
}
