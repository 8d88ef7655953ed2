//! The basis of the tests: a log with small files, and what was appended to it.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::storage::commit_log::{
    Found, Generation, Log, LogDamage, LogError, LogOptions, Position, Read, create, open, read,
    read_running,
};

/// The bodies of appended frames; the first one belongs to frame 1.
pub(super) type Bodies = Vec<Vec<u8>>;

/// What an opening found.
pub(super) struct Opened {
    pub(super) log: Log,
    pub(super) frames: Vec<(Position, Vec<u8>)>,
    pub(super) damages: Vec<LogDamage>,
}

/// A folder in memory where there is one: the tests do not depend on the disk, and a sync costs nothing.
pub(super) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder")
}

pub(super) fn options(folder: &Path) -> LogOptions {
    LogOptions { file_bytes: 16 << 10, ..LogOptions::new(folder.join("log"), Generation([7; 16])) }
}

pub(super) fn new(options: &LogOptions) -> Log {
    create(options.clone(), Position(0)).expect("a log")
}

pub(super) fn append(log: &mut Log, body: &[u8]) -> Position {
    try_append(log, body).expect("appended")
}

pub(super) fn try_append(log: &mut Log, body: &[u8]) -> std::io::Result<Position> {
    let mut frame = log.writer.frame(body.len() as u64)?;
    frame.write(body);
    let appended = log.writer.append(frame, 1_000)?;
    let position = appended.position;
    log.writer.reuse(appended);
    Ok(position)
}

/// What a reading of a whole log found.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) frames: u64,
    pub(super) read: Read,
    pub(super) damages: Vec<LogDamage>,
}

/// Accepts all damage.
fn look(
    read: impl FnOnce(&mut dyn FnMut(Found<'_>) -> Result<(), LogError>) -> Result<Read, LogError>,
) -> Result<Verified, LogError> {
    let (mut frames, mut damages) = (0, Vec::new());
    let read = read(&mut |found| {
        match found {
            Found::Frame(_) => frames += 1,
            Found::Damage(damage) => damages.push(damage.clone()),
        }
        Ok(())
    })?;
    Ok(Verified { frames, read, damages })
}

/// Reads a log and accepts all damage.
pub(super) fn verify(
    options: &LogOptions,
    from: Position,
    seen: Position,
) -> Result<Verified, LogError> {
    look(|visit| read(options, from, seen, visit))
}

/// Like [`verify`], up to `last`, while it is written to.
pub(super) fn verify_running(
    options: &LogOptions,
    from: Position,
    last: Position,
) -> Result<Verified, LogError> {
    look(|visit| read_running(options, from, last, visit))
}

/// Opens a log that has no damage.
pub(super) fn reopen(options: &LogOptions, from: u64) -> Opened {
    let mut frames = Vec::new();
    let log = open(options.clone(), Position(from), Position(0), |found| match found {
        Found::Frame(frame) => {
            frames.push((frame.position, frame.body.to_vec()));
            Ok(())
        }
        Found::Damage(damage) => Err(LogError::Damaged(damage.clone())),
    });
    Opened { log: log.expect("no damage"), frames, damages: Vec::new() }
}

/// Opens a log and accepts all damage.
pub(super) fn reopen_damaged(options: &LogOptions, from: u64) -> Opened {
    let (mut frames, mut damages) = (Vec::new(), Vec::new());
    let log = open(options.clone(), Position(from), Position(0), |found| {
        match found {
            Found::Frame(frame) => frames.push((frame.position, frame.body.to_vec())),
            Found::Damage(damage) => damages.push(damage.clone()),
        }
        Ok::<(), LogError>(())
    });
    Opened { log: log.expect("damages are taken"), frames, damages }
}

impl Opened {
    /// Whether the frame was returned, or is reported as lost.
    pub(super) fn accounts_for(&self, position: Position) -> bool {
        self.frames.iter().any(|(given, _)| *given == position) || self.is_lost(position)
    }

    pub(super) fn is_lost(&self, position: Position) -> bool {
        let is_in = |damage: &LogDamage| {
            position >= damage.from && damage.to.is_none_or(|to| position <= to)
        };
        self.damages.iter().any(is_in)
    }

    /// What no fault may ever lead to: a frame that was not appended, one out of order, one missing unreported.
    pub(super) fn assert_honest(&self, appended: &Bodies) {
        assert!(self.frames.is_sorted_by(|left, right| left.0 < right.0), "out of order");
        for (position, body) in &self.frames {
            let real = &appended[position.0 as usize - 1];
            assert_eq!(body, real, "frame {position} is not what was appended");
        }
        for position in (1..=appended.len() as u64).map(Position) {
            assert!(self.accounts_for(position), "frame {position} is missing without a word");
        }
        assert!(self.log.last >= Position(appended.len() as u64), "a number is given out again");
    }
}

/// A log with several files, some of them reused after an earlier life, one begun by each of several openings.
pub(super) struct Example {
    pub(super) folder: TempDir,
    pub(super) appended: Bodies,
    /// The first frame that is still in a file.
    pub(super) from: u64,
    /// The files as they were at some earlier moments.
    pub(super) earlier: Vec<(PathBuf, Vec<u8>)>,
}

impl Example {
    pub(super) fn new() -> Self {
        let folder = folder();
        let options = options(folder.path());
        let mut example = Self { folder, appended: Bodies::new(), from: 0, earlier: Vec::new() };
        let mut log = new(&options);
        example.append(&mut log, 60);
        log.files.prepare().expect("prepared");
        example.from = 45;
        log.files.release(Position(45), |_| Ok(())).expect("released");
        example.append(&mut log, 20);
        drop(log);
        for _ in 0..3 {
            let mut log = reopen(&options, example.from).log;
            example.append(&mut log, 9);
            log.files.prepare().expect("prepared");
            example.keep_earlier();
            example.append(&mut log, 7);
            // One that is not begun before the log is opened again.
            log.files.prepare().expect("prepared");
            drop(log);
        }
        example.keep_earlier();
        example
    }

    fn append(&mut self, log: &mut Log, frames: usize) {
        for _ in 0..frames {
            let number = self.appended.len();
            // From nothing to a few blocks, and now and then more than fits in a file.
            let bytes = if number % 37 == 36 { 20_000 } else { number * 211 % 1_500 };
            let body: Vec<u8> = (0..bytes).map(|at| (at * 7 + number * 13) as u8).collect();
            append(log, &body);
            self.appended.push(body);
        }
    }

    fn keep_earlier(&mut self) {
        for (path, bytes) in files(&self.folder.path().join("log")) {
            self.earlier.push((path, bytes));
        }
    }

    /// A copy to be damaged, and its options.
    pub(super) fn copy(&self) -> (TempDir, LogOptions) {
        let copy = folder();
        let options = options(copy.path());
        std::fs::create_dir(&options.folder).expect("a folder");
        for (path, bytes) in files(&self.folder.path().join("log")) {
            std::fs::write(options.folder.join(path.file_name().expect("a name")), bytes)
                .expect("written");
        }
        (copy, options)
    }
}

/// The files that matter, in the order of their names, with their contents.
pub(super) fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| !path.to_string_lossy().contains("spare"))
        .map(|path| (path.clone(), std::fs::read(path).expect("a file")))
        .collect();
    files.sort();
    files
}
