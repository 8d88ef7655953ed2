//! Ships the files of a data directory to a bucket when they are ready.
//!
//! Keeps: everything that is written or removed is below the generation of the directory; if an object with the name of
//! a file exists, it has the same content, or that is reported. Leaves out: when this is done.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use eventlog_server::storage::sled::{DirectoryNote, Tail};
use eventlog_server::storage::{Snapshot, SnapshotFile};

use super::{Bucket, BucketError, Kept};

/// Ships files to a bucket, and knows which are there.
pub(in crate::cli) struct Shipper {
    bucket: Bucket,
    /// The folder that contains everything.
    generation: Option<String>,
    /// The files of the archive in the bucket, by name.
    files: BTreeMap<String, u64>,
    /// The tails: first and last change.
    tails: Vec<(u64, u64)>,
    /// Objects that may be there or not, since writing them failed.
    tried: BTreeSet<String>,
}

/// What was shipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Shipped {
    /// The number of files that did not exist there yet.
    pub(in crate::cli) files: usize,
    /// Their bytes.
    pub(in crate::cli) bytes: u64,
}

/// Shipping failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ShipError {
    /// The bucket does not accept it.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The file cannot be read here.
    #[error("{file}: {cause}")]
    File {
        /// The file.
        file: String,
        /// What went wrong.
        cause: io::Error,
    },
    /// Another object has the name.
    #[error(
        "the bucket has another {0} of this directory: a copy of the directory is served elsewhere, and writes to the same bucket. Stop \
         one of the two, and run `eventlog-server heal --data-dir DIR` on it if it is to go on"
    )]
    Another(String),
}

impl Shipper {
    /// Ships to this bucket.
    pub(in crate::cli) const fn new(bucket: Bucket) -> Self {
        let tried = BTreeSet::new();
        Self { bucket, generation: None, files: BTreeMap::new(), tails: Vec::new(), tried }
    }

    /// Ships all files of `snapshot`, which `open` opens.
    pub(in crate::cli) fn files<R: Read>(
        &mut self,
        snapshot: &Snapshot,
        mut open: impl FnMut(&SnapshotFile) -> io::Result<R>,
    ) -> Result<Shipped, ShipError> {
        let folder = self.begin(snapshot)?;
        let mut shipped = Shipped::default();
        for file in &snapshot.files {
            match self.files.get(&file.name) {
                Some(bytes) if *bytes == file.bytes => continue,
                Some(_) => return Err(ShipError::Another(file.name.clone())),
                None => {}
            }
            let open = || open(file).map(|from| from.take(file.bytes));
            self.put(&format!("{folder}/{}", file.name), file.bytes, open)?;
            self.files.insert(file.name.clone(), file.bytes);
            shipped.files += 1;
            shipped.bytes += file.bytes;
        }
        self.tidy_ledgers(&folder)?;
        Ok(shipped)
    }

    /// The last change of the tails that are there.
    pub(in crate::cli) fn tails_end(&self) -> u64 {
        self.tails.iter().map(|(_, last)| *last).max().unwrap_or(0)
    }

    /// Ships a tail. The files before it must be there already.
    pub(in crate::cli) fn tail(
        &mut self,
        tail: &Tail,
        file: &SnapshotFile,
    ) -> Result<(), ShipError> {
        let Some(folder) = self.generation.clone() else { return Ok(()) };
        let name = tail_name(tail.first, tail.last);
        self.put(&format!("{folder}/{name}"), tail.bytes, || file.open())?;
        self.tails.push((tail.first, tail.last));
        Ok(())
    }

    /// Removes the tails that files of the archive up to change `position` replace, and files that were rewritten under
    /// another name. `here` are the names in the archive. With `all`, also removes the files that the archive has
    /// released, oldest first.
    pub(in crate::cli) fn tidy(
        &mut self,
        position: u64,
        here: &[String],
        all: bool,
    ) -> Result<(), ShipError> {
        let Some(folder) = self.generation.clone() else { return Ok(()) };
        while let Some(at) = self.tails.iter().position(|(_, last)| *last <= position) {
            let (first, last) = self.tails[at];
            self.bucket.remove(&format!("{folder}/{}", tail_name(first, last)))?;
            self.tails.swap_remove(at);
        }
        for name in surplus(self.files.keys(), here, all) {
            self.bucket.remove(&format!("{folder}/{name}"))?;
            self.files.remove(&name);
        }
        Ok(())
    }

    /// Removes all erasure ledgers but the longest one, which has what they have.
    fn tidy_ledgers(&mut self, folder: &str) -> Result<(), ShipError> {
        let ledgers = self.files.iter().filter(|(name, _)| is_ledger(name));
        let mut ledgers: Vec<_> = ledgers.map(|(name, bytes)| (*bytes, name.clone())).collect();
        ledgers.sort_unstable();
        ledgers.pop();
        for (_, name) in ledgers {
            self.bucket.remove(&format!("{folder}/{name}"))?;
            self.files.remove(&name);
        }
        Ok(())
    }

    /// Looks whether the bucket has files or tails of the directory that this has neither written nor found at its beginning: somebody else
    /// writes them. Costs one listing.
    pub(in crate::cli) fn nobody_else_writes(&self) -> Result<(), ShipError> {
        let Some(folder) = &self.generation else { return Ok(()) };
        for object in self.bucket.list(Some(folder))? {
            let Some(name) = object.name.strip_prefix(&format!("{folder}/")) else { continue };
            let is_known = match parse_tail(name) {
                Some(tail) => self.tails.contains(&tail),
                None if number_and_kind(name).is_some() || is_ledger(name) => {
                    self.files.get(name) == Some(&object.bytes)
                }
                None => true,
            };
            if !is_known && !self.tried.contains(&object.name) {
                return Err(ShipError::Another(object.name));
            }
        }
        Ok(())
    }

    /// Whether the bucket keeps what is removed from it.
    pub(in crate::cli) fn keeps_what_is_removed(&self) -> Result<Kept, BucketError> {
        self.bucket.keeps_what_is_removed()
    }

    /// Looks what is there of the directory, once.
    fn begin(&mut self, snapshot: &Snapshot) -> Result<String, ShipError> {
        let note = DirectoryNote::of(snapshot);
        let folder = note.generation().to_owned();
        if self.generation.as_ref() == Some(&folder) {
            return Ok(folder);
        }
        self.bucket.put_text(&format!("{folder}/directory"), note.encode().as_bytes())?;
        let (mut files, mut tails) = (BTreeMap::new(), Vec::new());
        for object in self.bucket.list(Some(&folder))? {
            let Some(name) = object.name.strip_prefix(&format!("{folder}/")) else { continue };
            if let Some(tail) = parse_tail(name) {
                tails.push(tail);
            } else if number_and_kind(name).is_some() || is_ledger(name) {
                files.insert(name.to_owned(), object.bytes);
            }
        }
        (self.files, self.tails) = (files, tails);
        self.generation = Some(folder.clone());
        Ok(folder)
    }

    /// Writes an object, unless it already exists with the same content.
    fn put<R: Read>(
        &mut self,
        name: &str,
        bytes: u64,
        open: impl FnMut() -> io::Result<R>,
    ) -> Result<(), ShipError> {
        self.tried.insert(name.to_owned());
        self.put_once(name, bytes, open)?;
        self.tried.remove(name);
        Ok(())
    }

    fn put_once<R: Read>(
        &self,
        name: &str,
        bytes: u64,
        mut open: impl FnMut() -> io::Result<R>,
    ) -> Result<(), ShipError> {
        let failed = |cause| ShipError::File { file: name.to_owned(), cause };
        let mut put = self.bucket.put_new(name, &mut open().map_err(failed)?, bytes);
        if put.as_ref().is_err_and(|error| self.bucket.demands_checksums(error)) {
            put = self.bucket.put_new(name, &mut open().map_err(failed)?, bytes);
        }
        if put? {
            return Ok(());
        }
        // An earlier attempt may have written it without getting the answer.
        let mut same = Same { here: open().map_err(failed)?, is_same: true };
        self.bucket.get(name, &mut same)?;
        let is_end = same.here.read(&mut [0]).map_err(failed)? == 0;
        if same.is_same && is_end { Ok(()) } else { Err(ShipError::Another(name.to_owned())) }
    }
}

/// Compares the written data.
struct Same<R> {
    here: R,
    is_same: bool,
}

impl<R: Read> Write for Same<R> {
    fn write(&mut self, there: &[u8]) -> io::Result<usize> {
        let mut here = vec![0; there.len()];
        self.is_same &= self.here.read_exact(&mut here).is_ok() && here == there;
        Ok(there.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The name of a tail.
pub(super) fn tail_name(first: u64, last: u64) -> String {
    format!("tail-{first:020}-{last:020}.log.zst")
}

/// The first and the last change of a tail with this name.
pub(super) fn parse_tail(name: &str) -> Option<(u64, u64)> {
    let (first, last) = name.strip_prefix("tail-")?.strip_suffix(".log.zst")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// Whether an erasure ledger is called so.
pub(super) fn is_ledger(name: &str) -> bool {
    let bytes = name.strip_prefix("erased-").and_then(|name| name.strip_suffix(".ledger"));
    bytes.is_some_and(|bytes| !bytes.is_empty() && bytes.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Number and kind of an archive's file, whatever its version is.
fn number_and_kind(name: &str) -> Option<(u64, &str)> {
    let mut parts = name.strip_suffix(".zst")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next_back()?))
}

/// The files that can be removed from the bucket, see [`Shipper::tidy`].
fn surplus<'a>(there: impl Iterator<Item = &'a String>, here: &[String], all: bool) -> Vec<String> {
    let kept: BTreeSet<(u64, &str)> =
        here.iter().filter_map(|name| number_and_kind(name)).collect();
    let oldest = kept.iter().map(|(number, _)| *number).min();
    let may_go = |name: &&String| {
        let Some(known) = number_and_kind(name).filter(|_| !here.contains(name)) else {
            return false;
        };
        let is_rewritten = kept.contains(&known);
        is_rewritten || all && oldest.is_some_and(|oldest| known.0 < oldest)
    };
    there.filter(may_go).cloned().collect()
}

/// The names in the folder of the archive that belongs to `snapshot`.
pub(in crate::cli) fn names_here(snapshot: &Snapshot) -> io::Result<Vec<String>> {
    let Some(folder) = snapshot.files.first().and_then(|file| file.path.parent()) else {
        return Ok(Vec::new());
    };
    let names = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_of_tails_are_read_as_they_are_written() {
        assert_eq!(parse_tail(&tail_name(7, 19)), Some((7, 19)));
        for other in ["00000016.log.zst", "tail-1.log.zst", "tail-a-2.log.zst", "directory"] {
            assert_eq!(parse_tail(other), None, "{other}");
        }
    }

    #[test]
    fn what_was_rewritten_goes_and_what_is_older_only_if_it_is_to() {
        let there = names(&[
            "00000001.log.zst",
            "00000002.log.zst",
            "00000003.log.zst",
            "00000004.base.zst",
            "00000009.log.zst",
            "notes",
        ]);
        let here = names(&["00000003.2.log.zst", "00000003.log.zst.new", "00000004.base.zst"]);
        let gone = |all| surplus(there.iter(), &here, all);
        assert_eq!(gone(false), names(&["00000003.log.zst"]));
        let older = names(&["00000001.log.zst", "00000002.log.zst", "00000003.log.zst"]);
        assert_eq!(gone(true), older);
        assert!(surplus(there.iter(), &[], true).is_empty(), "an empty folder says nothing");
    }
}
