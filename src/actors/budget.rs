//! How much incomplete input all connections may hold: messages, frames, chunk sets, handshakes.
//!
//! Each connection has a [`Holding`]: it reports there what it holds, and asks before it reads more. Code that keeps a
//! part of a message in memory elsewhere has one as well. When a `Holding` is dropped, its share is released.
//!
//! Keeps: one lock, and none for a connection that holds little while there is space. Leaves out: who may read, and who
//! is overdue (`core::intake`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use crate::core::intake::{Held, Intake, Number, Overdue, Terms};
use crate::core::strangers::Place;
use crate::model::Limits;

/// What counts as small for a connection that is not accepted yet: requests for a subscription, proofs.
pub(crate) const SMALL_STRANGER_BYTES: usize = 2 * 1_024;
/// What counts as small for the head of a request: together with what is read at once then, it is as long as most
/// heads.
pub(crate) const SMALL_HEAD_BYTES: usize = 4 * 1_024;
/// What counts as small for an accepted connection.
const SMALL_BYTES: usize = 64 * 1_024;
/// Besides its largest message, a connection may hold the next frame, and capacity that a buffer reserved ahead.
const BESIDES_BYTES: usize = 4 * 1_024 * 1_024;

/// Why a connection has to end, if it does.
type Verdict = Arc<Mutex<Option<Overdue>>>;

/// Makes a connection run again.
type Wake = Arc<dyn Fn() + Send + Sync>;

/// The budget of a server.
pub(crate) struct Budget {
    started: Instant,
    open: AtomicUsize,
    /// The most that a new connection may hold.
    connection_bytes_max: AtomicUsize,
    /// What accepted connections hold, except the one whose turn it is.
    open_level: AtomicUsize,
    all: Mutex<All>,
}

struct All {
    intake: Intake,
    wakes: HashMap<Number, (Wake, Verdict)>,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let (connection_bytes_max, terms) = terms(limits);
        let all = All { intake: Intake::new(terms), wakes: HashMap::new() };
        Arc::new(Self {
            started: now(),
            open: AtomicUsize::new(terms.open),
            connection_bytes_max: AtomicUsize::new(connection_bytes_max),
            open_level: AtomicUsize::new(0),
            all: Mutex::new(all),
        })
    }

    /// Other limits count from now on. Open connections keep the most that each of them may hold.
    pub(crate) fn set(&self, limits: &Limits) {
        let (connection_bytes_max, terms) = terms(limits);
        let now = self.now();
        let mut all = self.all.lock();
        self.open.store(terms.open, Ordering::Relaxed);
        self.connection_bytes_max.store(connection_bytes_max, Ordering::Relaxed);
        all.intake.set(terms, now);
        self.wake(all);
    }

    /// The share of a new connection, which holds nothing yet and is a stranger. Up to `small` bytes are read whatever
    /// others hold of larger messages. `wake` makes it run when it may read again, or is overdue. Strangers of one
    /// address wait in one line.
    pub(crate) fn holding(
        self: &Arc<Self>,
        small: usize,
        place: Place,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Holding {
        let mut all = self.all.lock();
        let number = all.intake.enter(small, place);
        let overdue = Arc::default();
        all.wakes.insert(number, (Arc::new(wake), Arc::clone(&overdue)));
        let budget = Arc::clone(self);
        let bytes_max = self.connection_bytes_max.load(Ordering::Relaxed);
        Holding { budget, number, bytes_max, small, held: 0, received: 0, waits: false, overdue }
    }

    /// Finds the overdue connections, and wakes them.
    pub(crate) fn round(&self) {
        let now = self.now();
        let mut all = self.all.lock();
        for (number, why) in all.intake.round(now) {
            if let Some((_, overdue)) = all.wakes.get(&number) {
                *overdue.lock() = Some(why);
            }
            all.intake.wake(number);
        }
        self.wake(all);
    }

    /// Bytes that all connections hold.
    pub(crate) fn level(&self) -> usize {
        self.all.lock().intake.level()
    }

    /// How many connections are currently not read from.
    pub(crate) fn waiting(&self) -> usize {
        self.all.lock().intake.waiting()
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Releases the lock, then wakes those that can be read from.
    fn wake(&self, mut all: MutexGuard<'_, All>) {
        self.open_level.store(all.intake.open_level_of_accepted(), Ordering::Relaxed);
        let numbers = all.intake.take_wake();
        let wakes: Vec<Wake> = numbers
            .iter()
            .filter_map(|number| all.wakes.get(number))
            .map(|(wake, _)| Arc::clone(wake))
            .collect();
        drop(all);
        wakes.iter().for_each(|wake| wake());
    }
}

/// The most that one connection may hold, and the terms for all of them.
fn terms(limits: &Limits) -> (usize, Terms) {
    let connection_bytes_max = limits.chunk_set_bytes_max.max(limits.message_bytes_max)
        + limits.frame_bytes_max
        + BESIDES_BYTES;
    let total = limits.unfinished_bytes_total_max;
    // Whatever the total is, one connection can send its maximum.
    let open = total.saturating_sub(connection_bytes_max).max(total / 4);
    let terms = Terms {
        open,
        open_to_strangers: open / 6,
        rate_min: limits.unfinished_rate_min as u64,
        grace_millis: limits.unfinished_grace.as_millis() as u64,
    };
    (connection_bytes_max, terms)
}

#[expect(clippy::disallowed_methods, reason = "how fast a client sends is judged by it")]
fn now() -> Instant {
    Instant::now()
}

/// A connection's share of the [`Budget`].
pub(crate) struct Holding {
    budget: Arc<Budget>,
    number: Number,
    bytes_max: usize,
    small: usize,
    held: usize,
    /// Bytes that arrived since the last report.
    received: usize,
    waits: bool,
    overdue: Verdict,
}

impl Holding {
    /// The most that a connection may hold.
    pub(crate) const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether more may be read, with this many bytes held now; if not, the connection is woken when it may.
    pub(crate) fn may_read(&mut self, held: usize) -> bool {
        let is_stranger = self.small < SMALL_BYTES;
        let level = self.budget.open_level.load(Ordering::Relaxed);
        let is_open = is_stranger || level < self.budget.open.load(Ordering::Relaxed);
        if !self.waits && held <= self.small && is_open {
            return true;
        }
        let now = self.budget.now();
        let received = std::mem::take(&mut self.received);
        let mut all = self.budget.all.lock();
        all.intake.hold(self.number, now, Held { bytes: held, received, waits_for_client: false });
        let may_read = all.intake.may_read(self.number, now);
        self.budget.wake(all);
        self.held = held;
        self.waits = !may_read;
        may_read
    }

    /// Whether only a little may be read at once, with this many bytes held now: so for a stranger, unless it is alone
    /// with large input.
    pub(crate) fn is_small(&self, held: usize) -> bool {
        held <= self.small
    }

    /// This many bytes arrived.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.received += bytes;
    }

    /// This many bytes are held until more arrives, which depends on the client.
    pub(crate) fn hold(&mut self, held: usize, waits_for_client: bool) {
        let received = std::mem::take(&mut self.received);
        if self.held == 0 && held == 0 && !self.waits {
            return;
        }
        let now = self.budget.now();
        let mut all = self.budget.all.lock();
        all.intake.hold(self.number, now, Held { bytes: held, received, waits_for_client });
        self.budget.wake(all);
        self.held = held;
    }

    /// Its connection is no longer a stranger.
    pub(crate) fn accept(&mut self) {
        self.small = SMALL_BYTES;
        let now = self.budget.now();
        let mut all = self.budget.all.lock();
        all.intake.accept(self.number, now, SMALL_BYTES);
        self.budget.wake(all);
        self.waits = false;
    }

    /// Why the connection has to end, if it does.
    pub(crate) fn overdue(&self) -> Option<Overdue> {
        *self.overdue.lock()
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let now = self.budget.now();
        let mut all = self.budget.all.lock();
        all.intake.leave(self.number, now);
        all.wakes.remove(&self.number);
        self.budget.wake(all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1_024 * 1_024;

    #[test]
    fn other_limits_count_for_all_and_open_connections_keep_their_own_most() {
        let small = Limits { unfinished_bytes_total_max: MIB, ..Limits::default() };
        let budget = Budget::new(&small);
        let woken = Arc::new(AtomicUsize::new(0));
        let mut holdings: Vec<Holding> = (0..3)
            .map(|_| {
                let woken = Arc::clone(&woken);
                let wake = move || {
                    woken.fetch_add(1, Ordering::Relaxed);
                };
                budget.holding(SMALL_STRANGER_BYTES, Place::of(None), wake)
            })
            .collect();
        holdings.iter_mut().for_each(Holding::accept);
        // The first one has the turn, and the next one waits.
        assert!(holdings[0].may_read(4 * MIB) && !holdings[1].may_read(MIB));
        let before = woken.load(Ordering::Relaxed);
        let large = Limits {
            unfinished_bytes_total_max: 256 * MIB,
            message_bytes_max: 64 * MIB,
            ..Limits::default()
        };
        budget.set(&large);
        assert!(woken.load(Ordering::Relaxed) > before, "the one that waits is woken");
        assert!(holdings[1].may_read(MIB));
        let new = budget.holding(SMALL_STRANGER_BYTES, Place::of(None), || {});
        assert!(new.bytes_max() > holdings[0].bytes_max());
    }

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        let limits = Limits::default();
        let budget = Budget::new(&limits);
        let woken = Arc::new(AtomicUsize::new(0));
        let holding = || {
            let woken = Arc::clone(&woken);
            budget.holding(SMALL_STRANGER_BYTES, Place::default(), move || {
                woken.fetch_add(1, Ordering::Relaxed);
            })
        };
        let (mut one, mut two, mut late) = (holding(), holding(), holding());
        assert!(one.may_read(24 * MIB));
        one.hold(24 * MIB, true);
        assert!(!two.may_read(5 * MIB));
        // There is space for small input.
        assert!(late.may_read(1_000));
        assert_eq!((budget.level(), budget.waiting()), (29 * MIB, 1));
        drop(one);
        assert_eq!((budget.level(), budget.waiting()), (5 * MIB, 0));
        assert!(woken.load(Ordering::Relaxed) > 0);
        assert!(two.may_read(5 * MIB));
        assert_eq!(two.overdue(), None);
    }
}
