//! One piece of a backlog, as it is sent.

use std::sync::Arc;

use super::reader::LogReader;
use crate::core::projection::{AtHand, Plan, Step};
use crate::model::{EntryRef, RecordReader, Segment, Sequence, write_record};
use crate::storage::{StorageError, StoreLog};

/// Kept entries may be far apart: no more than a few segments are read for one.
const READ_AHEAD_BYTES: usize = 64 * 1_024;

/// Consecutive pieces of a backlog. It ends between messages: what shares a sequence is in one page.
#[derive(Debug)]
pub(crate) struct Page {
    content: Content,
    next: Sequence,
}

#[derive(Debug)]
enum Content {
    /// Entries as they are stored, from the first sequence to the second.
    Stored(Vec<Segment>, Sequence, Sequence),
    Copied(Copied),
}

/// Entries that are not consecutive.
#[derive(Debug, Default)]
struct Copied {
    sequences: Vec<Sequence>,
    records: Vec<u8>,
}

impl Page {
    /// Where the reader continues: the position after this page in the stored feed, which may be far beyond the last
    /// sequence in it.
    pub(crate) const fn next(&self) -> Sequence {
        self.next
    }

    /// Its entries, ascending by sequence; replacements of one bucket share one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Sequence, EntryRef<'_>)> {
        let (stored, copied) = match &self.content {
            Content::Stored(segments, first, last) => {
                let all = segments.iter().flat_map(Segment::iter);
                (Some(all.filter(move |(at, _)| at >= first && at <= last)), None)
            }
            Content::Copied(copied) => {
                // This module wrote the records, so none is malformed.
                let entries = RecordReader::new(&copied.records).filter_map(Result::ok);
                (None, Some(copied.sequences.iter().copied().zip(entries)))
            }
        };
        stored.into_iter().flatten().chain(copied.into_iter().flatten())
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        match &self.content {
            Content::Stored(segments, first, last) => {
                let entries = segments.iter().filter(|segment| !segment.is_gap());
                let within = entries.map(|segment| {
                    segment.last().min(*last).next().since(segment.first().max(*first))
                });
                within.sum::<u64>() as usize
            }
            Content::Copied(copied) => copied.sequences.len(),
        }
    }

    /// How many bytes its entries take as records, or slightly more.
    pub(crate) fn record_bytes(&self) -> usize {
        match &self.content {
            Content::Stored(segments, ..) => {
                segments.iter().map(|segment| segment.records().len()).sum()
            }
            Content::Copied(copied) => copied.records.len(),
        }
    }

    /// The segments that it passes through unchanged, if it consists only of those. The first one may begin before the
    /// reader's position, and the last one may end after [`Page::next`]: those entries are not part of the page.
    #[cfg(test)]
    pub(crate) fn segments(&self) -> Option<&[Segment]> {
        match &self.content {
            Content::Stored(segments, ..) => Some(segments),
            Content::Copied(_) => None,
        }
    }

    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<AtHand> for Page {
    fn from(AtHand { sequences, records, next }: AtHand) -> Self {
        Self { content: Content::Copied(Copied { sequences, records }), next }
    }
}

/// Carries out the front of a plan, about `bytes_max` bytes of it. `keep` receives the records of entries that stand
/// for a bucket. Blocks on disk reads.
pub(super) fn carry_out(
    plan: &Plan,
    log: &Arc<dyn StoreLog>,
    bytes_max: usize,
    keep: impl FnMut(u32, Sequence, &[u8]),
) -> Result<Page, StorageError> {
    if let Some(&Step::Raw { first, last }) = plan.steps.first() {
        let only = plan.steps.len() == 1;
        if let Some(page) = pass_through((first, last, only), log, bytes_max)? {
            return Ok(page);
        }
    }
    copy(plan, log, bytes_max, keep)
}

/// Segments within a run of unchanged entries, unless that makes a small page and there is more.
fn pass_through(
    (first, last, only): (Sequence, Sequence, bool),
    log: &Arc<dyn StoreLog>,
    bytes_max: usize,
) -> Result<Option<Page>, StorageError> {
    let mut segments = log.read(first, bytes_max)?;
    segments.retain(|segment| only && segment.first() <= last || segment.last() <= last);
    let bytes: usize = segments.iter().map(|segment| segment.records().len()).sum();
    let Some(end) = segments.last().map(Segment::last) else { return Ok(None) };
    if !only && bytes < bytes_max / 2 {
        return Ok(None);
    }
    let last = end.min(last);
    Ok(Some(Page { content: Content::Stored(segments, first, last), next: last.next() }))
}

fn copy(
    plan: &Plan,
    log: &Arc<dyn StoreLog>,
    bytes_max: usize,
    mut keep: impl FnMut(u32, Sequence, &[u8]),
) -> Result<Page, StorageError> {
    let mut copied = Copied::default();
    let mut reader = LogReader::new(log, READ_AHEAD_BYTES);
    for step in &plan.steps {
        match step {
            Step::Raw { first, last } => {
                let mut sequence = *first;
                loop {
                    sequence = reader.behind_gaps(sequence)?;
                    if sequence > *last {
                        break;
                    }
                    copied.push(sequence, &reader.entry(sequence)?);
                    sequence = sequence.next();
                    if copied.records.len() >= bytes_max {
                        return Ok(Page { content: Content::Copied(copied), next: sequence });
                    }
                }
            }
            Step::Latest { sequence, bucket } => {
                let start = copied.records.len();
                copied.push(*sequence, &reader.entry(*sequence)?);
                keep(*bucket, *sequence, &copied.records[start..]);
            }
            // Effects write up to a whole message: nothing else fits into that one.
            Step::Replaced { sequence, records }
                if !copied.records.is_empty()
                    && copied.records.len() + records.len() > bytes_max =>
            {
                return Ok(Page { content: Content::Copied(copied), next: *sequence });
            }
            Step::Replaced { sequence, records } => copied.extend(*sequence, records),
        }
        if copied.records.len() >= bytes_max {
            return Ok(Page { content: Content::Copied(copied), next: step.last().next() });
        }
    }
    Ok(Page { content: Content::Copied(copied), next: plan.next })
}

impl Copied {
    fn push(&mut self, sequence: Sequence, entry: &EntryRef<'_>) {
        self.sequences.push(sequence);
        write_record(&mut self.records, entry);
    }

    fn extend(&mut self, sequence: Sequence, records: &[u8]) {
        self.records.extend_from_slice(records);
        let mut reader = RecordReader::new(records);
        while reader.remaining() > 0 && reader.skip_one().is_ok() {
            self.sequences.push(sequence);
        }
    }
}
