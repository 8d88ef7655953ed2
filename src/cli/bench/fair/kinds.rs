//! What strangers send: clients that connect and never make a valid request.
//!
//! Leaves out: when they send it (`strangers`).

use std::time::Duration;

use bytes::BytesMut;
use clap::ValueEnum;
use eventlog_server::model::{PublicKey, RemoteId};
use eventlog_server::protocol::msgpack::encode_chunk;
use eventlog_server::protocol::rpc::{Call, Identity, RequestId};

/// A kind of strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli::bench) enum Kind {
    /// Nothing after they connected.
    Silent,
    /// Half a request line.
    HalfLine,
    /// A request with a header of 16 kB, and then a byte now and then.
    SlowHeaders,
    /// Nothing after a handshake of 15 kB.
    LongHandshake,
    /// A frame of 1 MB that does not end.
    Frame,
    /// Fragments of 65 kB that do not end.
    Fragments,
    /// A set of chunks of 16 MB that does not end.
    Chunks,
    /// An RPC frame of 15 MB that does not end.
    RpcFrame,
    /// Pings, 50 at a time.
    Pings,
    /// Empty fragments, 500 at a time.
    EmptyFragments,
    /// `Hello` of the RPC protocol, 50 at a time.
    Hello,
    /// Proofs of the RPC protocol that are wrong, 50 at a time.
    WrongProofs,
    /// Handshakes that are refused.
    Refused,
    /// A body that does not end.
    Body,
    /// Many requests at once, whose answers they do not read.
    Unread,
    /// A request of 30 kB, whose answer they read; and then nothing.
    LongRequest,
}

/// What a client of this kind sends.
pub(super) struct Script {
    /// Sent once.
    pub(super) first: Vec<u8>,
    /// Sent repeatedly from then on.
    pub(super) again: Vec<u8>,
    /// After this time each.
    pub(super) every: Duration,
    /// Whether it reads what it is answered.
    pub(super) reads: bool,
}

impl Kind {
    pub(super) fn script(self, every: Duration) -> Script {
        let (first, again) = match self {
            Self::Silent => (Vec::new(), Vec::new()),
            Self::HalfLine => (b"GET /event".to_vec(), Vec::new()),
            Self::SlowHeaders => {
                ([b"GET / HTTP/1.1\r\nx: ", &[b'x'; 16_000][..]].concat(), b"x".to_vec())
            }
            Self::LongHandshake => (upgrade("/eventlog", 15_000), Vec::new()),
            Self::Frame => {
                (after("/eventlog", &frame(0x82, &vec![1; 1_000_000])[..900_000]), Vec::new())
            }
            Self::Fragments => {
                (after("/eventlog", &frame(0x02, &vec![1; 65_000])), frame(0x00, &vec![1; 65_000]))
            }
            Self::Chunks => {
                (after("/eventlog", &(0..31).flat_map(part).collect::<Vec<_>>()), Vec::new())
            }
            Self::RpcFrame => {
                // In messages of 64 KiB.
                let begins = frame(0x82, &[0x80, 0x80, 0xc0, 0x07]);
                let goes_on = frame(0x82, &vec![1; 65_000]).repeat(200);
                (after("/rpc", &[begins, goes_on].concat()), Vec::new())
            }
            Self::Pings => (upgrade("/eventlog", 10), frame(0x89, &[1; 100]).repeat(50)),
            Self::EmptyFragments => {
                (after("/eventlog", &frame(0x02, b"")), frame(0x00, b"").repeat(500))
            }
            Self::Hello => (upgrade("/rpc", 10), call(&Call::Hello).repeat(50)),
            Self::WrongProofs => (upgrade("/rpc", 10), wrong_proof().repeat(50)),
            Self::Refused => (Vec::new(), b"GET /eventlog HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
            Self::Body => {
                let head = b"GET /healthz HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nfffff\r\n";
                (head.to_vec(), b"x".to_vec())
            }
            Self::LongRequest => {
                let head = b"GET /metrics HTTP/1.1\r\nhost: x\r\nx: ";
                ([&head[..], &b"x".repeat(30_000), b"\r\n\r\n"].concat(), Vec::new())
            }
            Self::Unread => (b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(800), Vec::new()),
        };
        Script { first, again, every, reads: self != Self::Unread }
    }
}

/// The request for a WebSocket, with a meaningless header of this many bytes.
fn upgrade(path: &str, besides: usize) -> Vec<u8> {
    let text = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nx-besides: {}\r\n\r\n",
        "x".repeat(besides)
    );
    text.into_bytes()
}

/// These bytes after the handshake at `path`.
fn after(path: &str, first: &[u8]) -> Vec<u8> {
    [&upgrade(path, 10), first].concat()
}

/// A masked frame. The mask is all zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

fn part(index: u64) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    encode_chunk(&mut bytes, 1, index, 32, &vec![1; 500_000]);
    frame(0x82, &bytes)
}

fn call(call: &Call<'_>) -> Vec<u8> {
    frame(0x82, &call.encode(&RequestId::from_number(1)))
}

/// A valid signature over a wrong challenge.
fn wrong_proof() -> Vec<u8> {
    let Ok(key) = PublicKey::new("bench-stranger") else { return Vec::new() };
    let identity = Identity::from_signing_key(key, &[7; 32]);
    let signature = identity.sign(RemoteId::random(), &[1; 32]);
    [call(&Call::Hello), call(&Call::Authenticate(identity.claim(&signature)))].concat()
}
