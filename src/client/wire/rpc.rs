//! The RPC protocol of Effect 4.1's event log: a byte stream of frames, requests with ids, identities that are proved.
//!
//! Keeps: an error in one request fails only that request; only bytes that can no longer be told apart, or a server
//! that gives up, end the connection. An answer to an interrupted request is ignored.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::identities::{Ask, Keyring, Proofs};
use super::{Joiner, Wire, WireError};
use crate::client::core::{Incoming, Outgoing};
use crate::client::entries::Entries;
use crate::client::error::RemoteError;
use crate::model::limits::CHUNK_BYTES;
use crate::model::{Batch, EntryId, PublicKey, Sequence, StoreId};
use crate::protocol::chunk::split;
use crate::protocol::rpc::{
    Acks, Call, Cause, Changes, ChangesValue, ChangesValues, Envelope, Exit, FrameReader,
    HelloResponse, Malformed, Part, Reason, ReceivedEntries, RequestId, RequestIdRef,
    decode_defect, encode_write_entries,
};

/// The name by which a client means its own store without knowing the store's name.
const DEFAULT_STORE: &str = "default";

/// The most that a frame takes in addition to its data.
const AROUND_DATA_BYTES: usize = 1_024;

/// Says why a write or stream failed.
fn wrong(error: impl std::fmt::Display) -> RemoteError {
    RemoteError::WrongAnswer(error.to_string())
}

/// The client's side of the RPC protocol.
#[derive(Debug)]
pub(super) struct RpcWire {
    store: Box<str>,
    message_bytes_max: usize,
    frames: FrameReader,
    received: Bytes,
    messages: VecDeque<Bytes>,
    /// What the last frame said, or has to be reported because something cannot be sent.
    said: VecDeque<Incoming>,
    requests: u64,
    /// What unanswered requests are about.
    asked: HashMap<RequestId, Asked>,
    proofs: Proofs,
    writes: HashMap<u64, Writing>,
    /// The requests of the subscriptions.
    feeds: HashMap<PublicKey, RequestId>,
    /// Pongs have no ids; they come in the order of the pings.
    pings: VecDeque<u64>,
    chunk_sets: i64,
}

#[derive(Debug)]
enum Asked {
    Hello,
    Authenticate(PublicKey),
    /// A write, or a part of it.
    Write(u64),
    Feed(PublicKey, Joiner),
}

/// A write that is not answered.
#[derive(Debug)]
struct Writing {
    batch: Arc<Batch>,
    requests_left: usize,
}

impl RpcWire {
    /// Says hello.
    pub(super) fn new(
        message_bytes_max: usize,
        store: Option<&StoreId>,
        identities: Keyring,
    ) -> Self {
        let mut wire = Self {
            store: store.map_or(DEFAULT_STORE, StoreId::as_str).into(),
            message_bytes_max,
            frames: FrameReader::new(message_bytes_max.saturating_add(AROUND_DATA_BYTES)),
            received: Bytes::new(),
            messages: VecDeque::new(),
            said: VecDeque::new(),
            requests: 0,
            asked: HashMap::new(),
            proofs: Proofs::new(identities),
            writes: HashMap::new(),
            feeds: HashMap::new(),
            pings: VecDeque::new(),
            chunk_sets: 0,
        };
        wire.ask(&Call::Hello, Asked::Hello);
        wire
    }

    fn ask(&mut self, call: &Call<'_>, about: Asked) -> RequestId {
        let id = RequestId::from_number(self.requests);
        self.requests += 1;
        self.messages.push_back(call.encode(&id));
        self.asked.insert(id.clone(), about);
        id
    }

    /// Sends `outgoing` for `key`, or makes it wait for a proof.
    fn ask_for(&mut self, key: &PublicKey, outgoing: Outgoing) {
        match self.proofs.admit(key, outgoing) {
            Ok(Some(outgoing)) => self.ask_proved(outgoing),
            Ok(None) => self.prove(),
            Err(outgoing) => self.fail(outgoing, &RemoteError::NoIdentity(key.clone())),
        }
    }

    fn ask_proved(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Write { key, id, batch } => self.write(&key, id, batch),
            Outgoing::RequestChanges { key, start } => self.subscribe(key, start),
            // Neither waits for a proof.
            Outgoing::StopChanges { .. } | Outgoing::Ping { .. } => {}
        }
    }

    fn fail(&mut self, outgoing: Outgoing, error: &RemoteError) {
        let error = error.clone();
        match outgoing {
            Outgoing::Write { id, .. } => self.said.push_back(Incoming::WriteFailed { id, error }),
            Outgoing::RequestChanges { key, .. } => {
                self.said.push_back(Incoming::FeedFailed { key, error });
            }
            Outgoing::StopChanges { .. } | Outgoing::Ping { .. } => {}
        }
    }

    /// Sends what has to be asked for the needed proofs.
    fn prove(&mut self) {
        match self.proofs.next() {
            Some(Ask::Hello) => {
                self.ask(&Call::Hello, Asked::Hello);
            }
            Some(Ask::Authenticate { identity, signature }) => {
                let about = Asked::Authenticate(identity.public_key().clone());
                self.ask(&Call::Authenticate(identity.claim(&signature)), about);
            }
            None => {}
        }
    }

    fn write(&mut self, key: &PublicKey, id: u64, batch: Arc<Batch>) {
        let data = encode_write_entries(key.as_str(), &self.store, &batch);
        let (bytes, bytes_max) = (data.len(), self.message_bytes_max);
        if bytes > bytes_max {
            let error = RemoteError::TooLarge { bytes, bytes_max };
            return self.said.push_back(Incoming::WriteFailed { id, error });
        }
        let parts = split(bytes);
        self.writes.insert(id, Writing { batch, requests_left: parts.len() });
        if bytes <= CHUNK_BYTES {
            self.ask(&Call::WriteSingle { data: &data }, Asked::Write(id));
            return;
        }
        let (set, total) = (self.chunk_sets, parts.len() as u64);
        self.chunk_sets += 1;
        for (index, range) in parts.enumerate() {
            let part = Part { id: set, index: index as u64, total, data: &data[range] };
            self.ask(&Call::WriteChunked(part), Asked::Write(id));
        }
    }

    fn subscribe(&mut self, key: PublicKey, start: Sequence) {
        let about = Asked::Feed(key.clone(), Joiner::new(self.message_bytes_max));
        let store: &str = &self.store.clone();
        let changes = Changes { public_key: key.as_str(), store_id: store, start_sequence: start };
        let request = self.ask(&Call::Changes(changes), about);
        self.feeds.insert(key, request);
    }

    fn unsubscribe(&mut self, key: &PublicKey) {
        if self.proofs.withdraw(key) {
            return;
        }
        if let Some(request) = self.feeds.remove(key) {
            self.asked.remove(&request);
            self.messages.push_back(Envelope::Interrupt(request.as_ref()).encode());
        }
    }

    fn take(&mut self, body: &Bytes) -> Result<(), WireError> {
        match Envelope::decode(body)? {
            Envelope::Exit { id, exit } => self.ended(id, exit),
            Envelope::Chunk { id, values } => {
                self.fed(id, values, body);
                Ok(())
            }
            Envelope::Pong => {
                let id = self.pings.pop_front().unwrap_or_default();
                self.said.push_back(Incoming::Pong { id });
                Ok(())
            }
            Envelope::Defect(defect) => Err(WireError::Defect(decode_defect(defect)?.to_owned())),
            // The rest means nothing to a client.
            Envelope::Ack(_)
            | Envelope::Ping
            | Envelope::Eof
            | Envelope::Request(_)
            | Envelope::Interrupt(_) => Ok(()),
        }
    }

    /// Request `id` has a result.
    fn ended(&mut self, id: RequestIdRef<'_>, exit: &[u8]) -> Result<(), WireError> {
        let Some(asked) = self.asked.remove(id.as_bytes()) else { return Ok(()) };
        let outcome = match Exit::decode(exit) {
            Ok(Exit::Success(value)) => Ok(value),
            Ok(Exit::Failure(cause)) => Err(failure(&cause)?),
            Err(malformed) => Err(wrong(malformed)),
        };
        match asked {
            Asked::Hello => return self.greeted(outcome),
            Asked::Authenticate(key) => self.authenticated(&key, outcome.err().as_ref()),
            Asked::Write(id) => self.written(id, outcome),
            Asked::Feed(key, _) => {
                let ended = || wrong("the feed has an end");
                self.feed_failed(key, outcome.err().unwrap_or_else(ended));
            }
        }
        Ok(())
    }

    fn greeted(&mut self, outcome: Result<&[u8], RemoteError>) -> Result<(), WireError> {
        let value = outcome.map_err(|error| WireError::NoHello(error.to_string()))?;
        let HelloResponse { remote_id, challenge, .. } = HelloResponse::decode(value)?;
        if self.proofs.challenged(remote_id, challenge) {
            self.said.push_back(Incoming::Hello { remote_id });
        }
        self.prove();
        Ok(())
    }

    fn authenticated(&mut self, key: &PublicKey, refused: Option<&RemoteError>) {
        let held = self.proofs.answered(key, refused.is_none());
        for outgoing in held {
            match refused {
                None => self.ask_proved(outgoing),
                Some(error) => self.fail(outgoing, error),
            }
        }
        self.prove();
    }

    fn written(&mut self, id: u64, outcome: Result<&[u8], RemoteError>) {
        // Another part of it may have failed before.
        let Some(writing) = self.writes.get_mut(&id) else { return };
        writing.requests_left -= 1;
        let acks = outcome.and_then(|value| read_acks(value).map_err(wrong));
        if acks.as_ref().is_ok_and(Vec::is_empty) && writing.requests_left > 0 {
            // A part that did not complete the set.
            return;
        }
        let sequences = acks.and_then(|acks| sequences(&writing.batch, &acks).map_err(wrong));
        self.writes.remove(&id);
        self.said.push_back(match sequences {
            Ok(sequences) => Incoming::Acked { id, sequences },
            Err(error) => Incoming::WriteFailed { id, error },
        });
    }

    /// A chunk of a feed. It is acknowledged, so that more comes, once its entries have been handed on; by then a
    /// stream without space for more has ended its subscription.
    fn fed(&mut self, id: RequestIdRef<'_>, values: &[u8], body: &Bytes) {
        let Some(Asked::Feed(key, joiner)) = self.asked.get_mut(id.as_bytes()) else { return };
        let key = key.clone();
        match read_entries(values, body, joiner) {
            Ok(messages) => {
                let fed = |entries| Incoming::Fed { key: key.clone(), entries };
                self.said.extend(messages.into_iter().map(fed));
                self.messages.push_back(Envelope::Ack(id).encode());
            }
            Err(error) => {
                self.unsubscribe(&key);
                self.said.push_back(Incoming::FeedFailed { key, error });
            }
        }
    }

    fn feed_failed(&mut self, key: PublicKey, error: RemoteError) {
        self.feeds.remove(&key);
        self.said.push_back(Incoming::FeedFailed { key, error });
    }
}

impl Wire for RpcWire {
    fn send(&mut self, outgoing: Outgoing) {
        match &outgoing {
            Outgoing::Write { key, .. } | Outgoing::RequestChanges { key, .. } => {
                let key = key.clone();
                self.ask_for(&key, outgoing);
            }
            Outgoing::StopChanges { key } => self.unsubscribe(key),
            Outgoing::Ping { id } => {
                self.pings.push_back(*id);
                self.messages.push_back(Envelope::Ping.encode());
            }
        }
    }

    fn messages(&mut self) -> &mut VecDeque<Bytes> {
        &mut self.messages
    }

    fn accept(&mut self, message: Bytes) {
        self.received = message;
    }

    fn next_incoming(&mut self) -> Result<Option<Incoming>, WireError> {
        loop {
            if let Some(incoming) = self.said.pop_front() {
                return Ok(Some(incoming));
            }
            let Some(body) = self.frames.next_body(&mut self.received)? else { return Ok(None) };
            self.take(&body)?;
        }
    }
}

/// The error of a failed request. An interrupt is not about the request: the server is shutting down.
fn failure(cause: &Cause<'_>) -> Result<RemoteError, WireError> {
    let mut crashed = None;
    for reason in cause.reasons() {
        match reason {
            Reason::Fail(error) => {
                return Ok(RemoteError::Rejected {
                    code: error.code,
                    request_tag: error.request_tag.to_owned(),
                    message: error.message.to_owned(),
                });
            }
            Reason::Die(text) => crashed = Some(RemoteError::Crashed(text.to_owned())),
            Reason::Interrupt(_) => {}
        }
    }
    crashed.ok_or(WireError::Interrupted)
}

fn read_acks(value: &[u8]) -> Result<Vec<(EntryId, Sequence)>, Malformed> {
    let mut acks = Acks::decode(value)?;
    let mut all = Vec::new();
    while let Some(ack) = acks.next_ack()? {
        all.push(ack);
    }
    Ok(all)
}

/// The sequence of each slot. Servers acknowledge slot by slot; one that acknowledges by id in another order is
/// understood.
fn sequences(batch: &Batch, acks: &[(EntryId, Sequence)]) -> Result<Vec<Sequence>, String> {
    if batch.ids().eq(acks.iter().map(|(id, _)| *id)) {
        return Ok(acks.iter().map(|(_, sequence)| *sequence).collect());
    }
    let by_id: HashMap<EntryId, Sequence> = acks.iter().copied().collect();
    let missing = |id| {
        format!(
            "no acknowledgement of entry {id}, as for one that is too large and in quarantine \
             (`eventlog-server quarantine list`)"
        )
    };
    batch.ids().map(|id| by_id.get(&id).copied().ok_or_else(|| missing(id))).collect()
}

/// The entries in the values of a chunk, as far as they are complete.
fn read_entries(
    values: &[u8],
    body: &Bytes,
    joiner: &mut Joiner,
) -> Result<Vec<Entries>, RemoteError> {
    let mut values = ChangesValues::decode(values).map_err(wrong)?;
    let mut complete = Vec::new();
    while let Some(value) = values.next_value().map_err(wrong)? {
        let data = match value {
            ChangesValue::Single(data) => Some(body.slice_ref(data)),
            ChangesValue::Chunked(part) => {
                // This only names the set: it does not matter that a negative id looks large.
                let (set, data) = (part.id.cast_unsigned(), body.slice_ref(part.data));
                joiner.push(set, part.index, part.total, data).map_err(wrong)?
            }
        };
        if let Some(data) = data {
            complete.push(Entries::Rpc(ReceivedEntries::decode(data).map_err(wrong)?));
        }
    }
    Ok(complete)
}
