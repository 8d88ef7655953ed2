//! Which sequences of a store were acknowledged.

/// Greater sequences are not accepted: each takes a bit of memory here.
const SEQUENCE_MAX: u64 = 1 << 33;

/// The sequences of one store that acks have named, one bit each.
#[derive(Default)]
pub(super) struct Seen {
    words: Vec<u64>,
    count: u64,
    /// Zero if there is none.
    min: u64,
    max: u64,
}

impl Seen {
    /// Adds an acknowledged sequence; `false` if no entry can have it, or it was already added.
    pub(super) fn insert(&mut self, sequence: u64) -> bool {
        if sequence == 0 || sequence > SEQUENCE_MAX {
            return false;
        }
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if word >= self.words.len() {
            self.words.resize((word + 1).next_power_of_two(), 0);
        }
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(fresh);
        self.min = if self.min == 0 { sequence } else { self.min.min(sequence) };
        self.max = self.max.max(sequence);
        fresh
    }

    /// The greatest sequence so far.
    pub(super) const fn max(&self) -> u64 {
        self.max
    }

    /// The least sequence so far, zero if there is none.
    pub(super) const fn min(&self) -> u64 {
        self.min
    }

    /// How many sequences up to the greatest were not acknowledged; counted from 1 if the store was empty, otherwise
    /// from the least one.
    pub(super) const fn missing(&self, was_empty: bool) -> u64 {
        let before = if was_empty { 0 } else { self.min.saturating_sub(1) };
        self.max - before - self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_counts_once_and_a_hole_shows() {
        let mut seen = Seen::default();
        assert!(seen.insert(1) && seen.insert(3) && seen.insert(200));
        assert!(!seen.insert(3));
        assert!(!seen.insert(0) && !seen.insert(u64::MAX));
        assert_eq!(seen.missing(true), 197);
        assert!((2..200).filter(|sequence| *sequence != 3).all(|sequence| seen.insert(sequence)));
        assert_eq!(seen.missing(true), 0);
    }

    #[test]
    fn what_a_store_had_before_is_not_missing() {
        let mut seen = Seen::default();
        assert_eq!(seen.missing(false), 0);
        assert!([1_001, 1_000, 1_003].into_iter().all(|sequence| seen.insert(sequence)));
        assert_eq!((seen.min(), seen.missing(false)), (1_000, 1));
    }
}
