//! The content of a data directory besides the database itself.
//!
//! ```text
//! format    which format the directory has
//! lock      held by the process that has it open
//! ballast   bytes that are given back when the disk is full
//! probe     written to find out whether the disk works again
//! place     where it was made
//! archived  where its archive is
//! restoring there while a restore makes it
//! moved     there once everything was moved elsewhere: says where to
//! damaged   what was found wrong with the database, which is built again at the next start
//! log/      the commit log
//! sled/     the database
//!
//! And the witness, and the archive.
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::backup::MARK as RESTORING;
use super::options::OpenError;
use super::takeover::remove_folder;
use crate::storage::witness::WitnessFiles;

const FORMAT: &str = "eventlog-server data directory, format 3\n";
/// The formats before there was a commit log: in the first one there were no packs either.
const FORMATS_BEFORE: [&str; 2] =
    ["eventlog-server data directory, format 1\n", "eventlog-server data directory, format 2\n"];
const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "lock";
const MOVED: &str = "moved";
/// Folders that only a running process uses: a database that was to replace a damaged or an older one, and files on their way to a bucket.
const UNFINISHED: [&str; 3] = ["rebuilding", "renewing", "shipping"];
/// The folder of large messages that are not whole. An operator may have put it on another disk, so it stays, without its files.
const SPILL: &str = "spill";

/// Less than so much free space, in bytes, counts as a full disk: sled's log grows by some MiB at a time.
const ROOM_BYTES_MIN: u64 = 16 << 20;

/// Which format a data directory has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The format that is written.
    This,
    /// A format that will be taken over.
    Earlier,
}

/// A data directory. This process holds its lock.
pub(super) struct Files {
    directory: PathBuf,
    ballast_bytes: u64,
    /// Closing it releases the lock.
    lock: Mutex<Option<File>>,
}

impl Files {
    /// Creates the directory if necessary, checks its format and takes the lock.
    pub(super) fn open(directory: &Path, ballast_bytes: u64) -> Result<(Self, Format), OpenError> {
        let failed = |error: io::Error| OpenError::unavailable(directory, &error);
        if directory.join(RESTORING).try_exists().map_err(failed)? {
            return Err(OpenError::Unfinished { path: directory.to_owned() });
        }
        if let Some(to) = Self::moved_to(directory).map_err(failed)? {
            return Err(OpenError::Moved { path: directory.to_owned(), to });
        }
        Self::open_any(directory, ballast_bytes)
    }

    /// Where everything in `directory` was moved to.
    pub(super) fn moved_to(directory: &Path) -> io::Result<Option<String>> {
        match std::fs::read_to_string(directory.join(MOVED)) {
            Ok(to) => Ok(Some(to.trim_end().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Notes that everything was moved to `to`: nobody opens it again.
    #[cfg(feature = "postgres")]
    pub(super) fn note_moved(&self, to: &str) -> io::Result<()> {
        super::takeover::write_synced(&self.directory.join(MOVED), format!("{to}\n").as_bytes())
    }

    /// As [`Files::open`], also if it is being made by a restore, or was moved.
    pub(super) fn open_any(
        directory: &Path,
        ballast_bytes: u64,
    ) -> Result<(Self, Format), OpenError> {
        let path = || directory.to_owned();
        let failed = |error: io::Error| OpenError::unavailable(directory, &error);
        std::fs::create_dir_all(directory).map_err(failed)?;
        let witness = WitnessFiles::open(directory).map_err(failed)?.1.newest;
        let foreign = witness.is_none() && !is_ours(directory).map_err(failed)?;
        if foreign {
            return Err(OpenError::Foreign { path: path() });
        }
        let lock = open_for_write(&directory.join(LOCK_FILE)).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => OpenError::InUse { path: path() },
            std::fs::TryLockError::Error(error) => failed(error),
        })?;
        let files = Self { directory: path(), ballast_bytes, lock: Mutex::new(Some(lock)) };
        if witness.is_some() {
            files.put_format_right().map_err(failed)?;
        }
        let format = match std::fs::read_to_string(files.format()) {
            Ok(format) if format == FORMAT => Format::This,
            Ok(format) if FORMATS_BEFORE.contains(&&*format) => Format::Earlier,
            Ok(found) => return Err(OpenError::UnknownFormat { path: path(), found }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                files.write_format().map_err(failed)?;
                Format::This
            }
            Err(error) => return Err(failed(error)),
        };
        Ok((files, format))
    }

    /// A directory within one that this process has locked.
    pub(super) fn unlocked(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), ballast_bytes: 0, lock: Mutex::new(None) }
    }

    /// The file that states the format.
    pub(super) fn format(&self) -> PathBuf {
        self.directory.join(FORMAT_FILE)
    }

    /// Whether the file states the format that is written.
    pub(super) fn has_this_format(&self) -> io::Result<bool> {
        Ok(std::fs::read_to_string(self.format())? == FORMAT)
    }

    /// Repairs the line if it is lost or damaged, in a directory that has a witness and therefore this format. A
    /// well-formed line that differs in more than a bit belongs to a later version.
    fn put_format_right(&self) -> io::Result<()> {
        let found = match std::fs::read(self.format()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            found => found?,
        };
        let differ = |(a, b): (&u8, &u8)| (a ^ b).count_ones();
        let bits: u32 = found.iter().zip(FORMAT.as_bytes()).map(differ).sum();
        let digit = FORMAT.len() - 2;
        let later = found.len() >= FORMAT.len()
            && found[..digit] == FORMAT.as_bytes()[..digit]
            && found[digit..found.len() - 1].iter().all(u8::is_ascii_digit)
            && found.ends_with(b"\n");
        if found == FORMAT.as_bytes() || later && bits != 1 {
            return Ok(());
        }
        log::warn!("{} was lost or damaged; it is written again", self.format().display());
        self.write_format()
    }

    /// Records that the database is damaged, so that it is rebuilt at the next start.
    pub(super) fn note_damage(&self, finding: &str) {
        log::error!("the database is damaged: {finding}; the next start rebuilds it");
        let noted = std::fs::write(self.damage(), finding)
            .and_then(|()| File::open(self.damage())?.sync_all())
            .and_then(|()| sync_folder(&self.directory));
        if let Err(error) = noted {
            log::error!("noting that: {error}");
        }
    }

    /// The damage that was found since the database was built.
    pub(super) fn noted_damage(&self) -> io::Result<Option<String>> {
        match std::fs::read(self.damage()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            noted => Ok(Some(String::from_utf8_lossy(&noted?).into_owned())),
        }
    }

    /// Removes the record of the damage.
    pub(super) fn forget_damage(&self) -> io::Result<()> {
        self.remove(&self.damage())
    }

    /// Removes the record of where it was made: from now on, it is another directory.
    pub(super) fn forget_place(&self) -> io::Result<()> {
        self.remove(&self.place())
    }

    /// Removes what an earlier process did not finish and nobody goes on with. Only the process that opens the directory may do that.
    pub(super) fn remove_unfinished(&self) -> io::Result<()> {
        for name in UNFINISHED {
            remove_folder(&self.directory.join(name))?;
        }
        let spilled = match std::fs::read_dir(self.directory.join(SPILL)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            spilled => spilled?,
        };
        for entry in spilled {
            let path = entry?.path();
            if path.is_file() {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Removes a file of the directory, if it exists.
    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| sync_folder(&self.directory)),
        }
    }

    fn damage(&self) -> PathBuf {
        self.directory.join("damaged")
    }

    /// Writes the format to its file.
    pub(super) fn write_format(&self) -> io::Result<()> {
        self.write_whole(&self.format(), FORMAT.as_bytes())
    }

    /// Replaces the file `path` of the directory, as a whole or not at all.
    pub(super) fn write_whole(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let new = path.with_extension("new");
        let mut file = open_for_write(&new)?;
        file.set_len(0)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(new, path)?;
        sync_folder(&self.directory)
    }

    /// The file that states where the directory was made.
    pub(super) fn place(&self) -> PathBuf {
        self.directory.join(super::place::FILE)
    }

    /// Releases the lock on the directory.
    pub(super) fn unlock(&self) {
        *self.lock.lock() = None;
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The folder of the commit log.
    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// The folder of the archive, unless it is configured to be elsewhere.
    pub(super) fn archive(&self) -> PathBuf {
        self.directory.join("archive")
    }

    /// The folder of sled.
    pub(super) fn database(&self) -> PathBuf {
        self.directory.join("sled")
    }

    /// The file that sled writes its log to.
    pub(super) fn database_log(&self) -> PathBuf {
        self.database().join("db")
    }

    /// The folder where sled puts items that are too large for its log.
    pub(super) fn blobs(&self) -> PathBuf {
        self.database().join("blobs")
    }

    /// Writes a few bytes and syncs them. An error means that the disk does not accept writes.
    pub(super) fn probe(&self) -> io::Result<()> {
        let path = self.directory.join("probe");
        let mut file = open_for_write(&path)?;
        file.write_all(&[0x5a; 4_096])?;
        file.sync_all()
    }

    /// Makes what sled wrote durable. `log` is sled's log.
    pub(super) fn sync_log(&self, log: &File) -> io::Result<()> {
        // Only an item above a megabyte becomes a separate file, and no commit accepts such an item. But if there is
        // one, the log alone is not enough.
        if std::fs::read_dir(self.blobs())?.next().is_some() {
            self.sync_blobs()?;
        }
        log.sync_data()
    }

    fn sync_blobs(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        rustix::fs::syncfs(File::open(&self.directory)?)?;
        #[cfg(not(target_os = "linux"))]
        for blob in std::fs::read_dir(self.blobs())? {
            File::open(blob?.path())?.sync_all()?;
        }
        sync_folder(&self.blobs())
    }

    /// Syncs every file and folder by name, so that everything created or renamed during opening survives a power cut.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.database())? {
            File::open(entry?.path())?.sync_all()?;
        }
        sync_folder(&self.database())?;
        sync_folder(&self.directory)
    }

    /// Discards the page cache of sled's log, so that the next read comes from the disk.
    ///
    /// After a failed sync, the kernel marks the pages as clean: they show data that never reached the disk.
    pub(super) fn forget_cached(&self) -> io::Result<()> {
        let file = match open_existing(&self.database_log()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        // Dirty pages are not discarded.
        file.sync_all()?;
        #[cfg(target_os = "linux")]
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }

    /// Returns the reserved space to the file system.
    pub(super) fn drop_ballast(&self) -> io::Result<()> {
        self.remove(&self.ballast())
    }

    /// Reserves the space again if it is gone, or as much of it as the disk has.
    pub(super) fn make_ballast(&self) -> io::Result<()> {
        if self.ballast_bytes == 0 || self.ballast().try_exists()? {
            return Ok(());
        }
        let mut bytes = self.ballast_bytes;
        loop {
            let reserved = open_for_write(&self.ballast()).and_then(|file| reserve(&file, bytes));
            match reserved {
                Err(error) if is_full(&error) && bytes > self.ballast_bytes / 8 => bytes /= 2,
                Err(error) => return self.drop_ballast().and(Err(error)),
                Ok(()) => return sync_folder(&self.directory),
            }
            self.drop_ballast()?;
        }
    }

    /// Whether there is space for some more writes.
    pub(super) fn has_room(&self) -> io::Result<bool> {
        self.has_room_for(ROOM_BYTES_MIN)
    }

    /// Whether there is space for `bytes` bytes.
    pub(super) fn has_room_for(&self, bytes: u64) -> io::Result<bool> {
        Ok(self.free_bytes()? >= bytes)
    }

    /// The number of free bytes.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::statvfs(&self.directory)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn ballast(&self) -> PathBuf {
        self.directory.join("ballast")
    }
}

/// Whether `directory` has a format file, or contains nothing from anybody else.
fn is_ours(directory: &Path) -> io::Result<bool> {
    if directory.join(FORMAT_FILE).try_exists()? {
        return Ok(true);
    }
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        // Files of a process that ended before it wrote the format, and the folder that `mkfs` creates.
        let known = [LOCK_FILE, "format.new", "lost+found", RESTORING];
        if !known.iter().any(|known| *name == **known) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the file system reserve `bytes` bytes for `file`.
fn reserve(mut file: &File, bytes: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        // Some file systems do not support that.
        Err(rustix::io::Errno::OPNOTSUPP) => {}
        reserved => return Ok(reserved?),
    }
    let zeros = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let len = left.min(zeros.len() as u64);
        file.write_all(&zeros[..len as usize])?;
        left -= len;
    }
    Ok(())
}

/// Whether the disk was full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn open_for_write(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}

fn open_existing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Makes changes of a folder durable: files that were created, renamed or removed.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    // On other systems, folders cannot be opened or need no sync.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opening_is_told_that_it_is_in_use() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, _) = Files::open(directory.path(), 0).expect("free");
        assert!(matches!(Files::open(directory.path(), 0), Err(OpenError::InUse { .. })));
        drop(files);
        assert!(Files::open(directory.path(), 0).is_ok());
    }

    #[test]
    fn an_unknown_format_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(
            directory.path().join("format"),
            "eventlog-server data directory, format 4\n",
        )
        .expect("written");
        let Err(error) = Files::open(directory.path(), 0) else { panic!("opened") };
        assert!(matches!(error, OpenError::UnknownFormat { .. }));
        assert!(error.to_string().contains("format 4"), "{error}");
    }

    #[test]
    fn a_directory_of_somebody_else_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("letter"), "dear").expect("written");
        assert!(matches!(Files::open(directory.path(), 0), Err(OpenError::Foreign { .. })));
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }

    #[test]
    fn ballast_comes_and_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, _) = Files::open(directory.path(), 1 << 20).expect("free");
        let ballast = directory.path().join("ballast");
        files.make_ballast().expect("room");
        assert_eq!(ballast.metadata().expect("a file").len(), 1 << 20);
        files.drop_ballast().expect("removed");
        files.drop_ballast().expect("nothing to remove");
        assert!(!ballast.exists());
        files.probe().expect("a disk");
    }
}
