//! Requests and answers on a connection of [`listen`](super::listen()): one request at a time, and neither side waits
//! for the other without a limit.
//!
//! actix-http parses all requests that have arrived, handles one after another, and appends each answer to what the
//! client has not read yet. It waits for the rest of a body, and for a client that reads an answer, as long as that
//! takes.
//!
//! Keeps: a request is handed on once the one before it is answered and the answer is sent; whoever sent it, a head
//! arrives in `handshake_timeout`, the body of an accepted client at `unfinished_rate_min`, and an answer is read at
//! that rate over `stall_timeout`; what strangers do not read is bounded. Leaves out: the socket (`arrived`), and each
//! WebSocket, which has limits of its own.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::arrived::HEAD_BYTES_MAX;
use crate::actors::session::shared::Shared;
use crate::actors::strangers::Stranger;
use crate::core::requests::Requests;
use crate::core::strangers::Place;

/// What an answer that waits takes besides its bytes: buffers, and the request.
const ANSWER_BYTES: usize = 8 * 1_024;
/// What actix-http sends before a body that the client waits to send. It answers nothing.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How far client and server are.
pub(super) struct Talk {
    shared: Arc<Shared>,
    stranger: Arc<Stranger>,
    place: Place,
    requests: Requests,
    /// Bytes that were handed on since the last answer.
    unanswered: usize,
    pauses: bool,
    /// When the current request began.
    began: Instant,
    /// When the current request got its answer, or the beginning of it.
    answered: Option<Instant>,
    /// Something was sent that has not been flushed yet.
    sends: bool,
    /// The server looks for the next request once there is an answer.
    is_next_due: bool,
    to_send: Waits,
    to_read: Waits,
    /// The bytes that this connection counts for in `Shared::unread`.
    unread: Option<usize>,
}

impl Talk {
    pub(super) fn new(
        shared: Arc<Shared>,
        stranger: Arc<Stranger>,
        address: Option<IpAddr>,
    ) -> Self {
        let limits = shared.limits.get();
        let rate = limits.unfinished_rate_min;
        let to_send = Waits::new(limits.unfinished_grace, rate);
        let to_read = Waits::new(limits.stall_timeout, rate);
        Self {
            shared,
            stranger,
            place: Place::of(address),
            requests: Requests::new(),
            unanswered: 0,
            pauses: false,
            began: Instant::now(),
            answered: None,
            sends: false,
            is_next_due: false,
            to_send,
            to_read,
            unread: None,
        }
    }

    /// Whether bytes may be handed on: not those of the next request before the answer to this one has been sent.
    pub(super) fn may_hand_on(&mut self) -> bool {
        if !self.requests.is_whole() {
            return true;
        }
        if self.answered.is_none() || self.to_read.is_waiting() {
            self.is_next_due = true;
            return false;
        }
        self.requests.next();
        self.answered = None;
        self.to_send.over();
        true
    }

    /// Whether a stranger has sent too much.
    pub(super) fn is_too_much(&self) -> bool {
        self.unanswered > HEAD_BYTES_MAX && !self.stranger.was_accepted()
    }

    /// Whether more may be read at once than a head takes: the body of a request that was accepted.
    pub(super) fn may_be_large(&self) -> bool {
        !self.requests.is_head() && self.stranger.was_accepted()
    }

    /// Whether a head has just been handed on, and there is a body: the server has to look at the head first.
    pub(super) fn pauses(&mut self) -> bool {
        std::mem::take(&mut self.pauses)
    }

    /// Returns how many of these bytes to hand on, which have arrived.
    pub(super) fn hand_on(&mut self, bytes: &[u8]) -> usize {
        let now = Instant::now();
        if !self.requests.is_begun() {
            self.began = now;
        }
        let was_head = self.requests.is_head();
        let taken = self.requests.take(bytes);
        self.unanswered += taken;
        self.to_send.moves(now, taken);
        self.pauses = was_head && !self.requests.is_head() && !self.requests.is_whole();
        taken
    }

    /// The server waits for the client to send. Returns whether its time is up, and wakes the task then.
    pub(super) fn waits_for_client(&mut self, cx: &mut Context<'_>) -> bool {
        let limits = self.shared.limits.get();
        let until = if !self.requests.is_begun() {
            None
        } else if let Some(answered) = self.answered {
            // It has the answer already.
            Some(answered + limits.handshake_timeout)
        } else if self.requests.is_head() || !self.stranger.was_accepted() {
            Some(self.began + limits.handshake_timeout)
        } else {
            self.to_send.begin(Instant::now());
            self.to_send.until()
        };
        let is_over = self.to_send.is_over(until, cx);
        if is_over {
            self.shared.metrics.connections_slow.inc();
        }
        is_over
    }

    /// The socket took the first of `bytes`.
    pub(super) fn sent(&mut self, bytes: &[u8], count: usize) {
        self.to_read.moves(Instant::now(), count);
        self.sends |= bytes != CONTINUE;
    }

    /// The socket took everything.
    pub(super) fn flushed(&mut self, cx: &Context<'_>) {
        self.to_read.over();
        self.release();
        if std::mem::take(&mut self.sends) {
            self.unanswered = 0;
            self.answered.get_or_insert_with(Instant::now);
            if std::mem::take(&mut self.is_next_due) {
                cx.waker().wake_by_ref();
            }
        }
    }

    /// The socket takes nothing, and so many bytes wait. Fails if that is too much, or for too long.
    pub(super) fn waits_for_reader(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
    ) -> io::Result<()> {
        let bytes = bytes + ANSWER_BYTES;
        if self.unread.is_none() && !self.stranger.was_accepted() {
            if !self.shared.unread.lock().wait(self.place, bytes) {
                self.shared.metrics.connections_stalled.inc();
                return Err(io::Error::other("strangers do not read too many answers"));
            }
            self.unread = Some(bytes);
        }
        self.to_read.begin(Instant::now());
        let until = self.to_read.until();
        if self.to_read.is_over(until, cx) {
            self.shared.metrics.connections_stalled.inc();
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    fn release(&mut self) {
        if let Some(bytes) = self.unread.take() {
            self.shared.unread.lock().ends(self.place, bytes);
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.release();
    }
}

/// How long the server has waited for its client, in one direction.
///
/// Over each period of waiting enough bytes have to move. What the system's buffers took at once earns no time for
/// later.
struct Waits {
    period: Duration,
    /// The bytes that have to move in a period.
    enough: u64,
    /// Since when it waits now.
    since: Option<Instant>,
    /// How long it waited before, in this period.
    before: Duration,
    /// The bytes that have moved in it.
    bytes: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Waits {
    fn new(period: Duration, rate: usize) -> Self {
        let enough = period.as_millis().saturating_mul(rate as u128) / 1_000;
        let enough = u64::try_from(enough).unwrap_or(u64::MAX).max(1);
        Self { period, enough, since: None, before: Duration::ZERO, bytes: 0, timer: None }
    }

    fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    const fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// Some bytes moved.
    fn moves(&mut self, now: Instant, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some(since) = self.since.take() {
            self.before += now.saturating_duration_since(since);
        }
        if self.bytes >= self.enough {
            (self.bytes, self.before) = (0, Duration::ZERO);
        }
    }

    /// There is nothing to wait for any more.
    fn over(&mut self) {
        (self.since, self.bytes, self.before) = (None, 0, Duration::ZERO);
        self.timer = None;
    }

    /// When the time is up.
    fn until(&self) -> Option<Instant> {
        self.since?.checked_add(self.period.saturating_sub(self.before))
    }

    /// Whether it is that time. The task is woken then.
    fn is_over(&mut self, until: Option<Instant>, cx: &mut Context<'_>) -> bool {
        let Some(until) = until else {
            self.timer = None;
            return false;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_counts_and_enough_bytes_earn_another_period() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut waits = Waits::new(Duration::from_secs(10), 1_000);
        assert_eq!(waits.until(), None);
        waits.begin(began);
        waits.begin(after(1));
        assert_eq!(waits.until(), Some(after(10)));
        waits.moves(after(4), 3_000);
        // Then the server is busy for a while.
        waits.begin(after(104));
        assert_eq!(waits.until(), Some(after(104 + 10 - 4)));
        waits.moves(after(109), 6_999);
        waits.begin(after(200));
        assert_eq!(waits.until(), Some(after(201)));
        // Enough, and much more, which earns no more than one period.
        waits.moves(after(200), 1_000_000);
        waits.begin(after(300));
        assert_eq!(waits.until(), Some(after(310)));
        waits.over();
        assert_eq!(waits.until(), None);
    }
}
