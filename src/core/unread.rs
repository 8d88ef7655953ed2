//! How many bytes of answers may wait for strangers who do not read them.
//!
//! Keeps: the sum is bounded; one place cannot use the space of others. Leaves out: how long an answer may wait
//! (`server::talk`).

use std::collections::HashMap;

use super::strangers::Place;

/// The most bytes that may wait, before those of one place that has many are refused.
const BYTES_MAX: usize = 8 * 1_024 * 1_024;
/// A place with this fraction of them has many. Others may have as much again, together.
const FEW: usize = 16;

/// All answers that wait.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    bytes: usize,
    by_place: HashMap<Place, usize>,
}

impl Unread {
    /// An answer waits. `false` if there is no space for it.
    #[must_use]
    pub(crate) fn wait(&mut self, place: Place, bytes: usize) -> bool {
        let there = self.by_place.get(&place).copied().unwrap_or_default();
        let has_few = there + bytes <= BYTES_MAX / FEW;
        let bytes_max = if has_few { 2 * BYTES_MAX } else { BYTES_MAX };
        if self.bytes + bytes > bytes_max {
            return false;
        }
        self.bytes += bytes;
        self.by_place.insert(place, there + bytes);
        true
    }

    /// One that waited has been read, or its connection has ended.
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

    #[test]
    fn one_place_cannot_use_the_space_of_others() {
        const BYTES: usize = 100_000;
        let mut unread = Unread::default();
        let one = (0..1_000).filter(|_| unread.wait(place(0), BYTES)).count();
        assert_eq!(one, BYTES_MAX / BYTES);
        let other = (0..1_000).filter(|_| unread.wait(place(1), BYTES)).count();
        assert_eq!(other, BYTES_MAX / FEW / BYTES);
        let others = (2..=255).filter(|last| unread.wait(place(*last), BYTES)).count();
        assert_eq!(others, 2 * BYTES_MAX / BYTES - one - other);
        assert!(!unread.wait(place(254), BYTES));
        (0..one).for_each(|_| unread.ends(place(0), BYTES));
        assert!(!unread.by_place.contains_key(&place(0)));
        assert!(unread.wait(place(254), BYTES));
    }

    #[test]
    fn an_answer_that_is_larger_than_all_is_refused() {
        assert!(!Unread::default().wait(place(0), BYTES_MAX + 1));
    }
}
