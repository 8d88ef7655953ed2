//! Requests and answers on a connection of [`listen`](super::listen()): one request at a time, and neither side waits
//! for the other without a limit.
//!
//! actix-http parses all requests that have arrived, handles one after another, and appends each answer to what the
//! client has not read yet. It waits for the rest of a body, and for a client that reads an answer, as long as that
//! takes.
//!
//! Keeps: a request is handed on once the one before it is answered and the answer is sent; whoever sent it, a head
//! arrives in `handshake_timeout`, the body of an accepted client at `unfinished_rate_min`, and an answer is read at
//! that rate over `stall_timeout`; what clients do not read is bounded. Leaves out: the socket (`arrived`), how much of a
//! body may come (`body`), what answers hold (`held_answers`), and each WebSocket, which has limits of its own.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::arrived::HEAD_BYTES_MAX;
use super::body::Body;
use super::held_answers::HeldAnswers;
use super::waits::Waits;
use crate::actors::session::shared::Shared;
use crate::actors::strangers::Stranger;
use crate::core::requests::Requests;
use crate::core::strangers::Place;

/// How often at most a connection is noted as active.
const ACTIVE_EVERY: Duration = Duration::from_secs(1);
/// What actix-http sends before a body that the client waits to send. It answers nothing.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How far client and server are.
pub(super) struct Talk {
    shared: Arc<Shared>,
    stranger: Arc<Stranger>,
    /// When it was last noted as active.
    active: Instant,
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
    body: Body,
    answers: HeldAnswers,
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
        let place = Place::of(address);
        let body = Body::new(Arc::clone(&shared), place);
        let answers = HeldAnswers::new(Arc::clone(&shared), Arc::clone(&stranger), place);
        Self {
            shared,
            stranger,
            active: Instant::now(),
            requests: Requests::new(),
            unanswered: 0,
            pauses: false,
            began: Instant::now(),
            answered: None,
            sends: false,
            is_next_due: false,
            to_send,
            to_read,
            body,
            answers,
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

    /// Whether more of the body of a token holder may be read. If not, the task is woken when it may; `Ready(false)` if
    /// it has to end.
    pub(super) fn poll_body(&mut self, cx: &Context<'_>) -> Poll<bool> {
        let poll = self.body.poll_room(self.unanswered, cx);
        if poll == Poll::Ready(false) {
            self.shared.metrics.connections_slow.inc();
        }
        poll
    }

    /// Returns how many of these bytes to hand on, which have arrived.
    pub(super) fn hand_on(&mut self, bytes: &[u8]) -> usize {
        let now = Instant::now();
        if !self.requests.is_begun() {
            self.began = now;
            self.is_active(now);
        }
        let was_head = self.requests.is_head();
        let taken = self.requests.take(bytes);
        self.unanswered += taken;
        self.to_send.moves(now, taken);
        self.answers.received(self.unanswered);
        self.body.received(taken, self.unanswered);
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
            self.body.waits_for_client(self.unanswered);
            self.to_send.begin(Instant::now());
            self.to_send.until()
        };
        let is_over = self.to_send.is_over(until, cx);
        if is_over {
            self.shared.metrics.connections_slow.inc();
        }
        is_over
    }

    /// There is no dispatcher any more: the connection becomes a WebSocket, or ends after this answer.
    pub(super) fn leaves_dispatcher(&mut self) {
        self.answers.buffers_are_gone();
        self.stranger.leaves_token_holders();
    }

    /// The socket took the first of `bytes`.
    pub(super) fn sent(&mut self, bytes: &[u8], count: usize) {
        let now = Instant::now();
        self.is_active(now);
        self.to_read.moves(now, count);
        self.answers.sent(bytes.len());
        self.sends |= bytes != CONTINUE;
    }

    /// The socket took everything.
    pub(super) fn flushed(&mut self, cx: &Context<'_>) {
        self.to_read.over();
        if self.answers.flushed() {
            self.stranger.is_to_end();
            cx.waker().wake_by_ref();
        }
        if std::mem::take(&mut self.sends) {
            self.unanswered = 0;
            self.body.over();
            self.answered.get_or_insert_with(Instant::now);
            if std::mem::take(&mut self.is_next_due) {
                cx.waker().wake_by_ref();
            }
        }
    }

    /// Whether it ends once its answer is sent.
    pub(super) const fn ends(&self) -> bool {
        self.answers.end()
    }

    /// The socket takes nothing, and so many bytes wait. Fails if that is too much, or for too long.
    pub(super) fn waits_for_reader(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
    ) -> io::Result<()> {
        if !self.answers.wait(bytes) {
            self.shared.metrics.connections_stalled.inc();
            return Err(io::Error::other("too many answers are not read"));
        }
        self.to_read.begin(Instant::now());
        let until = self.to_read.until();
        if self.to_read.is_over(until, cx) {
            self.shared.metrics.connections_stalled.inc();
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    fn is_active(&mut self, now: Instant) {
        if now.saturating_duration_since(self.active) >= ACTIVE_EVERY {
            self.active = now;
            self.stranger.is_active();
        }
    }
}
