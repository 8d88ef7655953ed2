//! Reads everything in a data directory and reports what is wrong.
//!
//! Keeps: nothing is repaired. In a directory that a server uses, this reads what it can without disturbing the server.
//! `sled` reads the database, `frames` reads the archive and the commit log, which hold the same a second time.

mod frames;
mod sled;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::Files;
use super::key::Ordinal;
use super::missing::Missing;
use super::options::{DatabaseOptions, OpenFailure};
use super::spares;
use crate::model::{Sequence, StoreId};
use crate::storage::witness::{HeadRecord, Heads, StoreHash, WitnessFiles};

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
    /// The entries that are missing before others that frames have.
    cut: BTreeMap<Ordinal, Missing>,
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
}
