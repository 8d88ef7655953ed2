//! What clients saw of one store, compared with what was promised to them. It knows numbers and names, and nothing about the
//! server.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The entry at each sequence, according to acknowledgements.
#[derive(Default)]
pub struct History {
    by_sequence: BTreeMap<u64, String>,
    by_name: HashMap<String, u64>,
    /// The entries that were acknowledged and lost. No other entry may ever get their sequences.
    lost: BTreeMap<u64, String>,
}

impl History {
    /// An ack said that the entry `name` is at `sequence`.
    pub fn acked(&mut self, sequence: u64, name: &str) {
        assert!(!self.lost.contains_key(&sequence), "{sequence} was given out before");
        let named = self.by_sequence.entry(sequence).or_insert_with(|| name.to_owned());
        assert_eq!(named, name, "two entries at {sequence}");
        let placed = *self.by_name.entry(name.to_owned()).or_insert(sequence);
        assert_eq!(placed, sequence, "two sequences for {name}");
    }

    /// The server was restored from an older copy, and this is its feed: a part of what was acknowledged. The other entries may come
    /// again with other sequences. Returns the number of these.
    pub fn restored(&mut self, feed: &[(u64, String)]) -> usize {
        let mut kept = BTreeMap::new();
        for (sequence, name) in feed {
            let was = self.by_sequence.remove(sequence);
            assert_eq!(was.as_ref(), Some(name), "at {sequence}");
            kept.insert(*sequence, name.clone());
        }
        let lost = std::mem::replace(&mut self.by_sequence, kept);
        for name in lost.values() {
            self.by_name.remove(name);
        }
        let count = lost.len();
        self.lost.extend(lost);
        count
    }

    /// Checks that everything that was lost was acknowledged again.
    pub fn check_nothing_is_lost(&self) {
        let missing = self.lost.values().filter(|name| !self.by_name.contains_key(*name));
        assert_eq!(missing.count(), 0, "of {} that were lost", self.lost.len());
    }

    /// Checks that the acknowledgements are about `count` entries, at 1, 2, 3 and so on.
    pub fn check_acks(&self, count: u64) {
        assert!(self.by_sequence.keys().copied().eq(1..=count), "acks have holes");
    }

    /// Checks that a feed, from its first entry on, matches the acknowledgements, without gap or repetition.
    pub fn check_feed(&self, feed: &[(u64, String)]) {
        let acked = self.by_sequence.iter().map(|(sequence, name)| (*sequence, name.as_str()));
        assert!(feed.iter().map(|(sequence, name)| (*sequence, name.as_str())).eq(acked));
    }
}

/// One connection that writes with the key it is subscribed with, from the first entry on.
#[derive(Default)]
pub struct Witness {
    /// The sequences that were delivered to it or acknowledged, in any order.
    seen: BTreeSet<u64>,
    delivered_last: u64,
}

impl Witness {
    /// A fresh or old sequence was delivered.
    pub fn delivered(&mut self, sequence: u64) {
        assert!(sequence > self.delivered_last, "{sequence} after {}", self.delivered_last);
        assert!(self.seen.insert(sequence), "{sequence} is its own, and was acknowledged");
        self.delivered_last = sequence;
    }

    /// A write was acknowledged: nothing below it may be missing.
    pub fn acked(&mut self, sequences: &[u64]) {
        self.seen.extend(sequences);
        let highest = sequences.iter().copied().max().unwrap_or(0);
        let below = self.seen.range(..=highest).count() as u64;
        assert_eq!(below, highest, "the ack of {highest} overtook an entry");
    }

    /// The number of entries that it knows of.
    pub fn count(&self) -> usize {
        self.seen.len()
    }
}
