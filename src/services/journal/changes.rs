//! The changes of one write, in one buffer: a write has up to thousands of them.

/// Keys to set and to remove. If a key is changed more than once, the last change counts.
#[derive(Clone, Debug, Default)]
pub struct JournalChanges {
    bytes: Vec<u8>,
    /// The length of each key and of its value; the value is `None` if the key is to be removed.
    lengths: Vec<(usize, Option<usize>)>,
}

impl JournalChanges {
    /// Sets `key` to `value`.
    pub fn set(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.lengths.push((key.len(), Some(value.len())));
    }

    /// Removes `key`, if it is there.
    pub fn remove(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.lengths.push((key.len(), None));
    }

    /// Adds `later`, to be made after these.
    pub fn append(&mut self, later: &Self) {
        self.bytes.extend_from_slice(&later.bytes);
        self.lengths.extend_from_slice(&later.lengths);
    }

    /// Whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The changes in order: each key with its value, or `None` if it is to be removed.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut rest = &self.bytes[..];
        self.lengths.iter().map(move |(key, value)| {
            let mut take = |count: usize| {
                let (taken, left) = rest.split_at(count);
                rest = left;
                taken
            };
            (take(*key), value.map(&mut take))
        })
    }
}
