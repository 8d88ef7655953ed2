//! A group: the jobs that are committed together, as one frame.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
#[cfg(feature = "otel")]
use std::time::Instant;

use super::order;
use super::queue::{Answer, Job};
use super::writes::{Append, Writes};
use crate::model::{Origin, Segment, Sequence};
use crate::storage::AppendError;
use crate::storage::commit_log::{Frame, Position};
use crate::storage::sled::ends::{End, Ends};
use crate::storage::sled::key::Ordinal;
use crate::storage::sled::keyspace::Keyspace;
use crate::storage::sled::ops::Ops;
use crate::storage::sled::record::RecordWriter;
use crate::storage::sled::scrub::Noted;
use crate::storage::sled::tables::Tables;
use crate::storage::witness::FrameSalt;

/// A group is closed once it holds so much, in bytes. Whoever comes meanwhile waits for that, and then for its own group.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// The maximum size of a record, apart from names, keys and values.
const RECORD_BYTES_MAX: usize = 64;

/// The maximum size of an erased entry in its record.
const ERASED_BYTES_MAX: usize = 10;

/// Collects a group. It is kept so that its memory is reused.
pub(super) struct Group {
    parts: Vec<Part>,
    /// The appends of all stores, in the order of `parts`.
    appends: VecDeque<Append>,
    /// At least the size of its frame.
    bytes: usize,
    records: RecordWriter,
    next_ordinal: Ordinal,
    /// The salt of its frame.
    salt: FrameSalt,
    /// The file of the log must be finished behind its frame.
    finish_file: bool,
}

enum Part {
    Table { table: Keyspace, ops: Ops, answer: Answer },
    Store { writes: Arc<Writes>, appends: usize },
    Trim { writes: Arc<Writes>, last: Sequence, answer: Answer },
    Erase { writes: Arc<Writes>, sequences: Arc<[Sequence]>, answer: Answer, noted: Noted },
}

impl Group {
    /// An empty one; `next_ordinal` is for the next store that has none.
    pub(super) fn new(next_ordinal: Ordinal) -> Self {
        let (parts, appends) = (Vec::new(), VecDeque::new());
        let (records, salt) = (RecordWriter::default(), FrameSalt::default());
        Self { parts, appends, bytes: 0, records, next_ordinal, salt, finish_file: false }
    }

    /// Whether the group has its maximum size.
    const fn is_full(&self) -> bool {
        self.bytes >= GROUP_BYTES_MAX
    }

    /// Takes from `waiting` what fits. Changes of tables must stay in order and are small, so they are taken in order.
    pub(super) fn fill(&mut self, waiting: &mut VecDeque<Job>) {
        order::fill(self, waiting, Job::store_bytes, Self::is_full, Self::add);
    }

    /// At least the number of bytes that [`Group::write`] writes. Zero if there is nothing to write.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the content of `job`.
    fn add(&mut self, job: Job) {
        match job {
            Job::Table { table, ops, answer } => {
                let bytes = |(key, value): (&[u8], Option<&[u8]>)| {
                    RECORD_BYTES_MAX + key.len() + value.map_or(0, <[u8]>::len)
                };
                self.bytes += ops.iter().map(bytes).sum::<usize>();
                self.parts.push(Part::Table { table, ops, answer });
            }
            Job::Trim { writes, last, answer } => {
                self.bytes += 2 * RECORD_BYTES_MAX + writes.store.as_str().len();
                self.parts.push(Part::Trim { writes, last, answer });
            }
            Job::Erase { writes, sequences, answer, noted } => {
                let bytes = sequences.len() * ERASED_BYTES_MAX;
                self.bytes += 2 * RECORD_BYTES_MAX + writes.store.as_str().len() + bytes;
                self.parts.push(Part::Erase { writes, sequences, answer, noted });
            }
            // For the log, not for a frame.
            Job::FinishFile => self.finish_file = true,
            Job::Store(writes) => {
                let before = self.appends.len();
                let room = GROUP_BYTES_MAX.saturating_sub(self.bytes);
                let appends = writes.stage(&mut self.appends, room.max(1));
                if appends > 0 {
                    let staged = self.appends.range(before..).flat_map(|(segments, _)| segments);
                    self.bytes += staged.map(record_bytes_max).sum::<usize>();
                    // Counts its name, and the salt of all.
                    self.bytes += 2 * RECORD_BYTES_MAX + writes.store.as_str().len();
                }
                self.parts.push(Part::Store { writes, appends });
            }
        }
    }

    /// Whether the file of the log was to be finished behind the group. Resets that.
    pub(super) fn takes_finish_file(&mut self) -> bool {
        std::mem::take(&mut self.finish_file)
    }

    /// Writes the whole group to `frame`.
    pub(super) fn write(&mut self, frame: &mut Frame, ends: &Arc<Ends>) {
        if !self.appends.is_empty() {
            self.salt = FrameSalt::random();
            self.records.salt(&self.salt, |part| frame.write(part));
        }
        let mut appends = self.appends.iter();
        for part in &self.parts {
            match part {
                Part::Table { table, ops, .. } => {
                    for (key, value) in ops.iter() {
                        self.records.change(*table, key, value, |part| frame.write(part));
                    }
                }
                Part::Store { appends: 0, .. } => {}
                Part::Trim { writes, last, .. } => {
                    // Without entries, there is nothing to trim.
                    if let Some(end) = writes.end.get() {
                        name(end, &mut self.records, frame);
                        self.records.trim(end.ordinal, *last, |part| frame.write(part));
                    }
                }
                Part::Erase { writes, sequences, .. } => {
                    // A missing entry was refused.
                    if let Some(end) = writes.end.get() {
                        name(end, &mut self.records, frame);
                        self.records.erase(end.ordinal, sequences, |part| frame.write(part));
                    }
                }
                Part::Store { writes, appends: count } => {
                    let end = writes.end.get_or_init(|| {
                        self.next_ordinal += 1;
                        let end = ends.hold(self.next_ordinal - 1, &writes.store, false);
                        end.opened(&writes.ids);
                        end
                    });
                    name(end, &mut self.records, frame);
                    for segment in appends.by_ref().take(*count).flat_map(|(segments, _)| segments)
                    {
                        self.records.entries(end.ordinal, segment, |part| frame.write(part));
                    }
                }
            }
        }
    }

    /// Its frame was written and synced at these times.
    #[cfg(feature = "otel")]
    pub(super) fn synced(&self, began: Instant, ended: Instant) {
        for part in &self.parts {
            if let Part::Store { writes, appends } = part
                && *appends > 0
            {
                writes.note_sync(began, ended);
            }
        }
    }

    /// The group is durable, as the frame at this position, with this time. Returns the jobs that must be queued again.
    pub(super) fn settle(
        &mut self,
        (position, time_ms): (Position, u64),
        ends: &Ends,
        tables: &Tables,
        mut again: impl FnMut(Job),
    ) {
        self.bytes = 0;
        for part in self.parts.drain(..) {
            match part {
                Part::Table { table, ops, answer } => {
                    tables.apply(table, ops, position.0);
                    // The caller may be gone.
                    let _ = answer.send(Ok(()));
                }
                Part::Trim { writes, last, answer } => {
                    if let Some(end) = writes.end.get() {
                        ends.trim(end, last);
                    }
                    // Nobody may be waiting any more.
                    let _ = answer.send(Ok(()));
                }
                Part::Erase { writes, sequences, answer, noted } => {
                    if let Some(end) = writes.end.get() {
                        ends.erase(end, &sequences);
                    }
                    noted.done();
                    // Nobody may be waiting any more.
                    let _ = answer.send(Ok(()));
                }
                Part::Store { writes, appends } => {
                    if writes.settle(&mut self.appends, appends, (self.salt, time_ms), ends) {
                        again(Job::Store(writes));
                    }
                }
            }
        }
    }

    /// The group was tried and failed. Returns the ends of its stores, which must be kept until its outcome is known.
    pub(super) fn fail(&mut self, error: &AppendError) -> Vec<Arc<End>> {
        self.bytes = 0;
        self.finish_file = false;
        let mut ends = Vec::new();
        for part in self.parts.drain(..) {
            match part {
                // The caller may be gone.
                Part::Table { answer, .. } => drop(answer.send(Err(error.clone()))),
                Part::Trim { writes, answer, .. } | Part::Erase { writes, answer, .. } => {
                    ends.extend(writes.end.get().cloned());
                    drop(answer.send(Err(error.clone())));
                }
                Part::Store { writes, appends } => {
                    writes.fail(self.appends.drain(..appends), error);
                    ends.extend(writes.end.get().cloned());
                }
            }
        }
        ends
    }
}

/// Names the store in the file of `frame`, unless the file already names it.
fn name(end: &End, records: &mut RecordWriter, frame: &mut Frame) {
    // A name in a frame that fails does not count, but the next frame begins another file.
    if end.named_in.swap(frame.file(), Ordering::Relaxed) != frame.file() {
        records.store(end.ordinal, &end.name, |part| frame.write(part));
    }
}

fn record_bytes_max(segment: &Segment) -> usize {
    let origin = |origin: &Origin| match origin {
        Origin::Client(key) => key.as_str().len(),
        Origin::Server { .. } => 0,
    };
    let origins = segment.origins().iter().map(|run| RECORD_BYTES_MAX + origin(&run.origin));
    RECORD_BYTES_MAX + segment.records().len() + origins.sum::<usize>()
}
