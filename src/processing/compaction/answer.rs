//! Asks effects what replaces their buckets, and gives ids to what they write.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::compactor::{Bucket, CompactionFailure, Compactor, CompactorSet, Replacement};
use super::compactor::{Replacements, Strategy};
use super::reader::LogReader;
use crate::core::projection::{Output, Question};
use crate::model::limits::PUBLIC_KEY_BYTES_MAX;
use crate::model::{Entry, EntryId, EntryRef, Limits, Sequence, StoreId, write_record};
use crate::protocol::msgpack::remote_entries_bytes_max;
use crate::storage::{StorageError, StoreLog};

/// The entries of a bucket may be far apart: no more than a segment is read for each.
const READ_AHEAD_BYTES: usize = 1;

/// What a message takes in addition to its entries: a public key, and some names.
const AROUND_BYTES: usize = PUBLIC_KEY_BYTES_MAX + 128;

/// Most bytes of the lengths of a record.
const LENGTH_BYTES_MAX: usize = 10;

/// What clients can read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// What replaces a bucket is sent in one message.
    message_bytes_max: usize,
    event_bytes_max: usize,
}

impl Bounds {
    pub(super) const fn new(limits: &Limits) -> Self {
        let Limits { message_bytes_max, event_bytes_max, .. } = *limits;
        Self { message_bytes_max, event_bytes_max }
    }

    /// Refuses what no client could read. `first` is the first replaced entry.
    fn check(
        self,
        written: Vec<Replacement>,
        first: &Entry,
    ) -> Result<Vec<Replacement>, CompactionFailure> {
        let failure = |reason: fmt::Arguments<'_>| CompactionFailure::new(&first.event, reason);
        for Replacement { event, .. } in &written {
            if event.is_empty() {
                return Err(failure(format_args!("a replacement has an empty event")));
            }
            let (bytes, bytes_max) = (event.len(), self.event_bytes_max);
            if bytes > bytes_max {
                let told = format_args!(
                    "a replacement's event has {bytes} bytes, at most {bytes_max} are allowed"
                );
                return Err(failure(told));
            }
        }
        let bytes_max = self.message_bytes_max.saturating_sub(AROUND_BYTES);
        let sizes = written.iter().map(|it| it.event.len() + it.payload.len());
        let around = first.primary_key.len() + EntryId::LEN + 3 * LENGTH_BYTES_MAX;
        let record_bytes = sizes.sum::<usize>() + written.len() * around;
        let bytes = remote_entries_bytes_max(written.len(), record_bytes);
        if bytes > bytes_max {
            let told = format_args!(
                "what replaces a primary key takes {bytes} bytes, at most {bytes_max} can be sent to clients"
            );
            return Err(failure(told));
        }
        Ok(written)
    }
}

/// Reads the members of all buckets in one pass up the log, and asks what happens to each. Blocks.
pub(super) fn answer(
    (set, store): (&CompactorSet, &StoreId),
    log: &Arc<dyn StoreLog>,
    questions: &[Question],
    bounds: Bounds,
) -> Result<Vec<Output>, StorageError> {
    let mut wanted: Vec<(Sequence, usize)> = Vec::new();
    for (at, question) in questions.iter().enumerate() {
        wanted.extend(question.sequences.iter().map(|sequence| (*sequence, at)));
    }
    wanted.sort_unstable();
    let mut entries: Vec<Vec<Entry>> = questions.iter().map(|_| Vec::new()).collect();
    let mut reader = LogReader::new(log, READ_AHEAD_BYTES);
    for (sequence, at) in wanted {
        entries[at].push(reader.entry(sequence)?.to_entry());
    }
    let compactor = |question: &Question| &*set.compactors()[question.compactor as usize];
    let asked = questions.iter().zip(&entries);
    Ok(asked
        .map(|(question, entries)| ask((compactor(question), bounds), store, question, entries))
        .collect())
}

fn ask(
    (compactor, bounds): (&Compactor, Bounds),
    store: &StoreId,
    question: &Question,
    entries: &[Entry],
) -> Output {
    let replaced = match entries.first() {
        Some(first) => run(compactor, &Bucket { primary_key: &first.primary_key, entries })
            .and_then(|written| bounds.check(written, first)),
        None => Err(too_large(compactor, question)),
    };
    let (raw, records) = match replaced {
        Ok(replacements) => (false, records_of(&replacements, (compactor, store), entries)),
        Err(failure) => {
            compactor.warn(&failure);
            (true, Vec::new())
        }
    };
    Output { members: question.members, raw, records: Some(records.into()) }
}

fn too_large(compactor: &Compactor, question: &Question) -> CompactionFailure {
    let event = compactor.events.first().map_or("", |pattern| pattern.as_str());
    let bytes = question.members.bytes;
    CompactionFailure::new(
        event,
        format_args!("a primary key has {bytes} bytes, too many to compact"),
    )
}

fn run(compactor: &Compactor, bucket: &Bucket<'_>) -> Result<Vec<Replacement>, CompactionFailure> {
    let Strategy::Effect(effect) = &compactor.strategy else {
        // Only effects are asked: the index answers for the other strategies.
        return Ok(Vec::new());
    };
    let first_event = &bucket.entries[0].event;
    let mut replacements = Replacements::default();
    catch_unwind(AssertUnwindSafe(|| effect(bucket, &mut replacements)))
        .unwrap_or_else(|_| Err(CompactionFailure::new(first_event, "the compactor panicked")))?;
    Ok(replacements.into_written())
}

fn records_of(
    replacements: &[Replacement],
    (compactor, store): (&Compactor, &StoreId),
    entries: &[Entry],
) -> Vec<u8> {
    let bucket = hash_bucket(compactor, store, entries);
    let mut records = Vec::new();
    for (ordinal, replacement) in (0_u64..).zip(replacements) {
        let new = || replacement_id(&bucket, &entries[0], ordinal, replacement);
        let entry = EntryRef {
            id: replacement.id.unwrap_or_else(new),
            event: &replacement.event,
            primary_key: &entries[0].primary_key,
            payload: &replacement.payload,
        };
        write_record(&mut records, &entry);
    }
    records
}

/// What a bucket's replacement ids are derived from: the store, the compactor's events, the primary key, the ids of all
/// members.
fn hash_bucket(compactor: &Compactor, store: &StoreId, entries: &[Entry]) -> Sha256 {
    let mut hash = Sha256::new();
    hash.update(b"eventlog-server replacement 1");
    put(&mut hash, store.as_str().as_bytes());
    hash.update((compactor.events.len() as u64).to_be_bytes());
    compactor.events.iter().for_each(|pattern| put(&mut hash, pattern.as_str().as_bytes()));
    put(&mut hash, entries[0].primary_key.as_bytes());
    hash.update((entries.len() as u64).to_be_bytes());
    for entry in entries {
        hash.update(entry.id.as_bytes());
    }
    hash
}

/// A `UUIDv7` with the time of the bucket's first entry. The contents are hashed too: if an effect is changed, what it
/// writes now is not mistaken for what it wrote before.
fn replacement_id(bucket: &Sha256, first: &Entry, ordinal: u64, is: &Replacement) -> EntryId {
    let mut hash = bucket.clone();
    hash.update(ordinal.to_be_bytes());
    put(&mut hash, is.event.as_bytes());
    put(&mut hash, &is.payload);
    let digest = hash.finalize();
    let mut id = [0; EntryId::LEN];
    id[..6].copy_from_slice(&first.id.as_bytes()[..6]);
    id[6..].copy_from_slice(&digest[..10]);
    id[6] = 0x70 | (id[6] & 0x0f);
    id[8] = 0x80 | (id[8] & 0x3f);
    EntryId::from_bytes(id)
}

/// Includes the length, so that no two lists of parts give the same bytes.
fn put(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}
