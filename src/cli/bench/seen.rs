//! Which sequences of a store were acknowledged.

/// Sequences above are not believed: each takes a bit of memory here.
const SEQUENCE_MAX: u64 = 1 << 33;

/// The sequences of one store that acks have named, a bit each.
#[derive(Default)]
pub(super) struct Seen {
    words: Vec<u64>,
    count: u64,
    max: u64,
}

impl Seen {
    /// Takes in an acknowledged sequence; `false` if no entry can have it, or another one has it already.
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
        self.max = self.max.max(sequence);
        fresh
    }

    /// The greatest sequence so far.
    pub(super) const fn max(&self) -> u64 {
        self.max
    }

    /// How many sequences from 1 to the greatest were not acknowledged.
    pub(super) const fn missing(&self) -> u64 {
        self.max - self.count
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
        assert_eq!(seen.missing(), 197);
        assert!((2..200).filter(|sequence| *sequence != 3).all(|sequence| seen.insert(sequence)));
        assert_eq!(seen.missing(), 0);
    }
}
