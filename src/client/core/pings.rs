//! Pings that are not answered yet.

use std::collections::VecDeque;

use super::Fault;

/// The server answers in order, so each pong has to match the oldest ping.
#[derive(Debug, Default)]
pub(super) struct Pings {
    unanswered: VecDeque<u64>,
    last: u64,
    /// The ping of the last heartbeat.
    heartbeat: u64,
}

impl Pings {
    /// The id of a ping to send.
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.unanswered.push_back(self.last);
        self.last
    }

    /// The id of the ping to send now that a ping interval is over; the ping of the previous one must have been
    /// answered.
    pub(super) fn heartbeat(&mut self) -> Result<u64, Fault> {
        if self.unanswered.front().is_some_and(|oldest| *oldest <= self.heartbeat) {
            return Err(Fault::PongMissing);
        }
        self.heartbeat = self.next();
        Ok(self.heartbeat)
    }

    /// A pong has arrived.
    pub(super) fn answered(&mut self, id: u64) -> Result<(), Fault> {
        let expected = self.unanswered.pop_front();
        if expected != Some(id) {
            return Err(Fault::WrongPong { expected, found: id });
        }
        Ok(())
    }

    /// The connection is gone.
    pub(super) fn clear(&mut self) {
        self.unanswered.clear();
    }
}
