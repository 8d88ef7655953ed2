//! How far something is that takes long, for whoever shows it to people.
//!
//! Keeps: it costs an addition for each piece. Leaves out: rates, estimates and terminals (the commands).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes of a rebuild or a restore are read, or copied by a compaction, of how many. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Work(Arc<Amounts>);

#[derive(Debug, Default)]
struct Amounts {
    done: AtomicU64,
    total: AtomicU64,
}

impl Work {
    /// Bytes that are read or copied.
    pub fn done(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }

    /// Bytes that have to be read, as far as that is known by now; 0 before it is. It may be a little more than what
    /// is then read, because files may end with unused space. A compaction copies at most so many: how much of the
    /// files is unused is known at its end.
    pub fn total(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    #[cfg(feature = "sled")]
    pub(crate) fn add(&self, bytes: u64) {
        self.0.done.fetch_add(bytes, Ordering::Relaxed);
    }

    #[cfg(feature = "sled")]
    pub(crate) fn expect(&self, bytes: u64) {
        self.0.total.fetch_add(bytes, Ordering::Relaxed);
    }
}
