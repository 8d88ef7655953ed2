//! Notes in the data directory when its files may have content of erased entries, before they do; and when it was removed.
//!
//! Keeps: the note is on disk before an erasure is. Leaves out: the removal itself (`worker`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

use crate::storage::Figure;
use crate::storage::sled::commit::now_ms;
use crate::storage::sled::files::Files;

/// The name of the file in the data directory.
pub(in crate::storage::sled) const FILE: &str = "scrub";
const VERSION: u32 = 1;

/// The content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::storage::sled) struct Note {
    version: u32,
    /// The start of the first erasure since the files were clean: milliseconds since 1970.
    pub(in crate::storage::sled) erased_millis: u64,
    /// When none of it was in the files any more, except in what was kept aside. `None` before that.
    pub(in crate::storage::sled) clean_millis: Option<u64>,
    /// The start of the first erasure since everything kept aside before was removed. `None` if nothing was kept.
    pub(in crate::storage::sled) aside_millis: Option<u64>,
}

impl Note {
    /// Reads the note in this directory, if there is one. An unreadable note counts as an erasure at this moment.
    pub(in crate::storage::sled) fn read(directory: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(path(directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => {
                let note = serde_json::from_slice(&text?).ok();
                let note = note.filter(|note: &Self| note.version == VERSION);
                Ok(Some(note.unwrap_or_else(|| Self::begun(None))))
            }
        }
    }

    fn begun(aside_millis: Option<u64>) -> Self {
        let erased_millis = now_ms();
        let aside_millis = aside_millis.or(Some(erased_millis));
        Self { version: VERSION, erased_millis, clean_millis: None, aside_millis }
    }

    fn write(self, files: &Files) -> io::Result<()> {
        let mut text = serde_json::to_vec(&self)?;
        text.push(b'\n');
        files.write_whole(&path(files.directory()), &text)
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// The state of the removal while the directory is open.
#[derive(Debug, Default)]
pub(in crate::storage::sled) struct Scrub {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    note: Option<Note>,
    /// The number of erasures, including failed ones.
    erasures: u64,
    /// The number of erasures that are not in the commit log yet.
    under_way: usize,
    /// The number of erasures of this process that failed, so that they may be in the ledger and not in the commit log.
    failed: usize,
    /// Whether somebody waits for the removal, so that it is due at once.
    at_once: bool,
    /// The number of archive files that were rewritten.
    rewritten: u64,
    /// Why the last attempt failed.
    failure: Option<String>,
    /// Whether it was checked if something kept aside must be removed.
    is_kept_known: bool,
    end: bool,
}

/// An erasure that is not in the commit log yet. When this is dropped, it is there or will never be.
#[derive(Debug)]
pub(in crate::storage::sled) struct Noted {
    scrub: Arc<Scrub>,
    is_done: bool,
}

impl Noted {
    /// Counts an erasure that was begun.
    pub(in crate::storage::sled) fn new(scrub: Arc<Scrub>) -> Self {
        scrub.state.lock().under_way += 1;
        Self { scrub, is_done: false }
    }

    /// The erasure is in the commit log.
    pub(in crate::storage::sled) fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        let mut state = self.scrub.state.lock();
        state.under_way -= 1;
        state.erasures += 1;
        state.failed += usize::from(!self.is_done);
    }
}

/// Its current state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage::sled) struct Standing {
    pub(in crate::storage::sled) note: Option<Note>,
    pub(in crate::storage::sled) failure: Option<String>,
}

impl State {
    fn until_kept_is_due(&self, kept_aside: Duration) -> Duration {
        if !self.is_kept_known {
            return KEPT_FIRST;
        }
        let kept_aside = u64::try_from(kept_aside.as_millis()).unwrap_or(u64::MAX);
        let due = self.note.and_then(|note| note.aside_millis);
        let left = due.map(|aside| aside.saturating_add(kept_aside).saturating_sub(now_ms()));
        // If it is overdue, removing it has failed.
        let left = left.filter(|left| *left > 0).map(|left| Duration::from_millis(left + 1));
        left.map_or(KEPT_EVERY, |left| left.min(KEPT_EVERY))
    }
}

impl Scrub {
    /// Reads what an earlier process noted.
    pub(super) fn load(&self, files: &Files) -> io::Result<()> {
        self.state.lock().note = Note::read(files.directory())?;
        Ok(())
    }

    /// Notes that something is about to be erased. The note is on disk when this returns.
    pub(in crate::storage::sled) fn begin(&self, files: &Files) -> io::Result<()> {
        let mut state = self.state.lock();
        state.erasures += 1;
        if state.note.is_none_or(|note| note.clean_millis.is_some()) {
            let note = Note::begun(state.note.and_then(|note| note.aside_millis));
            note.write(files)?;
            state.note = Some(note);
        }
        self.wake.notify_all();
        Ok(())
    }

    /// Requests the removal now.
    pub(in crate::storage::sled) fn ask_at_once(&self) {
        self.state.lock().at_once = true;
        self.wake.notify_all();
    }

    /// Ends the thread.
    pub(in crate::storage::sled) fn end(&self) {
        self.state.lock().end = true;
        self.wake.notify_all();
    }

    pub(in crate::storage::sled) fn standing(&self) -> Standing {
        let state = self.state.lock();
        Standing { note: state.note, failure: state.failure.clone() }
    }

    /// Whether every erasure that this process began is in the commit log.
    pub(in crate::storage::sled) fn is_settled(&self) -> bool {
        let state = self.state.lock();
        state.under_way == 0 && state.failed == 0
    }

    /// The figures about it.
    pub(in crate::storage::sled) fn figures(&self) -> [Figure; 2] {
        let state = self.state.lock();
        let is_due = state.note.is_some_and(|note| note.clean_millis.is_none());
        let figure = |name, help, value| Figure { name, help, value };
        let due = "1 while files may still have content of erased entries";
        let fails = "1 while content of erased entries cannot be removed from files";
        [
            figure("erased_remains", due, u64::from(is_due)),
            figure("erased_remains_fails", fails, u64::from(state.failure.is_some())),
        ]
    }

    /// Waits for `pause`. Returns true at once if the thread must end.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let mut state = self.state.lock();
        let _ = self.wake.wait_while_for(&mut state, |state| !state.end, pause);
        state.end
    }

    /// Waits until a removal is due, which is this long after an erasure, or until `again`. Returns the number of erasures. `None` if
    /// the thread must end.
    /// What was kept aside is to be removed `kept_aside` after an erasure: it returns for that as well.
    pub(super) fn wait(
        &self,
        (after, kept_aside): (Duration, Duration),
        again: Option<Instant>,
    ) -> Option<u64> {
        let mut state = self.state.lock();
        let mut due = None;
        loop {
            if state.end {
                return None;
            }
            let is_wanted = state.note.is_some_and(|note| note.clean_millis.is_none());
            if is_wanted {
                let at =
                    *due.get_or_insert_with(|| again.unwrap_or_else(|| Instant::now() + after));
                if state.at_once || Instant::now() >= at {
                    state.at_once = false;
                    return Some(state.erasures);
                }
                let _ = self.wake.wait_until(&mut state, at);
            } else {
                (state.at_once, due) = (false, None);
                let pause = state.until_kept_is_due(kept_aside);
                if self.wake.wait_for(&mut state, pause).timed_out() {
                    state.is_kept_known = true;
                    return Some(state.erasures);
                }
            }
        }
    }

    /// Counts a rewritten file of the archive.
    pub(super) fn rewritten(&self) {
        self.state.lock().rewritten += 1;
    }

    /// The number of archive files that were rewritten since the directory was opened.
    pub(in crate::storage::sled) fn rewritten_count(&self) -> u64 {
        self.state.lock().rewritten
    }

    /// Records that nothing older than the last erasure is kept aside.
    pub(super) fn aside_is_gone(&self, files: &Files) -> io::Result<()> {
        let mut state = self.state.lock();
        let Some(note) = state.note.filter(|note| note.clean_millis.is_some()) else {
            return Ok(());
        };
        let note = Note { aside_millis: None, ..note };
        note.write(files)?;
        state.note = Some(note);
        Ok(())
    }

    /// Records the end of an attempt that began after this many erasures.
    pub(super) fn ended(
        &self,
        files: &Files,
        erasures: u64,
        failure: Option<String>,
    ) -> io::Result<()> {
        let mut state = self.state.lock();
        state.failure = failure;
        let Some(note) = state.note else { return Ok(()) };
        let is_all = state.erasures == erasures && state.under_way == 0;
        // What was kept aside is checked now.
        state.is_kept_known = true;
        if state.failure.is_none() && is_all && note.clean_millis.is_none() {
            let note = Note { clean_millis: Some(now_ms()), ..note };
            note.write(files)?;
            state.note = Some(note);
        }
        Ok(())
    }
}

/// How often to check whether something kept aside must be removed.
const KEPT_EVERY: Duration = Duration::from_secs(10 * 60);
/// When that is checked for the first time after the start. Commands that open the directory end before, and do not know how long the
/// server is to keep it.
const KEPT_FIRST: Duration = Duration::from_secs(60);
