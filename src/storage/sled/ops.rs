//! What a commit changes in one tree.

use std::sync::atomic::{AtomicUsize, Ordering};

use sled::IVec;

/// How many batches are being applied. Sled has one lock for all databases of the process: meanwhile every read waits.
static BATCHES: AtomicUsize = AtomicUsize::new(0);

/// Whether a read of sled has to wait for a batch: for some tens of milliseconds, if the batch is large.
pub(super) fn is_locked() -> bool {
    BATCHES.load(Ordering::Relaxed) > 0
}

/// Counts a batch until it is dropped.
pub(super) struct Applying;

impl Applying {
    pub(super) fn begin() -> Self {
        BATCHES.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Applying {
    fn drop(&mut self) {
        BATCHES.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The longest value that may be committed, in bytes: a tree page full of such values still fits in sled's log and
/// never becomes a file of its own, which a sync of the log would miss.
pub const VALUE_BYTES_MAX: usize = 60_000;

/// Changes to one tree, stored all or none. If a key is changed more than once, the last change counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ops {
    ops: Vec<(IVec, Option<IVec>)>,
}

impl Ops {
    /// Sets `key` to `value`, of at most [`VALUE_BYTES_MAX`] bytes.
    pub(crate) fn insert(&mut self, key: impl Into<IVec>, value: impl Into<IVec>) {
        self.ops.push((key.into(), Some(value.into())));
    }

    /// Removes `key`, if it is there.
    pub(crate) fn remove(&mut self, key: impl Into<IVec>) {
        self.ops.push((key.into(), None));
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The length of its longest value.
    pub(super) fn value_bytes_longest(&self) -> usize {
        let values = self.ops.iter().filter_map(|(_, value)| value.as_ref());
        values.map(|value| value.len()).max().unwrap_or(0)
    }

    /// The changes, in order; `None` removes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.ops.iter().map(|(key, value)| (&key[..], value.as_deref()))
    }

    /// Changes `tree`, all or nothing.
    pub(super) fn apply(mut self, tree: &sled::Tree) -> sled::Result<()> {
        // A single change needs no batch, which sled begins with a separate write to its file.
        if self.ops.len() == 1
            && let Some((key, value)) = self.ops.pop()
        {
            return match value {
                Some(value) => tree.insert(key, value).map(drop),
                None => tree.remove(key).map(drop),
            };
        }
        let batch = self.into_batch();
        let _applying = Applying::begin();
        tree.apply_batch(batch)
    }

    fn into_batch(self) -> sled::Batch {
        let mut batch = sled::Batch::default();
        for (key, value) in self.ops {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        batch
    }
}

impl IntoIterator for Ops {
    type Item = (IVec, Option<IVec>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.ops.into_iter()
    }
}
