//! The erasure ledger: which entries were erased, and when. It has ids and times, no content and no primary keys.
//!
//! An erasure is written here before it is written to the commit log, so that it can be made again in a directory that has lost it: one
//! that was restored from before it, or whose log was damaged.
//!
//! Keeps: what was added is on disk in two copies before that returns, and was never changed since; of a record that one copy has lost,
//! another one is read. Leaves out: making erasures again (`sled::erasures`).
//!
//! ```text
//! erased.a, erased.b   in the data directory, with the same bytes: records, one after the other
//! archive/erased       a third copy, which is brought elsewhere with the archive
//! ```

mod copies;
mod record;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use self::copies::{Copies, Found};
pub(crate) use self::record::{Chain, Erased, Erasure};
use crate::model::{EntryId, StoreId};

/// The two copies in a data directory.
const NAMES: [&str; 2] = ["erased.a", "erased.b"];
/// The copy in the folder of an archive.
pub(crate) const ARCHIVED: &str = "erased";

/// How far something has come with a ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The number of the last record; zero before the first one.
    pub(crate) number: u64,
    /// Over the records up to there.
    pub(crate) chain: Chain,
}

/// Where its copies are: of a data directory, and of its archive if it has one.
pub(crate) fn paths(directory: &Path, archive: Option<&Path>) -> Vec<PathBuf> {
    let ours = NAMES.iter().map(|name| directory.join(name));
    ours.chain(archive.map(|folder| folder.join(ARCHIVED))).collect()
}

/// A ledger that is added to. One at a time has it open.
pub(crate) struct Ledger {
    copies: Copies,
    end: Mark,
    /// Where the next record comes, in bytes.
    end_at: u64,
    /// What was lost of it in all copies.
    lost: Vec<String>,
}

impl Ledger {
    /// The one of this data directory, and of the archive in this folder. Copies that lack something get it from the others.
    pub(crate) fn open(directory: &Path, archive: Option<&Path>) -> io::Result<Self> {
        let copies = Copies::open(&paths(directory, archive))?;
        let mut reader = Reader { copies, at: 0, mark: Mark::default(), lost: Vec::new() };
        while let Some(record) = reader.next_raw()? {
            reader.copies.mend(reader.at - record.len() as u64, &record)?;
        }
        let Reader { mut copies, at, mark, lost } = reader;
        copies.end_at(at)?;
        Ok(Self { copies, end: mark, end_at: at, lost })
    }

    /// What was lost in all copies.
    pub(crate) fn lost(&self) -> &[String] {
        &self.lost
    }

    /// How far it goes.
    pub(crate) const fn end(&self) -> Mark {
        self.end
    }

    /// How many bytes it has.
    pub(crate) const fn bytes(&self) -> u64 {
        self.end_at
    }

    /// Adds one, of this time in milliseconds since 1970; on disk when this returns. After an error it may be there or not.
    pub(crate) fn add(&mut self, store: &StoreId, what: &Erased, time_ms: u64) -> io::Result<Mark> {
        let number = self.end.number + 1;
        let (record, chain) = record::encode((number, self.end.chain), store, what, time_ms);
        if let Err(error) = self.copies.add(self.end_at, &record) {
            // What is there of it would be a torn end.
            if let Err(error) = self.copies.end_at(self.end_at) {
                log::warn!("the erasure ledger cannot be cut: {error}");
            }
            return Err(error);
        }
        self.end_at += record.len() as u64;
        self.end = Mark { number, chain };
        Ok(self.end)
    }
}

impl Ledger {
    /// As [`Ledger::add`], but it is on disk only once its copies are ended.
    fn add_later(&mut self, store: &StoreId, what: &Erased, time_ms: u64) -> io::Result<()> {
        let number = self.end.number + 1;
        let (record, chain) = record::encode((number, self.end.chain), store, what, time_ms);
        self.copies.mend(self.end_at, &record)?;
        self.end_at += record.len() as u64;
        self.end = Mark { number, chain };
        Ok(())
    }
}

/// Reads a ledger, whoever adds to it meanwhile: up to where it is when that is come to.
pub(crate) struct Reader {
    copies: Copies,
    at: u64,
    mark: Mark,
    lost: Vec<String>,
}

impl Reader {
    /// Of the files at these [`paths`], those of which are there.
    pub(crate) fn open(paths: &[PathBuf]) -> io::Result<Self> {
        let copies = Copies::to_read(paths)?;
        Ok(Self { copies, at: 0, mark: Mark::default(), lost: Vec::new() })
    }

    /// How far it has come.
    pub(crate) const fn mark(&self) -> Mark {
        self.mark
    }

    /// What it has passed that is lost in all copies.
    pub(crate) fn lost(&self) -> &[String] {
        &self.lost
    }

    /// The next record; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Erasure>> {
        let record = self.next_raw()?;
        Ok(record.and_then(|record| record::decode(&record)))
    }

    fn next_raw(&mut self) -> io::Result<Option<Vec<u8>>> {
        let before = self.mark;
        match self.copies.find(self.at, before)? {
            Found::End => Ok(None),
            Found::Record { at, record, mark } => {
                if at > self.at {
                    let (from, to) = (before.number + 1, mark.number - 1);
                    self.lost.push(format!("records {from} to {to} are damaged in every copy"));
                }
                self.at = at + record.len() as u64;
                self.mark = mark;
                Ok(Some(record))
            }
        }
    }
}

/// Makes the ledger of the data directory `directory`, which has none, of the records of others, of each once, in their order.
pub(crate) fn gather(sources: &[PathBuf], directory: &Path) -> io::Result<()> {
    let mut ledger = Ledger::open(directory, None)?;
    let mut known = HashSet::new();
    for source in sources {
        let mut reader = Reader::open(std::slice::from_ref(source))?;
        while let Some(erasure) = reader.next()? {
            if known.insert(record::identity(&erasure)) {
                ledger.add_later(&erasure.store, &erasure.what, erasure.time_ms)?;
            }
        }
        for lost in reader.lost() {
            log::error!("the erasure ledger {} is damaged: {lost}", source.display());
        }
    }
    ledger.copies.end_at(ledger.end_at)
}

#[allow(dead_code, reason = "for who looks for their bytes")]
/// The ids of all entries of a store that were erased, by the ledger at these [`paths`].
pub(crate) fn erased_in(paths: &[PathBuf], store: &StoreId) -> io::Result<HashSet<EntryId>> {
    let (mut reader, mut erased) = (Reader::open(paths)?, HashSet::new());
    while let Some(erasure) = reader.next()? {
        if erasure.store == *store
            && let Erased::Entries(ids) = erasure.what
        {
            erased.extend(ids);
        }
    }
    Ok(erased)
}

#[cfg(test)]
mod tests;
