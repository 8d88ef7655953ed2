//! How many bytes of answers may be held for clients: those that they do not read, and buffers that large answers leave
//! behind.
//!
//! Keeps: the sum is bounded; one place cannot use the space of others. Leaves out: how long an answer may wait
//! (`server::talk`).

use std::collections::HashMap;

use super::strangers::Place;

/// A place with this fraction of them has many. Others may have as much again, together.
const FEW: usize = 16;

/// What strangers may hold before they are told apart by their places, in bytes,
const STRANGERS_BYTES_MAX: usize = 8 * 1_024 * 1_024;
/// and what token holders may.
const TOKEN_HOLDERS_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// What is held for strangers, and what for token holders.
#[derive(Debug)]
pub(crate) struct Unreads {
    strangers: Unread,
    token_holders: Unread,
}

impl Default for Unreads {
    fn default() -> Self {
        Self {
            strangers: Unread::new(STRANGERS_BYTES_MAX),
            token_holders: Unread::new(TOKEN_HOLDERS_BYTES_MAX),
        }
    }
}

impl Unreads {
    /// Those of token holders if `accepted`, else those of strangers.
    pub(crate) const fn of(&mut self, accepted: bool) -> &mut Unread {
        if accepted { &mut self.token_holders } else { &mut self.strangers }
    }
}

/// The answers that are held for one kind of clients.
#[derive(Debug)]
pub(crate) struct Unread {
    /// The most bytes, before those of one place that has many are refused.
    bytes_max: usize,
    bytes: usize,
    by_place: HashMap<Place, usize>,
}

impl Unread {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, by_place: HashMap::new() }
    }

    /// An answer is held. `false` if there is no space for it.
    #[must_use]
    pub(crate) fn hold(&mut self, place: Place, bytes: usize) -> bool {
        let there = self.by_place.get(&place).copied().unwrap_or_default();
        let has_few = there + bytes <= self.bytes_max / FEW;
        let bytes_max = if has_few { 2 * self.bytes_max } else { self.bytes_max };
        // A long one is held if it is alone.
        if self.bytes + bytes > bytes_max && self.bytes > 0 {
            return false;
        }
        self.bytes += bytes;
        self.by_place.insert(place, there + bytes);
        true
    }

    /// One is no longer held: it was read, or its connection has ended.
    pub(crate) fn ends(&mut self, place: Place, bytes: usize) {
        self.bytes -= bytes;
        if let Some(there) = self.by_place.get_mut(&place) {
            *there -= bytes;
            if *there == 0 {
                self.by_place.remove(&place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(last: u8) -> Place {
        Place::of(Some([192, 0, 2, last].into()))
    }

    const BYTES_MAX: usize = 8 << 20;

    #[test]
    fn one_place_cannot_use_the_space_of_others() {
        const BYTES: usize = 100_000;
        let mut unread = Unread::new(BYTES_MAX);
        let one = (0..1_000).filter(|_| unread.hold(place(0), BYTES)).count();
        assert_eq!(one, BYTES_MAX / BYTES);
        let other = (0..1_000).filter(|_| unread.hold(place(1), BYTES)).count();
        assert_eq!(other, BYTES_MAX / FEW / BYTES);
        let others = (2..=255).filter(|last| unread.hold(place(*last), BYTES)).count();
        assert_eq!(others, 2 * BYTES_MAX / BYTES - one - other);
        assert!(!unread.hold(place(254), BYTES));
        (0..one).for_each(|_| unread.ends(place(0), BYTES));
        assert!(!unread.by_place.contains_key(&place(0)));
        assert!(unread.hold(place(254), BYTES));
    }

    #[test]
    fn an_answer_that_is_larger_than_all_is_held_alone() {
        let mut unread = Unread::new(BYTES_MAX);
        assert!(unread.hold(place(0), BYTES_MAX + 1));
        assert!(!unread.hold(place(0), 1));
        unread.ends(place(0), BYTES_MAX + 1);
        assert!(unread.hold(place(0), 1) && !unread.hold(place(1), 2 * BYTES_MAX));
    }
}
