//! What a wire protocol does for a session: bytes to requests, answers to bytes.
//!
//! Two protocols share the session and everything behind it; their differences are here: how a message is encoded, how
//! an answer finds its request, what comes before the first request.

use std::sync::Arc;
use std::task::Context;

use actix_http::ws::CloseCode;
use bytes::{Bytes, BytesMut};

use super::refusal::Refusal;
use super::subscriptions::Subscribed;
use crate::actors::complaints::Complaint;
use crate::actors::feed::FeedSegment;
use crate::actors::trace::Trace;
use crate::core::connection::SequenceRun;
use crate::core::store::Slots;
use crate::model::{Batch, Limits, PublicKey, Sequence};
use crate::processing::compaction::Page;
use crate::protocol::peers::Peer;
use crate::protocol::rpc::large::Source;
use crate::services::identities::SigningKey;
use crate::services::{Caller, Claim};

/// What a client asks for.
pub(crate) enum Request<W: Wire> {
    /// Append a batch.
    Write(Write<W>),
    /// Subscribe the key; ends its previous subscription.
    Subscribe(Subscribe<W>),
    /// Accept a key as proved on this connection, if that is allowed.
    Identify(Identify<W>),
    /// End the subscription of the key, if it has one.
    Unsubscribe { key: PublicKey },
    /// Append what is too large for one batch.
    WriteLarge(LargeWrite<W>),
}

/// A client wants to append more than a batch may have.
pub(crate) struct LargeWrite<W: Wire> {
    pub(crate) tag: W::Large,
    pub(crate) source: Arc<dyn Source>,
    /// Its part that is in memory.
    pub(crate) memory_bytes: usize,
}

/// A client wants to append a batch.
pub(crate) struct Write<W: Wire> {
    pub(crate) tag: W::Write,
    pub(crate) names: Names,
    pub(crate) batch: Batch,
    pub(crate) trace: Trace,
}

/// A client wants the entries of its store from `start` on.
pub(crate) struct Subscribe<W: Wire> {
    pub(crate) tag: W::Subscription,
    pub(crate) names: Names,
    pub(crate) start: Sequence,
}

/// A client has proved to hold `signing_key`, and wants to be `key`.
pub(crate) struct Identify<W: Wire> {
    pub(crate) tag: W::Identify,
    pub(crate) key: PublicKey,
    pub(crate) signing_key: SigningKey,
}

/// The key and the store that a request names.
#[derive(Clone)]
pub(crate) struct Names {
    pub(crate) key: PublicKey,
    /// What proved the key on this connection, in a protocol with proofs.
    pub(crate) proof: Option<SigningKey>,
    /// The store that the client insists on; it has to be its key's.
    pub(crate) store: Option<Box<str>>,
}

impl Names {
    /// What the request claims.
    pub(crate) fn claim<'a>(&'a self, caller: &'a Caller) -> Claim<'a> {
        Claim { caller, key: &self.key, proof: self.proof.as_ref() }
    }
}

/// The connection cannot continue: what the client sent means nothing.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) code: CloseCode,
    pub(crate) message: String,
}

impl Broken {
    /// Set if `message` comes from a client of another protocol than `W`.
    pub(crate) fn stranger<W: Wire>(message: &[u8]) -> Option<Self> {
        let message = W::stranger(Peer::of(message)?)?.to_owned();
        Some(Self { code: CloseCode::Unsupported, message })
    }
}

/// Consecutive entries of a segment.
pub(crate) struct SegmentPart {
    pub(crate) segment: Arc<FeedSegment>,
    pub(crate) run: SequenceRun,
}

impl SegmentPart {
    /// Number of entries.
    pub(crate) fn count(&self) -> usize {
        self.run.last.next().since(self.run.first) as usize
    }

    /// Which entries of the segment, counted from its first.
    pub(crate) fn range(&self) -> std::ops::Range<usize> {
        let from = self.run.first.since(self.segment.segment().first()) as usize;
        from..from + self.count()
    }
}

/// The time that a connection had, and what it did with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    pub(crate) now_millis: u64,
    /// How much of that time its client was waited for.
    pub(crate) client_millis: u64,
    /// How many bytes arrived.
    pub(crate) received_bytes: u64,
}

/// The server's side of a wire protocol on one connection.
pub(crate) trait Wire: Sized + Unpin + 'static {
    /// What an answer to a write needs to find its request.
    type Write: Unpin + 'static;
    /// What entries of a subscription need to find their request.
    type Subscription: Unpin + 'static;
    /// What the answer to a proof of identity needs to find its request.
    type Identify: Unpin + 'static;
    /// What the answer to a large write needs to find its request.
    type Large: Unpin + 'static;

    /// What a client of another protocol is told: which protocol it seems to speak, and where it should connect, in the
    /// 120 characters that a close frame has space for; `None` if it is a client of this protocol.
    fn stranger(peer: Peer) -> Option<&'static str>;

    /// The connection of this caller is open.
    fn open(&mut self, caller: &Caller, out: &mut Out);

    /// Takes one message of the WebSocket.
    fn accept(&mut self, message: Bytes);

    /// The next request in what was taken. What needs only the wire itself, and its part of the connection's
    /// subscriptions, is answered right here.
    fn next_request(
        &mut self,
        limits: &Limits,
        now_millis: u64,
        subscriptions: &mut [Subscribed<Self>],
        out: &mut Out,
    ) -> Result<Option<Request<Self>>, Broken>;

    /// Fails if too few bytes of an unfinished message arrive.
    fn expire(&mut self, passed: Passed) -> Result<(), Broken>;

    /// A large write whose parts are all there by now. Called whenever the session runs.
    fn poll_large(&mut self, cx: &mut Context<'_>, out: &mut Out) -> Option<LargeWrite<Self>>;

    /// Whether so much of large writes is on its way to the disk that no more is accepted for now.
    fn is_busy(&self) -> bool;

    /// The key and the store of a large write; `None` if it is not allowed, and refused.
    fn large_names(
        &mut self,
        large: &Self::Large,
        names: (&str, &str),
        out: &mut Out,
    ) -> Option<Names>;

    /// What the answer to a piece of a large write needs. The write is answered when its last piece is acknowledged, or
    /// at the first refusal.
    fn piece(&mut self, large: &Self::Large, batch: &Batch, is_last: bool) -> Self::Write;

    /// Whether a large write was answered.
    fn is_answered(&self, large: &Self::Large) -> bool;

    /// A large write is refused.
    fn large_refused(&mut self, large: &Self::Large, refusal: &Refusal, out: &mut Out);

    /// The key was bound and allowed, or refused.
    fn identified(&mut self, identify: Identify<Self>, outcome: Result<(), Refusal>, out: &mut Out);

    /// A batch is durable.
    fn acked(&mut self, write: Self::Write, slots: &Slots, out: &mut Out);

    /// A write is refused.
    fn write_refused(&mut self, write: Self::Write, refusal: &Refusal, out: &mut Out);

    /// A subscription is refused, or ended by the server.
    fn subscription_refused(
        &mut self,
        subscription: Self::Subscription,
        refusal: &Refusal,
        out: &mut Out,
    );

    /// A subscription has begun, to a store with this head, whose feed begins there: for protocols that report it.
    fn subscribed(
        &mut self,
        subscription: &Self::Subscription,
        (head, begins): (Sequence, Sequence),
        out: &mut Out,
    ) {
        let _ = (subscription, head, begins, out);
    }

    /// A subscription ended because its key has another one now.
    fn subscription_replaced(&mut self, subscription: Self::Subscription, out: &mut Out);

    /// Whether the client is ready for more of this subscription.
    fn may_send(&self, subscription: &Self::Subscription) -> bool;

    /// Whether a subscription is told which entries are erased: then a part may be a gap that they left.
    fn wants_marks(&self, subscription: &Self::Subscription) -> bool {
        let _ = subscription;
        false
    }

    /// Entries for a subscription, at least one, as one message.
    fn entries(
        &mut self,
        subscription: &mut Self::Subscription,
        parts: &[SegmentPart],
        out: &mut Out,
    );

    /// A page of a compacted backlog for a subscription, not empty, as one message.
    fn page(&mut self, subscription: &mut Self::Subscription, page: &Page, out: &mut Out);

    /// Whether part of a message is here and the rest is not.
    fn has_unfinished(&self) -> bool;

    /// Memory for incomplete messages, and for what was taken and not looked at yet, in bytes.
    fn unfinished_bytes(&self) -> usize;
}

/// Collects the messages that go out. Small ones share an allocation.
#[derive(Debug, Default)]
pub(crate) struct Out {
    arena: BytesMut,
    messages: Vec<Bytes>,
    bytes: usize,
    refusals: Vec<[(&'static str, &'static str); 2]>,
    complaints: Vec<Complaint>,
}

impl Out {
    /// Adds the message that `encode` appends to its argument.
    pub(crate) fn message(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        encode(&mut self.arena);
        let message = self.arena.split().freeze();
        self.push(message);
    }

    /// Adds a message.
    pub(crate) fn push(&mut self, message: Bytes) {
        self.bytes += message.len();
        self.messages.push(message);
    }

    /// Counts a request that one of these messages refuses.
    pub(crate) fn count_refusal(&mut self, protocol: &'static str, code: &'static str) {
        self.refusals.push([("protocol", protocol), ("code", code)]);
    }

    /// Adds something for the log.
    pub(crate) fn complain(&mut self, complaint: Complaint) {
        self.complaints.push(complaint);
    }

    /// Takes what is for the log.
    pub(crate) fn take_complaints(&mut self) -> Vec<Complaint> {
        std::mem::take(&mut self.complaints)
    }

    /// The requests that the collected messages refuse: in which protocol, with which code.
    pub(crate) fn refusals(&self) -> &[[(&'static str, &'static str); 2]] {
        &self.refusals
    }

    /// Bytes of the messages collected.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many messages were collected.
    pub(crate) fn count(&self) -> usize {
        self.messages.len()
    }

    /// Takes all messages and the memory behind them.
    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        std::mem::take(self).messages
    }
}
