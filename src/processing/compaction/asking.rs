//! Limits the memory for all effects that are asked at the same time.
//!
//! Keeps: an effect waits for others only where their buckets together are large, so that a slow one holds up only its
//! own store. Leaves out: what is asked, and of whom (`answer`).

use parking_lot::{Condvar, Mutex};

/// Most bytes of the members of buckets together; a single question may take more.
const BYTES_MAX: u64 = 128 * 1_024 * 1_024;

#[derive(Debug, Default)]
pub(super) struct Asking {
    bytes: Mutex<u64>,
    less: Condvar,
}

/// A part of the bytes; released when dropped.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    asking: &'a Asking,
    bytes: u64,
}

impl Asking {
    /// Takes `bytes`, once that many are free or nobody else has any. Blocks.
    pub(super) fn take(&self, bytes: u64) -> Asked<'_> {
        let mut taken = self.bytes.lock();
        self.less.wait_while(&mut taken, |taken| *taken > 0 && *taken + bytes > BYTES_MAX);
        *taken += bytes;
        Asked { asking: self, bytes }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        *self.asking.bytes.lock() -= self.bytes;
        self.asking.less.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_ones_do_not_wait_and_a_large_one_waits_until_it_is_alone() {
        let asking = Asking::default();
        let (one, two) = (asking.take(BYTES_MAX / 2), asking.take(BYTES_MAX / 2));
        let (sent, taken) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let large = asking.take(BYTES_MAX * 2);
                sent.send(*asking.bytes.lock()).expect("somebody waits");
                drop(large);
            });
            drop(one);
            assert!(taken.try_recv().is_err(), "the other one is there");
            drop(two);
            assert_eq!(taken.recv(), Ok(BYTES_MAX * 2));
        });
        assert_eq!(*asking.bytes.lock(), 0);
    }
}
