//! Writes and reads that bypass the page cache where the system supports it: the processor makes no copy, and a failed
//! sync leaves none behind. Their memory is aligned.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The alignment of memory, in bytes: enough for any disk.
const ALIGNED_BYTES: usize = 4_096;

/// Bytes that begin at an aligned address, as long as there are no more than were reserved.
#[derive(Debug, Default)]
pub(super) struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    /// Clears it, and reserves capacity for `bytes`.
    pub(super) fn reset(&mut self, bytes: usize) {
        self.memory.clear();
        self.memory.reserve_exact(bytes + ALIGNED_BYTES);
        // It is never more than that, but a system may refuse to say.
        self.start = self.memory.as_ptr().align_offset(ALIGNED_BYTES).min(ALIGNED_BYTES);
        self.memory.resize(self.start, 0);
    }

    /// `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        let mut zeros = Self::default();
        zeros.reset(len);
        zeros.resize(len);
        zeros
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.memory.extend_from_slice(bytes);
    }

    /// Sets its length to `len` bytes, with zeros where it becomes longer.
    pub(super) fn resize(&mut self, len: usize) {
        self.memory.resize(self.start + len, 0);
    }

    /// Clears it, and releases memory above `bytes_max`.
    pub(super) fn shrink(&mut self, bytes_max: usize) {
        self.memory.clear();
        self.memory.shrink_to(bytes_max);
        self.start = 0;
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }
}

/// Opens a file for writes that bypass the page cache; if `durable`, each of them is on disk when it returns.
pub(super) fn open(path: &Path, durable: bool) -> io::Result<File> {
    open_with(path, std::fs::OpenOptions::new().write(true), durable)
}

/// Opens a file for reads that bypass the page cache, into [`Aligned`] memory. A read may still fail where another file
/// handle can read: if the disk's sectors are larger.
pub(super) fn open_to_read(path: &Path) -> io::Result<File> {
    open_with(path, std::fs::OpenOptions::new().read(true), false)
}

fn open_with(path: &Path, options: &mut std::fs::OpenOptions, durable: bool) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Not the flags of `rustix`, whose DSYNC is `O_SYNC` on Linux: that also writes the modification time, which on
        // a file system with a journal is another write every few milliseconds.
        let flags = if durable { libc::O_DIRECT | libc::O_DSYNC } else { libc::O_DIRECT };
        options.custom_flags(flags).open(path)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (path, options, durable);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Writes `bytes` without the page cache; false if that is not possible and nothing was written.
pub(super) fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<bool> {
    if bytes.as_ptr().align_offset(ALIGNED_BYTES) != 0 {
        return Ok(false);
    }
    match file.write_all_at(bytes, offset) {
        // The sectors of the disk are larger, or the file system does not support it.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
        written => written.map(|()| true),
    }
}

/// How much a [`DirectReader`] reads at once.
const READ_BYTES: usize = 1 << 20;

/// Reads a file from front to back without the page cache.
pub(super) struct DirectReader {
    file: File,
    /// What the file has from `at` on.
    window: Aligned,
    at: u64,
}

impl DirectReader {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: open_to_read(path)?, window: Aligned::default(), at: 0 })
    }

    /// Fills `bytes` with what the file has from `offset` on. Both may be anything.
    pub(super) fn read_exact_at(
        &mut self,
        mut bytes: &mut [u8],
        mut offset: u64,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let skipped = offset.checked_sub(self.at).unwrap_or(u64::MAX);
            let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
            let Some(held) = self.window.get(skipped..).filter(|held| !held.is_empty()) else {
                self.load(offset)?;
                continue;
            };
            let len = held.len().min(bytes.len());
            bytes[..len].copy_from_slice(&held[..len]);
            bytes = &mut bytes[len..];
            offset += len as u64;
        }
        Ok(())
    }

    /// Reads the part of the file that begins at `offset` or just before it.
    fn load(&mut self, offset: u64) -> io::Result<()> {
        self.at = offset - offset % ALIGNED_BYTES as u64;
        self.window.reset(READ_BYTES);
        self.window.resize(READ_BYTES);
        let mut len = 0;
        // Behind a part of a block is the end of the file.
        while len < READ_BYTES && len.is_multiple_of(ALIGNED_BYTES) {
            match self.file.read_at(&mut self.window[len..], self.at + len as u64) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.window.resize(0);
                    return Err(error);
                }
            }
        }
        self.window.resize(len);
        if self.at + len as u64 > offset {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_begins_where_a_disk_can_take_it_and_is_what_was_put_in() {
        let mut bytes = Aligned::default();
        for len in [1, 100_000, 512] {
            bytes.reset(len);
            assert!(bytes.is_empty());
            bytes.extend(&vec![7; len]);
            assert_eq!(bytes.as_ptr().align_offset(ALIGNED_BYTES), 0);
            assert_eq!(*bytes, vec![7; len]);
            bytes.shrink(600);
        }
        assert_eq!(*Aligned::zeros(3), [0; 3]);
    }

    #[test]
    fn what_is_written_past_the_cache_is_read_through_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, [1; 8_192]).expect("written");
        let Ok(direct) = open(&path, true) else { return println!("skipped: not on this disk") };
        let mut bytes = Aligned::zeros(4_096);
        bytes.fill(2);
        if write(&direct, &bytes, 4_096).expect("written") {
            let read = std::fs::read(&path).expect("read");
            assert_eq!((&read[..4_096], &read[4_096..]), (&[1; 4_096][..], &[2; 4_096][..]));
        }
        assert!(!write(&direct, &bytes[1..513], 0).expect("refused"));
    }

    #[test]
    fn any_part_of_a_file_is_read_past_the_cache() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let content: Vec<u8> = (0..READ_BYTES * 2 + 777).map(|at| (at / 251) as u8).collect();
        std::fs::write(&path, &content).expect("written");
        let Ok(mut reader) = DirectReader::open(&path) else {
            return println!("skipped: not on this disk");
        };
        let end = content.len();
        let parts = [
            (0, 40),
            (40, READ_BYTES),
            (READ_BYTES + 40, 1),
            (0, end),
            (end - 778, 778),
            (5, 0),
            (end, 0),
        ];
        for (at, len) in parts {
            let mut read = vec![0; len];
            reader.read_exact_at(&mut read, at as u64).expect("read");
            assert!(read == content[at..at + len], "{len} bytes at {at}");
        }
        for (at, len) in [(end, 1), (end - 777, 778), (end + 5_000, 1)] {
            let error = reader.read_exact_at(&mut vec![0; len], at as u64).expect_err("no bytes");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
