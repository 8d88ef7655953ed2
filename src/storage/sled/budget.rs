//! How much is in the commit log and not in sled: it is kept in memory, and bounded.
//!
//! Keeps: who has much of it in memory waits before it is full, so that the others still have space. Leaves out: who
//! waits (`commit`), and what frees it (`checkpoint`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A store with at most this part of the maximum in memory waits only when it is full: 1 MiB of 128.
const SHARE: u64 = 128;

/// Counts bytes of memory that a checkpoint frees.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: AtomicU64,
    bytes_max: u64,
    /// Whether somebody is in [`Budget::wait`], or about to be.
    waiting: AtomicBool,
    lock: Mutex<()>,
    /// Whoever waits must look again.
    changed: Condvar,
}

impl Budget {
    /// For at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            bytes_max,
            waiting: AtomicBool::new(false),
            lock: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Whether the limit is reached.
    pub(super) fn is_full(&self) -> bool {
        self.bytes() >= self.bytes_max
    }

    /// Whether those who have much in memory must wait: it is seven eighths full.
    pub(super) fn is_crowded(&self) -> bool {
        self.bytes() >= self.bytes_max - self.bytes_max / 8
    }

    /// Whether there is space for a store that has `held` bytes in memory already.
    pub(super) fn has_room(&self, held: u64) -> bool {
        !self.is_crowded() || !self.is_full() && held <= self.bytes_max / SHARE
    }

    pub(super) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    pub(super) fn free(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.look_again();
    }

    /// Wakes up whoever waits. What they look at must have been changed before.
    pub(super) fn look_again(&self) {
        if self.waiting.load(Ordering::SeqCst) {
            // Taken so that nobody is between looking and waiting.
            drop(self.lock.lock());
            self.changed.notify_all();
        }
    }

    /// Waits, unless `is_ready` already, until something was freed or [`Budget::look_again`] was called, for at most
    /// `patience`. For one thread.
    pub(super) fn wait(&self, patience: Duration, is_ready: impl FnOnce() -> bool) {
        let mut lock = self.lock.lock();
        // Before looking: whoever changes something afterwards sees that somebody waits.
        self.waiting.store(true, Ordering::SeqCst);
        if !is_ready() {
            self.changed.wait_for(&mut lock, patience);
        }
        self.waiting.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_much_waits_before_it_is_full() {
        let budget = Budget::new(128_000);
        let room = |held| budget.has_room(held);
        budget.add(111_999);
        assert!(room(0) && room(112_000));
        budget.add(1);
        assert!(room(0) && room(1_000) && !room(1_001));
        budget.add(15_999);
        assert!(room(1_000) && !budget.is_full());
        budget.add(1);
        assert!(!room(0) && budget.is_full());
        budget.free(17_000);
        assert!(room(112_000));
    }

    #[test]
    fn a_wait_ends_when_something_is_freed_or_must_be_looked_at() {
        let budget = Budget::new(10);
        budget.add(10);
        let forever = Duration::from_secs(600);
        budget.wait(forever, || true);
        for wake in [|budget: &Budget| budget.free(1), Budget::look_again] {
            std::thread::scope(|scope| {
                // The closure runs under the lock, so what it starts finds somebody who waits.
                budget.wait(forever, || {
                    scope.spawn(|| wake(&budget));
                    false
                });
            });
        }
        assert_eq!(budget.bytes(), 9);
    }
}
