//! Who has space, and who is next.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::Spill;
use crate::model::PublicKey;

/// Who has space, and who waits for it, in the order of arrival.
#[derive(Default)]
pub(super) struct Rooms {
    reserved: u64,
    /// How much of it is on disk by now.
    written: u64,
    keys: HashSet<PublicKey>,
    line: VecDeque<Place>,
    places: u64,
}

struct Place {
    number: u64,
    key: PublicKey,
    waker: Option<Waker>,
}

impl Rooms {
    pub(super) fn figures(&self) -> (u64, usize) {
        (self.reserved, self.line.len())
    }

    /// Whether it is this place's turn. Earlier places whose key already has a set hold up nobody else.
    fn is_next(&self, number: u64) -> bool {
        let first = self.line.iter().find(|place| !self.keys.contains(&place.key));
        first.is_some_and(|first| first.number == number)
    }

    fn leave(&mut self, number: u64) -> Option<PublicKey> {
        let at = self.line.iter().position(|place| place.number == number)?;
        self.line.remove(at).map(|place| place.key)
    }

    fn wake_all(&mut self) {
        self.line.iter_mut().filter_map(|place| place.waker.take()).for_each(Waker::wake);
    }
}

/// A place in the line; given up when it is dropped.
pub(crate) struct Waiting {
    spill: Arc<Spill>,
    number: u64,
    bytes: u64,
}

impl Waiting {
    pub(super) fn new(spill: &Arc<Spill>, key: PublicKey, bytes: u64) -> Self {
        let mut rooms = spill.rooms.lock();
        let number = rooms.places;
        rooms.places += 1;
        rooms.line.push_back(Place { number, key, waker: None });
        drop(rooms);
        Self { spill: Arc::clone(spill), number, bytes }
    }

    /// The space, when there is some. Woken when somebody else releases theirs; space that becomes free on the disk is
    /// found by asking again.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Room> {
        let mut rooms = self.spill.rooms.lock();
        let fits = rooms.reserved.saturating_add(self.bytes) <= self.spill.bytes_max;
        if fits && rooms.is_next(self.number) {
            let to_come = (rooms.reserved - rooms.written).saturating_add(self.bytes);
            if to_come <= self.spill.disk_bytes()
                && let Some(key) = rooms.leave(self.number)
            {
                rooms.reserved += self.bytes;
                rooms.keys.insert(key.clone());
                // Whoever is next now may have space as well.
                rooms.wake_all();
                let (spill, bytes) = (Arc::clone(&self.spill), self.bytes);
                return Poll::Ready(Room { spill, key, bytes, written: 0 });
            }
        }
        let place = rooms.line.iter_mut().find(|place| place.number == self.number);
        if let Some(place) = place {
            place.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut rooms = self.spill.rooms.lock();
        if rooms.leave(self.number).is_some() {
            rooms.wake_all();
        }
    }
}

/// Space for one set, until it is dropped.
pub(crate) struct Room {
    spill: Arc<Spill>,
    key: PublicKey,
    bytes: u64,
    written: u64,
}

impl Room {
    pub(super) fn spill(&self) -> &Arc<Spill> {
        &self.spill
    }

    /// This much of it was just used.
    pub(super) fn used(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes - self.written);
        self.written += bytes;
        self.spill.rooms.lock().written += bytes;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut rooms = self.spill.rooms.lock();
        rooms.reserved -= self.bytes;
        rooms.written -= self.written;
        rooms.keys.remove(&self.key);
        rooms.wake_all();
    }
}
