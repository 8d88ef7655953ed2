//! How far each store was, in two files with the same records.
//!
//! A record has 64 bytes and is at its store's ordinal times 64:
//!
//! ```text
//! crc32       4   over the rest, begun with the directory's generation
//! ordinal     4
//! head        8
//! hash       16   over the store's entries
//! position    8   of the last frame of the commit log that is in this
//! zeros
//! ```
//!
//! Keeps: the first file is on disk before the second one is written, so that a crash damages at most one; of two good
//! records the one with the greater position counts. Leaves out: which stores there are.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::StoreHash;
use crate::model::Sequence;
use crate::storage::commit_log::{Generation, Position};
use crate::storage::slot::{sum, u32_at, u64_at};

const NAMES: [&str; 2] = ["heads.a", "heads.b"];
const RECORD_BYTES: usize = 64;

/// How many records are read or written at once.
const RECORDS_AT_ONCE: usize = 4_096;

/// How far a store was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadRecord {
    /// Its last entry.
    pub(crate) head: Sequence,
    /// The hash over its entries.
    pub(crate) hash: StoreHash,
    /// The last frame of the commit log that this includes.
    pub(crate) position: Position,
}

/// What was found about a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadHead {
    /// The newest undamaged record.
    pub(crate) record: Option<HeadRecord>,
    /// Whether a copy has changed. [`Heads::update`] with the same record repairs it.
    pub(crate) damaged: bool,
}

/// The two files. One owner writes.
pub(crate) struct Heads {
    /// `None` if a file is missing and is only read.
    copies: [Option<File>; 2],
    seed: u32,
}

/// What one copy has for a store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copy {
    Whole(HeadRecord),
    Absent,
    Changed,
}

impl Heads {
    /// Where the copies are in `folder`.
    pub(crate) fn paths(folder: &Path) -> [PathBuf; 2] {
        NAMES.map(|name| folder.join(name))
    }

    /// Opens the files in `folder`, creating missing ones.
    pub(crate) fn open(folder: &Path, generation: Generation) -> io::Result<Self> {
        let open = |name: &str| {
            let path = folder.join(name);
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
        };
        let copies = [Some(open(NAMES[0])?), Some(open(NAMES[1])?)];
        File::open(folder)?.sync_all()?;
        Ok(Self { copies, seed: crc32fast::hash(&generation.0) })
    }

    /// Opens those files in `folder` that exist, for reading.
    pub(crate) fn to_read(folder: &Path, generation: Generation) -> io::Result<Self> {
        let open = |name: &str| match File::open(folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        };
        let copies = [open(NAMES[0])?, open(NAMES[1])?];
        Ok(Self { copies, seed: crc32fast::hash(&generation.0) })
    }

    /// How many stores the files have space for: their ordinals are below this.
    pub(crate) fn ordinals(&self) -> io::Result<u32> {
        let mut bytes = 0;
        for file in self.copies.iter().flatten() {
            bytes = bytes.max(file.metadata()?.len());
        }
        Ok(u32::try_from(bytes.div_ceil(RECORD_BYTES as u64)).unwrap_or(u32::MAX))
    }

    /// The record of one store.
    pub(crate) fn get(&self, ordinal: u32) -> io::Result<ReadHead> {
        let mut found = ReadHead::default();
        self.read(ordinal, 1, |_, read| found = read)?;
        Ok(found)
    }

    /// Passes each store's record to `visit`, in the order of their ordinals. Skips stores without a record.
    pub(crate) fn read_all(&self, mut visit: impl FnMut(u32, ReadHead)) -> io::Result<()> {
        let end = self.ordinals()?;
        for start in (0..end).step_by(RECORDS_AT_ONCE) {
            let count = RECORDS_AT_ONCE.min((end - start) as usize);
            self.read(start, count, |ordinal, found| {
                if found != ReadHead::default() {
                    visit(ordinal, found);
                }
            })?;
        }
        Ok(())
    }

    /// Writes the records of these stores; on disk in both files when this returns. Each store occurs once; what is in
    /// the order of the ordinals is written in one piece.
    pub(crate) fn update(&self, records: &[(u32, HeadRecord)]) -> io::Result<()> {
        for file in self.copies.iter().flatten() {
            let neighbours = records.chunk_by(|(before, _), (ordinal, _)| *ordinal == before + 1);
            for run in neighbours.flat_map(|run| run.chunks(RECORDS_AT_ONCE)) {
                let bytes: Vec<u8> = run.iter().flat_map(|record| self.encode(record)).collect();
                file.write_all_at(&bytes, at(run[0].0))?;
            }
            file.sync_data()?;
        }
        Ok(())
    }

    fn read(
        &self,
        start: u32,
        count: usize,
        mut visit: impl FnMut(u32, ReadHead),
    ) -> io::Result<()> {
        let [first, second] = &self.copies;
        let (first, second) = (
            read_records(first.as_ref(), start, count)?,
            read_records(second.as_ref(), start, count)?,
        );
        let pairs = first.chunks_exact(RECORD_BYTES).zip(second.chunks_exact(RECORD_BYTES));
        for (ordinal, (first, second)) in (start..).zip(pairs) {
            visit(ordinal, judge(self.decode(ordinal, first), self.decode(ordinal, second)));
        }
        Ok(())
    }

    fn encode(&self, (ordinal, record): &(u32, HeadRecord)) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[4..8].copy_from_slice(&ordinal.to_be_bytes());
        bytes[8..16].copy_from_slice(&record.head.get().to_be_bytes());
        bytes[16..32].copy_from_slice(&record.hash.0);
        bytes[32..40].copy_from_slice(&record.position.0.to_be_bytes());
        let sum = sum(self.seed, &bytes);
        bytes[..4].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn decode(&self, ordinal: u32, bytes: &[u8]) -> Copy {
        if bytes.iter().all(|byte| *byte == 0) {
            return Copy::Absent;
        }
        let head = Sequence::new(u64_at(bytes, 8)).ok();
        let is_whole = sum(self.seed, bytes) == u32_at(bytes, 0) && u32_at(bytes, 4) == ordinal;
        let Some(head) = head.filter(|_| is_whole) else { return Copy::Changed };
        let mut hash = [0; 16];
        hash.copy_from_slice(&bytes[16..32]);
        let position = Position(u64_at(bytes, 32));
        Copy::Whole(HeadRecord { head, hash: StoreHash(hash), position })
    }
}

fn at(ordinal: u32) -> u64 {
    u64::from(ordinal) * RECORD_BYTES as u64
}

/// Reads this many records, with zeros for those beyond the end.
fn read_records(file: Option<&File>, start: u32, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count * RECORD_BYTES];
    let Some(file) = file else { return Ok(bytes) };
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], at(start) + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

fn judge(first: Copy, second: Copy) -> ReadHead {
    match (first, second) {
        (Copy::Whole(first), Copy::Whole(second)) => {
            // The second one is written last: it may be behind, but not ahead.
            let ahead = second.position > first.position;
            ReadHead { record: Some(if ahead { second } else { first }), damaged: ahead }
        }
        (Copy::Whole(record), other) => {
            ReadHead { record: Some(record), damaged: other == Copy::Changed }
        }
        (_, Copy::Whole(record)) => ReadHead { record: Some(record), damaged: true },
        (first, second) => {
            ReadHead { record: None, damaged: first != Copy::Absent || second != Copy::Absent }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn record(number: u64) -> HeadRecord {
        HeadRecord {
            head: Sequence::new(number).expect("a sequence"),
            hash: StoreHash([number as u8; 16]),
            position: Position(number),
        }
    }

    fn heads() -> (tempfile::TempDir, Heads) {
        let folder = tempfile::tempdir().expect("a folder");
        let heads = Heads::open(folder.path(), Generation([1; 16])).expect("opened");
        (folder, heads)
    }

    fn all(heads: &Heads) -> BTreeMap<u32, ReadHead> {
        let mut found = BTreeMap::new();
        let outcome = heads.read_all(|ordinal, read| {
            found.insert(ordinal, read);
        });
        outcome.expect("readable");
        found
    }

    fn whole(number: u64) -> ReadHead {
        ReadHead { record: Some(record(number)), damaged: false }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn what_was_written_last_is_read(
            updates in proptest::collection::vec(
                proptest::collection::btree_map(0_u32..10_000, 1_u64..1_000, 0..40), 0..5),
        ) {
            let (folder, heads) = heads();
            let mut expected = BTreeMap::new();
            for update in updates {
                let records: Vec<_> =
                    update.iter().rev().map(|(ordinal, number)| (*ordinal, record(*number))).collect();
                heads.update(&records).expect("written");
                expected.extend(update.into_iter().map(|(ordinal, number)| (ordinal, whole(number))));
            }
            prop_assert_eq!(all(&heads), expected.clone());
            let heads = Heads::open(folder.path(), Generation([1; 16])).expect("opened");
            for ordinal in [0, 1, 9_999, 20_000] {
                let found = heads.get(ordinal).expect("readable");
                prop_assert_eq!(found, expected.get(&ordinal).copied().unwrap_or_default());
            }
        }

        #[test]
        fn a_fault_in_one_copy_loses_nothing(
            second: bool, at in 0..640_usize, garbage in proptest::collection::vec(any::<u8>(), 1..200),
            cut: bool,
        ) {
            let (folder, heads) = heads();
            let records: Vec<_> = (0..10).map(|ordinal| (ordinal, record(ordinal.into()))).skip(1).collect();
            heads.update(&records).expect("written");
            let path = folder.path().join(NAMES[usize::from(second)]);
            let before = std::fs::read(&path).expect("a file");
            let mut bytes = before.clone();
            let end = bytes.len().min(at + garbage.len());
            bytes[at..end].copy_from_slice(&garbage[..end - at]);
            if cut {
                bytes.truncate(at);
            }
            std::fs::write(&path, &bytes).expect("written");
            let found = all(&heads);
            prop_assert_eq!(found.values().filter(|found| found.record.is_some()).count(), 9);
            for (ordinal, found) in found {
                let expected = (ordinal > 0).then(|| record(ordinal.into()));
                prop_assert_eq!(found.record, expected);
                let here = ordinal as usize * RECORD_BYTES..(ordinal as usize + 1) * RECORD_BYTES;
                if let Some(now) = bytes.get(here.clone()) && !now.iter().all(|byte| *byte == 0) {
                    prop_assert_eq!(found.damaged, *now != before[here]);
                }
            }
        }
    }

    #[test]
    fn a_second_copy_that_lags_is_what_a_crash_leaves_and_a_first_one_is_damage() {
        for (name, damaged) in [(NAMES[1], false), (NAMES[0], true)] {
            let (folder, heads) = heads();
            heads.update(&[(3, record(1))]).expect("written");
            let path = folder.path().join(name);
            let before = std::fs::read(&path).expect("a file");
            heads.update(&[(3, record(2))]).expect("written");
            std::fs::write(path, before).expect("written");
            let found = heads.get(3).expect("readable");
            assert_eq!(found, ReadHead { record: Some(record(2)), damaged });
            heads.update(&[(3, record(2))]).expect("written");
            assert_eq!(heads.get(3).expect("readable"), whole(2));
        }
    }

    #[test]
    fn a_record_of_another_store_or_directory_counts_for_nothing() {
        let (folder, heads) = heads();
        heads.update(&[(0, record(1)), (1, record(2))]).expect("written");
        for name in NAMES {
            let path = folder.path().join(name);
            let mut bytes = std::fs::read(&path).expect("a file");
            bytes.copy_within(..RECORD_BYTES, RECORD_BYTES);
            std::fs::write(path, bytes).expect("written");
        }
        let damaged = ReadHead { record: None, damaged: true };
        assert_eq!(heads.get(1).expect("readable"), damaged);
        let other = Heads::open(folder.path(), Generation([2; 16])).expect("opened");
        assert_eq!(other.get(0).expect("readable"), damaged);
    }
}
