//! What a session holds of incomplete messages, and what it tolerates from a client that is not accepted yet.
//!
//! Keeps: before more is read, there is space for it; a connection that makes no progress, or sends useless input, ends
//! with a reason. Leaves out: who has space, and who is overdue (`actors::budget`).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use actix_http::ws::CloseCode;

use super::Session;
use super::wire::{Broken, Wire};
use crate::actors::budget::Holding;
use crate::actors::strangers::Stranger;
use crate::core::intake::Overdue;
use crate::core::patience::Patience;

/// How much is read from a stranger at once, unless it has space for large messages.
const STRANGER_READ_BYTES: usize = 2 * 1_024;

/// How much is read from a socket at once. Its session decides, where the server owns the socket.
#[derive(Clone)]
pub(crate) struct ReadSize(Rc<Cell<usize>>);

impl ReadSize {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Rc::new(Cell::new(bytes)))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.get()
    }
}

/// What the budget knows about a session.
pub(crate) struct Unfinished {
    holding: Holding,
    patience: Patience,
    /// `None` once it is accepted.
    stranger: Option<Arc<Stranger>>,
    size: ReadSize,
    size_max: usize,
    /// It holds more than a connection may.
    too_much: bool,
    may_read: bool,
    /// The socket had no more at the last read.
    waits_for_client: bool,
    /// How long the session has waited for the client, and since when it is waiting again.
    client_millis: u64,
    client_since: Option<u64>,
}

impl Unfinished {
    pub(crate) fn new(holding: Holding, stranger: Arc<Stranger>, size: ReadSize) -> Self {
        let size_max = size.bytes();
        size.0.set(STRANGER_READ_BYTES.min(size_max));
        Self {
            holding,
            patience: Patience::new(),
            stranger: Some(stranger),
            size,
            size_max,
            too_much: false,
            may_read: false,
            waits_for_client: false,
            client_millis: 0,
            client_since: None,
        }
    }

    /// How long the session has waited for the client, of all the time so far: the client is not to blame for the rest.
    pub(super) fn client_millis(&self, now_millis: u64) -> u64 {
        let since = self.client_since.map_or(0, |since| now_millis.saturating_sub(since));
        self.client_millis + since
    }

    /// Whether more may be read, while this much is held.
    pub(super) fn may_read(&mut self, bytes: usize) -> bool {
        self.too_much = bytes > self.holding.bytes_max();
        let may_read = !self.too_much && self.holding.may_read(bytes);
        let small = self.stranger.is_some() && self.holding.is_small(bytes);
        let size = if small { STRANGER_READ_BYTES } else { usize::MAX };
        self.size.0.set(size.min(self.size_max));
        self.may_read = may_read;
        may_read
    }

    /// This many bytes arrived; with `no_more`, because the socket has no more or may not be read.
    pub(super) fn received(&mut self, bytes: usize, no_more: bool) {
        self.holding.received(bytes);
        self.patience.earn(bytes);
        self.waits_for_client = no_more && self.may_read;
    }
}

impl<W: Wire> Session<W> {
    /// A key was authorized and resolved: the client is not a stranger.
    pub(super) fn accepted(&mut self) {
        if let Some(stranger) = self.unfinished.stranger.take() {
            stranger.accept();
            self.unfinished.holding.accept();
        }
    }

    /// Whether it is not accepted yet.
    pub(super) fn is_stranger(&self) -> bool {
        self.unfinished.stranger.is_some()
    }

    /// Something arrived that leads to nothing. Before a connection is accepted, everything counts.
    pub(super) fn lead_to_nothing(&mut self, always: bool, count: u64) {
        // What was read before the end is still to come.
        if self.life.is_over() || (!always && self.unfinished.stranger.is_none()) {
            return;
        }
        if self.unfinished.patience.spend(self.clock.now_millis(), count) {
            return;
        }
        self.shared.metrics.connections_flooding.inc();
        let message =
            "flood: too many pings, empty messages, or requests before the first valid one";
        self.break_off(Broken { code: CloseCode::Policy, message: message.to_owned() });
    }

    /// Ends the session if it is overdue, or holds too much.
    pub(super) fn check_unfinished(&mut self) {
        if self.life.is_over() {
            return;
        }
        let metrics = &self.shared.metrics;
        let (code, message) = match self.unfinished.holding.overdue() {
            Some(Overdue::Slow) => {
                metrics.connections_slow.inc();
                (CloseCode::Policy, "slow: a message was begun and arrives too slowly")
            }
            Some(Overdue::Turn) => {
                metrics.connections_slow.inc();
                (
                    CloseCode::Again,
                    "busy: a large message before the first valid request; send it again later",
                )
            }
            None if self.unfinished.too_much => {
                (CloseCode::Size, "unfinished messages hold more than one connection may have")
            }
            None => return,
        };
        self.break_off(Broken { code, message: message.to_owned() });
    }

    /// Tells the budget what is left of this poll's messages.
    pub(super) fn hold_unfinished(&mut self) {
        let held = self.gate.bytes() + self.held_behind_gate();
        let now_millis = self.clock.now_millis();
        let unfinished = &mut self.unfinished;
        let waits_for_client = std::mem::take(&mut unfinished.waits_for_client);
        unfinished.client_millis = unfinished.client_millis(now_millis);
        unfinished.client_since = waits_for_client.then_some(now_millis);
        unfinished.holding.hold(held, waits_for_client);
    }

    /// What is held of messages that have passed the gate, but are incomplete or still being checked.
    pub(super) fn held_behind_gate(&self) -> usize {
        self.wire.unfinished_bytes() + self.pipeline.waiting_bytes()
    }
}
