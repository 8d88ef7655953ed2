//! The first bytes of a file: a frame that zstd skips (`0x184d2a50`, 512, both little-endian), with a block of 512 bytes.
//!
//! ```text
//! crc32        4   over the rest
//! magic        8   "evlogarc"
//! version      4   1
//! generation  16
//! kind         1   0 base, 1 log
//! number       8   of the log file
//! first        8   the number of the first frame
//! last         8   of the last one
//! time         8   of the last one, milliseconds since 1970
//! frames       8   how many there are
//! zeros
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::names::Name;
use super::{ArchiveDamageKind, ArchivedFile};
use crate::storage::commit_log::{Generation, Position};
use crate::storage::slot::{self, BLOCK_BYTES, u32_at, u64_at};

const MAGIC: &[u8; 8] = b"evlogarc";
const VERSION: u32 = 1;
const SEED: u32 = 0;
const SKIPPED: [u8; 8] = [0x50, 0x2a, 0x4d, 0x18, 0, 2, 0, 0];

/// How long the head is.
pub(super) const HEAD_BYTES: u64 = SKIPPED.len() as u64 + BLOCK_BYTES as u64;

/// Writes the head of `file` to its beginning.
pub(super) fn write(to: &File, file: &ArchivedFile, generation: Generation) -> io::Result<()> {
    let mut block = [0; BLOCK_BYTES];
    block[4..12].copy_from_slice(MAGIC);
    block[12..16].copy_from_slice(&VERSION.to_be_bytes());
    block[16..32].copy_from_slice(&generation.0);
    block[32] = file.kind as u8;
    block[33..41].copy_from_slice(&file.number.to_be_bytes());
    block[41..49].copy_from_slice(&file.first.0.to_be_bytes());
    block[49..57].copy_from_slice(&file.last.0.to_be_bytes());
    block[57..65].copy_from_slice(&file.time_ms.to_be_bytes());
    block[65..73].copy_from_slice(&file.frames.to_be_bytes());
    slot::close(&mut block, SEED);
    to.write_all_at(&SKIPPED, 0)?;
    to.write_all_at(&block, SKIPPED.len() as u64)
}

/// Reads the head of the file with this name.
pub(super) fn read(
    folder: &Path,
    name: &Name,
    generation: Generation,
) -> io::Result<Result<ArchivedFile, ArchiveDamageKind>> {
    let path = name.path(folder);
    let file = File::open(&path)?;
    let bytes = file.metadata()?.len();
    let mut block = [0; BLOCK_BYTES];
    if file.read_exact_at(&mut block, SKIPPED.len() as u64).is_err()
        || !slot::check(&mut block, SEED)
        || block[4..12] != *MAGIC
    {
        return Ok(Err(ArchiveDamageKind::Head));
    }
    if u32_at(&block, 12) != VERSION {
        return Ok(Err(ArchiveDamageKind::Version));
    }
    if block[16..32] != generation.0 {
        return Ok(Err(ArchiveDamageKind::Foreign));
    }
    if block[32] != name.kind as u8 || u64_at(&block, 33) != name.number {
        return Ok(Err(ArchiveDamageKind::Head));
    }
    Ok(Ok(ArchivedFile {
        path,
        kind: name.kind,
        number: name.number,
        version: name.version,
        first: Position(u64_at(&block, 41)),
        last: Position(u64_at(&block, 49)),
        time_ms: u64_at(&block, 57),
        frames: u64_at(&block, 65),
        bytes,
    }))
}
