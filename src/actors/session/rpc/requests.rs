//! What a frame asks for, and what happens to it before it is a request that the session checks.

use std::sync::Arc;

use actix_http::ws::CloseCode;
use bytes::Bytes;

use super::refuse::{beginning, broken, die, fail, refuse_for_good};
use super::spilled::{Part, SetError};
use super::{AUTHENTICATE, CHANGES, FeedTag, LargeTag, RpcWire, WRITE, WriteTag};
use crate::actors::session::refusal::ENCRYPTED;
use crate::actors::session::subscriptions::Subscribed;
use crate::actors::session::wire::{
    Broken, Identify, LargeWrite, Names, Out, Request, Subscribe, Write,
};
use crate::actors::trace::Trace;
use crate::model::limits::{CHUNK_BYTES, STORE_ID_BYTES_MAX};
use crate::model::{Limits, Sequence};
use crate::protocol::rpc::auth::{AuthenticateError, random_challenge};
use crate::protocol::rpc::{
    self, Answer, Authenticate, BatchError, BatchFault, Call, CallError, Changes, Envelope,
    ErrorCode, HelloResponse, RequestId, RequestIdRef, WriteEntries, encode_acks,
};

/// The name by which a client means its own store without knowing the store's name.
const DEFAULT_STORE: &str = "default";

/// How much of a client's text is quoted back to it.
const QUOTED_CHARS_MAX: usize = 100;

impl RpcWire {
    pub(super) fn take_frame(
        &mut self,
        body: &Bytes,
        limits: &Limits,
        now_millis: u64,
        subscriptions: &mut [Subscribed<Self>],
        out: &mut Out,
    ) -> Result<Option<Request<Self>>, Broken> {
        match Envelope::decode(body).map_err(|malformed| broken(&malformed))? {
            Envelope::Request(request) if feed(subscriptions, request.id).is_some() => {
                // Its answers would be mistaken for those of the feed.
                let message = "a request has the id of an open subscription".to_owned();
                Err(Broken { code: CloseCode::Protocol, message })
            }
            Envelope::Request(request) => {
                let taken = self.take_request(body, &request, limits, now_millis, out);
                self.proofs.go_on().map(|()| taken)
            }
            Envelope::Interrupt(id) => {
                let feed = feed(subscriptions, id);
                Ok(feed.map(|feed| Request::Unsubscribe { key: feed.key.clone() }))
            }
            Envelope::Ack(id) => {
                if let Some(feed) = feed(subscriptions, id) {
                    feed.unacknowledged = feed.unacknowledged.saturating_sub(1);
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
        body: &Bytes,
        request: &rpc::Request<'_>,
        limits: &Limits,
        now_millis: u64,
        out: &mut Out,
    ) -> Option<Request<Self>> {
        let id = RequestId::from_ref(request.id);
        match Call::decode(request.tag, request.payload) {
            Ok(Call::Hello) => {
                let challenge = self.handshake.hello(now_millis, random_challenge);
                let (remote_id, first_sequence) = (self.remote_id, Sequence::FIRST);
                let hello = HelloResponse { remote_id, challenge: &challenge, first_sequence };
                out.push(Answer::Hello(hello).encode(&id));
                None
            }
            Ok(Call::Authenticate(claim)) => self.authenticate(id, &claim, now_millis, out),
            Ok(Call::WriteSingle { .. } | Call::WriteChunked(_)) if self.identities.is_empty() => {
                let message = "this connection has not authenticated";
                fail(&id, WRITE, (None, None), ErrorCode::Forbidden, message, out);
                None
            }
            Ok(Call::WriteSingle { data }) => self.write(id, body.slice_ref(data), limits, out),
            Ok(Call::WriteChunked(part)) => {
                let data = body.slice_ref(part.data);
                self.write_part(id, &part, data, limits, out)
            }
            Ok(Call::Changes(changes)) => self.subscribe(id, &changes, out),
            Err(CallError::UnknownTag) => {
                let tag = beginning(request.tag, QUOTED_CHARS_MAX);
                die(&id, &format!("Unknown request tag: {tag}"), out);
                None
            }
            Err(CallError::Malformed(malformed)) => {
                die(&id, &malformed.to_string(), out);
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
        let key = Some(claim.public_key);
        if let Err(why) = self.proofs.may_check() {
            fail(&request, AUTHENTICATE, (key, None), ErrorCode::InternalServerError, &why, out);
            return None;
        }
        let proved = self.handshake.authenticate(now_millis, self.remote_id, claim);
        if let Err(AuthenticateError::SigningKey | AuthenticateError::Signature) = proved {
            self.proofs.wrong();
        }
        let refused = match proved {
            Ok(verified) => {
                let (key, signing_key) = verified.into_parts();
                return Some(Request::Identify(Identify { tag: request, key, signing_key }));
            }
            Err(
                refused @ (AuthenticateError::NoChallenge
                | AuthenticateError::ChallengeExpired
                | AuthenticateError::PublicKey(_)
                | AuthenticateError::SigningKey
                | AuthenticateError::Signature),
            ) => refused.to_string(),
        };
        fail(&request, AUTHENTICATE, (key, None), ErrorCode::Forbidden, &refused, out);
        None
    }

    /// What a request names, if its key was proved on this connection; if not, the request is refused.
    pub(super) fn proved(
        &self,
        request: &RequestId,
        tag: &str,
        (key, store): (&str, &str),
        out: &mut Out,
    ) -> Option<Names> {
        let Some((key, proof)) = self.identities.iter().find(|(known, _)| known.as_str() == key)
        else {
            let message = "this connection has not authenticated as the public key";
            fail(request, tag, (Some(key), Some(store)), ErrorCode::Forbidden, message, out);
            return None;
        };
        Some(Names { key: key.clone(), proof: Some(*proof), store: insisted(store) })
    }

    fn write(
        &self,
        request: RequestId,
        data: Bytes,
        limits: &Limits,
        out: &mut Out,
    ) -> Option<Request<Self>> {
        let write = match WriteEntries::decode(&data) {
            Ok(write) => write,
            Err(malformed) => {
                match WriteEntries::encrypted_by(&data) {
                    key @ Some(_) => refuse_for_good(&request, (key, None), ENCRYPTED, out),
                    None => refuse_for_good(&request, (None, None), &malformed.to_string(), out),
                }
                return None;
            }
        };
        let (key, store) = (write.public_key, write.store_id);
        let names = self.proved(&request, WRITE, (key, store), out)?;
        let batch = match write.batch(limits) {
            // Its size is within the limit for memory, so it can stay there.
            Err(BatchError::Invalid(
                BatchFault::TooManyEntries { .. }
                | BatchFault::TooManyBytes { .. }
                | BatchFault::EntryTooLarge { .. },
            )) => {
                let (tag, memory_bytes) = (LargeTag::new(request), data.len());
                let source = Arc::new(data);
                return Some(Request::WriteLarge(LargeWrite { tag, source, memory_bytes }));
            }
            Ok(batch) => batch,
            Err(error @ (BatchError::Invalid(_) | BatchError::Malformed(_))) => {
                let names = (Some(key), Some(store));
                refuse_for_good(&request, names, &error.to_string(), out);
                return None;
            }
        };
        let (ids, key) = (batch.ids().collect(), names.key.clone());
        let tag = WriteTag::Whole { request, ids, key };
        Some(Request::Write(Write { tag, names, batch, trace: Trace::default() }))
    }

    fn write_part(
        &mut self,
        request: RequestId,
        part: &rpc::Part<'_>,
        data: Bytes,
        limits: &Limits,
        out: &mut Out,
    ) -> Option<Request<Self>> {
        // This only names the set: it does not matter that a negative id looks large.
        let set = part.id.cast_unsigned();
        // A set that starts again is another write with the same number.
        if part.index == 0 {
            self.refused_set.take_if(|refused| *refused == set);
        }
        if self.refused_set == Some(set) {
            let message = "this is a part of a write that was refused";
            fail(&request, WRITE, (None, None), ErrorCode::InvalidRequest, message, out);
            return None;
        }
        let bytes = part.total.saturating_mul(CHUNK_BYTES as u64);
        // Stock clients make all parts but the last this long; a set with smaller parts has to be smaller in total.
        let is_full = data.len() == CHUNK_BYTES || part.index + 1 == part.total;
        let is_large = bytes > limits.message_bytes_max as u64 && is_full && !self.chunks.has(set);
        if is_large
            && let (Some(spilled), Some((key, _))) = (&mut self.spilled, self.identities.first())
        {
            let (index, total) = (part.index, part.total);
            let part = Part { request: request.clone(), set, index, total, data };
            match spilled.take(part, key, limits) {
                Ok(true) => {}
                Ok(false) => out.push(encode_acks(&request, [])),
                Err(error) => self.give_up(set, vec![request], &error, out),
            }
            return None;
        }
        match self.chunks.push(set, part.index, part.total, data) {
            Ok(Some(joined)) => return self.write(request, joined, limits, out),
            Ok(None) => out.push(encode_acks(&request, [])),
            Err(error) => {
                self.chunks.forget(set);
                self.refused_set = Some(set);
                refuse_for_good(&request, (None, None), &error.to_string(), out);
            }
        }
        None
    }

    /// A set on disk cannot become a write: these requests are refused, together with all waiting requests of the set.
    pub(super) fn give_up(
        &mut self,
        set: u64,
        mut requests: Vec<RequestId>,
        error: &SetError,
        out: &mut Out,
    ) {
        self.refused_set = Some(set);
        requests.extend(self.spilled.iter_mut().flat_map(|spilled| spilled.forget(set)));
        for request in &requests {
            match error {
                SetError::Broken(_) | SetError::PartLength { .. } | SetError::TooLarge(_) => {
                    refuse_for_good(request, (None, None), &error.to_string(), out);
                }
                SetError::Busy | SetError::Disk(_) => {
                    log::warn!("a write in parts is refused for now: {error}");
                    let message =
                        "busy: there is no space for a write this large, send it again later";
                    let code = ErrorCode::InternalServerError;
                    fail(request, WRITE, (None, None), code, message, out);
                }
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
        let names = self.proved(&request, CHANGES, names, out)?;
        let key = names.key.clone();
        let tag = FeedTag { request, key, parts: 0, unacknowledged: 0, is_withheld_told: false };
        Some(Request::Subscribe(Subscribe { tag, names, start: changes.start_sequence }))
    }
}

/// The wire's part of the subscription that this request has. A connection has few.
fn feed<'a>(
    subscriptions: &'a mut [Subscribed<RpcWire>],
    request: RequestIdRef<'_>,
) -> Option<&'a mut FeedTag> {
    let mut feeds = subscriptions.iter_mut().map(|sub| &mut sub.delivery.tag);
    feeds.find(|feed| feed.request.as_ref() == request)
}

/// The store that a client insists on; `None` if it means its own. A text that is cut off is still longer than any
/// store's name.
fn insisted(store: &str) -> Option<Box<str>> {
    (store != DEFAULT_STORE).then(|| beginning(store, STORE_ID_BYTES_MAX + 1).into())
}
