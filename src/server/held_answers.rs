//! What the answers of one connection hold: bytes that its client does not read, and buffers that long requests and
//! answers leave behind. actix-http keeps such a buffer until the connection ends.
//!
//! Keeps: what strangers hold together is bounded, and what token holders hold. Leaves out: how long a client may take
//! to read (`talk`).

use std::sync::Arc;

use crate::actors::session::shared::Shared;
use crate::actors::strangers::Stranger;
use crate::core::strangers::Place;

/// What an answer that waits takes besides its bytes: buffers, and the request.
const ANSWER_BYTES: usize = 8 * 1_024;
/// The size of the buffers that actix-http has in any case, one in each direction.
const BUFFER_BYTES: usize = 8 * 1_024;
/// After an answer that is longer, actix-http begins with a new buffer.
const KEPT_BYTES_MAX: usize = 128 * 1_024;

/// The answers of a connection.
pub(super) struct HeldAnswers {
    shared: Arc<Shared>,
    stranger: Arc<Stranger>,
    place: Place,
    counted: Option<Counted>,
    /// The size of the longest request so far.
    received: usize,
    /// The size of the longest part of an answer that was ready at once.
    sent: usize,
    /// There is no space for what the last one left behind.
    end: bool,
}

/// What a connection counts for in `Shared::unread`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    /// Among token holders.
    accepted: bool,
    bytes: usize,
}

impl HeldAnswers {
    pub(super) const fn new(shared: Arc<Shared>, stranger: Arc<Stranger>, place: Place) -> Self {
        Self { shared, stranger, place, counted: None, received: 0, sent: 0, end: false }
    }

    /// So many bytes of a request have arrived.
    pub(super) fn received(&mut self, bytes: usize) {
        self.received = self.received.max(bytes.min(KEPT_BYTES_MAX));
    }

    /// So many bytes of an answer were ready.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.max(bytes);
    }

    /// So many bytes wait for the client to read. `false` if there is no space for them.
    #[must_use]
    pub(super) fn wait(&mut self, bytes: usize) -> bool {
        self.sent = self.sent.max(bytes);
        self.count(self.left_behind() + ANSWER_BYTES, false)
    }

    /// Nothing waits. Returns whether the connection has to end from now on, since there is no space for the buffers that
    /// are left behind.
    pub(super) fn flushed(&mut self) -> bool {
        if self.sent > KEPT_BYTES_MAX {
            self.sent = 0;
        }
        !self.count(self.left_behind(), true) && !std::mem::replace(&mut self.end, true)
    }

    /// Whether it has to end.
    pub(super) const fn end(&self) -> bool {
        self.end
    }

    /// The buffers are gone, since the connection has no dispatcher any more.
    pub(super) const fn buffers_are_gone(&mut self) {
        (self.received, self.sent) = (0, 0);
    }

    fn left_behind(&self) -> usize {
        [self.received, self.sent].into_iter().filter(|bytes| *bytes > BUFFER_BYTES).sum()
    }

    /// Counts for so many bytes; if not `exactly`, then for at least so many.
    fn count(&mut self, bytes: usize, exactly: bool) -> bool {
        let wanted = Counted { accepted: self.stranger.was_accepted(), bytes };
        let suffices = |counted: Counted| {
            let is_enough = if exactly { counted.bytes == bytes } else { counted.bytes >= bytes };
            counted.accepted == wanted.accepted && is_enough
        };
        if self.counted.is_some_and(suffices) || (self.counted.is_none() && bytes == 0) {
            return true;
        }
        self.release();
        if bytes == 0 {
            return true;
        }
        let has_room = self.shared.unread.lock().of(wanted.accepted).hold(self.place, bytes);
        self.counted = has_room.then_some(wanted);
        has_room
    }

    fn release(&mut self) {
        if let Some(Counted { accepted, bytes }) = self.counted.take() {
            self.shared.unread.lock().of(accepted).ends(self.place, bytes);
        }
    }
}

impl Drop for HeldAnswers {
    fn drop(&mut self) {
        self.release();
    }
}
