//! How far a command is, shown on a terminal: what is done, how fast, and how long the rest may take.
//!
//! Keeps: nothing is shown in the first two seconds, nothing where standard error is not a terminal, and nothing stays
//! when it is over. Leaves out: the figures of `bench`, which shows its own.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use eventlog_server::storage::Work;

use super::text::people_bytes;

/// What takes less time is over before anybody asks.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the line is updated.
const EVERY: Duration = Duration::from_millis(200);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Events,
    Bytes,
    /// There are at most as many as the total.
    BytesAtMost,
}

/// The progress of something. The line is removed when this is dropped.
pub(super) struct Progress {
    done: Arc<AtomicU64>,
    line: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Begins to show the progress of `what`, if somebody sees it: `done` of `total`, if that is known.
    pub(super) fn start(what: &'static str, unit: Unit, total: Option<u64>) -> Self {
        let done: Arc<AtomicU64> = Arc::default();
        let counted = Arc::clone(&done);
        Self::measured(what, unit, done, move || (counted.load(Ordering::Relaxed), total))
    }

    /// The progress of a rebuild or a restore.
    pub(super) fn of(what: &'static str, work: &Work) -> Self {
        let work = work.clone();
        let look = move || (work.done(), Some(work.total()));
        Self::measured(what, Unit::Bytes, Arc::default(), look)
    }

    /// The progress of a copy: `look` returns the bytes that are copied, and how many there are at most.
    pub(super) fn copying(
        what: &'static str,
        look: impl Fn() -> (u64, u64) + Send + 'static,
    ) -> Self {
        let look = move || {
            let (done, most) = look();
            (done, Some(most))
        };
        Self::measured(what, Unit::BytesAtMost, Arc::default(), look)
    }

    /// The same where standard output is the result: on a terminal, the output itself shows the progress.
    pub(super) fn beside_output(what: &'static str, total: Option<u64>) -> Self {
        if io::stdout().is_terminal() {
            return Self { done: Arc::default(), line: None };
        }
        Self::start(what, Unit::Events, total)
    }

    /// The progress of reading the files in these directories, as far as the system tells: approximate, because some
    /// are read again.
    pub(super) fn reading(what: &'static str, directories: &[&Path]) -> Self {
        let total = directories.iter().map(|path| bytes_in(path)).sum();
        let before = bytes_read();
        let total = Some(total).filter(|_| before.is_some());
        let before = before.unwrap_or_default();
        let look = move || (bytes_read().unwrap_or_default().saturating_sub(before), total);
        Self::measured(what, Unit::Bytes, Arc::default(), look)
    }

    /// `look` returns what is done, and what there is to do if that is known.
    fn measured(
        what: &'static str,
        unit: Unit,
        done: Arc<AtomicU64>,
        look: impl Fn() -> (u64, Option<u64>) + Send + 'static,
    ) -> Self {
        if !io::stderr().is_terminal() {
            return Self { done, line: None };
        }
        let (stop, stopped) = channel();
        let began = now();
        let show = move || {
            let mut wait = PATIENCE;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                wait = EVERY;
                let (done, total) = look();
                eprint!("\r\x1b[K{}", line(what, unit, done, total, began.elapsed()));
                // Nothing depends on it more than on the next one.
                let _ = io::stderr().flush();
            }
            eprint!("\r\x1b[K");
        };
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(show);
        // Without the thread nothing is shown, and everything continues.
        Self { done, line: thread.ok().map(|thread| (stop, thread)) }
    }

    /// This much more is done.
    pub(super) fn add(&self, more: u64) {
        self.done.fetch_add(more, Ordering::Relaxed);
    }

    /// Counts what is read through it.
    pub(super) fn counting<R: Read>(&self, inner: R) -> Counting<R> {
        Counting { inner, done: Arc::clone(&self.done) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.line.take() {
            drop(stop);
            // A panic there is reported by itself.
            let _ = thread.join();
        }
    }
}

pub(super) fn now() -> Instant {
    Instant::now()
}

/// What is read through this counts as done.
pub(super) struct Counting<R> {
    inner: R,
    done: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.done.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

fn line(what: &str, unit: Unit, done: u64, total: Option<u64>, took: Duration) -> String {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = done.saturating_mul(1_000) / millis;
    let amount = |amount: u64| match unit {
        Unit::Events => format!("{amount} events"),
        Unit::Bytes | Unit::BytesAtMost => people_bytes(amount),
    };
    let mut line = format!("{what}: {}, {}/s", amount(done), amount(rate));
    // More than the estimate is not shown as a hundred and five percent.
    // Without a rate there is nothing to estimate from.
    if let Some(total) = total.filter(|total| *total > 0 && done <= *total && rate > 0) {
        let left = people_time(Duration::from_secs((total - done) / rate));
        let percent = done.saturating_mul(100) / total;
        // Writing to a `String` does not fail.
        let _ = match unit {
            Unit::BytesAtMost => {
                write!(line, ", of at most {}, at most {left} left", amount(total))
            }
            Unit::Events | Unit::Bytes => write!(line, ", {percent} %, about {left} left"),
        };
    }
    line
}

fn people_time(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds @ 100..6_000 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

/// How much this process has read from files so far, if the system tells.
fn bytes_read() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("rchar: "))?.trim().parse().ok()
}

/// The size of all files in this directory; 0 if there is none.
fn bytes_in(directory: &Path) -> u64 {
    let mut left: Vec<PathBuf> = vec![directory.to_owned()];
    let mut bytes = 0;
    while let Some(directory) = left.pop() {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        for entry in entries {
            // Links are not followed.
            match entry.metadata() {
                Ok(found) if found.is_dir() => left.push(entry.path()),
                Ok(found) => bytes += found.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let ten = Duration::from_secs(10);
        assert_eq!(
            line("write", Unit::Events, 1_000, Some(4_000), ten),
            "write: 1000 events, 100 events/s, 25 %, about 30 s left"
        );
        assert_eq!(line("write", Unit::Events, 50, None, ten), "write: 50 events, 5 events/s");
        assert_eq!(line("tail", Unit::Events, 50, Some(40), ten), "tail: 50 events, 5 events/s");
        assert_eq!(line("tail", Unit::Events, 0, Some(40), ten), "tail: 0 events, 0 events/s");
        let bytes = line("verify", Unit::Bytes, 10 << 20, Some(1 << 40), ten);
        assert!(bytes.contains("MiB/s") && bytes.ends_with(" h left"), "{bytes}");
        assert!(line("verify", Unit::Bytes, 0, Some(0), Duration::ZERO).ends_with("/s"));
        let most = line("compact", Unit::BytesAtMost, 10 << 20, Some(40 << 20), ten);
        assert_eq!(most, "compact: 10.0 MiB, 1.0 MiB/s, of at most 40.0 MiB, at most 30 s left");
        assert_eq!(people_time(Duration::from_mins(5)), "5 min");
    }

    #[test]
    fn what_is_read_counts() {
        let progress = Progress { done: Arc::default(), line: None };
        let mut text = String::new();
        progress.counting(&b"abc"[..]).read_to_string(&mut text).expect("it is there");
        progress.add(2);
        assert_eq!((&*text, progress.done.load(Ordering::Relaxed)), ("abc", 5));
    }

    #[test]
    fn what_a_directory_holds_is_counted_with_what_is_below() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("below")).expect("made");
        std::fs::write(directory.path().join("a"), "123").expect("written");
        std::fs::write(directory.path().join("below/b"), "4567").expect("written");
        assert_eq!(bytes_in(directory.path()), 7);
        assert_eq!(bytes_in(&directory.path().join("nowhere")), 0);
    }
}
