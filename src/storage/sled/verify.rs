//! Reads everything in a data directory and reports what is wrong.
//!
//! Keeps: nothing is repaired. In a directory that a server uses, this reads what it can without disturbing the server.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::Files;
use super::gaps::Gaps;
use super::ids::Check;
use super::key::Ordinal;
use super::open;
use super::options::{DatabaseOptions, OpenFailure};
use super::record::{Record, records};
use super::segments::Reader;
use super::spares;
use super::tree::{self, Facts, Trees};
use super::value::segment::Bare;
use super::value::store;
use super::watch;
use crate::model::{Segment, Sequence, StoreId};
use crate::storage::StorageError;
use crate::storage::archive::{Archive, Archived, Kind};
use crate::storage::commit_log::{self, Found, LogOptions, Position, Read};
use crate::storage::witness::{FrameSalt, HeadRecord, Heads, StoreHash, Witness, WitnessFiles};

/// The maximum time that a server takes to finish something that was found half written.
const MOMENT: Duration = Duration::from_millis(300);
/// How often the log of a running server is checked before missing data is taken for damage.
const LOOKS: usize = 10;

/// The content of a data directory, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// What is wrong. Empty for an intact directory.
    pub faults: Vec<Fault>,
    /// The number of frames that were read, in the archive and in the commit log.
    pub frames: u64,
    /// Stores that were read.
    pub stores: u64,
    /// Their entries.
    pub entries: u64,
    /// Entries that are only in the commit log and the archive. The next start or checkpoint writes them to the database.
    pub logged: u64,
    /// Where there is no archive, if there is none. Then the database cannot be rebuilt, and no earlier state be restored.
    pub no_archive: Option<PathBuf>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// The file or folder.
    pub path: PathBuf,
    /// The store, if the fault belongs to one.
    pub store: Option<StoreId>,
    /// What is wrong.
    pub finding: String,
}

/// Reads everything.
pub(super) fn verify(
    files: &Files,
    options: &DatabaseOptions,
) -> Result<Verification, OpenFailure> {
    let mut verifier = Verifier::new(files);
    let (_, witness) = WitnessFiles::open(files.directory())?;
    for path in &witness.damaged {
        verifier.fault(path, None, "it is missing or not as it was written");
    }
    verifier.spares(options)?;
    if let Some(witness) = &witness.newest {
        let heads = Heads::to_read(files.directory(), witness.generation)?;
        let (_, damaged) = read_heads(&heads)?;
        verifier.damaged_heads(&damaged);
    }
    if let Some(finding) = files.noted_damage()? {
        verifier.fault(&files.database(), None, finding);
    }
    let before = verifier.found.faults.len();
    verifier.sled(options)?;
    let is_whole = verifier.found.faults.len() == before && files.noted_damage()?.is_none();
    if let Some(witness) = &witness.newest {
        verifier.frames(options, (witness, is_whole))?;
    }
    verifier.cut();
    Ok(verifier.found)
}

/// Reads what can be read in a directory that a server uses: the archive, the commit log up to the last checkpoint, the
/// witness and the heads, whose hashes are compared. Does not read sled, which only one process can open. Writes
/// nothing.
pub(super) fn verify_running(
    files: &Files,
    options: &DatabaseOptions,
) -> Result<Verification, OpenFailure> {
    let mut verifier = Verifier::new(files);
    // This comes first, so that the frames, which are read later, reach as far.
    let found = twice(|| {
        let (_, found) = WitnessFiles::open(files.directory())?;
        Ok(if found.damaged.is_empty() { Ok(found) } else { Err(found) })
    })?;
    for path in &found.damaged {
        verifier.fault(path, None, "it is missing or not as it was written");
    }
    verifier.spares(options)?;
    let Some(witness) = found.newest else { return Ok(verifier.found) };
    let heads = Heads::to_read(files.directory(), witness.generation)?;
    let (records, damaged) = twice(|| {
        let read = read_heads(&heads)?;
        Ok(if read.1.is_empty() { Ok(read) } else { Err(read) })
    })?;
    verifier.damaged_heads(&damaged);
    for (ordinal, HeadRecord { head, hash, position }) in records {
        // Entries written since the witness may be ahead of what is read.
        if position <= witness.position {
            verifier.expected.insert(ordinal, Expected { head, hash, name: None });
        }
    }
    verifier.running_frames(options, &witness)?;
    Ok(verifier.found)
}

/// Data that is being written may look damaged, so this looks again after a moment.
fn twice<T>(mut look: impl FnMut() -> io::Result<Result<T, T>>) -> io::Result<T> {
    match look()? {
        Ok(whole) => Ok(whole),
        Err(_) => {
            std::thread::sleep(MOMENT);
            look().map(|looked| looked.unwrap_or_else(|damaged| damaged))
        }
    }
}

/// The records of the ends of stores, and the stores with a damaged record.
type HeadRecords = (Vec<(Ordinal, HeadRecord)>, Vec<Ordinal>);

fn read_heads(heads: &Heads) -> io::Result<HeadRecords> {
    let (mut records, mut damaged) = (Vec::new(), Vec::new());
    heads.read_all(|ordinal, read| {
        records.extend(read.record.map(|record| (ordinal, record)));
        if read.damaged {
            damaged.push(ordinal);
        }
    })?;
    Ok((records, damaged))
}

struct Verifier<'a> {
    files: &'a Files,
    found: Verification,
    /// Where stores end, and with which hash, according to what is compared.
    expected: HashMap<Ordinal, Expected>,
    /// The position of each store in the frames that were read, and its hash there. `None` once that is not known.
    chains: HashMap<Ordinal, Option<(Sequence, StoreHash)>>,
    /// The position up to which the entries of each store were found, in sled or in later frames. `None` if sled was not read.
    counted: Option<HashMap<Ordinal, Sequence>>,
    /// The entries that frames have, but not those between them and what was counted: the first that is missing, and the last.
    cut: BTreeMap<Ordinal, (Sequence, Sequence)>,
    /// The stores that frames name.
    named: HashMap<Ordinal, StoreId>,
}

struct Expected {
    head: Sequence,
    hash: StoreHash,
    name: Option<StoreId>,
}

impl<'a> Verifier<'a> {
    fn new(files: &'a Files) -> Self {
        Self {
            files,
            found: Verification::default(),
            expected: HashMap::new(),
            chains: HashMap::new(),
            counted: None,
            cut: BTreeMap::new(),
            named: HashMap::new(),
        }
    }

    fn fault(&mut self, path: &Path, store: Option<&StoreId>, finding: impl std::fmt::Display) {
        let (path, store, finding) = (path.to_owned(), store.cloned(), finding.to_string());
        self.found.faults.push(Fault { path, store, finding });
    }

    fn damaged_heads(&mut self, damaged: &[Ordinal]) {
        let path = self.files.directory().join("heads.a");
        for ordinal in damaged {
            let finding =
                format!("the record of store number {ordinal} is damaged, here or in heads.b");
            self.fault(&path, None, finding);
        }
    }

    /// Reports the copies that are missing.
    fn spares(&mut self, options: &DatabaseOptions) -> io::Result<()> {
        // A server may be making them.
        let missing = twice(|| {
            let missing = spares::missing(self.files, options);
            Ok(if missing.is_empty() { Ok(missing) } else { Err(missing) })
        })?;
        missing.iter().for_each(|path| self.fault(path, None, "it is missing"));
        Ok(())
    }

    /// The archive, or a note that there is none.
    fn archive(&mut self, options: &DatabaseOptions, witness: &Witness) -> Option<Archive> {
        if let Some(folder) = open::archive_folder(self.files, options) {
            return Some(Archive::to_read(folder, witness.generation).counting(&options.work));
        }
        let folder = options.archive.dir.clone();
        self.found.no_archive = Some(folder.unwrap_or_else(|| self.files.archive()));
        None
    }

    fn frames(
        &mut self,
        options: &DatabaseOptions,
        (witness, is_whole): (&Witness, bool),
    ) -> Result<(), OpenFailure> {
        let archive = self.archive(options, witness);
        // Without an archive, only the log has the frames, from some frame on. Those before the checkpoint are needed only if sled has lost them.
        let mut from = if is_whole { witness.position } else { Position(0) };
        if let Some(archive) = archive {
            let has_base = archive.files()?.files.iter().any(|file| file.kind == Kind::Base);
            let visit = |found: Archived<'_>| match found {
                Archived::Base(part) => self.frame(part),
                Archived::Frame(frame) => self.frame(frame.body),
                Archived::Damage(damage) => {
                    self.fault(&damage.path, None, damage);
                    Ok::<_, OpenFailure>(())
                }
            };
            from = if has_base {
                archive.read(visit)?
            } else {
                archive.read_behind(Position(0), visit)?
            };
        }
        let log = LogOptions::new(self.files.log(), witness.generation);
        let read = commit_log::read(&log, from, witness.position, |found| match found {
            Found::Frame(frame) => self.frame(frame.body),
            Found::Damage(damage) => {
                let path = log.folder.join(format!("{:08}.log", damage.file));
                self.fault(&path, None, damage);
                Ok::<_, OpenFailure>(())
            }
        })?;
        self.repairable(&log.folder, read);
        Ok(())
    }

    fn repairable(&mut self, folder: &Path, read: Read) {
        if read.repairable > 0 {
            let blocks = read.repairable;
            let finding =
                format!("{blocks} blocks have a changed bit, which the next start repairs");
            self.fault(folder, None, finding);
        }
    }

    /// Like [`Verifier::frames`], while the server appends, archives and reuses files.
    fn running_frames(
        &mut self,
        options: &DatabaseOptions,
        witness: &Witness,
    ) -> Result<(), OpenFailure> {
        let log = LogOptions::new(self.files.log(), witness.generation);
        let archive = self.archive(options, witness);
        let (mut last, mut damages) = (Position(0), Vec::new());
        if archive.is_none() {
            last = witness.position;
        }
        for _ in 0..LOOKS {
            damages.clear();
            if let Some(archive) = &archive {
                let mut faults = Vec::new();
                last = archive.read_behind(last, |found| match found {
                    Archived::Base(_) => Ok(()),
                    Archived::Frame(frame) => self.frame(frame.body),
                    Archived::Damage(damage) => {
                        faults.push((damage.path.clone(), damage.to_string()));
                        Ok::<_, OpenFailure>(())
                    }
                })?;
                faults.iter().for_each(|(path, finding)| self.fault(path, None, finding));
            }
            if last >= witness.position {
                return Ok(());
            }
            let read =
                commit_log::read_running(&log, last, witness.position, |found| match found {
                    // Behind damage, the frame is read again.
                    Found::Frame(frame) if damages.is_empty() => {
                        last = frame.position;
                        self.frame(frame.body)
                    }
                    Found::Frame(_) => Ok(()),
                    Found::Damage(damage) => {
                        let path = log.folder.join(format!("{:08}.log", damage.file));
                        damages.push((path, damage.to_string()));
                        Ok(())
                    }
                });
            match read {
                Ok(read) if damages.is_empty() => {
                    self.repairable(&log.folder, read);
                    return Ok(());
                }
                // A file was archived and reused meanwhile, so the archive has it.
                Ok(_) | Err(OpenFailure::Io(_)) => std::thread::sleep(MOMENT),
                Err(failure) => return Err(failure),
            }
        }
        damages.iter().for_each(|(path, finding)| self.fault(path, None, finding));
        Ok(())
    }

    /// Continues the hashes of the stores in a frame.
    fn frame(&mut self, body: &[u8]) -> Result<(), OpenFailure> {
        self.found.frames += 1;
        let (mut salt, mut known, mut digested) = (FrameSalt::default(), None, None);
        for record in records(body) {
            match record? {
                Record::Salt(of_frame) => salt = of_frame,
                Record::Hash { ordinal, hash } => known = Some((ordinal, hash)),
                Record::Digests { ordinal, digests } => digested = Some((ordinal, digests)),
                Record::Entries { ordinal, segment } => {
                    let digests = digested.take_if(|(of, _)| *of == ordinal);
                    self.count(ordinal, &segment);
                    let chain =
                        self.chains.entry(ordinal).or_insert_with(|| Some(Default::default()));
                    // Frames after the base may repeat what it has.
                    let Some((last, hash)) = chain.filter(|(last, _)| segment.last() > *last)
                    else {
                        continue;
                    };
                    *chain = None;
                    // If there is a gap, the hash is unknown from here on.
                    if segment.first() == last.next() {
                        let salt = salt.append(ordinal, segment.first());
                        let hash = match known.take_if(|(of, _)| *of == ordinal) {
                            Some((_, known)) => known,
                            None => match digests {
                                Some((_, digests)) => hash.with_digests(&segment, &digests),
                                None => hash.with_append(&segment, salt),
                            }
                            .map_err(OpenFailure::corrupt)?,
                        };
                        *chain = Some((segment.last(), hash));
                        self.compare(ordinal, segment.last(), hash);
                    }
                }
                Record::Store { ordinal, name } => {
                    self.named.insert(ordinal, name);
                }
                Record::Trim { .. }
                | Record::Erase { .. }
                | Record::Time(_)
                | Record::Change { .. } => {}
            }
        }
        Ok(())
    }

    /// Counts what sled does not have.
    fn count(&mut self, ordinal: Ordinal, segment: &Segment) {
        let Some(counted) = &mut self.counted else { return };
        let missing = counted.get(&ordinal).map(|last| last.next());
        if let Some(missing) = missing.filter(|missing| segment.first() > *missing) {
            self.cut.entry(ordinal).or_insert((missing, missing)).1 = segment.last();
            return;
        }
        let last = counted.entry(ordinal).or_default();
        if segment.last() > *last {
            let from = *last;
            self.found.logged += segment.ids().filter(|(at, _)| *at > from).count() as u64;
            *last = segment.last();
        }
    }

    /// Reports entries that come behind missing ones.
    fn cut(&mut self) {
        for (ordinal, (from, to)) in std::mem::take(&mut self.cut) {
            let known = self.expected.get(&ordinal).and_then(|expected| expected.name.clone());
            let name = known.or_else(|| self.named.get(&ordinal).cloned());
            let finding = format!(
                "the log has lost entry {from}, and maybe others behind it. So the next start refuses, and `accept-loss` gives up the \
                 entries {from} to {to}"
            );
            self.fault(&self.files.log(), name.as_ref(), finding);
        }
    }

    fn compare(&mut self, ordinal: Ordinal, last: Sequence, hash: StoreHash) {
        let is_other = |expected: &&Expected| expected.head == last && expected.hash != hash;
        if let Some(expected) = self.expected.get(&ordinal).filter(is_other) {
            let (path, name) = (self.files.database(), expected.name.clone());
            let finding =
                format!("the hash of store number {ordinal} is not that of its entries in the log");
            self.fault(&path, name.as_ref(), finding);
        }
    }

    fn sled(&mut self, options: &DatabaseOptions) -> Result<(), OpenFailure> {
        let path = self.files.database();
        if !self.files.database_log().try_exists()? {
            self.fault(&path, None, "it is missing");
            return Ok(());
        }
        let trees = match tree::open(self.files, options, 0) {
            Ok(trees) => trees,
            Err(OpenFailure::Io(error)) => return Err(error.into()),
            Err(OpenFailure::Corrupt(finding) | OpenFailure::Refused(finding)) => {
                self.fault(&path, None, finding);
                return Ok(());
            }
        };
        let read = tree::guarded(|| self.trees(&trees));
        tree::close(trees)?;
        match read {
            Err(OpenFailure::Corrupt(finding) | OpenFailure::Refused(finding)) => {
                self.fault(&path, None, finding);
                Ok(())
            }
            read => read,
        }
    }

    fn trees(&mut self, trees: &Trees) -> Result<(), OpenFailure> {
        let facts = Facts::read_or_make(trees, self.files)?;
        let position = Position(facts.checkpoint.unwrap_or(0));
        match watch::compare(self.files.directory(), trees, &facts, position) {
            Err(OpenFailure::Corrupt(finding)) => self.fault(&self.files.database(), None, finding),
            compared => drop(compared?),
        }
        let mut counted = HashMap::new();
        for record in tree::store_records(trees, None) {
            let (name, record) = record?;
            counted.extend(record.head.map(|head| (record.ordinal, head)));
            self.found.stores += 1;
            for finding in
                self.store(trees, &record).unwrap_or_else(|error| vec![error.to_string()])
            {
                self.fault(&self.files.database(), Some(&name), finding);
            }
            if let Some(head) = record.head {
                let expected = Expected { head, hash: record.hash, name: Some(name) };
                self.expected.insert(record.ordinal, expected);
            }
        }
        self.counted = Some(counted);
        Ok(())
    }

    /// Reads the entries of a store and the index of their ids. Returns what is wrong with them.
    fn store(
        &mut self,
        trees: &Trees,
        record: &store::StoreRecord,
    ) -> Result<Vec<String>, StorageError> {
        let reader = Reader { tree: trees.log(), ordinal: record.ordinal };
        let found = reader.find(Sequence::MAX)?;
        let last = found.map_or(Sequence::ZERO, |found| found.last());
        if let Some(head) = record.head.filter(|head| *head != last) {
            let finding = format!("it ends with entry {last}, not with {head}");
            return Err(StorageError::corrupt(finding));
        }
        let in_tree = record.gaps.place(last);
        let index = reader.ids().and_then(|index| index.checked(in_tree));
        let mut gaps = Gaps::default();
        let mut check = index.as_ref().ok().map(Check::new);
        let mut next = Sequence::FIRST;
        let trimmed = record.trimmed;
        while next <= last {
            let is_bare = reader.find(next)?.is_some_and(|found| found.record.bare == Bare::All);
            let segment = reader.segment(next)?;
            let is_swept = segment.last() <= trimmed.swept;
            if is_bare != is_swept && !segment.is_gap() {
                let finding =
                    format!("entry {next} has content or lacks it, contrary to what is trimmed");
                return Err(StorageError::corrupt(finding));
            }
            if segment.first() != next {
                let first = segment.first();
                let finding = format!("entry {next} is in a segment from {first} on");
                return Err(StorageError::corrupt(finding));
            }
            self.found.entries +=
                (segment.ids().filter(|(at, _)| *at > trimmed.last)).count() as u64;
            if segment.is_gap() {
                gaps.add(&segment);
            }
            for (sequence, id) in segment.ids() {
                let place = gaps.place(sequence);
                check.iter_mut().for_each(|check| check.entry(id, place));
            }
            next = segment.last().next();
        }
        if gaps != record.gaps {
            return Err(StorageError::corrupt("its record speaks of other gaps than it has"));
        }
        let checked = check.map_or(Ok(()), |check| check.finish(&reader));
        Ok(checked.err().into_iter().chain(index.err().map(|error| error.to_string())).collect())
    }
}
