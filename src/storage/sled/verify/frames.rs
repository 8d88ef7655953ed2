//! Reads the frames of an archive and of the commit log, and compares the hashes of the stores in them.

use std::io;
use std::path::{Path, PathBuf};

use super::{Expected, LOOKS, MOMENT, Verifier};
use crate::model::{Segment, Sequence};
use crate::storage::archive::{Archive, Archived, Kind};
use crate::storage::commit_log::{self, Found, LogOptions, Position, Read};
use crate::storage::sled::key::Ordinal;
use crate::storage::sled::missing::Missing;
use crate::storage::sled::open;
use crate::storage::sled::options::{DatabaseOptions, OpenFailure};
use crate::storage::sled::record::{Record, records};
use crate::storage::witness::{FrameSalt, StoreHash, Witness};

/// Files, and what is wrong with them.
type Damages = Vec<(PathBuf, String)>;

fn has_base(archive: &Archive) -> io::Result<bool> {
    Ok(archive.files()?.files.iter().any(|file| file.kind == Kind::Base))
}

impl Verifier<'_> {
    /// The archive, or a note that there is none.
    fn archive(&mut self, options: &DatabaseOptions, witness: &Witness) -> Option<Archive> {
        let folder = open::archive_folder(self.files, options);
        if let Some(folder) = folder.filter(|_| options.archive.enabled) {
            return Some(Archive::to_read(folder, witness.generation).counting(&options.work));
        }
        let folder = options.archive.dir.clone();
        self.found.no_archive = Some(folder.unwrap_or_else(|| self.files.archive()));
        None
    }

    /// Reads the archive and the log of a directory that nobody uses.
    pub(super) fn frames(
        &mut self,
        options: &DatabaseOptions,
        (witness, is_whole): (&Witness, bool),
    ) -> Result<(), OpenFailure> {
        let archive = self.archive(options, witness);
        // Without an archive, only the log has the frames, from some frame on. Those before the checkpoint are needed only if sled has lost them.
        let mut from = if is_whole { witness.position } else { Position(0) };
        if let Some(archive) = archive {
            let visit = |found: Archived<'_>| match found {
                Archived::Base(part) => self.frame(part),
                Archived::Frame(frame) => self.frame(frame.body),
                Archived::Damage(damage) => {
                    self.fault(&damage.path, None, damage.finding());
                    Ok::<_, OpenFailure>(())
                }
            };
            from = if has_base(&archive)? {
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
                self.fault(&path, None, damage.finding());
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
    pub(super) fn running_frames(
        &mut self,
        options: &DatabaseOptions,
        witness: &Witness,
    ) -> Result<(), OpenFailure> {
        let Some(archive) = self.archive(options, witness) else { return Ok(()) };
        let log = LogOptions::new(self.files.log(), witness.generation);
        let (mut last, mut read) = (Position(0), Ok(Vec::new()));
        for _ in 0..LOOKS {
            read = self.archived(&archive, &mut last);
            if read.is_ok() && last < witness.position {
                read = self.logged(&log, &mut last, witness.position);
            }
            match &read {
                Ok(damages) if damages.is_empty() => return Ok(()),
                // A file was archived and reused meanwhile, so the archive has it; or it was removed, as there is a newer base.
                Ok(_) | Err(OpenFailure::Io(_)) => std::thread::sleep(MOMENT),
                Err(_) => break,
            }
        }
        read?.into_iter().for_each(|(path, finding)| self.fault(&path, None, finding));
        Ok(())
    }

    /// Reads what the archive has after `last`, which moves on; at the beginning also its base.
    fn archived(&mut self, archive: &Archive, last: &mut Position) -> Result<Damages, OpenFailure> {
        let mut faults = Vec::new();
        let visit = |found: Archived<'_>| match found {
            Archived::Base(part) => self.frame(part),
            Archived::Frame(frame) => self.frame(frame.body),
            Archived::Damage(damage) => {
                faults.push((damage.path.clone(), damage.finding()));
                Ok::<_, OpenFailure>(())
            }
        };
        *last = if *last == Position(0) && has_base(archive)? {
            archive.read(visit)?
        } else {
            archive.read_behind(*last, visit)?
        };
        // Nobody repairs these meanwhile.
        faults.into_iter().for_each(|(path, finding)| self.fault(&path, None, finding));
        Ok(Vec::new())
    }

    /// Reads what the log has after `last`, which moves on until there is damage. Returns that.
    fn logged(
        &mut self,
        log: &LogOptions,
        last: &mut Position,
        to: Position,
    ) -> Result<Damages, OpenFailure> {
        let mut damages = Vec::new();
        let read = commit_log::read_running(log, *last, to, |found| match found {
            // Behind damage, the frame is read again.
            Found::Frame(frame) if damages.is_empty() => {
                *last = frame.position;
                self.frame(frame.body)
            }
            Found::Frame(_) => Ok(()),
            Found::Damage(damage) => {
                let path = log.folder.join(format!("{:08}.log", damage.file));
                damages.push((path, damage.finding()));
                Ok::<_, OpenFailure>(())
            }
        })?;
        if damages.is_empty() {
            self.repairable(&log.folder, read);
        }
        Ok(damages)
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
        let next = counted.get(&ordinal).map(|last| last.next());
        if let Some(next) = next.filter(|next| segment.first() > *next) {
            let missing = Missing::new(next, segment.first().prev());
            let all = self.cut.entry(ordinal);
            all.and_modify(|before| before.add(missing)).or_insert(missing);
        }
        let last = counted.entry(ordinal).or_default();
        if segment.last() > *last {
            let from = *last;
            self.found.logged += segment.ids().filter(|(at, _)| *at > from).count() as u64;
            *last = segment.last();
        }
    }

    /// Reports entries that are missing before others.
    pub(super) fn cut(&mut self) {
        for (ordinal, missing) in std::mem::take(&mut self.cut) {
            let known = self.expected.get(&ordinal).and_then(|expected| expected.name.clone());
            let name = known.or_else(|| self.named.get(&ordinal).cloned());
            let finding = format!(
                "the log has lost {missing}. So the next start refuses, and `accept-loss` goes on without what is lost"
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
}
