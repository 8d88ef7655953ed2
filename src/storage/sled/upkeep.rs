//! The threads that manage the files of the commit log. One creates them and names them ahead of time. One releases those that sled no
//! longer needs, once they are archived.
//!
//! Keeps: a file is released only when the archive, if there is one, has it, or when too many files wait for the archive; failures are
//! retried. Neither a commit nor a checkpoint waits for these threads, and the next file does not wait for the archive. Leaves out: when
//! sled has the content of a file (`checkpoint`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::commit::now_ms;
use super::drafts;
use super::further_base::FurtherBase;
use super::scrub::Scrubber;
use super::shared::Shared;
use crate::storage::archive::{Archive, Retention};
use crate::storage::commit_log::{LogFiles, Position};

/// Tells the threads what to do.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// A file must be prepared.
    file: bool,
    /// Sled and the witness have everything up to here. `None` once the value was taken.
    release: Option<Position>,
    /// The last value of `release`.
    reached: Position,
    end: bool,
}

impl Wanted {
    /// A file of the log was started, so the next one must be prepared.
    pub(super) fn ask_for_file(&self) {
        self.ask(|state| state.file = true);
    }

    /// Sled and the witness have everything up to `position`.
    pub(super) fn release(&self, position: Position) {
        self.ask(|state| {
            state.reached = position;
            state.release = Some(position);
        });
    }

    /// A file was finished before it was full. Sled may have all of it.
    pub(super) fn file_is_finished(&self) {
        self.ask(|state| state.release = Some(state.reached));
    }

    /// The archive must be checked.
    pub(super) fn look_again(&self) {
        self.file_is_finished();
    }

    fn ask(&self, set: impl FnOnce(&mut State)) {
        set(&mut self.state.lock());
        self.wake.notify_all();
    }

    /// What `take` returns, once it returns something or after `patience`, and whether this is the end.
    fn next<T>(
        &self,
        patience: Option<Duration>,
        take: impl Fn(&mut State) -> Option<T>,
    ) -> (Option<T>, bool) {
        let mut state = self.state.lock();
        loop {
            let found = take(&mut state);
            if found.is_some() || state.end {
                return (found, state.end);
            }
            match patience {
                None => self.wake.wait(&mut state),
                Some(patience) if self.wake.wait_for(&mut state, patience).timed_out() => {
                    return (take(&mut state), state.end);
                }
                Some(_) => {}
            }
        }
    }
}

/// The running threads.
pub(super) struct Upkeep {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// The thread that archives what is written.
    drafting: Option<JoinHandle<()>>,
}

impl Upkeep {
    /// Starts them.
    pub(super) fn start(
        shared: Arc<Shared>,
        files: LogFiles,
        (archive, to_scrub): (Option<Archive>, Option<Archive>),
        is_complete: bool,
    ) -> io::Result<Self> {
        let log = files.clone();
        let base = FurtherBase::new(shared.clone(), is_complete);
        let next = Next { shared: shared.clone(), files: files.clone() };
        let drafted = archive.clone();
        let mut keeper = Keeper { shared: shared.clone(), files, archive, base };
        // If one of them cannot be started, the others end when this is dropped.
        let mut upkeep = Self { shared: shared.clone(), threads: Vec::new(), drafting: None };
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        upkeep.threads.push(thread("log-next").spawn(move || next.run())?);
        upkeep.threads.push(thread("log-files").spawn(move || keeper.run())?);
        upkeep.threads.push(Scrubber::start(shared.clone(), log, to_scrub)?);
        upkeep.drafting = drafted.map(|archive| drafts::start(shared, archive)).transpose()?;
        Ok(upkeep)
    }
}

impl Drop for Upkeep {
    /// Waits until what may be released is, or could not be.
    fn drop(&mut self) {
        self.shared.scrub.end();
        self.shared.upkeep.ask(|state| state.end = true);
        for thread in self.threads.drain(..) {
            // If it panicked, the files stay, and are released after the next start.
            drop(thread.join());
        }
        // Nobody takes a draft any more.
        self.shared.drafts.end();
        self.drafting.take().map(JoinHandle::join);
    }
}

/// Prepares the next file of the log before it is needed.
struct Next {
    shared: Arc<Shared>,
    files: LogFiles,
}

impl Next {
    fn run(&self) {
        let health = &self.shared.health;
        loop {
            let fails = health.file_fails.load(Relaxed);
            let patience = fails.then_some(self.shared.options.checkpoint_every);
            let take = |state: &mut State| std::mem::take(&mut state.file).then_some(());
            let (wanted, end) = self.shared.upkeep.next(patience, take);
            if wanted.is_some() || fails && self.has_room_for_file() {
                health.file_fails.store(self.prepare().is_err(), Relaxed);
            }
            if end {
                return;
            }
        }
    }

    /// Whether a prepared file leaves enough space for sled, and for the log after a failure.
    fn has_room_for_file(&self) -> bool {
        let Shared { files, options, .. } = &*self.shared;
        files.has_room_for(options.log_file_bytes.saturating_mul(2)).unwrap_or(false)
    }

    /// If this fails, the commit thread creates the file when it needs one.
    fn prepare(&self) -> io::Result<()> {
        self.files.prepare().inspect_err(|error| {
            log::warn!("making a file of the commit log ahead of time: {error}");
        })
    }
}

/// With at most so many files waiting for the archive, it leaves the processor to those who write.
const WAITING_CALMLY: usize = 8;

/// The nice value of the thread that compresses.
#[cfg(target_os = "linux")]
const LOW_PRIORITY: i32 = 10;

/// Other threads of the process go before this one from now on. It cannot take its priority back without rights.
pub(super) fn lower_priority() {
    // On Linux this is the thread's priority. Without it everything works.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, LOW_PRIORITY);
}

/// Runs it on a thread of its own at a low priority.
fn at_low_priority<T: Send>(run: impl Fn() -> T + Sync) -> T {
    let low = || {
        lower_priority();
        run()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("log-archive".to_owned());
        match thread.spawn_scoped(scope, low) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => run(),
        }
    })
}

/// Releases files.
struct Keeper {
    shared: Arc<Shared>,
    files: LogFiles,
    archive: Option<Archive>,
    base: FurtherBase,
}

impl Keeper {
    fn run(&mut self) {
        let mut failed = None;
        loop {
            let patience = failed.is_some().then_some(self.shared.options.checkpoint_every);
            let take = |state: &mut State| state.release.take();
            let (wanted, end) = self.shared.upkeep.next(patience, take);
            if let Some(position) = wanted.or(failed.take()) {
                failed = self.release(position).is_err().then_some(position);
                self.shared.health.archive_fails.store(failed.is_some(), Relaxed);
            }
            if end {
                return;
            }
        }
    }

    fn release(&mut self, position: Position) -> io::Result<()> {
        let released = match self.archive.clone() {
            None => self.files.release(position, |_| Ok(())),
            Some(archive) => self.archive(&archive, position),
        };
        if let Err(error) = &released {
            log::warn!("finished files of the commit log stay for now: {error}");
            self.let_go(position).unwrap_or_else(|error| {
                log::warn!("finished files of the commit log cannot be released: {error}");
            });
        }
        let waiting = self.files.finished_bytes(position);
        self.shared.health.waiting_bytes.store(waiting.unwrap_or(0), Relaxed);
        released
    }

    fn archive(&mut self, archive: &Archive, position: Position) -> io::Result<()> {
        let mut archived = false;
        self.files.release(position, |file| {
            // Not while it falls behind.
            let is_calm = self.files.finished(position).len() <= WAITING_CALMLY;
            let draft = Mutex::new(self.shared.drafts.take(file.number, is_calm));
            let write = || archive.write_log(file, draft.lock().take()).map_err(io::Error::other);
            let written = if is_calm { at_low_priority(write)? } else { write()? };
            archived |= written.is_some();
            if written.is_some_and(|written| !written.has_all()) {
                log::error!(
                    "{} had lost frames before it was archived: sled has them",
                    file.path.display()
                );
            }
            Ok(())
        })?;
        if archived {
            self.retain(archive)?;
        }
        self.base.look(archive, &self.files, position)
    }

    /// Releases the oldest files without archiving them if too much is waiting: sled has their content, and otherwise
    /// they would grow without limit. The last file stays, so that archiving is retried.
    fn let_go(&self, position: Position) -> io::Result<()> {
        let bytes_max = self.shared.options.archive.waiting_bytes_max;
        while self.files.finished_bytes(position)? > bytes_max
            && let [oldest, _, ..] = &self.files.finished(position)[..]
        {
            log::error!(
                "{} is dropped, and the archive does not have it: until the archive can be written and has a \
                 further base, the database cannot be rebuilt",
                oldest.path.display()
            );
            self.shared.health.archive_is_incomplete.store(true, Relaxed);
            self.files.release(oldest.last, |_| Ok(()))?;
        }
        Ok(())
    }

    /// Removes files that the archive must no longer keep.
    fn retain(&self, archive: &Archive) -> io::Result<()> {
        let retention = self.shared.options.archive.retention();
        if retention == Retention::default() {
            return Ok(());
        }
        let files = archive.files()?.files;
        let surplus: Vec<_> = retention.surplus(&files, now_ms()).into_iter().cloned().collect();
        archive.remove(&surplus)
    }
}
