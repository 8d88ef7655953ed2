//! The RPC protocol of Effect's own clients on a session: a byte stream of frames, requests with ids, identities that
//! have to be proved.
//!
//! Keeps: a request for a key that was not authenticated on this connection gets no further than here; every refusal
//! that an honest client can meet is a typed failure, because anything else stops such a client for good
//! (`docs/PROTOCOL-RPC.md`); an unacknowledged part of a feed holds back the rest of it.

pub(crate) mod proofs;
mod refuse;
mod requests;
mod spilled;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;

use actix_http::ws::CloseCode;
use bytes::Bytes;

use self::proofs::Proofs;
use self::refuse::{broken, broken_frame, fail, withheld};
use self::spilled::{Event, Spilled};
use super::OUT_BYTES_PER_POLL;
use super::refusal::Refusal;
use super::subscriptions::Subscribed;
use super::wire::{Broken, Identify, LargeWrite, Names, Out, Passed, Request, SegmentPart, Wire};
use crate::actors::spill::Spill;
use crate::core::store::Slots;
use crate::model::{Batch, EntryId, Limits, PublicKey, RemoteId, Sequence};
use crate::processing::compaction::Page;
use crate::protocol::chunk::{ChunkError, ChunkJoiner};
use crate::protocol::peers::{LOOKED_AT_BYTES, Peer};
use crate::protocol::rpc::auth::Handshake;
use crate::protocol::rpc::{
    self, AckRows, Answer, EncodedRemoteEntries, FrameReader, Malformed, RequestId, encode_acks,
    encode_changes,
};
use crate::services::Caller;
use crate::services::identities::SigningKey;

/// The tags of refusals: not the tags of the requests, but those that Effect's server uses.
const AUTHENTICATE: &str = "Authenticate";
const WRITE: &str = "WriteEntries";
const CHANGES: &str = "Changes";

/// Most messages of one subscription that may be sent without an acknowledgement.
const UNACKNOWLEDGED_MAX: u32 = 8;

/// Most identities that may be proved on one connection.
const IDENTITIES_MAX: usize = 64;

/// The server's side of the RPC protocol.
pub(crate) struct RpcWire {
    remote_id: RemoteId,
    received: Bytes,
    /// How the first message begins, until its first frame is read: it reveals a client of another protocol.
    beginning: Option<Bytes>,
    frames: FrameReader,
    chunks: ChunkJoiner,
    /// Sets that are too large for memory, if there is a place for them.
    spilled: Option<Spilled>,
    limits: Arc<Limits>,
    /// The last write that was refused before all its parts had arrived: its later parts are refused too.
    refused_set: Option<u64>,
    handshake: Handshake,
    proofs: Proofs,
    /// The keys that were proved, and the signing keys that proved them.
    identities: Vec<(PublicKey, SigningKey)>,
}

/// Matches a write's answer to its request.
pub(crate) enum WriteTag {
    Whole { request: RequestId, ids: Vec<EntryId>, key: PublicKey },
    Piece { large: LargeTag, ids: Vec<EntryId>, is_last: bool },
}

/// Matches a large write's answer to its request; its pieces share it.
#[derive(Clone)]
pub(crate) struct LargeTag(Rc<LargeAnswer>);

struct LargeAnswer {
    request: RequestId,
    /// The acknowledgements of the pieces so far.
    acks: RefCell<AckRows>,
    is_answered: Cell<bool>,
}

/// Matches entries to their request.
pub(crate) struct FeedTag {
    request: RequestId,
    key: PublicKey,
    /// Numbers the messages that were cut into parts.
    parts: u32,
    /// Messages that are sent and not acknowledged.
    unacknowledged: u32,
    /// Whether it was reported that the client is not sent some entries.
    is_withheld_told: bool,
}

impl RpcWire {
    pub(crate) fn new(
        remote_id: RemoteId,
        limits: &Arc<Limits>,
        spill: Option<&Arc<Spill>>,
        proofs: Proofs,
    ) -> Self {
        // These clients put everything that they have not sent yet into one write, and repeat it until it is accepted.
        // So it may be as large as all unfinished chunk sets together.
        let message_bytes_max = limits.chunk_set_bytes_max.max(limits.message_bytes_max);
        let chunk_limits = Limits { message_bytes_max, ..Limits::clone(limits) };
        Self {
            remote_id,
            received: Bytes::new(),
            beginning: Some(Bytes::new()),
            frames: FrameReader::new(limits.message_bytes_max),
            chunks: ChunkJoiner::new(&chunk_limits),
            spilled: spill.cloned().map(Spilled::new),
            limits: Arc::clone(limits),
            refused_set: None,
            handshake: Handshake::default(),
            proofs,
            identities: Vec::new(),
        }
    }
}

impl RpcWire {
    /// The close reason of a connection that cannot continue: if nothing that it sent was understood, the reason is the
    /// protocol that the client speaks.
    fn broken_off(&self, broken: Broken) -> Broken {
        let stranger = self.beginning.as_deref().and_then(Broken::stranger::<Self>);
        stranger.unwrap_or(broken)
    }
}

impl LargeTag {
    fn new(request: RequestId) -> Self {
        let (acks, is_answered) = (RefCell::default(), Cell::new(false));
        Self(Rc::new(LargeAnswer { request, acks, is_answered }))
    }
}

impl FeedTag {
    /// Reports, once for a subscription, that some entries of its store are not sent.
    fn tell_withheld(&mut self, some: bool, out: &mut Out) {
        if some && !std::mem::replace(&mut self.is_withheld_told, true) {
            withheld(&self.key, out);
        }
    }

    fn send(&mut self, runs: &[rpc::Run<'_>], out: &mut Out) {
        let messages = encode_changes(&self.request, runs, self.parts);
        self.parts = self.parts.wrapping_add(1);
        let sent = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        self.unacknowledged = self.unacknowledged.saturating_add(sent);
        messages.into_iter().for_each(|message| out.push(message));
    }
}

impl Wire for RpcWire {
    type Write = WriteTag;
    type Subscription = FeedTag;
    type Identify = RequestId;
    type Large = LargeTag;

    fn stranger(peer: Peer) -> Option<&'static str> {
        Some(match peer {
            Peer::RpcSchemaBinary => return None,
            Peer::RpcJson => {
                "a client of Effect's RPC in JSON: this server supports only \
                 RpcSerialization.layerSchemaBinary()"
            }
            Peer::RpcMsgpack => {
                "a client of Effect's RPC in msgpack: this server supports only \
                 RpcSerialization.layerSchemaBinary()"
            }
            Peer::Msgpack => {
                "a client of the msgpack protocol, as Effect 4.0 beta has it: connect it to /eventlog"
            }
        })
    }

    fn open(&mut self, caller: &Caller, _: &mut Out) {
        self.proofs.come_from(caller.address());
    }

    fn accept(&mut self, message: Bytes) {
        if let Some(beginning) = self.beginning.as_mut().filter(|beginning| beginning.is_empty()) {
            *beginning = Bytes::copy_from_slice(&message[..message.len().min(LOOKED_AT_BYTES)]);
        }
        self.received = message;
    }

    fn next_request(
        &mut self,
        limits: &Limits,
        now_millis: u64,
        subscriptions: &mut [Subscribed<Self>],
        out: &mut Out,
    ) -> Result<Option<Request<Self>>, Broken> {
        loop {
            let next = self.frames.next_body(&mut self.received);
            let Some(body) = next.map_err(|error| self.broken_off(broken_frame(&error)))? else {
                // Such a client would wait for an answer, and the server for as many bytes as the first ones seem to
                // announce.
                return if self.frames.is_no_envelope() {
                    Err(self.broken_off(broken(&Malformed::NO_ENVELOPE)))
                } else {
                    Ok(None)
                };
            };
            let taken = self.take_frame(&body, limits, now_millis, subscriptions, out);
            let request = taken.map_err(|error| self.broken_off(error))?;
            self.beginning = None;
            // One message may have very many frames, each with an answer: send these first.
            if request.is_some() || out.bytes() >= OUT_BYTES_PER_POLL {
                return Ok(request);
            }
        }
    }

    fn expire(&mut self, passed: Passed) -> Result<(), Broken> {
        // The accepted parts were answered with success: only a new connection makes the client send them again.
        let expired = |message| Broken { code: CloseCode::Protocol, message };
        if let Some(spilled) = &mut self.spilled {
            spilled.expire(passed, &self.limits).map_err(expired)?;
        }
        let slow = self.chunks.expire(passed.client_millis, passed.received_bytes);
        slow.map_err(|error: ChunkError| expired(error.to_string()))
    }

    fn poll_large(&mut self, cx: &mut Context<'_>, out: &mut Out) -> Option<LargeWrite<Self>> {
        while let Some(event) = self.spilled.as_mut()?.poll(cx) {
            match event {
                Event::Written(request) => out.push(encode_acks(&request, [])),
                Event::Whole(request, file) => {
                    let tag = LargeTag::new(request);
                    return Some(LargeWrite { tag, source: file, memory_bytes: 0 });
                }
                Event::Failed { set, requests, error } => {
                    self.give_up(set, requests, &error, out);
                }
            }
        }
        None
    }

    fn is_busy(&self) -> bool {
        self.spilled.as_ref().is_some_and(Spilled::is_busy)
    }

    fn large_names(
        &mut self,
        large: &LargeTag,
        names: (&str, &str),
        out: &mut Out,
    ) -> Option<Names> {
        let LargeAnswer { request, is_answered, .. } = &*large.0;
        let proved = self.proved(request, WRITE, names, out);
        is_answered.set(proved.is_none());
        proved
    }

    fn piece(&mut self, large: &LargeTag, batch: &Batch, is_last: bool) -> WriteTag {
        WriteTag::Piece { large: large.clone(), ids: batch.ids().collect(), is_last }
    }

    fn is_answered(&self, large: &LargeTag) -> bool {
        large.0.is_answered.get()
    }

    fn large_refused(&mut self, large: &LargeTag, refusal: &Refusal, out: &mut Out) {
        let LargeAnswer { request, is_answered, .. } = &*large.0;
        if !is_answered.replace(true) {
            let (code, message) = (refusal.codes().1, refusal.told());
            fail(request, WRITE, (None, None), code, &message, out);
        }
    }

    fn identified(
        &mut self,
        identify: Identify<Self>,
        outcome: Result<(), Refusal>,
        out: &mut Out,
    ) {
        let Identify { tag: request, key, signing_key } = identify;
        let outcome = outcome.and_then(|()| {
            let known = self.identities.iter().any(|(known, _)| *known == key);
            if !known && self.identities.len() >= IDENTITIES_MAX {
                return Err(Refusal::TooManyIdentities { identities_max: IDENTITIES_MAX });
            }
            if !known {
                self.identities.push((key.clone(), signing_key));
            }
            Ok(())
        });
        match outcome {
            Ok(()) => out.push(Answer::Done.encode(&request)),
            Err(refusal) => {
                let (code, message) = (refusal.codes().1, refusal.told());
                fail(&request, AUTHENTICATE, (Some(key.as_str()), None), code, &message, out);
            }
        }
    }

    fn acked(&mut self, write: WriteTag, slots: &Slots, out: &mut Out) {
        match write {
            WriteTag::Whole { request, ids, .. } => {
                out.push(encode_acks(&request, ids.into_iter().zip(slots.iter())));
            }
            WriteTag::Piece { large, ids, is_last } => {
                let LargeAnswer { request, acks, is_answered } = &*large.0;
                acks.borrow_mut().extend(ids.into_iter().zip(slots.iter()));
                if is_last && !is_answered.replace(true) {
                    out.push(acks.take().encode(request));
                }
            }
        }
    }

    fn write_refused(&mut self, write: WriteTag, refusal: &Refusal, out: &mut Out) {
        let (code, message) = (refusal.codes().1, refusal.told());
        match write {
            WriteTag::Whole { request, key, .. } => {
                fail(&request, WRITE, (Some(key.as_str()), None), code, &message, out);
            }
            WriteTag::Piece { large, .. } => self.large_refused(&large, refusal, out),
        }
    }

    fn subscription_refused(&mut self, feed: FeedTag, refusal: &Refusal, out: &mut Out) {
        let (code, message) = (refusal.codes().1, refusal.told());
        fail(&feed.request, CHANGES, (Some(feed.key.as_str()), None), code, &message, out);
    }

    fn subscription_replaced(&mut self, feed: FeedTag, out: &mut Out) {
        self.subscription_refused(feed, &Refusal::Replaced, out);
    }

    fn may_send(&self, feed: &FeedTag) -> bool {
        feed.unacknowledged < UNACKNOWLEDGED_MAX
    }

    fn entries(&mut self, feed: &mut FeedTag, parts: &[SegmentPart], out: &mut Out) {
        feed.tell_withheld(parts.iter().any(|part| part.segment.rpc().withheld() > 0), out);
        let encoded =
            parts.iter().map(|part| part.segment.rpc().run(part.run.first, part.run.last));
        feed.send(&encoded.collect::<Vec<_>>(), out);
    }

    fn page(&mut self, feed: &mut FeedTag, page: &Page, out: &mut Out) {
        let encoded = EncodedRemoteEntries::sized(page.iter(), page.len(), page.record_bytes());
        feed.tell_withheld(encoded.withheld() > 0, out);
        feed.send(&[encoded.run(Sequence::ZERO, Sequence::MAX)], out);
    }

    fn has_unfinished(&self) -> bool {
        !self.chunks.is_empty() || self.spilled.as_ref().is_some_and(|sets| !sets.is_empty())
    }

    fn unfinished_bytes(&self) -> usize {
        self.frames.allocated_bytes() + self.chunks.allocated_bytes() + self.received.len()
    }
}

#[cfg(test)]
mod tests;
