//! Archives the commit log while it is written: what a group wrote is still in memory then, and its file need not be read again
//! when it is finished.
//!
//! Keeps: the commit thread waits for nothing here. If this falls behind, the rest of a log file is left out of its draft, and read from
//! the disk later. So a draft has the first frames of its log file, perhaps all, and none that was not acknowledged. Leaves out: when a
//! draft becomes a file of the archive (`upkeep`).
//!
//! ```text
//! commit ── Collector ── up to a chunk ──► Drafts ──► log-draft: compresses ──► Draft ──► log-files
//! ```

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::shared::Shared;
use crate::storage::archive::{Archive, Draft, Plain, Press};
use crate::storage::commit_log::{Appended, Place, Position};

/// How much waits to be compressed, at most, in bytes. The rest of a log file with larger frames is read.
const WAITING_BYTES_MAX: usize = 12 << 20;
/// How many drafts there are at most: further log files are read when they are finished.
const DRAFTS_MAX: usize = 16;
/// How many chunks are kept when they are empty, so that their memory is reused.
const KEPT_MAX: usize = 2;

/// What is to be compressed, and the drafts.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Part>,
    /// The log file of the part that is being added to its draft.
    adding: Option<u64>,
    /// By the numbers of their log files.
    drafts: VecDeque<Draft>,
    /// The log files up to this number were archived, or will be without a draft.
    taken: u64,
    /// Chunks to fill.
    kept: Vec<Plain>,
    /// Nobody adds to drafts any more.
    ended: bool,
}

/// Frames of a log file that follow each other.
#[derive(Debug)]
struct Part {
    /// The number of the file, and of its first frame.
    file: (u64, Position),
    plain: Plain,
    /// Where the file goes on.
    next: Place,
}

impl Drafts {
    /// False if too much waits. The frames of `part` are gone then.
    fn offer(&self, part: Part) -> (bool, Plain) {
        let mut state = self.state.lock();
        let waiting: usize = state.waiting.iter().map(|part| part.plain.bytes()).sum();
        let takes = waiting + part.plain.bytes() <= WAITING_BYTES_MAX && !state.ended;
        if !takes {
            let mut plain = part.plain;
            plain.clear();
            return (false, plain);
        }
        state.waiting.push_back(part);
        let plain = state.kept.pop().unwrap_or_default();
        drop(state);
        self.changed.notify_all();
        (true, plain)
    }

    /// The draft of the log file with this number, which is finished, and nothing for it or those before it from now on. If `patient`,
    /// waits for what waits to be added to it; otherwise that is left out.
    pub(super) fn take(&self, number: u64, patient: bool) -> Option<Draft> {
        let mut state = self.state.lock();
        if !patient {
            state.waiting.retain(|part| part.file.0 > number);
        }
        while !state.ended && state.is_due(number) {
            self.changed.wait(&mut state);
        }
        state.taken = state.taken.max(number);
        state.waiting.retain(|part| part.file.0 > number);
        let behind = state.drafts.partition_point(|draft| draft.number() <= Some(number));
        let mut taken: Vec<Draft> = state.drafts.drain(..behind).collect();
        drop(state);
        // The others remove their files.
        taken.pop().filter(|draft| draft.number() == Some(number))
    }

    /// No more drafts are written.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        state.waiting.clear();
        let drafts = std::mem::take(&mut state.drafts);
        drop(state);
        drop(drafts);
        self.changed.notify_all();
    }

    /// The next part, and its draft if there is one. `None` at the end.
    fn next(&self) -> Option<(Part, Option<Draft>)> {
        let mut state = self.state.lock();
        loop {
            if state.ended {
                return None;
            }
            if let Some(part) = state.waiting.pop_front() {
                let number = part.file.0;
                state.adding = Some(number);
                let is_newest =
                    state.drafts.back().is_some_and(|draft| draft.number() == Some(number));
                let draft = is_newest.then(|| state.drafts.pop_back()).flatten();
                return Some((part, draft));
            }
            self.changed.wait(&mut state);
        }
    }

    /// A part was added to this draft, or to none.
    fn added(&self, draft: Option<Draft>, plain: Plain) {
        let mut state = self.state.lock();
        state.adding = None;
        if state.kept.len() < KEPT_MAX {
            state.kept.push(plain);
        }
        let surplus = match draft {
            Some(draft) if !state.ended && draft.number() > Some(state.taken) => {
                state.drafts.push_back(draft);
                None
            }
            draft => draft,
        };
        drop(state);
        drop(surplus);
        self.changed.notify_all();
    }

    /// Whether a draft for the log file `number` may be begun.
    fn may_begin(&self, number: u64) -> bool {
        let state = self.state.lock();
        number > state.taken && state.drafts.len() < DRAFTS_MAX
    }
}

impl State {
    /// Whether something is still added to drafts of log files up to this number.
    fn is_due(&self, number: u64) -> bool {
        self.adding.is_some_and(|adding| adding <= number)
            || self.waiting.iter().any(|part| part.file.0 <= number)
    }
}

/// Collects what the commit thread writes.
pub(super) struct Collector {
    shared: Arc<Shared>,
    /// The number of the log file, and of its first frame.
    file: (u64, Position),
    plain: Plain,
    next: Option<Place>,
    /// Whether its frames are collected: not those behind a frame that is missing.
    collects: bool,
}

impl Collector {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let (file, plain) = ((0, Position(0)), Plain::default());
        Self { shared, file, plain, next: None, collects: false }
    }

    /// Adds a frame, which is acknowledged.
    pub(super) fn add(&mut self, frame: &Appended) {
        if !self.shared.options.archive.enabled {
            return;
        }
        let file = (frame.file(), frame.file_first);
        if self.file != file {
            self.hand_over();
            self.file = file;
            self.collects = frame.position == frame.file_first;
        }
        if !self.collects {
            return;
        }
        let bytes = frame.body_bytes() as usize;
        self.plain.add((frame.position, frame.time_ms), bytes, frame.body());
        self.next = Some(frame.next);
        if self.plain.is_full() {
            self.hand_over();
        }
    }

    /// Hands over what was collected: the file may be finished.
    pub(super) fn hand_over(&mut self) {
        let Some(next) = self.next.take() else { return };
        let (file, plain) = (self.file, std::mem::take(&mut self.plain));
        let (taken, empty) = self.shared.drafts.offer(Part { file, plain, next });
        self.plain = empty;
        self.collects &= taken;
    }
}

/// Starts the thread that compresses. It ends with [`Drafts::end`].
pub(super) fn start(shared: Arc<Shared>, archive: Archive) -> io::Result<JoinHandle<()>> {
    struct EndGuard(Arc<Shared>);
    impl Drop for EndGuard {
        fn drop(&mut self) {
            self.0.drafts.end();
        }
    }
    std::thread::Builder::new().name("log-draft".to_owned()).spawn(move || {
        // Whatever ends it: nobody waits for it any more.
        let guard = EndGuard(shared);
        super::upkeep::lower_priority();
        let shared = &*guard.0;
        let mut press = match Press::new() {
            Ok(press) => press,
            Err(error) => {
                return log::warn!("finished files of the commit log will be read: {error}");
            }
        };
        while let Some((mut part, draft)) = shared.drafts.next() {
            // If the archive fails, a draft for each file would only fill its disk.
            let fails = shared.health.archive_fails.load(Relaxed);
            let draft =
                if fails { None } else { add(&shared.drafts, &archive, draft, &part, &mut press) };
            part.plain.clear();
            shared.drafts.added(draft, part.plain);
        }
    })
}

/// Adds `part` to its draft, which is begun if it has the first frames of its file.
fn add(
    drafts: &Drafts,
    archive: &Archive,
    draft: Option<Draft>,
    part: &Part,
    press: &mut Press,
) -> Option<Draft> {
    let (number, first) = part.file;
    let added = match draft {
        // A part between was left out.
        Some(draft) if draft.next().is_some_and(|next| next.position != part.plain.first()) => {
            return Some(draft);
        }
        Some(draft) => Ok(draft),
        None if part.plain.first() == first && drafts.may_begin(number) => {
            archive.draft(number, first)
        }
        None => return None,
    };
    let added = added.and_then(|mut draft| {
        draft.add(press, &part.plain, part.next)?;
        Ok(draft)
    });
    added.inspect_err(|error| log::debug!("log file {number} will be read again: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::commit_log::Generation;

    /// The frame with this number in a log file, whose first frame is ten times its number.
    fn part(file: u64, frame: u64) -> Part {
        let (first, position) = (Position(file * 10), Position(frame));
        let mut plain = Plain::default();
        plain.add((position, 0), 4, [&b"body"[..]]);
        let next = Place { position: position.next(), block: 1 + frame as u32 };
        Part { file: (file, first), plain, next }
    }

    fn archive(folder: &tempfile::TempDir) -> Archive {
        Archive::open(folder.path().join("archive"), Generation([1; 16])).expect("an archive")
    }

    /// Adds what waits.
    fn add_all(drafts: &Drafts, archive: &Archive) {
        let mut press = Press::new().expect("a press");
        while !drafts.state.lock().waiting.is_empty() {
            let (part, draft) = drafts.next().expect("a part");
            let draft = add(drafts, archive, draft, &part, &mut press);
            drafts.added(draft, Plain::default());
        }
    }

    fn next(draft: Option<Draft>) -> Option<u64> {
        draft.and_then(|draft| draft.next()).map(|next| next.position.0)
    }

    #[test]
    fn a_draft_has_what_follows_the_beginning_of_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (drafts, archive) = (Drafts::default(), archive(&folder));
        // Frame 13 was left out, and so was the beginning of file 2.
        for (file, frame) in [(1, 10), (1, 11), (1, 12), (1, 14), (2, 21), (2, 22), (3, 30)] {
            assert!(drafts.offer(part(file, frame)).0);
        }
        add_all(&drafts, &archive);
        assert_eq!(next(drafts.take(1, true)), Some(13));
        assert_eq!(next(drafts.take(2, true)), None);
        assert_eq!(next(drafts.take(3, true)), Some(31));
        assert_eq!(std::fs::read_dir(folder.path().join("archive")).expect("a folder").count(), 0);
    }

    #[test]
    fn nothing_is_added_to_a_draft_that_was_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let (drafts, archive) = (Drafts::default(), archive(&folder));
        drafts.offer(part(1, 10));
        drafts.offer(part(2, 20));
        assert_eq!(next(drafts.take(1, false)), None, "it is not waited for");
        drafts.offer(part(1, 10));
        add_all(&drafts, &archive);
        assert_eq!(drafts.state.lock().drafts.len(), 1);
        assert_eq!(next(drafts.take(3, true)), None, "that of file 2 is given up");
        assert!(drafts.state.lock().drafts.is_empty());
    }

    #[test]
    fn whoever_takes_a_draft_waits_until_everything_is_added() {
        let folder = tempfile::tempdir().expect("a folder");
        let (drafts, archive) = (Drafts::default(), archive(&folder));
        (10..13).for_each(|frame| assert!(drafts.offer(part(1, frame)).0));
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| drafts.take(1, true));
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!taken.is_finished());
            add_all(&drafts, &archive);
            assert_eq!(next(taken.join().expect("no panic")), Some(13));
            drafts.offer(part(2, 20));
            let waits = scope.spawn(|| drafts.take(2, true));
            drafts.end();
            assert_eq!(next(waits.join().expect("no panic")), None);
        });
    }

    #[test]
    fn no_more_waits_than_there_is_space_for() {
        let drafts = Drafts::default();
        let large = |frame, bytes| {
            let mut part = part(1, frame);
            part.plain.add((Position(frame), 0), bytes, [&vec![0; bytes][..]]);
            part
        };
        assert!(!drafts.offer(large(1, 13 << 20)).0);
        let takes: Vec<bool> = (0..12).map(|frame| drafts.offer(large(frame, 1 << 20)).0).collect();
        assert_eq!(takes.iter().filter(|takes| **takes).count(), 11);
        assert!(takes[..11].iter().all(|takes| *takes));
    }
}
