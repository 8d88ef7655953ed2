//! Where packs lie: which numbers are taken, and for how long.
//!
//! Keeps: a number is given out again only when nothing of what its pack holds is needed there any more, so packs are
//! never removed, only written over; what is kept of them that nobody needs is bounded. Where commits are answered before
//! they are on disk, this holds as well: what sled recovers is its log up to some point, and a pack is written over behind
//! the segments that have its entries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// What packs may hold that nobody needs, in bytes. Beyond it they are removed.
const UNUSED_BYTES_MAX: u64 = 16 << 20;
/// What a pack takes besides its value, roughly: a key, and its place here.
const PACK_OVERHEAD_BYTES: u64 = 128;

/// The numbers of packs.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The least number that was never given out.
    next: u64,
    /// Numbers to give out, the least first, with the bytes that lie there.
    free: BTreeMap<u64, u64>,
    unused_bytes: u64,
    used_bytes: u64,
}

/// A pack's place. Dropped, it is free for another pack.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    bytes: AtomicU64,
    places: Arc<Places>,
}

impl Places {
    /// The place of a pack that is to be written.
    pub(super) fn take(self: &Arc<Self>) -> Place {
        let mut state = self.0.lock();
        let number = match state.free.pop_first() {
            Some((number, bytes)) => {
                state.unused_bytes -= bytes;
                number
            }
            None => state.next,
        };
        state.next = state.next.max(number + 1);
        Place { number, bytes: AtomicU64::new(0), places: self.clone() }
    }

    /// The place of a pack that was found on disk; to be called before any is given out.
    pub(super) fn found(self: &Arc<Self>, number: u64, bytes: usize) -> Place {
        let mut state = self.0.lock();
        state.next = state.next.max(number.saturating_add(1));
        drop(state);
        let place = Place { number, bytes: AtomicU64::new(0), places: self.clone() };
        place.fill(bytes);
        place
    }

    /// Bytes of the packs that are needed.
    pub(super) fn used_bytes(&self) -> u64 {
        self.0.lock().used_bytes
    }

    /// A pack to remove, if too much is kept that nobody needs. Its number is not given out again.
    pub(super) fn superfluous(&self) -> Option<u64> {
        let mut state = self.0.lock();
        if state.unused_bytes <= UNUSED_BYTES_MAX {
            return None;
        }
        let (number, bytes) = state.free.pop_last()?;
        state.unused_bytes -= bytes;
        Some(number)
    }
}

impl Place {
    /// The number of the pack.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// A value of so many bytes is written here.
    pub(super) fn fill(&self, bytes: usize) {
        let bytes = bytes as u64 + PACK_OVERHEAD_BYTES;
        self.bytes.store(bytes, Ordering::Relaxed);
        self.places.0.lock().used_bytes += bytes;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        let mut state = self.places.0.lock();
        state.used_bytes -= bytes;
        state.unused_bytes += bytes;
        state.free.insert(self.number, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_free_number_is_given_out_first() {
        let places = Arc::new(Places::default());
        let mut taken: Vec<Place> = (0..4).map(|_| places.take()).collect();
        assert_eq!(taken.iter().map(Place::number).collect::<Vec<_>>(), [0, 1, 2, 3]);
        taken.remove(2);
        taken.remove(1);
        assert_eq!([places.take(), places.take(), places.take()].map(|p| p.number()), [1, 2, 4]);
    }

    #[test]
    fn what_was_found_is_not_given_out() {
        let places = Arc::new(Places::default());
        let found = [1, 4].map(|number| places.found(number, 10));
        assert_eq!([(); 2].map(|()| places.take()).map(|p| p.number()), [5, 6]);
        assert_eq!(places.used_bytes(), 2 * (10 + PACK_OVERHEAD_BYTES));
        drop(found);
        assert_eq!(places.used_bytes(), 0);
        assert_eq!(places.take().number(), 1);
    }

    #[test]
    fn what_nobody_needs_is_removed_beyond_a_bound() {
        let places = Arc::new(Places::default());
        let half = (UNUSED_BYTES_MAX / 2) as usize;
        let taken: Vec<Place> = (0..3).map(|_| places.take()).collect();
        taken.iter().for_each(|place| place.fill(half));
        assert_eq!(places.superfluous(), None);
        drop(taken);
        assert_eq!(places.superfluous(), Some(2));
        assert_eq!(places.superfluous(), Some(1));
        assert_eq!(places.superfluous(), None);
    }
}
