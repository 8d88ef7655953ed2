//! Finds the entries that conflict with a given one: of the same event and primary key, committed before it, with a
//! greater id.
//!
//! An entry whose id is greater than all before it has none, and that holds for nearly all of a feed. For the others,
//! rows in the journal contain ids and sequences; the entries themselves are read from the feed.
//!
//! Keeps: a lookup costs the same whatever the size of the journal; many lookups share one read of it. An entry that a
//! row names and the feed does not have is not a conflict. Leaves out: when rows are written (`lane`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::replay::{Interrupted, ReadFeed, read_blocking};
use crate::model::{EntryId, EntryRef, RemoteEntry, RemoteId, Segment, Sequence, record_len};
use crate::services::journal::layout::{self, ID_MAX, Subject};
use crate::services::journal::{EventJournal, JournalError, JournalRange};

/// Most conflicts that are returned for an entry.
pub const CONFLICTS_MAX: usize = 1_000;
/// Most bytes in them; a single conflict is returned whatever its size.
pub const CONFLICT_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// How many bytes of entries are kept for the next lookup: those of a frequently written primary key are requested
/// again and again.
const CACHE_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// How many segments of the feed are held during one lookup.
const SEGMENTS_MAX: usize = 32;

/// The result of a lookup.
#[derive(Clone, Debug, Default)]
pub(super) struct Conflicts {
    /// In the order of their ids.
    pub(super) entries: Vec<Arc<RemoteEntry>>,
    /// Whether some were left out because of their number or size.
    pub(super) cut: bool,
}

/// Ids with their sequences.
pub(super) type Found = BTreeMap<EntryId, Sequence>;

/// An entry to look up.
pub(super) struct Late {
    pub(super) subject: Subject,
    pub(super) id: EntryId,
    /// Rows from this sequence on are left out.
    pub(super) sequence: Sequence,
}

/// The rows of the journal that conflict with each of `late`: those with the greatest ids, one more than are returned.
pub(super) async fn look_up(
    journal: &dyn EventJournal,
    origin: RemoteId,
    late: &[Late],
) -> Result<Vec<Found>, JournalError> {
    let mut found: Vec<Found> = late.iter().map(|_| Found::new()).collect();
    let range = |at: usize, below: EntryId| JournalRange {
        first: layout::row(origin, &late[at].subject, above(late[at].id)).to_vec(),
        last: layout::row(origin, &late[at].subject, below).to_vec(),
        count: CONFLICTS_MAX + 1,
        backwards: true,
    };
    let mut asked: Vec<(usize, EntryId)> = (0..late.len()).map(|at| (at, ID_MAX)).collect();
    while !asked.is_empty() {
        let ranges = asked.iter().map(|(at, below)| range(*at, *below)).collect();
        let rows = journal.read(ranges).await?;
        let mut again = Vec::new();
        for ((at, _), rows) in asked.into_iter().zip(rows) {
            let (one, found) = (&late[at], &mut found[at]);
            let full = rows.len() > CONFLICTS_MAX;
            let mut last = one.id;
            for row in &rows {
                let (id, sequence) = layout::read_row(row)?;
                last = id;
                // Rows of later entries exist after a rewind, and where another group had the event.
                if sequence < one.sequence && id > one.id {
                    found.insert(id, sequence);
                }
            }
            if full && found.len() <= CONFLICTS_MAX && last > one.id {
                again.push((at, below(last)));
            }
        }
        asked = again;
    }
    Ok(found)
}

fn above(id: EntryId) -> EntryId {
    EntryId::from_bytes(u128::from_be_bytes(*id.as_bytes()).saturating_add(1).to_be_bytes())
}

fn below(id: EntryId) -> EntryId {
    EntryId::from_bytes(u128::from_be_bytes(*id.as_bytes()).saturating_sub(1).to_be_bytes())
}

/// The size of an entry: its names can be as long as its payload.
fn size(entry: &RemoteEntry) -> usize {
    record_len(&entry.entry.as_ref())
}

/// Entries that were recently returned as conflicts.
#[derive(Default)]
pub(super) struct Cache {
    entries: HashMap<Sequence, Arc<RemoteEntry>>,
    bytes: usize,
}

impl Cache {
    fn insert(&mut self, entry: &Arc<RemoteEntry>) {
        if self.bytes > CACHE_BYTES_MAX {
            *self = Self::default();
        }
        self.bytes += size(entry);
        self.entries.insert(entry.remote_sequence, Arc::clone(entry));
    }
}

/// The entries that `found` names, as far as they conflict with `entry`.
pub(super) async fn fetch(
    feed: &ReadFeed,
    cache: &mut Cache,
    entry: &EntryRef<'_>,
    found: Found,
) -> Result<Conflicts, Interrupted> {
    let cached = |(id, sequence)| (id, sequence, cache.entries.get(&sequence).cloned());
    let wanted: Vec<_> = found.into_iter().rev().map(cached).collect();
    let entries = if wanted.iter().all(|(.., cached)| cached.is_some()) {
        wanted.into_iter().filter_map(|(.., cached)| cached).collect()
    } else {
        let feed = Arc::clone(feed);
        read_blocking(move || read_all(&feed, wanted)).await?
    };
    let same = |one: &Arc<RemoteEntry>| {
        one.entry.event == entry.event && one.entry.primary_key == entry.primary_key
    };
    let mut conflicts = Conflicts::default();
    let mut bytes = 0;
    for one in entries.into_iter().filter(same) {
        bytes += size(&one);
        let full = conflicts.entries.len() == CONFLICTS_MAX || bytes > CONFLICT_BYTES_MAX;
        if full && !conflicts.entries.is_empty() {
            conflicts.cut = true;
            break;
        }
        cache.insert(&one);
        conflicts.entries.push(one);
    }
    conflicts.entries.reverse();
    Ok(conflicts)
}

type Wanted = (EntryId, Sequence, Option<Arc<RemoteEntry>>);

/// Reads what is not cached, until there are more bytes than are returned.
fn read_all(
    feed: &ReadFeed,
    wanted: Vec<Wanted>,
) -> Result<Vec<Arc<RemoteEntry>>, crate::storage::StorageError> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut entries = Vec::with_capacity(wanted.len());
    let mut bytes = 0;
    for (id, sequence, cached) in wanted {
        let entry = match cached {
            Some(entry) => Some(entry),
            None => read_one(feed, &mut segments, id, sequence)?,
        };
        let Some(entry) = entry else { continue };
        bytes += size(&entry);
        entries.push(entry);
        if bytes > CONFLICT_BYTES_MAX {
            break;
        }
    }
    Ok(entries)
}

/// The entry at `sequence`, unless it has another id: then the row belongs to another feed.
fn read_one(
    feed: &ReadFeed,
    segments: &mut Vec<Segment>,
    id: EntryId,
    sequence: Sequence,
) -> Result<Option<Arc<RemoteEntry>>, crate::storage::StorageError> {
    let holds = |segment: &&Segment| segment.first() <= sequence && segment.last() >= sequence;
    if !segments.iter().any(|segment| holds(&segment)) {
        if segments.len() > SEGMENTS_MAX {
            segments.clear();
        }
        segments.extend(feed(sequence, 1)?);
    }
    let mut found = segments.iter().find(holds).into_iter().flat_map(Segment::iter);
    let found = found.find(|(at, entry)| *at == sequence && entry.id == id);
    Ok(found
        .map(|(at, entry)| Arc::new(RemoteEntry { remote_sequence: at, entry: entry.to_entry() })))
}
