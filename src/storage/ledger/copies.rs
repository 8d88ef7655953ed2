//! The copies of a ledger: files with the same bytes.
//!
//! Keeps: a record that is intact in one copy is found, whatever the others have in its place.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Mark;
use super::record;

/// The number of copies that must be written. Further ones are completed later.
const NEEDED: usize = 2;
/// How many bytes are searched at once for the next intact record.
const SCAN_BYTES: usize = 1 << 20;

/// The copies.
pub(super) struct Copies {
    all: Vec<Copy>,
}

struct Copy {
    path: PathBuf,
    /// None if the file is missing or cannot be opened.
    file: Option<File>,
    /// Whether it was written to since the last sync.
    is_dirty: bool,
}

/// What was found at a position, or after it.
pub(super) enum Found {
    /// A record. It is after the requested position if no copy has an intact one there.
    Record { at: u64, record: Vec<u8>, mark: Mark },
    /// There are no more intact records.
    End,
}

impl Copies {
    /// Opens those of `paths` that exist.
    pub(super) fn to_read(paths: &[PathBuf]) -> io::Result<Self> {
        Self::open_with(paths, OpenOptions::new().read(true))
    }

    /// Like [`Copies::to_read`], but for writing as well.
    pub(super) fn open(paths: &[PathBuf]) -> io::Result<Self> {
        Self::open_with(paths, OpenOptions::new().read(true).write(true))
    }

    fn open_with(paths: &[PathBuf], options: &OpenOptions) -> io::Result<Self> {
        let mut all = Vec::new();
        for (number, path) in paths.iter().enumerate() {
            let file = match options.open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                opened => needed(number, path, opened.map(Some))?,
            };
            all.push(Copy { path: path.clone(), file, is_dirty: false });
        }
        Ok(Self { all })
    }

    /// The first record at or after `at` that is intact in a copy.
    pub(super) fn find(&self, at: u64, before: Mark) -> io::Result<Found> {
        if let Some((record, mark)) = self.record_at(at, before) {
            return Ok(Found::Record { at, record, mark });
        }
        // No copy is intact here. A later record may be, or this is a torn end.
        let mut found: Option<u64> = None;
        for copy in &self.all {
            let next = copy.next_record(at + 1, before)?;
            found = found.into_iter().chain(next).min();
        }
        let Some(at) = found else { return Ok(Found::End) };
        let there = self.record_at(at, before);
        Ok(there.map_or(Found::End, |(record, mark)| Found::Record { at, record, mark }))
    }

    fn record_at(&self, at: u64, before: Mark) -> Option<(Vec<u8>, Mark)> {
        self.all.iter().find_map(|copy| copy.record_at(at, before))
    }

    /// Repairs this record at `at` in each copy. It is on disk after [`Copies::end_at`].
    pub(super) fn mend(&mut self, at: u64, record: &[u8]) -> io::Result<()> {
        for (number, copy) in self.all.iter_mut().enumerate() {
            if copy.read(at).is_some_and(|found| found == record) {
                continue;
            }
            let mended = copy.write(at, record);
            needed(number, &copy.path, mended)?;
        }
        Ok(())
    }

    /// Writes a record. It is on disk when this returns.
    pub(super) fn add(&mut self, at: u64, record: &[u8]) -> io::Result<()> {
        for number in 0..self.all.len() {
            let (before, rest) = self.all.split_at_mut(number);
            let (Some(copy), first) = (rest.first_mut(), before.first()) else { break };
            let written = first
                .map_or(Ok(()), |first| copy.catch_up(first, at))
                .and_then(|()| copy.write(at, record))
                .and_then(|()| copy.sync());
            needed(number, &copy.path, written)?;
        }
        Ok(())
    }

    /// Cuts off everything from `at` on. This is on disk when it returns.
    pub(super) fn end_at(&mut self, at: u64) -> io::Result<()> {
        for (number, copy) in self.all.iter_mut().enumerate() {
            let cut = copy.end_at(at);
            needed(number, &copy.path, cut)?;
        }
        Ok(())
    }
}

/// Handles the result for the copy with this number. An error counts only for a copy that must be written.
fn needed<T: Default>(number: usize, path: &Path, done: io::Result<T>) -> io::Result<T> {
    match done {
        Err(error) if number >= NEEDED => {
            log::error!("{}, a copy of the erasure ledger: {error}", path.display());
            Ok(T::default())
        }
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        done => done,
    }
}

impl Copy {
    /// The bytes of a possible record at `at`, as many as it states.
    fn read(&self, at: u64) -> Option<Vec<u8>> {
        let file = self.file.as_ref()?;
        let mut head = [0; 12];
        file.read_exact_at(&mut head, at).ok()?;
        let mut record = vec![0; record::len_of(&head)?];
        file.read_exact_at(&mut record, at).ok()?;
        Some(record)
    }

    fn record_at(&self, at: u64, before: Mark) -> Option<(Vec<u8>, Mark)> {
        let record = self.read(at)?;
        record::check(&record, before).map(|mark| (record, mark))
    }

    /// The start of the next intact record at or after `from`.
    fn next_record(&self, mut from: u64, before: Mark) -> io::Result<Option<u64>> {
        let Some(file) = &self.file else { return Ok(None) };
        let mut block = vec![0; SCAN_BYTES];
        loop {
            let len = file.read_at(&mut block, from)?;
            let places = block[..len].windows(8).enumerate();
            let places = places.filter(|(_, head)| record::may_begin(head));
            for (place, _) in places {
                let at = from + place as u64;
                if self.record_at(at, before).is_some() {
                    return Ok(Some(at));
                }
            }
            if len < 8 {
                return Ok(None);
            }
            // A record may begin in the last bytes.
            from += len as u64 - 7;
        }
    }

    fn write(&mut self, at: u64, record: &[u8]) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => {
                let options = OpenOptions::new().read(true).write(true).create(true).clone();
                let file = options.open(&self.path)?;
                self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
                self.file.insert(file)
            }
        };
        file.write_all_at(record, at)?;
        self.is_dirty = true;
        Ok(())
    }

    /// Copies from `first` what this copy lacks before `at`, if an earlier write to it failed.
    fn catch_up(&mut self, first: &Self, at: u64) -> io::Result<()> {
        let mut from =
            self.file.as_ref().map_or(Ok(0), |file| file.metadata().map(|it| it.len()))?;
        let Some(file) = &first.file else { return Ok(()) };
        while from < at {
            let mut part = vec![0; SCAN_BYTES.min((at - from) as usize)];
            file.read_exact_at(&mut part, from)?;
            self.write(from, &part)?;
            from += part.len() as u64;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(file) = self.file.as_ref().filter(|_| self.is_dirty) {
            file.sync_all()?;
            self.is_dirty = false;
        }
        Ok(())
    }

    fn end_at(&mut self, at: u64) -> io::Result<()> {
        if let Some(file) = &self.file
            && file.metadata()?.len() > at
        {
            file.set_len(at)?;
            self.is_dirty = true;
        }
        self.sync()
    }
}
