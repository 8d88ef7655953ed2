//! Who waits among strangers: one line for each address, and the lines take turns.
//!
//! Keeps: whoever waits at an address is first within as many turns as there are addresses, however many wait at the
//! others; at one address, those with little input go before those with much, and then by age. Leaves out: what a turn
//! is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::Number;
use crate::core::strangers::Place;

/// Up to so many bytes are little: what a client usually sends first.
const LITTLE_BYTES: usize = 64 << 10;

/// A position in the line of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    has_much: bool,
    since: u64,
    number: Number,
}

impl Position {
    /// Of somebody who holds this many bytes of input that began at `since`.
    pub(super) const fn new(held: usize, since: u64, number: Number) -> Self {
        Self { has_much: held > LITTLE_BYTES, since, number }
    }
}

/// Everyone who waits. Cheap: each operation is logarithmic.
#[derive(Debug, Default)]
pub(super) struct Lines {
    by_place: BTreeMap<Place, BTreeSet<Position>>,
    /// Who had a turn last.
    last: Option<Place>,
    len: usize,
}

impl Lines {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, place: Place, position: Position) {
        self.len += usize::from(self.by_place.entry(place).or_default().insert(position));
    }

    pub(super) fn remove(&mut self, place: Place, position: Position) {
        let Some(line) = self.by_place.get_mut(&place) else { return };
        self.len -= usize::from(line.remove(&position));
        if line.is_empty() {
            self.by_place.remove(&place);
        }
    }

    /// Whether somebody waits before this position at its address.
    pub(super) fn is_behind(&self, place: Place, position: Position) -> bool {
        self.by_place.get(&place).and_then(BTreeSet::first).is_some_and(|first| *first < position)
    }

    /// Whose turn comes next.
    pub(super) fn next(&self) -> Option<Number> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.by_place.range((after, Bound::Unbounded)).next();
        let (_, line) = rest.or_else(|| self.by_place.first_key_value())?;
        line.first().map(|position| position.number)
    }

    /// Somebody from this address has a turn.
    pub(super) const fn took_turn(&mut self, place: Place) {
        self.last = Some(place);
    }

    /// Everyone who waits.
    pub(super) fn iter(&self) -> impl Iterator<Item = Number> {
        self.by_place.values().flatten().map(|position| position.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(last: u8) -> Place {
        Place::of(Some([127, 0, 0, last].into()))
    }

    #[test]
    fn addresses_take_turns_and_little_input_goes_first_at_one() {
        let mut lines = Lines::default();
        let all = [(1, 70_000, 1), (1, 70_000, 2), (1, 3_000, 3), (2, 900_000, 4), (1, 3_000, 5)];
        for (at, held, number) in all {
            lines.insert(place(at), Position::new(held, number, number));
        }
        assert_eq!(lines.len(), 5);
        assert!(lines.is_behind(place(1), Position::new(1_000, 9, 9)));
        assert!(!lines.is_behind(place(3), Position::new(1_000, 9, 9)));
        let mut order = Vec::new();
        while let Some(next) = lines.next() {
            order.push(next);
            let (at, held, number) = all[next as usize - 1];
            lines.remove(place(at), Position::new(held, number, number));
            lines.took_turn(place(at));
        }
        assert_eq!(order, [3, 4, 5, 1, 2]);
        assert_eq!((lines.len(), lines.iter().count()), (0, 0));
    }
}
