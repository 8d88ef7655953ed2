//! The msgpack protocol on a session: one message per WebSocket message; answers are matched by id and public key.

use std::convert::Infallible;
use std::task::Context;

use actix_http::ws::CloseCode;
use bytes::{Bytes, BytesMut};

use super::refusal::Refusal;
use super::subscriptions::Subscribed;
use super::wire::{
    Broken, Identify, LargeWrite, Names, Out, Passed, Request, SegmentPart, Subscribe, Wire, Write,
};
use crate::actors::complaints::Complaint;
use crate::actors::trace::Trace;
use crate::core::store::Slots;
use crate::model::limits::CHUNK_BYTES;
use crate::model::{Batch, Limits, PublicKey, RemoteId, Sequence, key_in_log};
use crate::processing::compaction::Page;
use crate::protocol::chunk::{ChunkError, ChunkJoiner, split};
use crate::protocol::msgpack::ErrorCode;
use crate::protocol::msgpack::{
    self, DecodeError, InvalidRequest, MARK_BYTES_MAX, Malformed, WriteRequest, decode_request,
    encode_ack, encode_changes_header, encode_chunk, encode_error, encode_hello, encode_mark,
    encode_pong, encode_remote_entry, encode_subscribed, remote_entries_bytes_max,
};
use crate::protocol::peers::Peer;
use crate::services::Caller;

const WRITE: &str = "WriteEntries";
const SUBSCRIBE: &str = "RequestChanges";

/// The server's side of the msgpack protocol.
pub(crate) struct MsgpackWire {
    remote_id: RemoteId,
    /// At most one: a session asks for its request before it takes another.
    received: Option<Bytes>,
    chunks: ChunkJoiner,
    /// Numbers the chunk sets that were sent.
    chunked: u64,
}

/// Matches a write's answer to its request.
pub(crate) struct WriteTag {
    id: u64,
    key: PublicKey,
}

/// Whose subscription it is.
pub(crate) struct SubscriptionTag {
    key: PublicKey,
    /// Whether the client wants to be told when it has begun.
    ack: bool,
    /// Whether the client wants to be told which entries are erased.
    marks: bool,
}

impl MsgpackWire {
    pub(crate) fn new(remote_id: RemoteId, limits: &Limits) -> Self {
        Self { remote_id, received: None, chunks: ChunkJoiner::new(limits), chunked: 0 }
    }

    /// The requests in one message. A chunk that completes its set is followed by what it completes.
    fn decode(
        &mut self,
        message: &Bytes,
        limits: &Limits,
        out: &mut Out,
    ) -> Result<Option<Request<Self>>, Broken> {
        let decoded = match decode_request(message, limits) {
            Ok(decoded) => decoded,
            Err(DecodeError::Invalid(invalid)) => {
                refuse_invalid(&invalid, out);
                return Ok(None);
            }
            Err(DecodeError::Malformed(malformed)) => {
                return Err(Broken::stranger::<Self>(message).unwrap_or_else(|| broken(&malformed)));
            }
        };
        match decoded {
            msgpack::Request::Write(WriteRequest { public_key: key, id, batch }) => {
                let tag = WriteTag { id, key: key.clone() };
                let trace = Trace::default();
                Ok(Some(Request::Write(Write { tag, names: named(key), batch, trace })))
            }
            msgpack::Request::RequestChanges { public_key: key, start, ack, marks } => {
                let tag = SubscriptionTag { key: key.clone(), ack, marks };
                Ok(Some(Request::Subscribe(Subscribe { tag, names: named(key), start })))
            }
            msgpack::Request::StopChanges { public_key: key } => {
                Ok(Some(Request::Unsubscribe { key }))
            }
            msgpack::Request::Ping { id } => {
                out.message(|buffer| encode_pong(buffer, id));
                Ok(None)
            }
            msgpack::Request::Chunk { id, index, total, data } => {
                self.received = self.chunks.push(id, index, total, data).map_err(broken_chunks)?;
                Ok(None)
            }
        }
    }

    /// Sends a `Changes` with this many elements, which `put` writes and which take about this many bytes; in chunks if
    /// it is large.
    fn changes(
        &mut self,
        key: &PublicKey,
        (count, bytes): (usize, usize),
        put: impl FnOnce(&mut BytesMut),
        out: &mut Out,
    ) {
        let mut message = BytesMut::with_capacity(bytes + key.as_str().len() + 64);
        encode_changes_header(&mut message, key, count);
        put(&mut message);
        if message.len() <= CHUNK_BYTES {
            return out.push(message.freeze());
        }
        let id = self.chunked;
        self.chunked += 1;
        let parts = split(message.len());
        let total = parts.len() as u64;
        for (index, range) in parts.enumerate() {
            out.message(|buffer| {
                encode_chunk(buffer, id, index as u64, total, &message[range]);
            });
        }
    }

    fn error(
        out: &mut Out,
        tag: &str,
        id: Option<u64>,
        key: Option<&str>,
        code: ErrorCode,
        text: &str,
    ) {
        out.count_refusal("msgpack", code.as_str());
        out.message(|buffer| encode_error(buffer, tag, id, key, code, text));
    }
}

/// In this protocol a request names only its key.
fn named(key: PublicKey) -> Names {
    Names { key, proof: None, store: None }
}

fn refuse_invalid(invalid: &InvalidRequest, out: &mut Out) {
    log::debug!("invalid {}: {}", invalid.request_tag, invalid.message);
    if invalid.message == msgpack::ENCRYPTED {
        let key = invalid.public_key.as_deref().unwrap_or_default();
        let line = format!(
            "writes with the public key {} are refused: {}",
            key_in_log(key),
            invalid.message
        );
        out.complain(Complaint::once(line.clone(), line).about_key(Some(key)));
    }
    MsgpackWire::error(
        out,
        invalid.request_tag,
        invalid.id,
        invalid.public_key.as_deref(),
        ErrorCode::InvalidRequest,
        &invalid.message,
    );
}

fn broken(malformed: &Malformed) -> Broken {
    Broken { code: CloseCode::Invalid, message: malformed.to_string() }
}

fn broken_chunks(error: ChunkError) -> Broken {
    let code = match error {
        ChunkError::MessageTooLarge { .. } | ChunkError::TooManyBytes { .. } => CloseCode::Size,
        ChunkError::NoSuchPart { .. }
        | ChunkError::EmptyPart { .. }
        | ChunkError::TotalChanged { .. }
        | ChunkError::TooManySets { .. }
        | ChunkError::TooSlow { .. } => CloseCode::Protocol,
    };
    Broken { code, message: error.to_string() }
}

impl Wire for MsgpackWire {
    type Write = WriteTag;
    type Subscription = SubscriptionTag;
    /// This protocol has no proofs.
    type Identify = Infallible;
    /// In this protocol, a write is one message.
    type Large = Infallible;

    fn stranger(peer: Peer) -> Option<&'static str> {
        Some(match peer {
            Peer::RpcSchemaBinary => {
                "a client of Effect's RPC, as Effect 4.1 has it: connect it to /rpc"
            }
            Peer::RpcJson => {
                "a client of Effect's RPC in JSON: use RpcSerialization.layerSchemaBinary() and connect to /rpc"
            }
            Peer::RpcMsgpack => {
                "a client of Effect's RPC in msgpack: use RpcSerialization.layerSchemaBinary() and connect to /rpc"
            }
            Peer::Msgpack => return None,
        })
    }

    fn open(&mut self, _: &Caller, out: &mut Out) {
        out.message(|buffer| encode_hello(buffer, &self.remote_id));
    }

    fn accept(&mut self, message: Bytes) {
        self.received = Some(message);
    }

    fn next_request(
        &mut self,
        limits: &Limits,
        _: u64,
        _: &mut [Subscribed<Self>],
        out: &mut Out,
    ) -> Result<Option<Request<Self>>, Broken> {
        while let Some(message) = self.received.take() {
            if let Some(request) = self.decode(&message, limits, out)? {
                return Ok(Some(request));
            }
        }
        Ok(None)
    }

    fn expire(&mut self, passed: Passed) -> Result<(), Broken> {
        self.chunks.expire(passed.client_millis, passed.received_bytes).map_err(broken_chunks)
    }

    fn poll_large(&mut self, _: &mut Context<'_>, _: &mut Out) -> Option<LargeWrite<Self>> {
        None
    }

    fn is_busy(&self) -> bool {
        false
    }

    fn large_names(&mut self, large: &Infallible, _: (&str, &str), _: &mut Out) -> Option<Names> {
        match *large {}
    }

    fn piece(&mut self, large: &Infallible, _: &Batch, _: bool) -> WriteTag {
        match *large {}
    }

    fn is_answered(&self, large: &Infallible) -> bool {
        match *large {}
    }

    fn large_refused(&mut self, large: &Infallible, _: &Refusal, _: &mut Out) {
        match *large {}
    }

    fn identified(&mut self, identify: Identify<Self>, _: Result<(), Refusal>, _: &mut Out) {
        match identify.tag {}
    }

    fn acked(&mut self, write: WriteTag, slots: &Slots, out: &mut Out) {
        out.message(|buffer| encode_ack(buffer, write.id, slots.iter()));
    }

    fn write_refused(&mut self, write: WriteTag, refusal: &Refusal, out: &mut Out) {
        let (id, key) = (Some(write.id), Some(write.key.as_str()));
        Self::error(out, WRITE, id, key, refusal.codes().0, &refusal.told());
    }

    fn subscribed(
        &mut self,
        tag: &SubscriptionTag,
        (head, begins): (Sequence, Sequence),
        out: &mut Out,
    ) {
        if tag.ack {
            out.message(|buffer| encode_subscribed(buffer, &tag.key, head, begins));
        }
    }

    fn subscription_refused(&mut self, tag: SubscriptionTag, refusal: &Refusal, out: &mut Out) {
        let key = Some(tag.key.as_str());
        Self::error(out, SUBSCRIBE, None, key, refusal.codes().0, &refusal.told());
    }

    fn subscription_replaced(&mut self, _: SubscriptionTag, _: &mut Out) {
        // The protocol has no message for it: the client knows that it asked twice.
    }

    fn may_send(&self, _: &SubscriptionTag) -> bool {
        true
    }

    fn wants_marks(&self, tag: &SubscriptionTag) -> bool {
        tag.marks
    }

    fn entries(&mut self, tag: &mut SubscriptionTag, parts: &[SegmentPart], out: &mut Out) {
        let count = parts.iter().map(SegmentPart::count).sum();
        let bytes = |part: &SegmentPart| {
            if part.segment.segment().is_gap() {
                part.count() * MARK_BYTES_MAX
            } else {
                part.segment.msgpack().elements(part.range()).len()
            }
        };
        let bytes = parts.iter().map(bytes).sum();
        let put = |message: &mut BytesMut| {
            for part in parts {
                if part.segment.segment().is_gap() {
                    let erased = (0..part.count() as u64).map(|n| part.run.first.plus(n));
                    erased.for_each(|at| encode_mark(message, at));
                } else {
                    message.extend_from_slice(part.segment.msgpack().elements(part.range()));
                }
            }
        };
        self.changes(&tag.key, (count, bytes), put, out);
    }

    fn page(&mut self, tag: &mut SubscriptionTag, page: &Page, out: &mut Out) {
        let count = page.len();
        let bytes = remote_entries_bytes_max(count, page.record_bytes());
        let put = |message: &mut BytesMut| {
            page.iter().for_each(|(at, entry)| encode_remote_entry(message, at, &entry));
        };
        self.changes(&tag.key, (count, bytes), put, out);
    }

    fn has_unfinished(&self) -> bool {
        !self.chunks.is_empty()
    }

    fn unfinished_bytes(&self) -> usize {
        self.chunks.allocated_bytes() + self.received.as_ref().map_or(0, Bytes::len)
    }
}
