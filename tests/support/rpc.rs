//! The same for the RPC protocol: a socket that proves what it is told to, and shows what arrives.

use bytes::Bytes;
use eventlog_server::model::limits::CHUNK_BYTES;
use eventlog_server::model::{Batch, Entry, EntryId, RemoteId, Sequence};
use eventlog_server::protocol::rpc::{
    Acks, Call, Changes, ChangesValue, ChangesValues, Envelope, ErrorCode, Exit, FrameReader,
    HelloResponse, Identity, Part, Reason, RemoteEntries, RequestId, encode_write_entries,
};
use tokio_tungstenite::tungstenite::Message;

use super::socket::Socket;
use super::{entry, key};

/// No stock client reads a longer frame.
const FRAME_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Well within the limit for WebSocket frames.
const PIECE_BYTES: usize = 900_000;

/// The client's own name for the one store that it has.
pub const DEFAULT: &str = "default";

pub struct RpcSocket {
    pub socket: Socket,
    frames: FrameReader,
    received: Bytes,
    requests: u64,
    /// The parts of feeds' arrays that have arrived, for all feeds.
    parts: Vec<u8>,
}

/// A frame from the server.
#[derive(Debug)]
pub enum Heard {
    Pong,
    /// The request ended well, with this value.
    Success(RequestId, Vec<u8>),
    Refused(RequestId, Refused),
    /// The request crashed: what stops a stock client.
    Died(RequestId, String),
    /// Entries of a subscription; none if they were only a part of a larger array.
    Changes(RequestId, Vec<(u64, Entry)>),
}

/// A typed failure, as received.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    pub request_tag: String,
    pub public_key: Option<String>,
    pub store_id: Option<String>,
    pub code: ErrorCode,
    pub message: String,
}

/// Acknowledgements: of which entry, at which sequence.
pub type Acked = Vec<(EntryId, u64)>;

/// The identity of this name, with a signing key of its own.
pub fn identity(name: &str) -> Identity {
    identity_with(name, 1)
}

/// The same name, with a different signing key for each number.
pub fn identity_with(name: &str, number: u8) -> Identity {
    let mut secret = [number; 32];
    secret.iter_mut().zip(name.bytes()).for_each(|(secret, byte)| *secret ^= byte);
    Identity::from_root_secret(key(name), &secret)
}

/// A fresh entry whose payload is one frame with these bytes.
pub fn framed_entry(event: &str, primary_key: &str, bytes: &[u8]) -> Entry {
    let mut frame = Vec::new();
    let mut length = bytes.len() + 1;
    while length >= 0x80 {
        frame.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    frame.extend([length as u8, 0x20]);
    frame.extend_from_slice(bytes);
    entry(event, primary_key, &frame)
}

/// The acknowledgements of a write of these entries.
pub fn acks(entries: &[Entry], sequences: &[u64]) -> Acked {
    assert_eq!(entries.len(), sequences.len());
    entries.iter().map(|entry| entry.id).zip(sequences.iter().copied()).collect()
}

impl RpcSocket {
    pub async fn connect(url: &str) -> Self {
        Self::connect_with(url, &[]).await
    }

    pub async fn connect_with(url: &str, headers: &[(&str, &str)]) -> Self {
        Self::of(Socket::connect_with(url, headers).await)
    }

    pub fn of(socket: Socket) -> Self {
        let frames = FrameReader::new(FRAME_BYTES_MAX);
        Self { socket, frames, received: Bytes::new(), requests: 0, parts: Vec::new() }
    }

    /// A connection that may act for these.
    pub async fn authenticated(url: &str, names: &[&str]) -> Self {
        let mut socket = Self::connect(url).await;
        for name in names {
            socket.authenticate(&identity(name)).await.expect("authenticated");
        }
        socket
    }

    /// Sends bytes of the stream, in messages that are within the limit for frames.
    pub async fn send(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while rest.len() > PIECE_BYTES {
            let (piece, after) = rest.split_at(PIECE_BYTES);
            self.socket.send_bytes(piece).await;
            rest = after;
        }
        self.socket.send_bytes(rest).await;
    }

    /// Sends a request, with the next number as its id.
    pub async fn call(&mut self, call: &Call<'_>) -> RequestId {
        let id = RequestId::from_number(self.requests);
        self.requests += 1;
        self.send(&call.encode(&id)).await;
        id
    }

    /// The next frame.
    pub async fn next(&mut self) -> Heard {
        loop {
            let body = self.frames.next_body(&mut self.received).expect("a frame it may read");
            if let Some(body) = body {
                return self.heard(&body);
            }
            match self.socket.next_message().await.expect("an open connection") {
                Message::Binary(bytes) => self.received = bytes,
                // The server asks a silent connection whether it is there; the library answers by itself.
                Message::Ping(_) => {}
                other => panic!("expected a message, got {other:?}"),
            }
        }
    }

    fn heard(&mut self, body: &[u8]) -> Heard {
        match Envelope::decode(body).expect("an envelope") {
            Envelope::Pong => Heard::Pong,
            Envelope::Exit { id, exit } => {
                let id = RequestId::from_ref(id);
                match Exit::decode(exit).expect("an exit") {
                    Exit::Success(value) => Heard::Success(id, value.to_vec()),
                    Exit::Failure(cause) => match cause.reasons().next().expect("a reason") {
                        Reason::Fail(error) => Heard::Refused(
                            id,
                            Refused {
                                request_tag: error.request_tag.to_owned(),
                                public_key: error.public_key.map(ToOwned::to_owned),
                                store_id: error.store_id.map(ToOwned::to_owned),
                                code: error.code,
                                message: error.message.to_owned(),
                            },
                        ),
                        Reason::Die(text) => Heard::Died(id, text.to_owned()),
                        Reason::Interrupt(_) => panic!("an interrupt"),
                    },
                }
            }
            Envelope::Chunk { id, values } => {
                let id = RequestId::from_ref(id);
                Heard::Changes(id, self.entries(values))
            }
            other => panic!("no server sends this: {other:?}"),
        }
    }

    fn entries(&mut self, values: &[u8]) -> Vec<(u64, Entry)> {
        let mut values = ChangesValues::decode(values).expect("values");
        let mut found = Vec::new();
        while let Some(value) = values.next_value().expect("a value") {
            match value {
                ChangesValue::Single(data) => found.extend(decoded(data)),
                ChangesValue::Chunked(part) => {
                    assert!(part.data.len() <= CHUNK_BYTES);
                    self.parts.extend_from_slice(part.data);
                    if part.index + 1 == part.total {
                        found.extend(decoded(&std::mem::take(&mut self.parts)));
                    }
                }
            }
        }
        found
    }

    /// What ends this request.
    pub async fn exit(&mut self, request: &RequestId) -> Result<Vec<u8>, Refused> {
        match self.next().await {
            Heard::Success(id, value) if id == *request => Ok(value),
            Heard::Refused(id, refused) if id == *request => Err(refused),
            other => panic!("expected the end of {request:?}, got {other:?}"),
        }
    }

    pub async fn refused(&mut self, request: &RequestId) -> Refused {
        self.exit(request).await.expect_err("a refusal")
    }

    pub async fn acked(&mut self, request: &RequestId) -> Result<Acked, Refused> {
        let value = self.exit(request).await?;
        let mut acks = Acks::decode(&value).expect("acknowledgements");
        let mut found = Vec::new();
        while let Some((entry, sequence)) = acks.next_ack().expect("an acknowledgement") {
            found.push((entry, sequence.get()));
        }
        Ok(found)
    }

    pub async fn hello(&mut self) -> (RemoteId, [u8; 32]) {
        let id = self.call(&Call::Hello).await;
        let value = self.exit(&id).await.expect("a hello");
        let hello = HelloResponse::decode(&value).expect("a hello");
        assert_eq!(hello.first_sequence, Sequence::FIRST);
        (hello.remote_id, hello.challenge.try_into().expect("32 bytes"))
    }

    /// Says hello and proves to be this identity.
    pub async fn authenticate(&mut self, identity: &Identity) -> Result<(), Refused> {
        let (remote_id, challenge) = self.hello().await;
        self.answer(identity, &identity.sign(remote_id, &challenge)).await
    }

    /// Sends this signature as the proof.
    pub async fn answer(&mut self, identity: &Identity, signed: &[u8; 64]) -> Result<(), Refused> {
        let id = self.call(&Call::Authenticate(identity.claim(signed))).await;
        self.exit(&id).await.map(|value| assert!(value.is_empty()))
    }

    /// Sends a write in one piece, without waiting for the answer.
    pub async fn send_write(&mut self, name: &str, store: &str, batch: &Batch) -> RequestId {
        let data = encode_write_entries(name, store, batch);
        self.call(&Call::WriteSingle { data: &data }).await
    }

    pub async fn write(&mut self, name: &str, entries: &[Entry]) -> Result<Acked, Refused> {
        let id = self.send_write(name, DEFAULT, &super::batch(entries)).await;
        self.acked(&id).await
    }

    /// Sends part `index` of a write that is cut into `total` parts.
    pub async fn send_part(
        &mut self,
        set: i64,
        (index, total): (u64, u64),
        data: &[u8],
    ) -> RequestId {
        let size = data.len().div_ceil(total as usize);
        let start = index as usize * size;
        let data = &data[start..data.len().min(start + size)];
        self.call(&Call::WriteChunked(Part { id: set, index, total, data })).await
    }

    pub async fn subscribe(&mut self, name: &str, store: &str, start: u64) -> RequestId {
        let start_sequence = Sequence::new(start).expect("a sequence");
        let changes = Changes { public_key: name, store_id: store, start_sequence };
        self.call(&Call::Changes(changes)).await
    }

    pub async fn ack(&mut self, feed: &RequestId) {
        self.send(&Envelope::Ack(feed.as_ref()).encode()).await;
    }

    pub async fn interrupt(&mut self, request: &RequestId) {
        self.send(&Envelope::Interrupt(request.as_ref()).encode()).await;
    }

    /// The entries of the next message of this subscription, which is not acknowledged.
    pub async fn next_changes(&mut self, feed: &RequestId) -> Vec<(u64, Entry)> {
        match self.next().await {
            Heard::Changes(id, entries) if id == *feed => entries,
            other => panic!("expected changes, got {other:?}"),
        }
    }

    /// Entries until `count` have arrived, with each message acknowledged as a stock client does it.
    pub async fn next_entries(&mut self, feed: &RequestId, count: usize) -> Vec<(u64, Entry)> {
        let mut entries = Vec::new();
        while entries.len() < count {
            entries.extend(self.next_changes(feed).await);
            self.ack(feed).await;
        }
        assert_eq!(entries.len(), count, "not more than expected");
        entries
    }

    pub async fn ping(&mut self) {
        self.send(&Envelope::Ping.encode()).await;
    }

    /// Nothing is in flight: the answer to a ping comes first.
    pub async fn nothing_comes(&mut self) {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        self.ping().await;
        let next = self.next().await;
        assert!(matches!(next, Heard::Pong), "expected nothing, got {next:?}");
    }
}

fn decoded(data: &[u8]) -> Vec<(u64, Entry)> {
    let mut entries = RemoteEntries::decode(data).expect("entries");
    let mut found = Vec::new();
    while let Some((sequence, entry)) = entries.next_entry().expect("an entry") {
        found.push((sequence.get(), entry.to_entry()));
    }
    found
}
