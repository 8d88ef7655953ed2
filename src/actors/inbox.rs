//! Where a session finds what others have for it, and how the watchdog judges it.
//!
//! Keeps: adding something never waits for the session and never grows without bound, because each notice answers
//! something that the session has in flight, or is of one of a few rare kinds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::reply::WriteFailure;
use crate::core::store::Acked;
use crate::model::PublicKey;

/// A notice for a session.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A write was answered. `write` is the number that the session gave it.
    Answered { write: u64, result: Result<Acked, WriteFailure> },
    /// The key was removed from the registry.
    KeyRemoved(PublicKey),
    /// An administrator ends its subscription with this key.
    SubscriptionClosed(PublicKey),
    /// Too many connections are not accepted yet, and this one has to go.
    PushedOut,
    /// An administrator closes it: finish, then close.
    Closed,
    /// Nothing can be done with the storage any more: close.
    Lost,
    /// The server stops: finish, then close.
    Shutdown,
}

/// The mailbox of one session.
#[derive(Debug)]
pub(crate) struct Inbox {
    notices: Mutex<Vec<Notice>>,
    waker: AtomicWaker,
    started: Instant,
    /// Since when (milliseconds after `started`, plus 1) the session should have run; 0 if it need not run.
    wanted_since: AtomicU64,
}

impl Inbox {
    #[expect(clippy::disallowed_methods, reason = "the watchdog judges it by how long it waits")]
    pub(crate) fn new() -> Self {
        Self {
            notices: Mutex::default(),
            waker: AtomicWaker::new(),
            started: Instant::now(),
            wanted_since: AtomicU64::new(0),
        }
    }

    /// Adds a notice without waking the session, see [`Inbox::wake`].
    pub(crate) fn push(&self, notice: Notice) {
        self.notices.lock().push(notice);
    }

    /// Moves all notices into `into`, which must be empty.
    pub(crate) fn drain(&self, into: &mut Vec<Notice>) {
        std::mem::swap(&mut *self.notices.lock(), into);
    }

    /// Makes the session run. Any number of calls before it runs have the effect of one.
    pub(crate) fn wake(&self) {
        self.mark_wanted();
        self.waker.wake();
    }

    /// The session is running: from now on it is woken through `waker`.
    pub(crate) fn running(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
        self.wanted_since.store(0, Ordering::Relaxed);
    }

    /// The session wrote something, and has to run again as soon as the socket has taken it.
    pub(crate) fn mark_wanted(&self) {
        if self.wanted_since.load(Ordering::Relaxed) == 0 {
            let now = self.started.elapsed().as_millis() as u64;
            self.wanted_since.store(now + 1, Ordering::Relaxed);
        }
    }

    /// For how many milliseconds the session has been due without running.
    pub(crate) fn overdue_millis(&self) -> u64 {
        match self.wanted_since.load(Ordering::Relaxed) {
            0 => 0,
            since => (self.started.elapsed().as_millis() as u64 + 1).saturating_sub(since),
        }
    }
}
