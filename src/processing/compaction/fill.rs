//! Fills indexes from logs: outside the write path, when somebody reads.

use std::sync::Arc;

use super::compactor::CompactorSet;
use super::kept::{Kept, StoreProjection};
use super::reader::{LogReader, scan};
use crate::core::projection::{Index, Moment, Rule, Sighting};
use crate::model::{EntryId, EntryRef, Sequence, record_len};
use crate::storage::{StorageError, StoreLog};

/// Memory is checked after this many entries.
const ACCOUNT_ENTRIES: u32 = if cfg!(test) { 4 } else { 4_096 };

/// Finds the compactor of one entry after another; neighbours mostly have the same event.
struct Matcher<'a> {
    set: &'a CompactorSet,
    event: String,
    compactor: Option<u32>,
}

impl<'a> Matcher<'a> {
    fn new(set: &'a CompactorSet) -> Self {
        // No event is empty, so this matches nothing.
        Self { set, event: String::new(), compactor: None }
    }

    fn sight<'e>(&mut self, sequence: Sequence, entry: &EntryRef<'e>) -> Option<Sighting<'e>> {
        if self.event != entry.event {
            self.compactor = self.set.of(entry.event);
            self.event.clear();
            self.event.push_str(entry.event);
        }
        self.compactor.map(|compactor| Sighting {
            sequence,
            compactor,
            primary_key: entry.primary_key,
            id: entry.id,
            bytes: record_len(entry),
        })
    }
}

/// How many entries before an index are looked up one by one; if there are more, the index begins with the first entry.
const EARLIER_MAX: usize = if cfg!(test) { 8 } else { 32 * 1_024 };

/// They may be far apart: about a segment is read for each, or a few that follow each other.
const EARLIER_READ_BYTES: usize = 64 * 1_024;

/// Shows the kept index every entry up to `head`, and the earlier ones that count. `false` if that takes more memory
/// than there is, even after `make_room` has dropped other stores. Blocks on disk reads.
pub(super) fn catch_up(
    projection: &StoreProjection,
    kept: &mut Kept,
    (log, head): (&Arc<dyn StoreLog>, Sequence),
    mut make_room: impl FnMut() -> bool,
) -> Result<bool, StorageError> {
    let fits = show(projection, kept, (log, head), &mut make_room)?;
    let missing = |index: &Index| Some((index.missing()?, index.base()));
    let Some((above, base)) = kept.index.as_ref().and_then(missing) else { return Ok(fits) };
    if let Some(earlier) = log.above(above, base, EARLIER_MAX)? {
        let shown = show_earlier(projection, kept, (log, above, &earlier), &mut make_room);
        // What was shown in vain must not add up.
        return shown.inspect_err(|_| kept.clear());
    }
    kept.begin(Index::new(projection.set.rules().clone(), Sequence::FIRST));
    show(projection, kept, (log, head), &mut make_room)
}

/// Shows the kept index every entry up to `head`.
fn show(
    projection: &StoreProjection,
    kept: &mut Kept,
    (log, head): (&Arc<dyn StoreLog>, Sequence),
    make_room: &mut impl FnMut() -> bool,
) -> Result<bool, StorageError> {
    let Some(from) = kept.index.as_ref().map(Index::next) else { return Ok(false) };
    let mut matcher = Matcher::new(&projection.set);
    let mut seen = 0;
    let fits = scan(log, (from, head), |sequence, entry| {
        let Some(index) = &mut kept.index else { return false };
        if let Some(sighting) = matcher.sight(sequence, &entry) {
            index.see(&sighting);
        }
        index.seen_before(sequence.next());
        if index.wants_pruning() {
            index.prune(&projection.floor());
        }
        seen += 1;
        seen % ACCOUNT_ENTRIES != 0 || fits_now(projection, kept, make_room)
    });
    if let (Ok(true), Some(index)) = (&fits, &mut kept.index) {
        // A gap may follow the last entry.
        index.seen_before(head.next());
    }
    // After an error too: others are answered from what it has seen.
    kept.index.iter_mut().for_each(Index::settle);
    Ok(fits? && fits_now(projection, kept, make_room))
}

/// Shows the kept index these entries from before its beginning, which are all those with ids above `above`.
fn show_earlier(
    projection: &StoreProjection,
    kept: &mut Kept,
    (log, above, earlier): (&Arc<dyn StoreLog>, EntryId, &[Sequence]),
    make_room: &mut impl FnMut() -> bool,
) -> Result<bool, StorageError> {
    let mut matcher = Matcher::new(&projection.set);
    let mut reader = LogReader::new(log, EARLIER_READ_BYTES);
    for (seen, sequence) in (1..).zip(earlier) {
        // An erased entry has only its id left, and is a gap.
        if reader.behind_gaps(*sequence)? == *sequence {
            let entry = reader.entry(*sequence)?;
            let sighting = matcher.sight(*sequence, &entry);
            if let (Some(index), Some(sighting)) = (&mut kept.index, sighting) {
                index.see_earlier(&sighting);
            }
        }
        if seen % ACCOUNT_ENTRIES == 0 && !fits_now(projection, kept, make_room) {
            return Ok(false);
        }
    }
    kept.index.iter_mut().for_each(|index| index.seen_earlier(above));
    Ok(fits_now(projection, kept, make_room))
}

/// Whether there is enough memory for the index, once it holds no more than the latest reader needs.
fn fits_now(
    projection: &StoreProjection,
    kept: &mut Kept,
    make_room: &mut impl FnMut() -> bool,
) -> bool {
    kept.account();
    if make_room() {
        return true;
    }
    if let (Some(index), Some(latest)) = (&mut kept.index, projection.latest()) {
        index.drop_records();
        index.prune(&latest);
    }
    kept.account();
    make_room()
}

/// An index for one reader only, from `cursor` as far as `bytes_max` permits, and for at least one position.
///
/// For stores whose index does not fit in memory. Goes through the log twice or more: first for the primary keys of the
/// entries ahead, then for what else is in their buckets. Blocks on disk reads.
pub(super) fn window(
    set: &CompactorSet,
    log: &Arc<dyn StoreLog>,
    (at, cursor): (&Moment, Sequence),
    (bytes_max, bucket_bytes_max): (usize, u64),
) -> Result<Index, StorageError> {
    let window = Window { set, log, at, cursor, bucket_bytes_max };
    let mut span_bytes = bytes_max;
    loop {
        let (mut index, end, entries) = window.look_ahead(span_bytes)?;
        index.end_at(end);
        let smallest = entries <= 1;
        if window.gather(&mut index, end, if smallest { usize::MAX } else { bytes_max })? {
            return Ok(index);
        }
        span_bytes /= 2;
    }
}

struct Window<'a> {
    set: &'a CompactorSet,
    log: &'a Arc<dyn StoreLog>,
    at: &'a Moment,
    cursor: Sequence,
    bucket_bytes_max: u64,
}

impl Window<'_> {
    /// Creates the buckets of the eligible entries from the cursor on, as far as `span_bytes` permits; returns where
    /// that ends, and how many entries there are before it.
    fn look_ahead(&self, span_bytes: usize) -> Result<(Index, Sequence, u64), StorageError> {
        let mut index = Index::new(self.set.rules().clone(), self.cursor);
        let mut matcher = Matcher::new(self.set);
        let (mut end, mut entries) = (self.cursor, 0);
        let all = scan(self.log, (self.cursor, self.at.head()), |sequence, entry| {
            let sighting = matcher.sight(sequence, &entry);
            if let Some(sighting) = sighting.filter(|sighting| self.is_eligible(sighting)) {
                index.bucket_of(sighting.compactor, sighting.primary_key);
            }
            end = sequence.next();
            entries += 1;
            index.bytes() + entries as usize / 8 < span_bytes
        })?;
        // A gap may follow the last entry.
        let end = if all { self.at.head().next() } else { end };
        Ok((index, end, entries))
    }

    /// Shows the index the eligible entries of its buckets. `false` if that takes more than `bytes_max`.
    fn gather(
        &self,
        index: &mut Index,
        end: Sequence,
        bytes_max: usize,
    ) -> Result<bool, StorageError> {
        let mut matcher = Matcher::new(self.set);
        let mut bucket_bytes = vec![0; index.buckets()];
        let drops_only = self.set.rules().iter().all(|rule| *rule == Rule::Drop);
        let from = if drops_only { self.cursor } else { Sequence::FIRST };
        let fits = scan(self.log, (from, self.at.head()), |sequence, entry| {
            let Some(sighting) = matcher.sight(sequence, &entry) else { return true };
            if !self.is_eligible(&sighting) || !self.matters(&sighting, end) {
                return true;
            }
            let Some(bucket) = index.find_bucket(sighting.compactor, sighting.primary_key) else {
                return true;
            };
            // A bucket that is already too large needs no more members: it is sent unchanged anyway.
            let bytes: &mut u64 = &mut bucket_bytes[bucket as usize];
            let rule = self.set.rules()[sighting.compactor as usize];
            if rule == Rule::Effect && *bytes > self.bucket_bytes_max {
                return true;
            }
            *bytes += sighting.bytes as u64;
            index.see(&sighting);
            if index.wants_pruning() {
                index.prune(self.at);
            }
            index.bytes() <= bytes_max
        })?;
        index.settle();
        index.seen_before(self.at.head().next());
        Ok(fits)
    }

    fn is_eligible(&self, entry: &Sighting<'_>) -> bool {
        self.at.eligible(entry.compactor, entry.id.created_at_millis(), entry.sequence)
    }

    /// Whether an entry can affect what is sent from the cursor to `end`.
    fn matters(&self, entry: &Sighting<'_>, end: Sequence) -> bool {
        match self.set.rules()[entry.compactor as usize] {
            Rule::Drop => entry.sequence >= self.cursor && entry.sequence < end,
            Rule::KeepLatest | Rule::Effect => true,
        }
    }
}
