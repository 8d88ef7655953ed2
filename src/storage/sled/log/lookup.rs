//! Answers which ids a store has.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::reader::Reader;
use crate::model::{EntryId, Segment, Sequence};
use crate::storage::StorageError;
use crate::storage::sled::dedup::{Block, Directory, FingerprintCache, Tail};
use crate::storage::sled::value::block::prefix;

/// How many segments' ids are kept from lookups: a batch that was sent before lies in one or two of them.
const RECENT_MAX: usize = 8;

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The store does not have it.
    Fresh,
    /// It has this sequence.
    At(Sequence),
    /// Only the disk can tell.
    Unsure,
}

/// What memory knows of a store's ids.
#[derive(Debug)]
pub(super) struct Ids {
    /// Those that are in no block.
    pub(super) tail: Tail,
    /// The blocks of the others.
    pub(super) directory: Directory,
}

impl Ids {
    /// What can be told without the disk.
    pub(super) fn known(&self, id: EntryId, generation: u64, cache: &FingerprintCache) -> Known {
        if let Some(sequence) = self.tail.find(id) {
            return Known::At(sequence);
        }
        let excluded = |block: &Block| {
            let prints = cache.get(generation, block.slot);
            prints.is_some_and(|prints| prints.places(id).next().is_none())
        };
        let fresh = self.directory.candidates(prefix(id)).all(excluded);
        if fresh { Known::Fresh } else { Known::Unsure }
    }
}

/// The ids of the segments that were looked into last.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<Arc<SegmentIds>>>);

#[derive(Debug)]
struct SegmentIds {
    first: Sequence,
    last: Sequence,
    /// By id.
    sorted: Vec<(EntryId, Sequence)>,
}

impl SegmentIds {
    fn of(segment: &Segment) -> Self {
        let mut sorted: Vec<_> = segment.ids().map(|(sequence, id)| (id, sequence)).collect();
        sorted.sort_unstable();
        Self { first: segment.first(), last: segment.last(), sorted }
    }

    fn find(&self, id: EntryId) -> Option<Sequence> {
        let (first, last) = (self.sorted.first()?.0, self.sorted.last()?.0);
        if id < first || id > last {
            return None;
        }
        let at = self.sorted.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(self.sorted[at].1)
    }
}

impl Recent {
    /// The sequence of `id`, if it is in one of these segments.
    pub(super) fn find(&self, id: EntryId) -> Option<Sequence> {
        self.0.lock().iter().find_map(|segment| segment.find(id))
    }

    fn holding(&self, at: Sequence) -> Option<Arc<SegmentIds>> {
        let recent = self.0.lock();
        recent.iter().find(|segment| (segment.first..=segment.last).contains(&at)).cloned()
    }

    fn push(&self, segment: Arc<SegmentIds>) {
        let mut recent = self.0.lock();
        recent.truncate(RECENT_MAX - 1);
        recent.push_front(segment);
    }
}

/// Looks into blocks on disk.
pub(super) struct DiskLookup<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) generation: u64,
    pub(super) cache: &'a FingerprintCache,
    pub(super) recent: &'a Recent,
}

impl DiskLookup<'_> {
    /// The sequence of `id`, if it is in one of `blocks`.
    pub(super) fn find(
        &self,
        id: EntryId,
        blocks: &[Block],
    ) -> Result<Option<Sequence>, StorageError> {
        for block in blocks {
            let prints = match self.cache.get(self.generation, block.slot) {
                Some(prints) => prints,
                None => {
                    let prints = self.reader.fingerprints(block.slot, block.count)?;
                    self.cache.insert(self.generation, block.slot, prints.clone());
                    prints
                }
            };
            for place in prints.places(id) {
                let at = block.first.plus(u64::from(place));
                if let Some(found) = self.segment_ids(at)?.find(id) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    fn segment_ids(&self, at: Sequence) -> Result<Arc<SegmentIds>, StorageError> {
        if let Some(recent) = self.recent.holding(at) {
            return Ok(recent);
        }
        let ids = Arc::new(SegmentIds::of(&self.reader.segment(at)?));
        self.recent.push(ids.clone());
        Ok(ids)
    }
}
