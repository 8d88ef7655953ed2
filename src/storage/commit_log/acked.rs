//! How far the log had reached a moment ago, kept separately from it: a log that ends before that was damaged.
//!
//! Keeps: noted within [`DELAY`] of each append, whenever a file is begun and before anything is appended to it, and at
//! the end, all by a thread of its own, so that no commit waits. There are two slots, written in turn: if one is torn
//! or changed, the other remains. Leaves out: failing. A note that cannot be written is retried and mentioned in the
//! server's log; commits continue.
//!
//! ```text
//! log/acked: two slots of 512 bytes, at 0 and at 4096
//! crc32        4   over the rest
//! generation  16
//! turn         8   the slot with the greater one counts
//! file         8   the number of the newest file, which may be one that was named ahead of time
//! position     8   frames up to this one were synced
//! closed       1   1: there is none behind it, the log was closed
//! zeros
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::block::BLOCK_BYTES;
use super::seam::{self, LogStep, Seam};
use super::{Generation, Position};
use crate::storage::slot::{self, u64_at};

/// How long an append may stay without a note. Under load there are twenty notes a second.
const DELAY: Duration = Duration::from_millis(50);

const NAME: &str = "acked";
const SEED: u32 = 0;
const SLOTS_AT: [u64; 2] = [0, 4_096];

/// The contents of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// The number of the newest file, begun or not.
    pub(super) file: u64,
    /// Frames up to this one were synced.
    pub(super) position: Position,
    /// Whether the log was closed after it.
    pub(super) closed: bool,
}

/// Reads the newest note of this log, if there is one.
pub(super) fn read(folder: &Path, generation: Generation) -> io::Result<Option<Note>> {
    match File::open(folder.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => Ok(newest(&file?, generation).map(|(_, note)| note)),
    }
}

fn newest(file: &File, generation: Generation) -> Option<(u64, Note)> {
    let slots = SLOTS_AT.iter().filter_map(|&at| {
        let mut slot = [0; BLOCK_BYTES];
        file.read_exact_at(&mut slot, at).ok()?;
        decode(&mut slot, generation)
    });
    slots.max_by_key(|(turn, _)| *turn)
}

fn encode(generation: Generation, turn: u64, note: Note) -> [u8; BLOCK_BYTES] {
    let mut slot = [0; BLOCK_BYTES];
    slot[4..20].copy_from_slice(&generation.0);
    slot[20..28].copy_from_slice(&turn.to_be_bytes());
    slot[28..36].copy_from_slice(&note.file.to_be_bytes());
    slot[36..44].copy_from_slice(&note.position.0.to_be_bytes());
    slot[44] = u8::from(note.closed);
    slot::close(&mut slot, SEED);
    slot
}

fn decode(slot: &mut [u8; BLOCK_BYTES], generation: Generation) -> Option<(u64, Note)> {
    if !slot::check(slot, SEED) {
        return None;
    }
    let note = Note {
        file: u64_at(slot, 28),
        position: Position(u64_at(slot, 36)),
        closed: slot[44] == 1,
    };
    (slot[4..20] == generation.0).then(|| (u64_at(slot, 20), note))
}

/// Notes that a file exists, for code that names files.
#[derive(Clone)]
pub(super) struct FileNotes(Arc<Shared>);

impl FileNotes {
    /// The file has its name: noted when this returns. Of several files the newest counts.
    pub(super) fn is_there(&self, file: u64) -> io::Result<()> {
        let mut state = self.0.state.lock();
        state.file = state.file.max(file);
        self.0.note(&mut state, false)
    }
}

/// Writes the notes.
pub(super) struct Acked {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    generation: Generation,
    seam: Option<Arc<dyn Seam>>,
    /// The last frame that was synced.
    position: AtomicU64,
    /// Whether the thread waits to be woken: saves the commit thread a system call for each append.
    asleep: AtomicBool,
    ending: AtomicBool,
    state: Mutex<State>,
}

struct State {
    slots: File,
    turn: u64,
    /// The number of the newest file.
    file: u64,
    noted: Position,
}

impl Acked {
    /// Continues from what is in `folder`, and notes this at once: `position` was synced, and `file` was begun.
    pub(super) fn start(
        folder: &Path,
        generation: Generation,
        seam: Option<Arc<dyn Seam>>,
        file: u64,
        position: Position,
    ) -> io::Result<Self> {
        let path = folder.join(NAME);
        let slots =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let turn = newest(&slots, generation).map_or(0, |(turn, _)| turn);
        let state = State { slots, turn, file, noted: position };
        let shared = Arc::new(Shared {
            generation,
            seam,
            position: AtomicU64::new(position.0),
            asleep: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            state: Mutex::new(state),
        });
        shared.note(&mut shared.state.lock(), false)?;
        super::folder::sync(folder)?;
        let thread = std::thread::Builder::new().name("log-acked".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.run()
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// A frame was synced; the note follows. Does not wait.
    pub(super) fn reached(&self, position: Position) {
        // Before `asleep` is read, otherwise the thread might sleep and not be woken.
        self.shared.position.store(position.0, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst)
            && self.shared.asleep.swap(false, Ordering::SeqCst)
        {
            self.wake();
        }
    }

    /// A handle for code that names files.
    pub(super) fn files(&self) -> FileNotes {
        FileNotes(self.shared.clone())
    }

    /// Waits until what was appended is noted.
    #[cfg(test)]
    pub(super) fn wait_until_noted(&self) {
        while !self.shared.is_noted() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Notes that nothing comes after what was appended.
    pub(super) fn close(mut self) -> io::Result<()> {
        self.end();
        self.shared.note(&mut self.shared.state.lock(), true)
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    fn end(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It panicked: then it notes nothing more.
            drop(thread.join());
        }
    }
}

impl Drop for Acked {
    /// Without [`Acked::close`]: what was appended is noted, but more may have been in progress.
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn run(&self) {
        let mut failing = false;
        while !self.ending.load(Ordering::SeqCst) {
            self.asleep.store(true, Ordering::SeqCst);
            if self.is_noted() {
                std::thread::park();
                continue;
            }
            self.asleep.store(false, Ordering::SeqCst);
            failing = match self.note(&mut self.state.lock(), false) {
                Err(error) if !failing => {
                    log::warn!("noting how far the log reaches: {error}");
                    true
                }
                noted => noted.is_err(),
            };
            std::thread::park_timeout(DELAY);
        }
        if !self.is_noted()
            && let Err(error) = self.note(&mut self.state.lock(), false)
        {
            log::warn!("noting how far the log reaches: {error}");
        }
    }

    fn is_noted(&self) -> bool {
        self.state.lock().noted == self.reached()
    }

    fn reached(&self) -> Position {
        Position(self.position.load(Ordering::SeqCst))
    }

    /// Writes the next slot and syncs it.
    fn note(&self, state: &mut State, closed: bool) -> io::Result<()> {
        let note = Note { file: state.file, position: self.reached(), closed };
        let turn = state.turn + 1;
        let slot = encode(self.generation, turn, note);
        seam::take(self.seam.as_ref(), LogStep::Acked, || {
            state.slots.write_all_at(&slot, SLOTS_AT[(turn % 2) as usize])?;
            state.slots.sync_data()
        })?;
        state.turn = turn;
        state.noted = note.position;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_bit_changes_no_note() {
        let generation = Generation([7; 16]);
        let note = Note { file: 3, position: Position(70_000), closed: true };
        let slot = encode(generation, 9, note);
        for bit in 0..BLOCK_BYTES * 8 {
            let mut changed = slot;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&mut changed, generation), Some((9, note)), "bit {bit}");
        }
        let mut changed = slot;
        changed[40..60].fill(9);
        assert_eq!(decode(&mut changed, generation), None);
        assert_eq!(decode(&mut slot.clone(), Generation([8; 16])), None);
    }

    #[test]
    fn the_newest_slot_counts_and_the_other_one_if_that_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let generation = Generation([7; 16]);
        let acked = Acked::start(folder.path(), generation, None, 1, Position(5)).expect("started");
        for file in [2, 3, 2] {
            acked.files().is_there(file).expect("noted");
        }
        drop(acked);
        let file = |note: Option<Note>| note.expect("a note").file;
        assert_eq!(file(read(folder.path(), generation).expect("readable")), 3);
        let path = folder.path().join(NAME);
        let bytes = std::fs::read(&path).expect("a file");
        for (at, expected) in SLOTS_AT.into_iter().zip([3, 3]) {
            let mut bytes = bytes.clone();
            bytes[at as usize..][..BLOCK_BYTES].fill(0);
            std::fs::write(&path, bytes).expect("written");
            assert_eq!(file(read(folder.path(), generation).expect("readable")), expected);
        }
    }
}
