//! Reads everything in a data directory, and says what is wrong.
//!
//! Keeps: nothing is put right. Leaves out: a directory that is in use.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::files::Files;
use super::key::{Ordinal, StoreKey};
use super::open;
use super::options::{DatabaseOptions, OpenFailure};
use super::record::{Record, records};
use super::segments::Reader;
use super::tree::{self, Facts, Trees};
use super::value::store;
use super::watch;
use crate::model::{Sequence, StoreId};
use crate::storage::StorageError;
use crate::storage::archive::{Archived, Kind};
use crate::storage::commit_log::{self, Found, LogOptions, Position};
use crate::storage::witness::{FrameSalt, Heads, StoreHash, Witness, WitnessFiles};

/// What a data directory holds, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// What is wrong; nothing, for a directory that is whole.
    pub faults: Vec<Fault>,
    /// Frames that were read, in the archive and in the commit log.
    pub frames: u64,
    /// Stores that were read.
    pub stores: u64,
    /// Entries of theirs.
    pub entries: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file or folder.
    pub path: PathBuf,
    /// The store, if it is in one.
    pub store: Option<StoreId>,
    /// What it is.
    pub finding: String,
}

pub(super) fn verify(
    files: &Files,
    options: &DatabaseOptions,
) -> Result<Verification, OpenFailure> {
    let mut verifier = Verifier { files, found: Verification::default(), chains: HashMap::new() };
    let (_, witness) = WitnessFiles::open(files.directory())?;
    for path in &witness.damaged {
        verifier.fault(path, None, "it is missing or not as it was written");
    }
    if let Some(witness) = &witness.newest {
        verifier.heads(witness)?;
        verifier.frames(options, witness)?;
    }
    if let Some(finding) = files.noted_damage()? {
        verifier.fault(&files.database(), None, finding);
    }
    verifier.sled(options)?;
    Ok(verifier.found)
}

struct Verifier<'a> {
    files: &'a Files,
    found: Verification,
    /// Where each store was in the frames that were read, and its hash there, newest last.
    chains: HashMap<Ordinal, Vec<(Sequence, StoreHash)>>,
}

impl Verifier<'_> {
    fn fault(&mut self, path: &Path, store: Option<&StoreId>, finding: impl std::fmt::Display) {
        let (path, store, finding) = (path.to_owned(), store.cloned(), finding.to_string());
        self.found.faults.push(Fault { path, store, finding });
    }

    fn heads(&mut self, witness: &Witness) -> Result<(), OpenFailure> {
        let heads = Heads::open(self.files.directory(), witness.generation)?;
        let mut damaged = Vec::new();
        heads.read_all(|ordinal, read| {
            if read.damaged {
                damaged.push(ordinal);
            }
        })?;
        let path = self.files.directory().join("heads.a");
        for ordinal in damaged {
            let finding =
                format!("the record of store number {ordinal} is damaged, here or in heads.b");
            self.fault(&path, None, finding);
        }
        Ok(())
    }

    fn frames(&mut self, options: &DatabaseOptions, witness: &Witness) -> Result<(), OpenFailure> {
        let archive = open::archive(self.files, options, witness.generation)?;
        // Without an archive the log alone has them, from some frame on.
        let mut from = witness.position;
        if let Some(archive) = archive {
            let has_base = archive.files()?.files.iter().any(|file| file.kind == Kind::Base);
            let visit = |found: Archived<'_>| match found {
                Archived::Base(_) => Ok(()),
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
        commit_log::read(&log, from, witness.position, |found| match found {
            Found::Frame(frame) => self.frame(frame.body),
            Found::Damage(damage) => {
                let path = log.folder.join(format!("{:08}.log", damage.file));
                self.fault(&path, None, damage);
                Ok(())
            }
        })?;
        Ok(())
    }

    /// Goes on with the hashes of the stores in a frame.
    fn frame(&mut self, body: &[u8]) -> Result<(), OpenFailure> {
        self.found.frames += 1;
        let mut salt = FrameSalt::default();
        for record in records(body) {
            match record? {
                Record::Salt(of_frame) => salt = of_frame,
                Record::Entries { ordinal, segment } => {
                    let chain = self.chains.entry(ordinal).or_default();
                    let (last, hash) = chain.last().copied().unwrap_or_default();
                    if segment.first() != last.next() {
                        // From here on it is not known.
                        chain.clear();
                        continue;
                    }
                    let salt = salt.append(ordinal, segment.first());
                    let hash = hash.with_append(&segment, salt).map_err(OpenFailure::corrupt)?;
                    chain.push((segment.last(), hash));
                }
                Record::Store { .. } | Record::Change { .. } => {}
            }
        }
        Ok(())
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
        for record in trees.log().range(StoreKey::all_after(None)) {
            let (key, record) = record?;
            let malformed = || OpenFailure::corrupt("malformed key of a store");
            let StoreKey(name) = StoreKey::parse(&key).ok_or_else(malformed)?;
            let record = store::decode(&record).map_err(OpenFailure::corrupt)?;
            self.found.stores += 1;
            if let Err(error) = self.store(trees, &record) {
                self.fault(&self.files.database(), Some(&name), error);
            }
        }
        Ok(())
    }

    fn store(&mut self, trees: &Trees, record: &store::StoreRecord) -> Result<(), StorageError> {
        let reader = Reader { tree: trees.log(), ordinal: record.ordinal };
        let found = reader.find(Sequence::MAX)?;
        let last = found.map_or(Sequence::ZERO, |found| found.last());
        if let Some(head) = record.head.filter(|head| *head != last) {
            let finding = format!("it ends with entry {last}, not with {head}");
            return Err(StorageError::corrupt(finding));
        }
        let mut next = Sequence::FIRST;
        while next <= last {
            let segment = reader.segment(next)?;
            if segment.first() != next {
                let first = segment.first();
                let finding = format!("entry {next} is in a segment from {first} on");
                return Err(StorageError::corrupt(finding));
            }
            self.found.entries += segment.len() as u64;
            next = segment.last().next();
        }
        let chain = self.chains.get(&record.ordinal).into_iter().flatten();
        let expected = chain.clone().find(|(head, _)| Some(*head) == record.head);
        if expected.is_some_and(|(_, hash)| *hash != record.hash) {
            return Err(StorageError::corrupt("its hash is not that of the entries in the log"));
        }
        Ok(())
    }
}
