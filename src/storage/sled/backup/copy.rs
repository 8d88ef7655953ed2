//! Copies a file of a backup, and reads what is there.
//!
//! Keeps: a file gets its name when it is on disk, was read back, and is what earlier backups know of it. The disk is used
//! a third of the time at most, for small parts, because writes of clients wait for the same one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::folder::BackupError;
use super::manifest::{ManifestFile, hex};
use crate::storage::SnapshotFile;

/// How much is copied at once, in bytes.
const COPY_BYTES: usize = 256 << 10;

/// Copies a file, of which an earlier backup knows what it has to be. It gets its name after it was read back.
pub(super) fn copy(
    from: impl Read,
    (file, known): (&SnapshotFile, Option<&ManifestFile>),
    path: &Path,
) -> Result<ManifestFile, BackupError> {
    let new = path.with_extension("zst.new");
    let copied = (|| {
        let mut to = File::create(&new)?;
        let mut pace = Pace::new();
        let copied = digest(from, |part| {
            to.write_all(part)?;
            // If that were done once at the end, syncs of the commit log would wait for it.
            to.sync_data()?;
            pace.give_way();
            Ok(())
        })?;
        to.sync_all()?;
        #[cfg(target_os = "linux")]
        rustix::fs::fadvise(&to, 0, None, rustix::fs::Advice::DontNeed)?;
        if read_slowly(File::open(&new)?)? != copied {
            return Err(io::Error::other("it does not read back as it was written"));
        }
        // Files of the archive never change under one name.
        let is_archived = path.extension().is_some_and(|end| end == "zst");
        if known.is_some_and(|known| is_archived && known.sha256 != copied.1) {
            let why = "the copy is damaged, and what the archive has now is not what it had: run `eventlog-server verify`";
            return Err(io::Error::other(why));
        }
        std::fs::rename(&new, path)?;
        Ok(copied)
    })();
    let (bytes, sha256) = copied.map_err(|cause| BackupError::io(path, cause))?;
    if bytes != file.bytes {
        let finding = format!("it has {bytes} bytes, and should have {}", file.bytes);
        return Err(BackupError::damaged(path, &finding));
    }
    Ok(ManifestFile { name: file.name.clone(), bytes, sha256 })
}

/// Reads everything. Returns the number of bytes and their SHA-256.
pub(super) fn digest(
    mut from: impl Read,
    mut see: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(u64, String)> {
    let (mut sum, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; COPY_BYTES]);
    loop {
        let count = fill(&mut from, &mut buffer)?;
        if count == 0 {
            return Ok((bytes, hex(&sum.finalize())));
        }
        let part = &buffer[..count];
        sum.update(part);
        see(part)?;
        bytes += count as u64;
    }
}

/// Like [`digest`], and leaves the disk to others most of the time.
pub(super) fn read_slowly(from: impl Read) -> io::Result<(u64, String)> {
    let mut pace = Pace::new();
    digest(from, |_| {
        pace.give_way();
        Ok(())
    })
}

/// Reads until the buffer is full, or there is no more. Returns how much that is.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The longest pause: a part may also have waited for a slow network.
const PAUSE_MAX: Duration = Duration::from_millis(10);

/// Pauses after each part for twice as long as it took.
struct Pace(Instant);

impl Pace {
    fn new() -> Self {
        Self(now())
    }

    fn give_way(&mut self) {
        std::thread::sleep((self.0.elapsed() * 2).min(PAUSE_MAX));
        self.0 = now();
    }
}

#[expect(clippy::disallowed_methods, reason = "it is paced by the clock")]
fn now() -> Instant {
    Instant::now()
}

pub(super) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(new, path)
}
