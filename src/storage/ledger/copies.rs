//! The files that a ledger is in, all of which have the same bytes.
//!
//! Keeps: a record that one of them has whole is found, whatever the others have at its place.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Mark;
use super::record;

/// How many copies have to be written; further ones get what they lack later.
const NEEDED: usize = 2;
/// How much is looked through at once for the next record that is whole, in bytes.
const SCAN_BYTES: usize = 1 << 20;

/// The files.
pub(super) struct Copies {
    all: Vec<Copy>,
}

struct Copy {
    path: PathBuf,
    /// None if it is missing, or cannot be opened.
    file: Option<File>,
    /// It was written to since it was synced.
    is_dirty: bool,
}

/// What is found at a place, or behind it.
pub(super) enum Found {
    /// This record. Behind the place it was looked for if none is whole there.
    Record { at: u64, record: Vec<u8>, mark: Mark },
    /// Nothing more that is whole.
    End,
}

impl Copies {
    /// Those of `paths` that are there.
    pub(super) fn to_read(paths: &[PathBuf]) -> io::Result<Self> {
        Self::open_with(paths, OpenOptions::new().read(true))
    }

    /// As [`Copies::to_read`], to be written as well.
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

    /// The first record at `at` or behind it that a copy has whole.
    pub(super) fn find(&self, at: u64, before: Mark) -> io::Result<Found> {
        if let Some((record, mark)) = self.record_at(at, before) {
            return Ok(Found::Record { at, record, mark });
        }
        // None is whole here: behind it there may be one, or it is a torn end.
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

    /// Has each copy have this record at `at`, which is on disk after [`Copies::end_at`].
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

    /// Writes a record, which is on disk when this returns.
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

    /// Cuts off what comes behind `at`; all of it is on disk when this returns.
    pub(super) fn end_at(&mut self, at: u64) -> io::Result<()> {
        for (number, copy) in self.all.iter_mut().enumerate() {
            let cut = copy.end_at(at);
            needed(number, &copy.path, cut)?;
        }
        Ok(())
    }
}

/// What was done with the copy of this number: if that is one that has to be written, it counts.
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
    /// What may be a record there: so many bytes as it says.
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

    /// Where the next whole record begins, from `from` on.
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
            // The last bytes may begin one.
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

    /// Copies from `first` what it lacks before `at`, if an earlier write to it failed.
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
