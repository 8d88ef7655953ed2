//! The times by which the entries of a store were committed: a time for the last entry in the tree, and one for each
//! earlier period of some minutes.
//!
//! Keeps: the time of an entry holds for all earlier ones. Only few entries have one, so that it costs next to nothing.

use super::portion::Portion;
use super::reader::Reader;
use crate::model::Sequence;
use crate::storage::StorageError;
use crate::storage::sled::key::{Ordinal, TimeKey};

/// A time by which the entries up to this one were committed, in milliseconds since 1970.
pub(crate) type TimeOf = (Sequence, u64);

/// The last times of a store in the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LastTimes {
    /// For the last entry.
    last: Option<TimeOf>,
    /// For the period before.
    before: Option<TimeOf>,
}

impl LastTimes {
    pub(super) fn read(reader: &Reader<'_>) -> Result<Self, StorageError> {
        let mut newest = reader.times(Sequence::FIRST).rev();
        Ok(Self { last: newest.next().transpose()?, before: newest.next().transpose()? })
    }

    /// Adds to `portion` that the entries up to `at` were committed by this time. It replaces the last time, if both
    /// are within this many milliseconds of the time before.
    pub(super) fn add(
        &mut self,
        ordinal: Ordinal,
        (at, time_ms): TimeOf,
        apart_ms: u64,
        portion: &mut Portion<'_>,
    ) {
        // Clocks may step back; the recorded times must ascend.
        let time_ms = time_ms.max(self.last.map_or(0, |(_, time)| time));
        if let Some((last, _)) = self.last {
            let begun = self.before.map_or(0, |(_, time)| time);
            if time_ms.saturating_sub(begun) >= apart_ms {
                self.before = self.last;
            } else {
                portion.remove(&TimeKey { ordinal, last }.to_bytes());
            }
        }
        let key = TimeKey { ordinal, last: at };
        portion.insert(&key.to_bytes(), time_ms.to_be_bytes().to_vec());
        self.last = Some((at, time_ms));
    }
}
