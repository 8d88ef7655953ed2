//! Which sequences of a store have no entry, and so the positions of its entries among each other.
//!
//! The *place* of an entry says how many entries there are up to it: 1, 2, 3 and so on, whatever gaps the store has.
//! Without gaps it is the sequence. Code that counts entries (`ids`) knows only places.

use crate::model::varint::{read_uvarint, write_uvarint};
use crate::model::{Segment, Sequence};

/// The gaps of a store: few, ascending, none next to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gaps {
    runs: Vec<(Sequence, Sequence)>,
}

impl Gaps {
    /// Adds a gap, which comes after the existing ones, or is one of them again.
    pub(crate) fn add(&mut self, gap: &Segment) {
        match self.runs.last_mut() {
            Some((_, last)) if gap.first() <= last.next() => *last = gap.last().max(*last),
            _ => self.runs.push((gap.first(), gap.last())),
        }
    }

    /// How many sequences they contain.
    pub(crate) fn total(&self) -> u64 {
        self.runs.iter().map(|(first, last)| last.next().since(*first)).sum()
    }

    /// How many entries there are up to `sequence`.
    pub(crate) fn place(&self, sequence: Sequence) -> Sequence {
        let before = self.runs.iter().take_while(|(first, _)| *first <= sequence);
        let empty: u64 =
            before.map(|(first, last)| (*last.min(&sequence)).next().since(*first)).sum();
        Sequence::ZERO.plus(sequence.get().saturating_sub(empty))
    }

    /// The sequence of the entry at `place`.
    pub(crate) fn sequence(&self, place: Sequence) -> Sequence {
        let behind = |at: Sequence, (first, last): &(Sequence, Sequence)| {
            if at < *first { at } else { at.plus(last.next().since(*first)) }
        };
        self.runs.iter().fold(place, behind)
    }

    /// Adds them to a record: their number, then for each its first sequence and its length. Nothing if there are none.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        if self.runs.is_empty() {
            return;
        }
        write_uvarint(out, self.runs.len() as u64);
        for (first, last) in &self.runs {
            write_uvarint(out, first.get());
            write_uvarint(out, last.next().since(*first));
        }
    }

    /// Reads what [`Gaps::write`] wrote, to the end of the record.
    pub(crate) fn read(mut rest: &[u8]) -> Option<Self> {
        let mut gaps = Self::default();
        if rest.is_empty() {
            return Some(gaps);
        }
        let mut before = Sequence::ZERO;
        for _ in 0..read_uvarint(&mut rest)? {
            let (first, count) = (read_uvarint(&mut rest)?, read_uvarint(&mut rest)?);
            let last = Sequence::new(first.checked_add(count.checked_sub(1)?)?).ok()?;
            let first = Sequence::new(first).ok()?;
            if first <= before.next() && before > Sequence::ZERO || first == Sequence::ZERO {
                return None;
            }
            gaps.runs.push((first, last));
            before = last;
        }
        rest.is_empty().then_some(gaps)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(number: u64) -> Sequence {
        Sequence::new(number).expect("a small number")
    }

    proptest! {
        #[test]
        fn places_count_the_entries_and_lead_back(
            spans in proptest::collection::vec((any::<bool>(), 1..40_u32), 0..12),
        ) {
            let (mut gaps, mut next, mut entries) = (Gaps::default(), at(1), Vec::new());
            for (is_gap, count) in spans {
                let span = Segment::gap(next, count).expect("a gap");
                if is_gap {
                    gaps.add(&span);
                    gaps.add(&span);
                } else {
                    entries.extend((0..u64::from(count)).map(|n| next.plus(n)));
                }
                next = span.last().next();
            }
            prop_assert_eq!(gaps.total() + entries.len() as u64, next.prev().get());
            for sequence in 1..next.get() {
                let up_to = entries.iter().filter(|entry| **entry <= at(sequence)).count();
                prop_assert_eq!(gaps.place(at(sequence)), at(up_to as u64));
            }
            for (place, sequence) in (1..).zip(&entries) {
                prop_assert_eq!(gaps.sequence(at(place)), *sequence);
            }
            // The next one comes after all of them.
            prop_assert_eq!(gaps.sequence(at(entries.len() as u64 + 1)), next);
            let mut record = Vec::new();
            gaps.write(&mut record);
            prop_assert_eq!(Gaps::read(&record), Some(gaps));
        }

        #[test]
        fn malformed_gaps_are_refused(record: Vec<u8>) {
            if let Some(gaps) = Gaps::read(&record) {
                prop_assert!(gaps.runs.windows(2).all(|two| two[0].1.next() < two[1].0));
                prop_assert!(gaps.runs.iter().all(|(first, last)| at(1) <= *first && first <= last));
            }
        }
    }
}
