//! How far the database was at a checkpoint, in two files that are written in turn.
//!
//! ```text
//! crc32        4   over the rest
//! magic        8   "evlogwit"
//! version      4   1
//! turn         8   the file with the greater one counts
//! generation  16
//! remote id   16
//! position     8   of the last frame of the commit log that is wholly in the database
//! heads       16   the hash over the heads of all stores
//! stores       8   how many have entries
//! tables      16   the hash over the registry and the other tables
//! complete     1   1: the commit log began with an empty database, so that all of it can be built from the log
//! floor        8   new stores begin behind this sequence
//! zeros            up to 512 bytes
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{HeadsHash, TablesHash};
use crate::model::{RemoteId, Sequence};
use crate::storage::commit_log::{Generation, Position};
use crate::storage::slot::{self, BLOCK_BYTES, u32_at, u64_at};

const NAMES: [&str; 2] = ["witness.a", "witness.b"];
const MAGIC: &[u8; 8] = b"evlogwit";
const VERSION: u32 = 1;
const SEED: u32 = 0;

/// How far the database was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Witness {
    /// The generation of the directory.
    pub(crate) generation: Generation,
    /// The remote id of the server.
    pub(crate) remote_id: RemoteId,
    /// New stores begin after this sequence.
    pub(crate) floor: Sequence,
    /// The last frame of the commit log that is completely in the database.
    pub(crate) position: Position,
    /// The hash over the heads of all stores.
    pub(crate) heads: HeadsHash,
    /// How many stores have entries.
    pub(crate) stores: u64,
    /// The hash over the registry and the other tables.
    pub(crate) tables: TablesHash,
    /// Whether the commit log began with an empty database.
    pub(crate) complete: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadWitness {
    /// The newest undamaged copy.
    pub(crate) newest: Option<Witness>,
    /// The copies that are missing or have changed.
    pub(crate) damaged: Vec<PathBuf>,
}

/// Writes witnesses.
pub(crate) struct WitnessFiles {
    folder: PathBuf,
    turn: u64,
}

impl WitnessFiles {
    /// The files in `folder`, and what is in them.
    pub(crate) fn open(folder: &Path) -> io::Result<(Self, ReadWitness)> {
        let mut found = ReadWitness::default();
        let mut newest = 0;
        for name in NAMES {
            let path = folder.join(name);
            match read(&path)? {
                Some((turn, witness)) if turn > newest => {
                    newest = turn;
                    found.newest = Some(witness);
                }
                Some(_) => {}
                None => found.damaged.push(path),
            }
        }
        // That is the place of the older copy, or of a damaged one: the good one is never at risk.
        Ok((Self { folder: folder.to_owned(), turn: newest + 1 }, found))
    }

    /// Replaces the older copy by `witness`; on disk when this returns. The first one is written to both.
    pub(crate) fn write(&mut self, witness: &Witness) -> io::Result<()> {
        let first = self.turn == 1;
        self.write_next(witness)?;
        if first { self.write_next(witness) } else { Ok(()) }
    }

    fn write_next(&mut self, witness: &Witness) -> io::Result<()> {
        let path = self.folder.join(NAMES[(self.turn % 2) as usize]);
        let is_new = !path.try_exists()?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        file.write_all_at(&encode(self.turn, witness), 0)?;
        if is_new {
            file.sync_all()?;
            File::open(&self.folder)?.sync_all()?;
        } else {
            file.sync_data()?;
        }
        self.turn += 1;
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Option<(u64, Witness)>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut block = [0; BLOCK_BYTES];
    // Too short, or unreadable: the other copy may be good.
    Ok(file.read_exact_at(&mut block, 0).ok().and_then(|()| decode(&mut block)))
}

fn encode(turn: u64, witness: &Witness) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    block[4..12].copy_from_slice(MAGIC);
    block[12..16].copy_from_slice(&VERSION.to_be_bytes());
    block[16..24].copy_from_slice(&turn.to_be_bytes());
    block[24..40].copy_from_slice(&witness.generation.0);
    block[40..56].copy_from_slice(witness.remote_id.as_bytes());
    block[56..64].copy_from_slice(&witness.position.0.to_be_bytes());
    block[64..80].copy_from_slice(&witness.heads.to_bytes());
    block[80..88].copy_from_slice(&witness.stores.to_be_bytes());
    block[88..104].copy_from_slice(&witness.tables.to_bytes());
    block[104] = u8::from(witness.complete);
    block[105..113].copy_from_slice(&witness.floor.get().to_be_bytes());
    slot::close(&mut block, SEED);
    block
}

fn decode(block: &mut [u8; BLOCK_BYTES]) -> Option<(u64, Witness)> {
    if !slot::check(block, SEED) || block[4..12] != *MAGIC || u32_at(block, 12) != VERSION {
        return None;
    }
    let sixteen = |at: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&block[at..at + 16]);
        bytes
    };
    let witness = Witness {
        generation: Generation(sixteen(24)),
        remote_id: RemoteId::from_bytes(sixteen(40)),
        position: Position(u64_at(block, 56)),
        heads: HeadsHash::from_bytes(sixteen(64)),
        stores: u64_at(block, 80),
        tables: TablesHash::from_bytes(sixteen(88)),
        complete: block[104] == 1,
        floor: Sequence::new(u64_at(block, 105)).ok()?,
    };
    Some((u64_at(block, 16), witness))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(position: u64) -> Witness {
        Witness {
            generation: Generation([4; 16]),
            remote_id: RemoteId::from_bytes([5; 16]),
            position: Position(position),
            heads: HeadsHash::from_bytes([6; 16]),
            stores: 7,
            tables: TablesHash::from_bytes([8; 16]),
            complete: true,
            floor: Sequence::FIRST,
        }
    }

    fn written(positions: std::ops::RangeInclusive<u64>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut files, found) = WitnessFiles::open(folder.path()).expect("readable");
        assert_eq!((found.newest, found.damaged.len()), (None, 2));
        positions.for_each(|position| files.write(&witness(position)).expect("written"));
        folder
    }

    fn read(folder: &Path) -> (Option<u64>, Vec<String>) {
        let (_, found) = WitnessFiles::open(folder).expect("readable");
        let name = |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().into();
        (found.newest.map(|found| found.position.0), found.damaged.iter().map(name).collect())
    }

    #[test]
    fn the_newest_copy_counts() {
        for last in 1..6 {
            let folder = written(1..=last);
            assert_eq!(read(folder.path()), (Some(last), vec![]));
            let (mut files, found) = WitnessFiles::open(folder.path()).expect("readable");
            assert_eq!(found.newest, Some(witness(last)));
            files.write(&witness(9)).expect("written");
            assert_eq!(read(folder.path()), (Some(9), vec![]));
        }
    }

    #[test]
    fn a_spoiled_copy_is_told_and_is_the_next_to_be_written() {
        for last in 1..6 {
            for name in NAMES {
                for spoil in [
                    |path: &Path| std::fs::remove_file(path),
                    |path: &Path| std::fs::write(path, [1; 100]),
                    |path: &Path| std::fs::write(path, [0; 512]),
                ] {
                    let folder = written(1..=last);
                    spoil(&folder.path().join(name)).expect("spoiled");
                    let (newest, damaged) = read(folder.path());
                    assert!(newest >= Some(last - 1).filter(|last| *last > 0) && newest.is_some());
                    assert_eq!(damaged, [name]);
                    let (mut files, _) = WitnessFiles::open(folder.path()).expect("readable");
                    files.write(&witness(9)).expect("written");
                    assert_eq!(read(folder.path()), (Some(9), vec![]), "{last} {name}");
                }
            }
        }
    }

    #[test]
    fn a_single_changed_bit_spoils_nothing() {
        let folder = written(1..=2);
        for name in NAMES {
            let path = folder.path().join(name);
            let bytes = std::fs::read(&path).expect("a file");
            for bit in (0..bytes.len() * 8).step_by(3) {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(&path, changed).expect("written");
                assert_eq!(read(folder.path()), (Some(2), vec![]), "bit {bit}");
            }
            std::fs::write(&path, bytes).expect("written");
        }
    }
}
