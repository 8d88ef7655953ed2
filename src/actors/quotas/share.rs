//! What one key, or one store, has used of its quota.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::exceeded::{Exceeded, Of, What};
use crate::core::quota::{Bucket, Rate};
use crate::model::Quota;

/// When to come back for what gets free when somebody else goes.
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
}

/// A rate, and what is left of it.
pub(super) struct Paced {
    pub(super) rate: Rate,
    pub(super) bucket: Bucket,
}

/// How many there are, and how many there may be.
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
        }
    }

    /// What has a rate.
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
    }

    const fn place(&mut self, what: What) -> Option<&mut Place> {
        match what {
            What::Subscriptions => Some(&mut self.subscriptions),
            What::Connections => Some(&mut self.connections),
            What::Writes | What::Bytes | What::Names => None,
        }
    }
}

impl Share {
    pub(super) fn new(of: Of, quota: &Quota, now: Instant) -> Self {
        Self { of, used: Mutex::new(Used::none(quota, now)) }
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
