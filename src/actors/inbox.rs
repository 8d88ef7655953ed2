//! Where a session finds what others have for it, and what the watchdog judges it by.
//!
//! Keeps: putting something in never blocks on the session and never grows without a bound, since each notice answers
//! something that the session has in flight, or is one of a few kinds that are rare.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::reply::WriteFailure;
use crate::core::store::Acked;
use crate::model::PublicKey;

/// Something that a session is to know.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A write was answered. `write` is the number that the session gave it.
    Answered { write: u64, result: Result<Acked, WriteFailure> },
    /// The key was removed from the registry.
    KeyRemoved(PublicKey),
    /// An administrator wants its subscription with this key gone.
    SubscriptionClosed(PublicKey),
    /// There are too many that were not accepted, and this one has to go.
    PushedOut,
    /// An administrator wants it gone: finish, then close.
    Closed,
    /// The server stops: finish, then close.
    Shutdown,
}

/// The mailbox of one session.
#[derive(Debug)]
pub(crate) struct Inbox {
    notices: Mutex<Vec<Notice>>,
    waker: AtomicWaker,
    started: Instant,
    /// Since when (milliseconds after `started`, plus 1) the session ought to run and did not; 0 if it need not.
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

    /// Moves all notices into `into`, which is empty.
    pub(crate) fn drain(&self, into: &mut Vec<Notice>) {
        std::mem::swap(&mut *self.notices.lock(), into);
    }

    /// Has the session polled. Any number of calls before it runs have the effect of one.
    pub(crate) fn wake(&self) {
        self.mark_wanted();
        self.waker.wake();
    }

    /// The session runs: it is woken through `waker` from now on.
    pub(crate) fn running(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
        self.wanted_since.store(0, Ordering::Relaxed);
    }

    /// The session wrote something, and is to run again as soon as the socket has taken it.
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
