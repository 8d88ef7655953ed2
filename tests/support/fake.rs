//! A server that does what the test says, including what a real one would not.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use eventlog_server::model::{Entry, Limits, PublicKey, RemoteId, Sequence};
use eventlog_server::protocol::msgpack::{
    ErrorCode, Request, WriteRequest, decode_request, encode_ack, encode_changes_header,
    encode_error, encode_hello, encode_pong, encode_remote_entries,
};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async};

/// Longer than anything takes that is going to happen.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct FakeServer {
    listener: TcpListener,
    pub remote_id: RemoteId,
}

impl FakeServer {
    pub async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self { listener, remote_id: RemoteId::random() }
    }

    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }

    pub fn url(&self) -> String {
        format!("ws://{}/eventlog", self.addr())
    }

    /// The next connection, before anything is sent on it.
    pub async fn accept_silently(&self) -> FakeConnection {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
        let (tcp, _) = accepted.expect("a connection in time").expect("a connection");
        tcp.set_nodelay(true).expect("a socket");
        FakeConnection { stream: accept_async(tcp).await.expect("a websocket") }
    }

    /// The next connection, with its `Hello`.
    pub async fn accept(&self) -> FakeConnection {
        let mut connection = self.accept_silently().await;
        connection.hello(&self.remote_id).await;
        connection
    }
}

pub struct FakeConnection {
    pub stream: WebSocketStream<TcpStream>,
}

impl FakeConnection {
    pub async fn hello(&mut self, remote_id: &RemoteId) {
        self.send(|out| encode_hello(out, remote_id)).await;
    }

    pub async fn send(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        let mut bytes = BytesMut::new();
        encode(&mut bytes);
        self.stream.send(Message::Binary(bytes.freeze())).await.expect("sent");
    }

    pub async fn ack(&mut self, id: u64, sequences: &[u64]) {
        let sequences = sequences.iter().map(|n| sequence(*n));
        self.send(|out| encode_ack(out, id, sequences)).await;
    }

    pub async fn changes(&mut self, key: &PublicKey, entries: &[(u64, Entry)]) {
        let entries = entries.iter().map(|(n, entry)| (sequence(*n), entry.as_ref()));
        let encoded = encode_remote_entries(entries);
        let message = |out: &mut BytesMut| {
            encode_changes_header(out, key, encoded.len());
            out.extend_from_slice(encoded.bytes());
        };
        self.send(message).await;
    }

    pub async fn pong(&mut self, id: u64) {
        self.send(|out| encode_pong(out, id)).await;
    }

    pub async fn refuse_write(&mut self, write: &WriteRequest, code: ErrorCode, message: &str) {
        let (id, key) = (Some(write.id), Some(write.public_key.as_str()));
        self.send(|out| encode_error(out, "WriteEntries", id, key, code, message)).await;
    }

    /// The next frame, as it came.
    pub async fn next_frame(&mut self) -> Bytes {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.stream.next()).await;
            match next.expect("something in time").expect("an open connection").expect("a frame") {
                Message::Binary(bytes) => return bytes,
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("expected a request, got {other:?}"),
            }
        }
    }

    pub async fn next(&mut self) -> Request {
        let frame = self.next_frame().await;
        decode_request(&frame, &Limits::default()).expect("a request")
    }

    pub async fn next_write(&mut self) -> WriteRequest {
        match self.next().await {
            Request::Write(write) => write,
            other => panic!("expected a write, got {other:?}"),
        }
    }

    /// The start of the next subscription.
    pub async fn next_subscription(&mut self) -> u64 {
        match self.next().await {
            Request::RequestChanges { start, .. } => start.get(),
            other => panic!("expected a subscription, got {other:?}"),
        }
    }

    pub async fn next_ping(&mut self) -> u64 {
        match self.next().await {
            Request::Ping { id } => id,
            other => panic!("expected a ping, got {other:?}"),
        }
    }

    /// Waits until the client has hung up.
    pub async fn ended(mut self) {
        let hung_up = async {
            while let Some(Ok(message)) = self.stream.next().await {
                if matches!(message, Message::Close(_)) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, hung_up).await.expect("the client hangs up");
    }

    pub async fn close(mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        self.stream.send(Message::Close(Some(frame))).await.expect("sent");
    }
}

fn sequence(n: u64) -> Sequence {
    Sequence::new(n).expect("a sequence")
}
