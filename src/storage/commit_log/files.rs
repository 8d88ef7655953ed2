//! The files of a log: the existing ones, those made ahead of time, and those that are finished.
//!
//! Keeps: a file gets a meaningful name only when its header is on disk; a file is released only with all earlier ones;
//! files that are begun have ascending numbers; the commit thread finds a file that already has its name, and writes
//! two blocks to begin it. If there is none, it takes a spare file or makes a small one, so it never waits for
//! megabytes of zeros. Leaves out: when to do so, and what happens to the frames of a finished file (the caller
//! decides).

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};

use super::acked::FileNotes;
use super::block::BLOCK_BYTES;
use super::header::Header;
use super::seam::{self, LogStep};
use super::{FinishedFile, Generation, LogOptions, Position, folder};
use crate::storage::direct::{self, Aligned};

/// The size of the first file that is made because there is no spare one: it takes some milliseconds, and most logs
/// that are opened need no more.
const SMALL_FILE_BYTES: u64 = 1 << 20;
/// The next one is larger by this factor, up to the maximum size of files.
const GROWTH: u64 = 8;

/// How much is written and synced at once to a file that is made ahead of time: a commit meanwhile waits for no more
/// than this.
const PREPARE_BYTES: usize = 1 << 20;

/// The files of one log. Clones are handles to the same files.
#[derive(Clone)]
pub(crate) struct LogFiles {
    shared: Arc<Shared>,
}

struct Shared {
    options: LogOptions,
    state: Mutex<State>,
    /// Where the existing files are noted.
    notes: OnceLock<FileNotes>,
    /// Held while a file is on its way to its next use, by whoever may take their time.
    moving: Mutex<()>,
}

struct State {
    /// The files with frames, in order; the last one is written to.
    live: VecDeque<LiveFile>,
    /// The file that has its name ahead of time: the next one to begin, unless a frame needs a larger one.
    ahead: Option<Ahead>,
    /// The numbers of files that got their names ahead of time and will not be begun.
    surplus: Vec<u64>,
    /// Files with numbers below this one may be missing, according to the notes.
    noted: u64,
    /// The numbers of spare files that are ready.
    spares: Vec<u64>,
    /// Whether released files are removed instead of reused.
    no_reuse: bool,
    /// The size of the last file that was made because there was no spare one.
    made_bytes: u64,
    /// The number of the next file and the next spare one.
    next_file: u64,
    next_spare: u64,
}

#[derive(Clone, Copy)]
struct LiveFile {
    number: u64,
    first: Position,
}

/// A file that has its name, and is not begun.
struct Ahead {
    path: PathBuf,
    file: File,
    header: Header,
    /// Whether its existence is noted.
    noted: bool,
}

/// A file that has just been begun.
pub(super) struct Begun {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) header: Header,
    /// Whether its existence is noted.
    noted: bool,
}

impl LogFiles {
    /// The files in `live`, by number and first frame; those in `surplus` are not begun. `next_file` is the least
    /// number that was never used.
    pub(super) fn new(
        options: LogOptions,
        live: impl IntoIterator<Item = (u64, Position)>,
        surplus: Vec<u64>,
        next_file: u64,
    ) -> io::Result<Self> {
        let names = folder::list(&options.folder)?;
        let next_spare = names.spares.last().map_or(1, |last| last + 1);
        let mut spares = Vec::new();
        for spare in names.spares {
            let path = folder::spare(&options.folder, spare);
            // One that was not finished is shorter.
            if path.metadata()?.len() == standard_bytes(&options)
                && spares.len() < options.spares_max
            {
                spares.push(spare);
            } else {
                std::fs::remove_file(path)?;
            }
        }
        let live = live.into_iter().map(|(number, first)| LiveFile { number, first }).collect();
        let made_bytes = SMALL_FILE_BYTES / GROWTH;
        let (ahead, noted) = (None, 0);
        let no_reuse = false;
        let state = State {
            live,
            ahead,
            surplus,
            noted,
            spares,
            no_reuse,
            made_bytes,
            next_file,
            next_spare,
        };
        let (state, notes) = (Mutex::new(state), OnceLock::new());
        let moving = Mutex::new(());
        Ok(Self { shared: Arc::new(Shared { options, state, notes, moving }) })
    }

    /// From now on, existing files are noted there; the existence of file `noted` already is.
    pub(super) fn note_with(&self, notes: FileNotes, noted: u64) {
        // Called once for each log.
        let _ = self.shared.notes.set(notes);
        self.shared.state.lock().noted = noted;
    }

    /// Notes that this file exists, if that is not noted yet: before anything is appended to it.
    pub(super) fn note(&self, begun: &Begun) -> io::Result<()> {
        if !begun.noted
            && let Some(notes) = self.shared.notes.get()
        {
            notes.is_there(begun.header.file)?;
        }
        self.shared.state.lock().noted = begun.header.file;
        Ok(())
    }

    pub(super) fn options(&self) -> &LogOptions {
        &self.shared.options
    }

    /// Names a file ahead of time, unless there is one: call it now and then, from a thread that may take its time (a
    /// second).
    pub(crate) fn prepare(&self) -> io::Result<()> {
        let _moving = self.moving();
        self.clear_surplus()?;
        let (ready, spare) = {
            let mut state = self.shared.state.lock();
            if state.ahead.is_some() {
                return Ok(());
            }
            let ready = state.spares.pop();
            (ready.is_some(), ready.unwrap_or_else(|| state.take_spare_number()))
        };
        let options = &self.shared.options;
        let path = folder::spare(&options.folder, spare);
        let named = seam::take(options.seam.as_ref(), LogStep::Prepare, || {
            if !ready {
                drop(make(&path, standard_bytes(options))?);
            }
            self.name_ahead(spare, &path)
        });
        if named.is_err() && path.exists() {
            self.shared.state.lock().spares.push(spare);
        }
        named
    }

    /// Marks the spare file as not begun, gives it its name, and notes that it exists.
    fn name_ahead(&self, spare: u64, path: &Path) -> io::Result<()> {
        let LogOptions { folder, generation, .. } = &self.shared.options;
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let number = self.shared.state.lock().take_file_number();
        let header = new_header(&file, number, *generation)?;
        header.write_not_begun(&file)?;
        file.sync_data()?;
        let named = folder::file(folder, number);
        std::fs::rename(path, &named)?;
        folder::sync(folder)?;
        let mut state = self.shared.state.lock();
        if state.next_file == number + 1 {
            state.ahead = Some(Ahead { path: named, file, header, noted: false });
            drop(state);
            return self.note_ahead(number);
        }
        drop(state);
        // Meanwhile a file with a higher number was begun: this one may not come after it.
        std::fs::rename(&named, path)?;
        folder::sync(folder)?;
        self.shared.state.lock().spares.push(spare);
        Ok(())
    }

    fn note_ahead(&self, number: u64) -> io::Result<()> {
        let Some(notes) = self.shared.notes.get() else { return Ok(()) };
        notes.is_there(number)?;
        // Whoever has begun it meanwhile notes it as well.
        if let Some(ahead) = &mut self.shared.state.lock().ahead
            && ahead.header.file == number
        {
            ahead.noted = true;
        }
        Ok(())
    }

    /// Turns files into spare files that were named ahead of time and will not be begun, unless the notes say that they
    /// exist.
    pub(super) fn clear_surplus(&self) -> io::Result<()> {
        let surplus: Vec<u64> = {
            let mut state = self.shared.state.lock();
            let noted = state.noted;
            state.surplus.extract_if(.., |number| *number < noted).collect()
        };
        surplus.into_iter().try_for_each(|number| self.make_spare(number))
    }

    /// Files that are released from now on may be used again.
    pub(crate) fn allow_reuse(&self) {
        self.shared.state.lock().no_reuse = false;
    }

    /// Until [`LogFiles::allow_reuse`] is called, released files are removed. Returns the numbers of the spare files,
    /// which are not used any more, and the lowest number that no file has yet.
    pub(super) fn give_up_spares(&self) -> (Vec<u64>, u64) {
        let mut state = self.shared.state.lock();
        state.no_reuse = true;
        if let Some(ahead) = state.ahead.take() {
            state.surplus.push(ahead.header.file);
        }
        (std::mem::take(&mut state.spares), state.next_file)
    }

    /// The number of the first existing file, and of its first frame.
    pub(crate) fn first(&self) -> (u64, Position) {
        let state = self.shared.state.lock();
        // There is always one that is written to.
        state.live.front().map_or((state.next_file, Position(0)), |file| (file.number, file.first))
    }

    /// The number of the file that has the frame at `position`, or will have it.
    pub(crate) fn number_of(&self, position: Position) -> u64 {
        let state = self.shared.state.lock();
        let file = state.live.iter().rfind(|file| file.first <= position);
        file.or(state.live.front()).map_or(state.next_file, |file| file.number)
    }

    /// The finished files all of whose frames are at or below `up_to`, in order.
    pub(crate) fn finished(&self, up_to: Position) -> Vec<FinishedFile> {
        let state = self.shared.state.lock();
        let pairs = state.live.iter().zip(state.live.iter().skip(1));
        pairs
            .map(|(file, next)| FinishedFile {
                number: file.number,
                path: folder::file(&self.shared.options.folder, file.number),
                first: file.first,
                last: next.first.before(),
            })
            .take_while(|file| file.last <= up_to)
            .collect()
    }

    /// How much the finished files all of whose frames are at or below `up_to` take on disk.
    pub(crate) fn finished_bytes(&self, up_to: Position) -> io::Result<u64> {
        self.finished(up_to).iter().map(|file| Ok(file.path.metadata()?.len())).sum()
    }

    /// Releases the finished files all of whose frames are at or below `up_to`, in order, each once `done` has returned
    /// `Ok` for it; an error from `done` stops it. They become spare files, or are removed.
    pub(crate) fn release(
        &self,
        up_to: Position,
        mut done: impl FnMut(&FinishedFile) -> io::Result<()>,
    ) -> io::Result<()> {
        for file in self.finished(up_to) {
            done(&file)?;
            self.recycle(&file)?;
        }
        Ok(())
    }

    /// While this is held, only the commit thread may give files their next use.
    pub(super) fn moving(&self) -> MutexGuard<'_, ()> {
        self.shared.moving.lock()
    }

    fn recycle(&self, file: &FinishedFile) -> io::Result<()> {
        let _moving = self.moving();
        self.make_spare(file.number)?;
        self.shared.state.lock().live.retain(|live| live.number != file.number);
        Ok(())
    }

    /// Turns the file with this number into a spare file, or removes it.
    fn make_spare(&self, number: u64) -> io::Result<()> {
        let options = &self.shared.options;
        let path = folder::file(&options.folder, number);
        let standard = match path.metadata() {
            // Somebody else removed it: it is not needed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            metadata => Some(metadata?.len() == standard_bytes(options)),
        };
        let spare = {
            let mut state = self.shared.state.lock();
            (standard == Some(true) && !state.no_reuse && state.spares.len() < options.spares_max)
                .then(|| state.take_spare_number())
        };
        match (spare, standard) {
            (Some(spare), _) => std::fs::rename(&path, folder::spare(&options.folder, spare))?,
            (None, Some(_)) => std::fs::remove_file(&path)?,
            (None, None) => {}
        }
        // Before it gets another header: otherwise a power cut could give that header the old name.
        folder::sync(&options.folder)?;
        self.shared.state.lock().spares.extend(spare);
        Ok(())
    }

    /// Begins a file with space for `blocks` blocks of frames, the first of which is `first`, after a frame of `time`.
    /// When this returns, its header and its name are on disk.
    pub(super) fn begin(&self, first: Position, time: u64, blocks: u64) -> io::Result<Begun> {
        seam::take(self.shared.options.seam.as_ref(), LogStep::Begin, || {
            self.begin_for_real(first, time, blocks)
        })
    }

    fn begin_for_real(&self, first: Position, time: u64, blocks: u64) -> io::Result<Begun> {
        let options = &self.shared.options;
        // Besides the frames there are two headers.
        let bytes_needed = (blocks + 2) * BLOCK_BYTES as u64;
        let standard = standard_bytes(options);
        let mut state = self.shared.state.lock();
        if let Some(ahead) = state.ahead.take() {
            if bytes_needed <= standard {
                // Even if this fails: part of its header may be there.
                state.live.push_back(LiveFile { number: ahead.header.file, first });
                drop(state);
                return ahead.begin(first, time);
            }
            // The file that is begun now gets a higher number.
            state.surplus.push(ahead.header.file);
        }
        let ready = if bytes_needed <= standard { state.spares.pop() } else { None };
        let spare = ready.unwrap_or_else(|| state.take_spare_number());
        // Even if this fails: part of it may be there.
        let number = state.take_file_number();
        let bytes = bytes_needed.max(state.made_bytes.saturating_mul(GROWTH).min(standard));
        if ready.is_none() {
            state.made_bytes = bytes;
        }
        drop(state);
        let path = folder::spare(&options.folder, spare);
        let file = match ready {
            Some(_) => OpenOptions::new().read(true).write(true).open(&path),
            None if bytes <= SMALL_FILE_BYTES => make(&path, bytes),
            None => reserve(&path, bytes),
        };
        let begun = file.and_then(|file| self.name(file, &path, number, first, time));
        if begun.is_err() && ready.is_some() && path.exists() {
            self.shared.state.lock().spares.push(spare);
        }
        begun
    }

    /// Gives the file at `path` this number.
    fn name(
        &self,
        file: File,
        path: &Path,
        number: u64,
        first: Position,
        time: u64,
    ) -> io::Result<Begun> {
        let LogOptions { folder, generation, .. } = &self.shared.options;
        let header = Header { first, time, ..new_header(&file, number, *generation)? };
        header.write(&file)?;
        file.sync_data()?;
        let named = folder::file(folder, number);
        std::fs::rename(path, &named)?;
        self.shared.state.lock().live.push_back(LiveFile { number, first });
        folder::sync(folder)?;
        Ok(Begun { path: named, file, header, noted: false })
    }
}

impl Ahead {
    /// Writes into it where it begins. On disk when this returns.
    fn begin(self, first: Position, time: u64) -> io::Result<Begun> {
        let Self { path, file, header, noted } = self;
        let header = Header { first, time, ..header };
        let direct = direct::open(&path, true).ok();
        if !direct.map_or(Ok(false), |direct| header.write_past_cache(&direct))? {
            header.write(&file)?;
            file.sync_data()?;
        }
        Ok(Begun { path, file, header, noted })
    }
}

impl State {
    fn take_file_number(&mut self) -> u64 {
        self.next_file += 1;
        self.next_file - 1
    }

    fn take_spare_number(&mut self) -> u64 {
        self.next_spare += 1;
        self.next_spare - 1
    }
}

/// The size of a file for frames of the usual size.
fn standard_bytes(options: &LogOptions) -> u64 {
    options.file_bytes.max(4 * BLOCK_BYTES as u64).next_multiple_of(BLOCK_BYTES as u64)
}

/// The header of a file that is not begun.
fn new_header(file: &File, number: u64, generation: Generation) -> io::Result<Header> {
    let blocks = file.metadata()?.len() / BLOCK_BYTES as u64;
    let blocks = u32::try_from(blocks).map_err(io::Error::other)?;
    Ok(Header { generation, file: number, life: life(), blocks, first: Position(0), time: 0 })
}

/// A number that distinguishes the lives of files.
fn life() -> u32 {
    // Never zero, so that zeros have no life.
    (uuid::Uuid::new_v4().as_u128() as u32).max(1)
}

/// Makes a file of zeros that are on disk, or none: an append to it changes no length and no extent.
fn make(path: &Path, bytes: u64) -> io::Result<File> {
    let made = (|| {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        write_zeros(path, &file, bytes)?;
        file.sync_all()?;
        Ok(file)
    })();
    if made.is_err() {
        // It may not exist at all; and if it stays, the next start removes it.
        drop(std::fs::remove_file(path));
    }
    made
}

fn write_zeros(path: &Path, file: &File, bytes: u64) -> io::Result<()> {
    // In one piece where the file system can; its length stays that of what was written.
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, bytes);
    let zeros = Aligned::zeros(PREPARE_BYTES);
    // The page cache has better uses.
    let direct = direct::open(path, false).ok();
    let mut written = 0;
    while written < bytes {
        let part = &zeros[..(bytes - written).min(PREPARE_BYTES as u64) as usize];
        if !direct.as_ref().map_or(Ok(false), |direct| direct::write(direct, part, written))? {
            file.write_all_at(part, written)?;
            file.sync_data()?;
        }
        written += part.len() as u64;
    }
    Ok(())
}

/// Makes a file that has its blocks, but not the zeros in them: at once, however large it is. An append to it changes
/// what the file system records about those blocks, and takes half as long again.
fn reserve(path: &Path, bytes: u64) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        if rustix::fs::fallocate(&open, rustix::fs::FallocateFlags::empty(), 0, bytes).is_ok() {
            open.sync_all()?;
            return Ok(open);
        }
    }
    make(path, bytes)
}
