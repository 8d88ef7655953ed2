//! The base of an archive: everything in sled, as records, so that a database can be rebuilt although the archive does
//! not begin with its first frame.
//!
//! Keeps: together with the frames after the checkpoint at which it was begun, it gives the same database, including
//! hashes, although checkpoints continue meanwhile. Leaves out: when one is needed (`open`, `further_base`), how it is
//! stored (`archive`).

use super::commit::now_ms;
use super::keyspace::Keyspace;
use super::options::OpenFailure;
use super::record::RecordWriter;
use super::segments::Reader;
use super::tree::{self, Trees};
use super::value::store::StoreRecord;
use crate::model::{Sequence, StoreId};

/// The size of a part in bytes, or one segment more.
const PART_BYTES: usize = 1 << 20;

type Part = Result<Vec<u8>, OpenFailure>;

/// All of it, in parts of about a mebibyte.
pub(super) fn parts(trees: &Trees) -> impl Iterator<Item = Part> {
    let stores =
        tree::store_records(trees, None).flat_map(move |store| -> Box<dyn Iterator<Item = Part>> {
            match store {
                Ok((name, record)) => Box::new(of_store(trees, &name, &record)),
                Err(error) => Box::new(std::iter::once(Err(error.into()))),
            }
        });
    let tables = Keyspace::TABLES.into_iter().flat_map(move |table| of_table(trees, table));
    joined(stores.chain(tables))
}

/// Its name, then each of its segments (also trimmed ones, because ids stay known), with the times of their commits;
/// before the last one, the hash at the end; and how far the store is trimmed.
pub(super) fn of_store<'a>(
    trees: &'a Trees,
    name: &StoreId,
    record: &StoreRecord,
) -> impl Iterator<Item = Part> + use<'a> {
    let StoreRecord { ordinal, head, hash, trimmed, .. } = *record;
    let mut begin = Vec::new();
    RecordWriter::default().store(ordinal, name, |bytes| begin.extend_from_slice(bytes));
    let reader = Reader { tree: trees.log(), ordinal };
    let mut next = Sequence::FIRST;
    let mut end = None;
    let segments = std::iter::from_fn(move || {
        let part = (|| {
            let last = match end {
                Some(last) => last,
                // There may now be more than its record says, and the hash does not cover that.
                None => *end.insert(match head {
                    Some(head) => head,
                    None => reader.find(Sequence::MAX)?.map_or(Sequence::ZERO, |it| it.last()),
                }),
            };
            if next > last {
                return Ok(None);
            }
            let (mut part, mut records) = (Vec::new(), RecordWriter::default());
            let whole = reader.segment(next)?;
            // Those before `next` were in another segment, from which this one was made since.
            let segment = whole.skipping(next.since(whole.first()) as usize);
            let segment = segment.and_then(|it| it.truncated(last.next().since(next) as usize));
            let malformed = || OpenFailure::corrupt(format!("a malformed segment from {next} on"));
            let segment = segment.ok_or_else(malformed)?;
            let (segment, time) = match reader.times(next).next().transpose()? {
                Some((to, time)) => {
                    let of_time = segment.truncated(to.next().since(next) as usize);
                    (of_time.ok_or_else(malformed)?, time)
                }
                // It was added since.
                None => (segment, now_ms()),
            };
            records.time(time, |bytes| part.extend_from_slice(bytes));
            if segment.last() == last {
                records.hash(ordinal, hash, |bytes| part.extend_from_slice(bytes));
            }
            records.entries(ordinal, &segment, |bytes| part.extend_from_slice(bytes));
            next = segment.last().next();
            Ok(Some(part))
        })();
        if part.is_err() {
            // Once is enough.
            next = Sequence::MAX;
            end = Some(Sequence::ZERO);
        }
        part.transpose()
    });
    let trim = (trimmed.last > Sequence::ZERO).then(|| {
        let mut part = Vec::new();
        RecordWriter::default().trim(ordinal, trimmed.last, |bytes| part.extend_from_slice(bytes));
        Ok(part)
    });
    std::iter::once(Ok(begin)).chain(segments).chain(trim)
}

fn of_table(trees: &Trees, table: Keyspace) -> impl Iterator<Item = Part> + use<'_> {
    trees.get(table).iter().map(move |pair| {
        let (key, value) = pair?;
        let mut part = Vec::new();
        let out = |bytes: &[u8]| part.extend_from_slice(bytes);
        RecordWriter::default().change(table, &key, Some(&value), out);
        Ok(part)
    })
}

/// The same in fewer, larger parts.
fn joined(mut small: impl Iterator<Item = Part>) -> impl Iterator<Item = Part> {
    std::iter::from_fn(move || {
        let mut part = small.next()?;
        while let Ok(bytes) = &mut part
            && bytes.len() < PART_BYTES
            && let Some(next) = small.next()
        {
            match next {
                Ok(more) => bytes.extend_from_slice(&more),
                Err(failure) => part = Err(failure),
            }
        }
        Some(part)
    })
}
