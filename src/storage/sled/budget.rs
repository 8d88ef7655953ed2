//! How much is in the commit log and not in sled: it is kept in memory, and bounded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Counts bytes of memory that a checkpoint frees.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: AtomicU64,
    bytes_max: u64,
    lock: Mutex<()>,
    /// The number of bytes has gone down.
    freed: Condvar,
}

impl Budget {
    /// For at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes: AtomicU64::new(0), bytes_max, lock: Mutex::new(()), freed: Condvar::new() }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the limit is reached.
    pub(super) fn is_full(&self) -> bool {
        self.bytes() >= self.bytes_max
    }

    pub(super) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn free(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        // Taken so that nobody is between checking and waiting.
        drop(self.lock.lock());
        self.freed.notify_all();
    }

    /// Waits until it is not full, for at most `patience`; returns whether it has space.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        if !self.is_full() {
            return true;
        }
        let mut lock = self.lock.lock();
        if self.is_full() {
            self.freed.wait_for(&mut lock, patience);
        }
        !self.is_full()
    }
}
