//! Compaction over a log in memory.

mod cases;
mod model;
mod resume;
mod typed;

use futures_util::FutureExt;

use super::*;
use crate::model::{Batch, Entry, EntryId, Origin, RemoteEntry, SegmentBuilder};
use crate::storage::Storage;
use crate::storage::memory::MemoryStorage;

pub(super) const DAY: Duration = Duration::from_millis(100);

/// A store, and what was appended to it.
pub(super) struct Feed {
    pub(super) store: StoreId,
    pub(super) log: Arc<dyn StoreLog>,
    pub(super) entries: Vec<Entry>,
}

impl Feed {
    pub(super) fn new() -> Self {
        let store = StoreId::new("team").expect("a name");
        let log = MemoryStorage::new().open(&store).expect("memory opens");
        Self { store, log, entries: Vec::new() }
    }

    /// Appends an entry that was created at `created`; a few of them share a segment.
    pub(super) fn append(&mut self, created: u64, event: &str, key: &str, payload: &[u8]) {
        self.append_all([(created, event, key, payload)]);
    }

    pub(super) fn append_all<'a>(
        &mut self,
        entries: impl IntoIterator<Item = (u64, &'a str, &'a str, &'a [u8])>,
    ) {
        let mut builder = SegmentBuilder::new(self.log.head().next());
        for (created, event, key, payload) in entries {
            let entry = Entry {
                id: id(created, self.entries.len() as u64),
                event: event.to_owned(),
                primary_key: key.to_owned(),
                payload: payload.to_vec().into(),
            };
            let batch = Batch::from_entries([entry.as_ref()]);
            let record = batch.record(0).expect("a slot");
            builder.push(record, &Origin::Server { run_handlers: false });
            self.entries.push(entry);
        }
        let appended = self.log.append(builder.finish()).now_or_never();
        appended.expect("memory is at once").expect("memory takes everything");
    }

    pub(super) fn backlog(&self, compaction: &Compaction, start: u64, now: u64) -> Backlog {
        let span = (at(start), self.log.head());
        compaction.backlog(&self.store, self.log.clone(), span, now)
    }

    /// Everything that a reader is sent, in pages of about `bytes_max`.
    pub(super) fn read(
        &self,
        compaction: &Compaction,
        (start, now): (u64, u64),
        bytes_max: usize,
    ) -> Vec<RemoteEntry> {
        rest(&mut self.backlog(compaction, start, now), bytes_max)
    }
}

pub(super) fn at(sequence: u64) -> Sequence {
    Sequence::new(sequence).expect("a small number")
}

/// A `UUIDv7` of that time; for the same time, a greater number gives a greater id.
fn id(created: u64, number: u64) -> EntryId {
    let mut bytes = [0x70; 16];
    bytes[..6].copy_from_slice(&created.to_be_bytes()[2..]);
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes[8] |= 0x80;
    EntryId::from_bytes(bytes)
}

pub(super) fn limits(compaction_bytes_max: usize) -> Limits {
    Limits { compaction_bytes_max, ..Limits::default() }
}

pub(super) fn next(backlog: &mut Backlog, bytes_max: usize) -> Option<Vec<RemoteEntry>> {
    let before = backlog.position();
    let page = match backlog.page_at_hand(bytes_max) {
        Some(page) => page,
        None => backlog.next_page(bytes_max).expect("memory reads")?,
    };
    assert_eq!(page.next(), backlog.position());
    let entries: Vec<RemoteEntry> = page
        .iter()
        .map(|(remote_sequence, entry)| RemoteEntry { remote_sequence, entry: entry.to_entry() })
        .collect();
    assert!(!entries.is_empty(), "no page is empty");
    assert!(entries.is_sorted_by_key(|entry| entry.remote_sequence));
    assert!(entries.iter().all(|entry| entry.remote_sequence >= before));
    assert!(entries.iter().all(|entry| entry.remote_sequence < page.next()));
    Some(entries)
}

pub(super) fn rest(backlog: &mut Backlog, bytes_max: usize) -> Vec<RemoteEntry> {
    let pages: Vec<_> = std::iter::from_fn(|| next(backlog, bytes_max)).collect();
    assert_eq!(backlog.position(), backlog.head().next().max(backlog.position()));
    pages.concat()
}

/// Sequence, event, primary key and payload of each.
pub(super) fn shown(entries: &[RemoteEntry]) -> Vec<(u64, &str, &str, &[u8])> {
    let all = entries.iter().map(|it| (it.remote_sequence.get(), &it.entry));
    all.map(|(at, it)| (at, &*it.event, &*it.primary_key, &*it.payload)).collect()
}
