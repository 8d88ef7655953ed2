//! Turns: a session that has a lot to do lets the others of its thread go first now and then.
//!
//! The sessions of a thread run one after the other, and a task runs on for as long as its socket takes bytes, which
//! may be megabytes. So a session counts what it reads and sends, and when a turn is used up, it does not run again
//! before the thread has looked at its sockets and timers, and has run those that they woke.
//!
//! Keeps: a turn ends by itself only when there was more to do than it allows. Leaves out: what is done in it.

use std::pin::pin;
use std::task::Context;

/// What a turn may read and send, in bytes.
const TURN_BYTES: usize = 64 * 1_024;

/// What a session has done since it last waited for others.
#[derive(Default)]
pub(super) struct Turn {
    bytes: usize,
}

impl Turn {
    /// This many bytes were read or will be sent.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Whether it has done as much as it may.
    pub(super) const fn is_over(&self) -> bool {
        self.bytes >= TURN_BYTES
    }

    /// There is nothing left to do, so the others go first anyway; unless the turn is over, which is then the reason.
    pub(super) fn end(&mut self, cx: &mut Context<'_>) {
        if !self.pass(cx) {
            self.bytes = 0;
        }
    }

    /// Ends the turn if it is over: returns true, and the task wakes when the others of its thread have had their turn.
    pub(super) fn pass(&mut self, cx: &mut Context<'_>) -> bool {
        let is_over = self.is_over();
        if is_over {
            self.bytes = 0;
            // Wakes after the sockets that have become ready; only its waking is needed.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_turn_ends_when_it_is_filled_and_the_task_wakes_for_the_next_one() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut turn = Turn::default();
        turn.spend(TURN_BYTES - 1);
        assert!(!turn.is_over() && !turn.pass(&mut cx));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0, "nothing was waited for");
        turn.spend(1);
        assert!(turn.is_over() && turn.pass(&mut cx));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(!turn.is_over() && !turn.pass(&mut cx), "the next turn has begun");
    }

    #[test]
    fn whoever_is_through_before_its_turn_is_over_begins_another_one() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut turn = Turn::default();
        for _ in 0..3 {
            turn.spend(TURN_BYTES - 1);
            turn.end(&mut cx);
            assert!(!turn.pass(&mut cx));
        }
    }
}
