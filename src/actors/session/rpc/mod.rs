//! The RPC protocol of Effect's own clients on a session: a byte stream of frames, requests with ids, identities that
//! have to be proved.
//!
//! Keeps: a request for a key that did not authenticate on this connection gets no further than here; every refusal that
//! an honest client can meet is a typed failure, since anything else stops such a client for good
//! (`docs/PROTOCOL-RPC.md`); an unacknowledged part of a feed holds the rest of it back.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use actix_http::ws::CloseCode;
use bytes::Bytes;

use super::refusal::Refusal;
use super::wire::{Broken, Out, Part, Request, Wire};
use crate::core::store::Slots;
use crate::model::{EntryId, Limits, PublicKey, RemoteId, Sequence};
use crate::processing::compaction::Page;
use crate::protocol::chunk::{ChunkError, ChunkJoiner};
use crate::protocol::rpc::auth::{AuthenticateError, Handshake, Verified, random_challenge};
use crate::protocol::rpc::{
    self, Answer, Authenticate, BatchError, Call, CallError, Changes, EncodedRemoteEntries,
    Envelope, ErrorCode, FrameError, FrameReader, HelloResponse, Malformed, ProtocolError,
    RequestId, WriteEntries, encode_acks, encode_changes,
};

/// What the tags of refusals are: not those of the requests, but those that Effect's server gives.
const AUTHENTICATE: &str = "Authenticate";
const WRITE: &str = "WriteEntries";
const CHANGES: &str = "Changes";

/// Messages of one subscription that may be on their way unacknowledged.
const UNACKNOWLEDGED_MAX: u32 = 8;

/// The name by which a client means its own store without knowing what it is called.
const DEFAULT_STORE: &str = "default";

/// Identities that may be proved on one connection.
const IDENTITIES_MAX: usize = 64;

/// The server's side of the RPC protocol.
pub(crate) struct RpcWire {
    remote_id: RemoteId,
    received: Bytes,
    frames: FrameReader,
    chunks: ChunkJoiner,
    handshake: Handshake,
    identities: Vec<PublicKey>,
    /// The live subscriptions, by request.
    feeds: HashMap<RequestId, (PublicKey, Rc<Cell<u32>>)>,
}

/// Finds a write's answer its request.
pub(crate) struct WriteTag {
    request: RequestId,
    ids: Vec<EntryId>,
    key: PublicKey,
}

/// Finds entries their request.
pub(crate) struct FeedTag {
    request: RequestId,
    key: PublicKey,
    /// Numbers the messages that were cut into parts.
    parts: u32,
    unacknowledged: Rc<Cell<u32>>,
}

impl RpcWire {
    pub(crate) fn new(remote_id: RemoteId, limits: &Limits) -> Self {
        // These clients put all that they have not sent yet into one write, and repeat it until it is taken. So it may be
        // as large as unfinished chunk sets may be together.
        let message_bytes_max = limits.chunk_set_bytes_max.max(limits.message_bytes_max);
        let chunk_limits = Limits { message_bytes_max, ..limits.clone() };
        Self {
            remote_id,
            received: Bytes::new(),
            frames: FrameReader::new(limits.message_bytes_max),
            chunks: ChunkJoiner::new(&chunk_limits),
            handshake: Handshake::default(),
            identities: Vec::new(),
            feeds: HashMap::new(),
        }
    }

    fn take_frame(
        &mut self,
        body: &[u8],
        limits: &Limits,
        now_millis: u64,
        out: &mut Out,
    ) -> Result<Option<Request<Self>>, Broken> {
        match Envelope::decode(body).map_err(|malformed| broken(&malformed))? {
            Envelope::Request(request) => Ok(self.take_request(&request, limits, now_millis, out)),
            Envelope::Interrupt(id) => {
                let (key, _) = self.feeds.remove(id.as_bytes()).unzip();
                Ok(key.map(|key| Request::Unsubscribe { key }))
            }
            Envelope::Ack(id) => {
                if let Some((_, unacknowledged)) = self.feeds.get(id.as_bytes()) {
                    unacknowledged.set(unacknowledged.get().saturating_sub(1));
                }
                Ok(None)
            }
            Envelope::Ping => {
                out.push(Envelope::Pong.encode());
                Ok(None)
            }
            // The rest means nothing to a server.
            Envelope::Eof
            | Envelope::Pong
            | Envelope::Exit { .. }
            | Envelope::Defect(_)
            | Envelope::Chunk { .. } => Ok(None),
        }
    }

    fn take_request(
        &mut self,
        request: &rpc::Request<'_>,
        limits: &Limits,
        now_millis: u64,
        out: &mut Out,
    ) -> Option<Request<Self>> {
        let id = RequestId::from_ref(request.id);
        match Call::decode(request.tag, request.payload) {
            Ok(Call::Hello) => {
                let challenge = self.handshake.hello(now_millis, random_challenge());
                let (remote_id, first_sequence) = (self.remote_id, Sequence::FIRST);
                let hello = HelloResponse { remote_id, challenge: &challenge, first_sequence };
                out.push(Answer::Hello(hello).encode(&id));
                None
            }
            Ok(Call::Authenticate(claim)) => self.authenticate(id, &claim, now_millis, out),
            Ok(Call::WriteSingle { data }) => self.write(id, data, limits, out),
            Ok(Call::WriteChunked(part)) => self.write_part(id, &part, limits, now_millis, out),
            Ok(Call::Changes(changes)) => self.subscribe(id, &changes, out),
            Err(CallError::UnknownTag) => {
                let message = format!("Unknown request tag: {}", request.tag);
                out.push(Answer::Died(&message).encode(&id));
                None
            }
            Err(CallError::Malformed(malformed)) => {
                out.push(Answer::Died(&malformed.to_string()).encode(&id));
                None
            }
        }
    }

    fn authenticate(
        &mut self,
        request: RequestId,
        claim: &Authenticate<'_>,
        now_millis: u64,
        out: &mut Out,
    ) -> Option<Request<Self>> {
        let proved = self.handshake.authenticate(now_millis, self.remote_id, claim);
        let refused = match proved {
            Ok(verified) => return Some(Request::Identify { tag: request, verified }),
            Err(
                refused @ (AuthenticateError::NoChallenge
                | AuthenticateError::ChallengeExpired
                | AuthenticateError::PublicKey(_)
                | AuthenticateError::SigningKey
                | AuthenticateError::Signature),
            ) => refused.to_string(),
        };
        let key = Some(claim.public_key);
        fail(&request, AUTHENTICATE, (key, None), ErrorCode::Forbidden, &refused, out);
        None
    }

    /// Whether `key` was proved on this connection; if not, the request is refused.
    fn identity(
        &self,
        request: &RequestId,
        tag: &str,
        (key, store): (&str, &str),
        out: &mut Out,
    ) -> Option<PublicKey> {
        let known = self.identities.iter().find(|known| known.as_str() == key).cloned();
        if known.is_none() {
            let message = "this connection has not authenticated as the public key";
            fail(request, tag, (Some(key), Some(store)), ErrorCode::Forbidden, message, out);
        }
        known
    }

    fn write(
        &self,
        request: RequestId,
        data: &[u8],
        limits: &Limits,
        out: &mut Out,
    ) -> Option<Request<Self>> {
        let refuse = |names, message: &str, out: &mut Out| {
            log::warn!("a write cannot be taken, and will be repeated: {message}");
            fail(&request, WRITE, names, ErrorCode::InvalidRequest, message, out);
            None
        };
        if self.identities.is_empty() {
            let message = "this connection has not authenticated";
            fail(&request, WRITE, (None, None), ErrorCode::Forbidden, message, out);
            return None;
        }
        let write = match WriteEntries::decode(data) {
            Ok(write) => write,
            Err(malformed) => return refuse((None, None), &malformed.to_string(), out),
        };
        let names = (write.public_key, write.store_id);
        let key = self.identity(&request, WRITE, names, out)?;
        let batch = match write.batch(limits) {
            Ok(batch) => batch,
            Err(error @ (BatchError::Invalid(_) | BatchError::Malformed(_))) => {
                let names = (Some(names.0), Some(names.1));
                return refuse(names, &error.to_string(), out);
            }
        };
        let tag = WriteTag { request, ids: batch.ids().collect(), key: key.clone() };
        Some(Request::Write { tag, key, store: named(write.store_id), batch })
    }

    fn write_part(
        &mut self,
        request: RequestId,
        part: &rpc::Part<'_>,
        limits: &Limits,
        now_millis: u64,
        out: &mut Out,
    ) -> Option<Request<Self>> {
        if self.identities.is_empty() {
            let message = "this connection has not authenticated";
            fail(&request, WRITE, (None, None), ErrorCode::Forbidden, message, out);
            return None;
        }
        // Only names the set: that a negative id looks large does not matter.
        let set = part.id.cast_unsigned();
        let data = Bytes::copy_from_slice(part.data);
        match self.chunks.push(now_millis, set, part.index, part.total, data) {
            Ok(Some(joined)) => self.write(request, &joined, limits, out),
            Ok(None) => {
                out.push(encode_acks(&request, []));
                None
            }
            Err(error) => {
                let (code, message) = (ErrorCode::InvalidRequest, error.to_string());
                fail(&request, WRITE, (None, None), code, &message, out);
                None
            }
        }
    }

    fn subscribe(
        &mut self,
        request: RequestId,
        changes: &Changes<'_>,
        out: &mut Out,
    ) -> Option<Request<Self>> {
        let names = (changes.public_key, changes.store_id);
        let key = self.identity(&request, CHANGES, names, out)?;
        let unacknowledged = Rc::new(Cell::new(0));
        self.feeds.insert(request.clone(), (key.clone(), unacknowledged.clone()));
        let tag = FeedTag { request, key: key.clone(), parts: 0, unacknowledged };
        let store = named(changes.store_id);
        Some(Request::Subscribe { tag, key, store, start: changes.start_sequence })
    }
}

/// The store that a client insists on; `None` if it means its own.
fn named(store: &str) -> Option<Box<str>> {
    (store != DEFAULT_STORE).then(|| store.into())
}

fn fail(
    request: &RequestId,
    request_tag: &str,
    (public_key, store_id): (Option<&str>, Option<&str>),
    code: ErrorCode,
    message: &str,
    out: &mut Out,
) {
    let error = ProtocolError { request_tag, public_key, store_id, code, message };
    out.push(Answer::Failed(error).encode(request));
}

fn broken(malformed: &Malformed) -> Broken {
    Broken { code: CloseCode::Invalid, message: malformed.to_string() }
}

fn broken_frame(error: &FrameError) -> Broken {
    let code = match error {
        FrameError::Length => CloseCode::Protocol,
        FrameError::TooLong { .. } => CloseCode::Size,
    };
    Broken { code, message: error.to_string() }
}

impl FeedTag {
    fn send(&mut self, runs: &[rpc::Run<'_>], out: &mut Out) {
        let messages = encode_changes(&self.request, runs, self.parts);
        self.parts = self.parts.wrapping_add(1);
        let sent = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        self.unacknowledged.set(self.unacknowledged.get().saturating_add(sent));
        messages.into_iter().for_each(|message| out.push(message));
    }
}

impl Wire for RpcWire {
    type Write = WriteTag;
    type Subscription = FeedTag;
    type Identify = RequestId;

    fn open(&mut self, _: &mut Out) {}

    fn accept(&mut self, message: Bytes) {
        self.received = message;
    }

    fn next_request(
        &mut self,
        limits: &Limits,
        now_millis: u64,
        out: &mut Out,
    ) -> Result<Option<Request<Self>>, Broken> {
        while let Some(body) =
            self.frames.next_body(&mut self.received).map_err(|error| broken_frame(&error))?
        {
            if let Some(request) = self.take_frame(&body, limits, now_millis, out)? {
                return Ok(Some(request));
            }
        }
        Ok(None)
    }

    fn expire(&mut self, now_millis: u64) -> Result<(), Broken> {
        // The parts that were taken were answered with success: only a new connection has the client send them again.
        let expired =
            |error: ChunkError| Broken { code: CloseCode::Protocol, message: error.to_string() };
        self.chunks.expire(now_millis).map_err(expired)
    }

    fn identified(
        &mut self,
        request: RequestId,
        verified: &Verified,
        outcome: Result<(), Refusal>,
        out: &mut Out,
    ) {
        let key = verified.public_key();
        let outcome = outcome.and_then(|()| {
            let known = self.identities.contains(key);
            if !known && self.identities.len() >= IDENTITIES_MAX {
                return Err(Refusal::TooManyIdentities { identities_max: IDENTITIES_MAX });
            }
            if !known {
                self.identities.push(key.clone());
            }
            Ok(())
        });
        match outcome {
            Ok(()) => out.push(Answer::Done.encode(&request)),
            Err(refusal) => {
                let (code, message) = (refusal.rpc_code(), refusal.to_string());
                fail(&request, AUTHENTICATE, (Some(key.as_str()), None), code, &message, out);
            }
        }
    }

    fn acked(&mut self, write: WriteTag, slots: &Slots, out: &mut Out) {
        out.push(encode_acks(&write.request, write.ids.into_iter().zip(slots.iter())));
    }

    fn write_refused(&mut self, write: WriteTag, refusal: &Refusal, out: &mut Out) {
        let (code, message) = (refusal.rpc_code(), refusal.to_string());
        fail(&write.request, WRITE, (Some(write.key.as_str()), None), code, &message, out);
    }

    fn subscription_refused(&mut self, feed: FeedTag, refusal: &Refusal, out: &mut Out) {
        // A client that interrupted the request does not wait for an answer.
        if self.feeds.remove(&feed.request).is_some() {
            let (code, message) = (refusal.rpc_code(), refusal.to_string());
            fail(&feed.request, CHANGES, (Some(feed.key.as_str()), None), code, &message, out);
        }
    }

    fn subscription_replaced(&mut self, feed: FeedTag, out: &mut Out) {
        self.subscription_refused(feed, &Refusal::Replaced, out);
    }

    fn may_send(&self, feed: &FeedTag) -> bool {
        feed.unacknowledged.get() < UNACKNOWLEDGED_MAX
    }

    fn entries(&mut self, feed: &mut FeedTag, parts: &[Part], out: &mut Out) {
        let encoded =
            parts.iter().map(|part| part.segment.rpc().run(part.run.first, part.run.last));
        feed.send(&encoded.collect::<Vec<_>>(), out);
    }

    fn page(&mut self, feed: &mut FeedTag, page: &Page, out: &mut Out) {
        let encoded = EncodedRemoteEntries::new(page.iter());
        feed.send(&[encoded.run(Sequence::ZERO, Sequence::MAX)], out);
    }

    fn has_unfinished(&self) -> bool {
        !self.chunks.is_empty()
    }
}
