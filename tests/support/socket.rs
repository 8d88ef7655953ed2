//! A client that is only a socket: it sends what it is told and shows what arrives.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use eventlog_server::model::{Batch, Entry, Limits, PublicKey, Sequence};
use eventlog_server::protocol::chunk::{ChunkJoiner, split};
use eventlog_server::protocol::msgpack::ErrorCode;
use eventlog_server::protocol::msgpack::{
    Response, decode_response, encode_chunk, encode_ping, encode_request_changes,
    encode_stop_changes, encode_write,
};
use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async, connect_async,
    connect_async_tls_with_config,
};

/// Longer than anything takes that is going to happen.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Socket {
    pub stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// A refusal, as received.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub request_tag: String,
    pub id: Option<u64>,
    pub public_key: Option<String>,
    pub code: ErrorCode,
    pub message: String,
}

impl Socket {
    /// Connects and takes the `Hello`.
    pub async fn connect(url: &str) -> Self {
        let mut socket = Self::connect_only(url).await;
        assert!(matches!(socket.next().await, Response::Hello { .. }));
        socket
    }

    pub async fn connect_only(url: &str) -> Self {
        Self::connect_with(url, &[]).await
    }

    pub async fn connect_with(url: &str, headers: &[(&str, &str)]) -> Self {
        let (stream, _) = connect_async(upgrade(url, headers)).await.expect("a connection");
        Self { stream }
    }

    /// This end of the connection.
    pub fn local_addr(&self) -> SocketAddr {
        let MaybeTlsStream::Plain(stream) = self.stream.get_ref() else { panic!("no TLS here") };
        stream.local_addr().expect("it is connected")
    }

    pub async fn try_connect(url: &str) -> Option<Self> {
        let (stream, _) = connect_async(url).await.ok()?;
        Some(Self { stream })
    }

    /// From this address of the local machine, as if the client were elsewhere.
    pub async fn try_connect_from(from: Ipv4Addr, url: &str) -> Option<Self> {
        let request = upgrade(url, &[]);
        let to: SocketAddr = request.uri().authority()?.as_str().parse().ok()?;
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind((from, 0).into()).ok()?;
        let stream = MaybeTlsStream::Plain(socket.connect(to).await.ok()?);
        let (stream, _) = client_async(request, stream).await.ok()?;
        Some(Self { stream })
    }

    pub async fn try_connect_tls(url: &str, config: &Arc<ClientConfig>) -> Option<Self> {
        let connector = Some(Connector::Rustls(Arc::clone(config)));
        let connected = connect_async_tls_with_config(url, None, false, connector).await;
        connected.ok().map(|(stream, _)| Self { stream })
    }

    pub async fn try_connect_with(url: &str, headers: &[(&str, &str)]) -> Option<Self> {
        let (stream, _) = connect_async(upgrade(url, headers)).await.ok()?;
        Some(Self { stream })
    }

    /// The HTTP status that the handshake is refused with.
    pub async fn refused_status(url: &str, headers: &[(&str, &str)]) -> u16 {
        Self::refused(url, headers).await.0
    }

    /// The HTTP status that the handshake is refused with, and the message.
    pub async fn refused(url: &str, headers: &[(&str, &str)]) -> (u16, String) {
        match connect_async(upgrade(url, headers)).await {
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                (response.status().as_u16(), String::from_utf8_lossy(body).into_owned())
            }
            Err(error) => panic!("expected a refusal, got {error}"),
            Ok(_) => panic!("expected a refusal"),
        }
    }

    pub async fn send(&mut self, bytes: BytesMut) {
        self.stream.send(Message::Binary(bytes.freeze())).await.expect("sent");
    }

    /// The server may close the connection before it has read all of it.
    pub async fn send_too_much(&mut self, bytes: &[u8]) {
        drop(self.stream.send(Message::Binary(Bytes::copy_from_slice(bytes))).await);
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.send(Message::Binary(Bytes::copy_from_slice(bytes))).await.expect("sent");
    }

    pub async fn write(&mut self, key: &PublicKey, id: u64, batch: &Batch) {
        let mut bytes = BytesMut::new();
        encode_write(&mut bytes, key, id, batch);
        self.send(bytes).await;
    }

    pub async fn subscribe(&mut self, key: &PublicKey, start: u64) {
        let mut bytes = BytesMut::new();
        let start = Sequence::new(start).expect("a sequence");
        encode_request_changes(&mut bytes, key, start);
        self.send(bytes).await;
    }

    /// As clients do with a message above 512,000 bytes.
    pub async fn write_in_chunks(&mut self, key: &PublicKey, id: u64, batch: &Batch) {
        let mut bytes = BytesMut::new();
        encode_write(&mut bytes, key, id, batch);
        let parts = split(bytes.len());
        let total = parts.len() as u64;
        for (index, range) in parts.enumerate() {
            let mut chunk = BytesMut::new();
            encode_chunk(&mut chunk, 1, index as u64, total, &bytes[range]);
            self.send(chunk).await;
        }
    }

    pub async fn stop(&mut self, key: &PublicKey) {
        let mut bytes = BytesMut::new();
        encode_stop_changes(&mut bytes, key);
        self.send(bytes).await;
    }

    pub async fn ping(&mut self, id: u64) {
        let mut bytes = BytesMut::new();
        encode_ping(&mut bytes, id);
        self.send(bytes).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.expect("sent");
    }

    /// Nothing is in flight: the answer to a ping comes first.
    pub async fn nothing_comes(&mut self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.ping(987).await;
        let next = self.next().await;
        assert!(matches!(next, Response::Pong { id: 987 }), "expected nothing, got {next:?}");
    }

    /// Entries until `count` have come, whether their messages are chunked or not.
    pub async fn next_joined_entries(&mut self, count: usize) -> Vec<(u64, Entry)> {
        let mut entries = Vec::new();
        // What a write said fits in a message; `Changes` add more, and may not fit.
        let message_bytes_max = 17 * 1_024 * 1_024;
        let limits = Limits { message_bytes_max, ..Limits::default() };
        let mut joiner = ChunkJoiner::new(&limits);
        while entries.len() < count {
            let view = match self.next().await {
                Response::Changes(view) => view,
                Response::Chunk { id, index, total, data } => {
                    let joined = joiner.push(id, index, total, data).expect("a chunk");
                    let Some(joined) = joined else { continue };
                    match decode_response(&joined).expect("a response") {
                        Response::Changes(view) => view,
                        other => panic!("expected changes, got {other:?}"),
                    }
                }
                other => panic!("expected changes, got {other:?}"),
            };
            entries.extend(view.iter().map(|(s, entry)| (s.get(), entry.to_entry())));
        }
        entries
    }

    /// The next WebSocket message of any kind.
    pub async fn next_message(&mut self) -> Option<Message> {
        let next = tokio::time::timeout(PATIENCE, self.stream.next()).await;
        next.expect("something comes in time")?.ok()
    }

    /// The next message of the protocol.
    pub async fn next(&mut self) -> Response {
        // Pings come for as long as the connection is open.
        let deadline = tokio::time::Instant::now() + 3 * PATIENCE;
        loop {
            assert!(tokio::time::Instant::now() < deadline, "nothing but pings comes");
            match self.next_message().await.expect("an open connection") {
                Message::Binary(bytes) => return decode_response(&bytes).expect("a response"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("expected a message, got {other:?}"),
            }
        }
    }

    pub async fn next_ack(&mut self) -> (u64, Vec<u64>) {
        match self.next().await {
            Response::Ack { id, sequences } => (id, sequences.iter().map(|s| s.get()).collect()),
            other => panic!("expected an ack, got {other:?}"),
        }
    }

    /// The answer to a write.
    pub async fn next_answer(&mut self) -> Result<(u64, Vec<u64>), Refusal> {
        match self.next().await {
            Response::Ack { id, sequences } => {
                Ok((id, sequences.iter().map(|s| s.get()).collect()))
            }
            Response::Error { request_tag, id, public_key, code, message } => {
                Err(Refusal { request_tag, id, public_key, code, message })
            }
            other => panic!("expected an answer, got {other:?}"),
        }
    }

    pub async fn next_changes(&mut self) -> Vec<(u64, Entry)> {
        match self.next().await {
            Response::Changes(view) => {
                view.iter().map(|(sequence, entry)| (sequence.get(), entry.to_entry())).collect()
            }
            other => panic!("expected changes, got {other:?}"),
        }
    }

    /// Changes until `count` entries have arrived.
    pub async fn next_entries(&mut self, count: usize) -> Vec<(u64, Entry)> {
        let mut entries = Vec::new();
        while entries.len() < count {
            entries.extend(self.next_changes().await);
        }
        assert_eq!(entries.len(), count, "not more than expected");
        entries
    }

    pub async fn next_refusal(&mut self) -> Refusal {
        match self.next().await {
            Response::Error { request_tag, id, public_key, code, message } => {
                Refusal { request_tag, id, public_key, code, message }
            }
            other => panic!("expected an error, got {other:?}"),
        }
    }

    /// The code that the connection is closed with; earlier messages are skipped.
    pub async fn close_code(&mut self) -> Option<u16> {
        loop {
            match self.next_message().await {
                Some(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Some(_) => {}
                None => return None,
            }
        }
    }
}

fn upgrade(url: &str, headers: &[(&str, &str)]) -> Request {
    let mut request = url.into_client_request().expect("a URL");
    for (name, value) in headers {
        let name: tokio_tungstenite::tungstenite::http::HeaderName = name.parse().expect("a name");
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    request
}
