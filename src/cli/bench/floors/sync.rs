//! How often the disk can sync: no durable answer is faster than one sync.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::figures::histogram;
use super::super::report::quantile_of;

/// The server writes whole blocks, from aligned memory.
const BLOCK_BYTES: usize = 512;
const ALIGNED_BYTES: usize = 4_096;
/// How much of a file exists before it is written to.
const FILE_BYTES: usize = 64 << 20;

/// How many syncs there were in a second, and the median of their durations.
pub(super) type Syncs = (f64, Duration);

/// `fdatasync` of a file, each after `bytes` more of it.
pub(super) fn of_file(directory: &Path, bytes: usize, time: Duration) -> io::Result<Syncs> {
    let mut file = File::create(directory.join("file"))?;
    let piece = vec![7; bytes];
    repeat(time, |_| {
        file.write_all(&piece)?;
        file.sync_data()
    })
}

/// What a commit of the server waits for, without anything around it: `bytes` are written over blocks that a file
/// already has, without the page cache and durable at once; or, where the disk cannot do that, with `fdatasync`.
pub(super) fn of_log(directory: &Path, bytes: usize, time: Duration) -> io::Result<Syncs> {
    let bytes = bytes.next_multiple_of(BLOCK_BYTES);
    let file_bytes = FILE_BYTES.next_multiple_of(bytes);
    let path = directory.join("log");
    let mut file = File::create(&path)?;
    file.write_all(&vec![0; file_bytes])?;
    file.sync_all()?;
    let memory = vec![7_u8; bytes + ALIGNED_BYTES];
    let start = memory.as_ptr().align_offset(ALIGNED_BYTES).min(ALIGNED_BYTES);
    let piece = &memory[start..][..bytes];
    let direct = open_direct(&path).ok().filter(|file| file.write_all_at(piece, 0).is_ok());
    let (log, is_synced) = (direct.as_ref().unwrap_or(&file), direct.is_some());
    repeat(time, |number| {
        let at = number * bytes as u64 % file_bytes as u64;
        log.write_all_at(piece, at)?;
        if is_synced { Ok(()) } else { log.sync_data() }
    })
}

fn open_direct(path: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = libc::O_DIRECT | libc::O_DSYNC;
        std::fs::OpenOptions::new().write(true).custom_flags(flags).open(path)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn repeat(time: Duration, mut sync: impl FnMut(u64) -> io::Result<()>) -> io::Result<Syncs> {
    let mut latency = histogram();
    let start = Instant::now();
    let mut elapsed = Duration::ZERO;
    while elapsed < time {
        sync(latency.len())?;
        let now = start.elapsed();
        latency.saturating_record(now.saturating_sub(elapsed).as_nanos() as u64);
        elapsed = now;
    }
    Ok((latency.len() as f64 / elapsed.as_secs_f64(), quantile_of(&latency, 0.5)))
}
