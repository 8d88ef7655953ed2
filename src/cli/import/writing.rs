//! Imports entries in batches, and counts the results.
//!
//! Keeps: entries are written in order; what is counted is stored. Leaves out: where they come from, and how a batch
//! gets to its store.

use std::collections::BTreeMap;

use eventlog_server::model::{Entry, Sequence, StoreId};
use eventlog_server::protocol::lines::{Complete, End, Head, Line, LineEntry};

use super::At;
use super::lines::LineError;
use super::target::{NotWritten, write};
use crate::cli::place::Place;

/// Most entries in a batch.
const BATCH_ENTRIES: usize = 1_000;

/// A batch is closed when its names and payloads reach this size, in bytes.
const BATCH_BYTES: usize = 1 << 20;

/// How many of the missing things are listed.
const MISSING_TOLD: usize = 5;

/// How much of a store was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) entries: u64,
    /// How many of them did not exist before.
    pub(super) new: u64,
}

/// A batch was refused.
#[derive(Debug, thiserror::Error)]
#[error(
    "{first}, which is entry 0, to {last}: {cause}; everything before them is imported. You can import everything again: \
     existing entries are not written twice"
)]
pub(in crate::cli) struct Refused {
    first: At,
    last: At,
    cause: NotWritten,
}

/// The store of the lines.
#[derive(Clone, Debug)]
struct Section {
    /// Its name in the lines.
    store: StoreId,
    /// The sequence of the last entry.
    last: Sequence,
    /// How many there were since the last head.
    entries: u64,
    is_ended: bool,
}

/// What is being imported.
pub(super) struct Writing<'a> {
    place: &'a Place,
    /// If set, everything goes there.
    store: Option<StoreId>,
    run_handlers: bool,
    section: Option<Section>,
    /// Whether the last line of the output was there.
    is_complete: bool,
    batch: Vec<Entry>,
    bytes: usize,
    first: At,
    last: At,
    tallies: BTreeMap<StoreId, Tally>,
    missing: Vec<String>,
}

impl<'a> Writing<'a> {
    pub(super) fn new(place: &'a Place, store: Option<StoreId>, run_handlers: bool) -> Self {
        Self {
            place,
            store,
            run_handlers,
            section: None,
            is_complete: false,
            batch: Vec::new(),
            bytes: 0,
            first: At::Line(0),
            last: At::Line(0),
            tallies: BTreeMap::new(),
            missing: Vec::new(),
        }
    }

    /// The next line.
    pub(super) fn line(&mut self, number: u64, line: Line) -> Result<(), super::ImportError> {
        let out_of_place = |what: String| LineError::OutOfPlace { line: number, what };
        match line {
            Line::Head(head) => {
                self.flush()?;
                self.begin(head).map_err(out_of_place)?;
            }
            Line::Entry(entry) => {
                let store = self.place_of(&entry).map_err(out_of_place)?;
                self.push(&store, At::Line(number), entry.entry)?;
            }
            Line::End(end) => {
                self.flush()?;
                self.end(&end).map_err(out_of_place)?;
            }
            Line::Complete(Complete { .. }) => self.is_complete = true,
        }
        Ok(())
    }

    /// A store begins or continues.
    fn begin(&mut self, head: Head) -> Result<(), String> {
        self.is_complete = false;
        let before = self.section.take();
        let is_same = before.as_ref().is_some_and(|before| before.store == head.store);
        if let (Some(before), false, true) = (&before, is_same, self.store.is_some()) {
            let (first, second) = (&before.store, &head.store);
            return Err(format!(
                "these are lines of several stores, {first:?} and {second:?}: without --store each goes to its own"
            ));
        }
        let mut last = head.from.prev();
        match before {
            Some(before) if is_same => {
                if head.filter.is_empty() && before.last.next() < head.from {
                    let (from, to) = (before.last.next(), head.from.prev());
                    self.lack(format!("{:?} from {from} to {to}", head.store));
                }
                last = last.max(before.last);
            }
            Some(before) if !before.is_ended => self.lack(format!("the end of {:?}", before.store)),
            _ => {}
        }
        self.section = Some(Section { store: head.store, last, entries: 0, is_ended: false });
        Ok(())
    }

    /// The store that an entry goes to.
    fn place_of(&mut self, entry: &LineEntry) -> Result<StoreId, String> {
        if let Some(section) = &mut self.section {
            if let Some(sequence) = entry.sequence {
                if sequence <= section.last {
                    let last = section.last;
                    return Err(format!("sequence {sequence} comes after sequence {last}"));
                }
                section.last = sequence;
            }
            section.entries += 1;
        }
        let section = self.section.as_ref().map(|section| &section.store);
        let store = self.store.as_ref().or(section);
        store.cloned().ok_or_else(|| "no line names a store: give --store".to_owned())
    }

    fn end(&mut self, end: &End) -> Result<(), String> {
        let Some(section) = self.section.as_mut().filter(|one| one.store == end.store) else {
            return Err(format!("store {:?} ends but did not begin", end.store));
        };
        section.is_ended = true;
        let (found, expected) = (section.entries, end.entries);
        if found != expected {
            self.lack(format!(
                "{:?} should have {expected} entries here, and has {found}",
                end.store
            ));
        }
        Ok(())
    }

    fn lack(&mut self, what: String) {
        self.missing.truncate(MISSING_TOLD);
        self.missing.push(what);
    }

    /// There are no more lines.
    pub(super) fn end_of_lines(&mut self) {
        if self.section.is_some() && !self.is_complete {
            self.lack(
                "the last line, which says that the export is complete; the export was cut off"
                    .to_owned(),
            );
        }
    }

    /// An entry for `store`.
    pub(super) fn push(&mut self, store: &StoreId, at: At, entry: Entry) -> Result<(), Refused> {
        if self.batch.is_empty() {
            self.first = at;
        }
        self.last = at;
        self.bytes += entry.event.len() + entry.primary_key.len() + entry.payload.len();
        self.batch.push(entry);
        if self.batch.len() >= BATCH_ENTRIES || self.bytes >= BATCH_BYTES {
            self.write(&store.clone())?;
        }
        Ok(())
    }

    /// Writes what is left.
    pub(super) fn flush(&mut self) -> Result<(), Refused> {
        let section = self.section.as_ref().map(|section| &section.store);
        // Everything that is left was pushed for this store.
        let Some(store) = self.store.as_ref().or(section).cloned() else { return Ok(()) };
        if self.batch.is_empty() { Ok(()) } else { self.write(&store) }
    }

    fn write(&mut self, store: &StoreId) -> Result<(), Refused> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let entries = batch.len() as u64;
        let new = write(self.place, store, batch, self.run_handlers);
        let (first, last) = (self.first, self.last);
        let new = new.map_err(|cause| Refused { first, last, cause })?;
        let tally = self.tallies.entry(store.clone()).or_default();
        tally.entries += entries;
        tally.new += new;
        Ok(())
    }

    /// How much was written, of each store.
    pub(super) fn tallies(&self) -> impl Iterator<Item = (&StoreId, Tally)> {
        self.tallies.iter().map(|(store, tally)| (store, *tally))
    }

    /// What the lines should have had, according to themselves.
    pub(super) fn missing(&self) -> Option<String> {
        (!self.missing.is_empty()).then(|| self.missing.join("; "))
    }
}
