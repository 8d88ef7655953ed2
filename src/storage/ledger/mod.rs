//! The erasure ledger: which entries were erased, and when. It contains ids and times, but no content and no primary keys.
//!
//! An erasure is written here before it is written to the commit log. It can then be repeated in a directory that has lost it:
//! one that was restored from an earlier backup, or whose log was damaged.
//!
//! Keeps: an added record is on disk in two copies before the call returns, and never changes. A record that one copy has lost
//! is read from another one. Leaves out: repeating erasures (`sled::erasures`).
//!
//! ```text
//! erased.a, erased.b   in the data directory, with the same bytes: records, one after the other
//! archive/erased       a third copy, which is copied elsewhere with the archive
//! ```

mod copies;
mod record;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use self::copies::{Copies, Found};
pub(crate) use self::record::{Chain, Erased, Erasure};
use crate::model::StoreId;

/// The two copies in a data directory.
const NAMES: [&str; 2] = ["erased.a", "erased.b"];
/// The copy in the folder of an archive.
pub(crate) const ARCHIVED: &str = "erased";

/// A position in a ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The number of the last record; zero before the first one.
    pub(crate) number: u64,
    /// The hash over the records up to there.
    pub(crate) chain: Chain,
}

/// The paths of its copies: in a data directory, and in its archive if it has one.
pub(crate) fn paths(directory: &Path, archive: Option<&Path>) -> Vec<PathBuf> {
    let ours = NAMES.iter().map(|name| directory.join(name));
    ours.chain(archive.map(|folder| folder.join(ARCHIVED))).collect()
}

/// A ledger that can be added to. Only one may have it open.
pub(crate) struct Ledger {
    copies: Copies,
    end: Mark,
    /// Where the next record is written, in bytes.
    end_at: u64,
    /// What was lost in all copies.
    lost: Vec<String>,
}

impl Ledger {
    /// Opens the ledger of this data directory, and of the archive in this folder. Incomplete copies are completed from the others.
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

    /// The position of its end.
    pub(crate) const fn end(&self) -> Mark {
        self.end
    }

    /// Its size in bytes.
    pub(crate) const fn bytes(&self) -> u64 {
        self.end_at
    }

    /// Adds an erasure with this time in milliseconds since 1970. It is on disk when this returns. After an error, it may or may not be there.
    pub(crate) fn add(&mut self, store: &StoreId, what: &Erased, time_ms: u64) -> io::Result<Mark> {
        let number = self.end.number + 1;
        let (record, chain) = record::encode((number, self.end.chain), store, what, time_ms);
        if let Err(error) = self.copies.add(self.end_at, &record) {
            // What was written of it would be a torn end.
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
    /// Like [`Ledger::add`], but the record is on disk only after [`Copies::end_at`].
    fn add_later(&mut self, store: &StoreId, what: &Erased, time_ms: u64) -> io::Result<()> {
        let number = self.end.number + 1;
        let (record, chain) = record::encode((number, self.end.chain), store, what, time_ms);
        self.copies.mend(self.end_at, &record)?;
        self.end_at += record.len() as u64;
        self.end = Mark { number, chain };
        Ok(())
    }
}

/// Reads a ledger while others may add to it, up to its end at the time of reading.
pub(crate) struct Reader {
    copies: Copies,
    at: u64,
    mark: Mark,
    lost: Vec<String>,
}

impl Reader {
    /// Opens those of the files at these [`paths`] that exist.
    pub(crate) fn open(paths: &[PathBuf]) -> io::Result<Self> {
        let copies = Copies::to_read(paths)?;
        Ok(Self { copies, at: 0, mark: Mark::default(), lost: Vec::new() })
    }

    /// How far it has read.
    pub(crate) const fn mark(&self) -> Mark {
        self.mark
    }

    /// What it has passed so far that is lost in all copies, or was written by a later version.
    pub(crate) fn lost(&self) -> &[String] {
        &self.lost
    }

    /// The next record that this version understands, or `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Erasure>> {
        while let Some(record) = self.next_raw()? {
            match record::decode(&record) {
                None => {
                    let number = self.mark.number;
                    self.lost.push(format!("a later version wrote record {number}"));
                }
                erasure => return Ok(erasure),
            }
        }
        Ok(None)
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

/// The record of an erasure, without a number and apart from other records.
#[cfg(feature = "postgres")]
pub(crate) fn encode(erasure: &Erasure) -> Vec<u8> {
    record::encode((0, Chain::default()), &erasure.store, &erasure.what, erasure.time_ms).0
}

/// The erasure in such a record. `None` if it is damaged, or if a later version wrote it.
#[cfg(feature = "postgres")]
pub(crate) fn decode(record: &[u8]) -> Option<Erasure> {
    record::is_whole(record).then(|| record::decode(record)).flatten()
}

/// What identifies an erasure in any ledger: the hash over time, kind, store and content.
#[cfg(feature = "postgres")]
pub(crate) fn identity(erasure: &Erasure) -> u128 {
    record::identity(erasure)
}

/// Creates the ledger of the data directory `directory`, which has none, from the records of other ledgers: each record once, in their order.
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
            log::error!("the erasure ledger {}: {lost}", source.display());
        }
    }
    ledger.copies.end_at(ledger.end_at)
}

#[cfg(test)]
mod tests;
