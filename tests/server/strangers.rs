//! What clients can do that have not said who they are, and clients that begin messages and do not finish them.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use eventlog_server::model::Limits;
use eventlog_server::model::limits::CHUNK_BYTES;
use eventlog_server::protocol::msgpack::{Response, encode_chunk, encode_write};
use eventlog_server::protocol::rpc::{Call, Part, RequestId, encode_write_entries};
use futures_util::SinkExt;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};

use super::embedding;
use crate::support::rpc::{DEFAULT, RpcSocket, acks, framed_entry};
use crate::support::server::{TestServer, in_memory};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key, store};

const MIB: usize = 1_024 * 1_024;

/// Space for few halves of messages: 1 MiB, and one connection more.
fn little_room() -> Limits {
    Limits {
        frame_bytes_max: 520_000,
        message_bytes_max: 700_000,
        chunk_set_bytes_max: 700_000,
        unfinished_bytes_total_max: 4 * MIB,
        ..Limits::default()
    }
}

/// The most that may be held then: what is open, one connection's maximum, and what two threads read at once.
const LITTLE_ROOM_BYTES: f64 = (MIB + 700_000 + 520_000 + 4 * MIB + 2 * 1_500_000) as f64;

/// A message that has only begun.
async fn begin(client: &mut Socket, bytes: usize) {
    let frame = Frame::message(vec![0; bytes], OpCode::Data(Data::Binary), false);
    // The server may not read all of it.
    let sent = client.stream.send(Message::Frame(frame));
    let _ = tokio::time::timeout(Duration::from_millis(200), sent).await;
}

/// Why the server closed the connection.
async fn closed(client: &mut Socket) -> (u16, String) {
    loop {
        match client.next_message().await {
            Some(Message::Close(Some(CloseFrame { code, reason }))) => {
                return (code.into(), reason.to_string());
            }
            Some(Message::Close(None)) | None => panic!("closed without a reason"),
            Some(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_of_messages_are_bounded_and_others_are_served() {
    let server = TestServer::with_limits(little_room(), &[("alice", "team")]).await;
    let mut strangers = Vec::new();
    for _ in 0..30 {
        let mut stranger = Socket::connect(&server.url()).await;
        begin(&mut stranger, 500_000).await;
        strangers.push(stranger);
        let held = server.metric("eventlog_unfinished_bytes").await;
        assert!(held <= LITTLE_ROOM_BYTES, "{held}");
    }
    assert!(server.metric("eventlog_unfinished_waiting").await >= 10.0);
    let mut healthy = Socket::connect(&server.url()).await;
    healthy.subscribe(&key("alice"), 0).await;
    for id in 1..=20 {
        healthy.write(&key("alice"), id, &batch(&[entry("E", "", &[1; 1_000])])).await;
        assert_eq!(healthy.next_ack().await, (id, vec![id]));
    }
    drop(strangers);
    server.comes_to("eventlog_unfinished_bytes", 0).await;
}

/// Each of them fits alone, all of them do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_first_writes_of_many_come_one_after_the_other_and_all_get_through() {
    let server = TestServer::with_limits(little_room(), &[("alice", "team")]).await;
    let large = batch(&[entry("E", "", &vec![1; 650_000])]);
    let writes = (0..24).map(|id| {
        let (url, large) = (server.url(), &large);
        async move {
            let mut client = Socket::connect(&url).await;
            client.write_in_chunks(&key("alice"), id, large).await;
            assert_eq!(client.next_ack().await.0, id);
        }
    });
    join_all(writes).await;
    server.comes_to("eventlog_unfinished_bytes", 0).await;
    assert!(server.metric("eventlog_connections_slow_total").await < 1.0);
}

#[tokio::test]
async fn a_lone_first_write_may_be_as_large_as_any() {
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    let mut client = Socket::connect(&server.url()).await;
    let most = Limits::default().message_bytes_max - 1_000;
    client.write_in_chunks(&key("alice"), 1, &batch(&[entry("E", "", &vec![1; most])])).await;
    assert_eq!(client.next_ack().await, (1, vec![1]));
}

/// At `/rpc`, where a server has no disk space for sets, a set may be twice as large: as much as unfinished sets may
/// have together.
async fn write_32_megabytes(client: &mut RpcSocket, first: u64) {
    let entries: Vec<_> =
        (0..32).map(|n| framed_entry("E", &n.to_string(), &vec![1; MIB - 1_000])).collect();
    let data = encode_write_entries("alice", DEFAULT, &batch(&entries));
    let (limit, total) = (Limits::default().chunk_set_bytes_max, data.len().div_ceil(CHUNK_BYTES));
    assert!(data.len() <= limit && data.len() > limit - 64 * 1_024, "{} bytes", data.len());
    let mut last = None;
    for (index, data) in data.chunks(CHUNK_BYTES).enumerate() {
        if let Some(part) = last.take() {
            assert_eq!(client.acked(&part).await, Ok(vec![]));
        }
        let part = Part { id: 0, index: index as u64, total: total as u64, data };
        last = Some(client.call(&Call::WriteChunked(part)).await);
    }
    let acked = client.acked(&last.expect("a part")).await;
    assert_eq!(acked, Ok(acks(&entries, &(first..first + 32).collect::<Vec<_>>())));
}

#[tokio::test]
async fn a_lone_first_set_of_32_megabytes_gets_through() {
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    write_32_megabytes(&mut client, 1).await;
}

/// A client that made one valid request goes before strangers, whatever these hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_of_32_megabytes_gets_through_beside_what_strangers_hold() {
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    let mut strangers = Vec::new();
    for _ in 0..30 {
        let mut stranger = Socket::connect(&server.url()).await;
        begin(&mut stranger, 900_000).await;
        strangers.push(stranger);
    }
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let one = [framed_entry("E", "", b"")];
    assert_eq!(client.write("alice", &one).await, Ok(acks(&one, &[1])));
    write_32_megabytes(&mut client, 2).await;
    drop(strangers);
}

#[tokio::test]
async fn a_message_that_does_not_go_on_ends_its_connection_and_a_silent_one_stays() {
    let unfinished_grace = Duration::from_millis(200);
    let limits = Limits { unfinished_grace, ..Limits::default() };
    let server = TestServer::with_limits(limits, &[("alice", "team")]).await;
    let mut silent = Socket::connect(&server.url()).await;
    let mut known = Socket::connect(&server.url()).await;
    known.subscribe(&key("alice"), 0).await;
    known.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(known.next_ack().await, (1, vec![1]));
    let mut stranger = Socket::connect(&server.url()).await;
    let mut in_chunks = Socket::connect(&server.url()).await;
    let mut chunk = BytesMut::new();
    encode_chunk(&mut chunk, 1, 0, 2, &[1; 100]);
    in_chunks.send(chunk).await;
    begin(&mut known, 100).await;
    begin(&mut stranger, 100).await;
    for mut client in [known, stranger, in_chunks] {
        let (code, reason) = closed(&mut client).await;
        assert_eq!((code, &reason[..5]), (1008, "slow:"));
    }
    server.comes_to("eventlog_connections_slow_total", 3).await;
    silent.nothing_comes().await;
}

#[tokio::test]
async fn what_leads_to_nothing_may_be_sent_now_and_then_but_not_without_end() {
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    let mut known = Socket::connect(&server.url()).await;
    known.subscribe(&key("alice"), 0).await;
    let url = server.url();
    let stranger = || Socket::connect(&url);
    let floods = [
        (known, Message::Ping(Bytes::from_static(b"?"))),
        (stranger().await, Message::Pong(Bytes::new())),
        (Socket::connect_only(&server.rpc_url()).await, Message::Binary(Bytes::new())),
        (
            stranger().await,
            Message::Frame(Frame::message(vec![], OpCode::Data(Data::Binary), false)),
        ),
        (stranger().await, Message::Binary(refused_write())),
    ];
    for (mut client, message) in floods {
        let mut next = message.clone();
        for _ in 0..1_000 {
            client.stream.feed(next.clone()).await.expect("sent");
            if let Message::Frame(_) = next {
                next = Message::Frame(Frame::message(vec![], OpCode::Data(Data::Continue), false));
            }
        }
        client.stream.flush().await.expect("sent");
        for _ in 0..2_000 {
            // The server may have closed the connection.
            if client.stream.feed(next.clone()).await.is_err() {
                break;
            }
        }
        let _ = client.stream.flush().await;
        let (code, reason) = closed(&mut client).await;
        assert_eq!((code, &reason[..6]), (1008, "flood:"), "{message}");
    }
    server.comes_to("eventlog_connections_flooding_total", 5).await;
    // An accepted client may send as many requests as it likes.
    let mut client = Socket::connect(&server.url()).await;
    client.write(&key("alice"), 0, &batch(&[entry("E", "", b"")])).await;
    for id in 1..3_000 {
        client.ping(id).await;
    }
    while !matches!(client.next().await, Response::Pong { id: 2_999 }) {}
}

/// A write with an unassigned key.
fn refused_write() -> Bytes {
    let mut bytes = BytesMut::new();
    let one = batch(&[entry("E", "", b"")]);
    encode_write(&mut bytes, &key("mallory"), 1, &one);
    bytes.freeze()
}

/// A message full of calls gets an answer for each: they are not all produced at once, and end as a flood.
#[tokio::test]
async fn one_message_of_very_many_calls_is_a_flood() {
    let server = TestServer::with_keys(&[]).await;
    let mut client = RpcSocket::connect(&server.rpc_url()).await;
    let hello = Call::Hello.encode(&RequestId::from_number(1));
    client.socket.send_too_much(&hello.repeat(900_000 / hello.len())).await;
    assert_eq!(closed(&mut client.socket).await.0, 1008);
}

/// Of those from 127.0.0.1: the oldest one goes, but not one that has just come or was accepted.
async fn assert_strangers_make_room(url: &str) {
    let mut known = Socket::connect(url).await;
    known.subscribe(&key("alice"), 0).await;
    let mut first = Socket::connect(url).await;
    known.nothing_comes().await;
    let mut others = Vec::new();
    // They trickle: each has sent only the beginning of a frame.
    for _ in 1..20 {
        let mut other = Socket::connect(url).await;
        begin(&mut other, 10).await;
        others.push(other);
    }
    assert!(Socket::try_connect(url).await.is_none(), "all of them have just come");
    tokio::time::sleep(Duration::from_millis(5_100)).await;
    let mut healthy = Socket::connect(url).await;
    healthy.write(&key("alice"), 7, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(healthy.next_ack().await.0, 7);
    assert_eq!(known.next_entries(1).await.len(), 1);
    let (code, reason) = closed(&mut first).await;
    assert_eq!((code, &reason[..10]), (1013, "strangers:"));
}

fn few_strangers() -> Limits {
    Limits { strangers_max: 20, ..Limits::default() }
}

#[tokio::test]
async fn who_comes_gets_in_while_as_many_strangers_are_held_as_may_be() {
    let server = TestServer::with_limits(few_strangers(), &[("alice", "team")]).await;
    Box::pin(assert_strangers_make_room(&server.url())).await;
    assert!(server.metric("eventlog_strangers_refused_total").await >= 1.0);
    assert!(server.metric("eventlog_strangers_pushed_out_total").await >= 1.0);
}

#[tokio::test]
async fn who_comes_to_an_application_gets_in_as_well() {
    let server = in_memory().limits(few_strangers()).start().expect("it starts");
    server.assign(key("alice"), store("team")).await.expect("assigned");
    let mounted = server.clone();
    let addr = embedding::serve(move |config| mounted.configure(config)).await;
    Box::pin(assert_strangers_make_room(&format!("ws://{addr}/eventlog"))).await;
}

/// What the server answers to these bytes, until it ends the connection.
async fn answer(server: &TestServer, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(server.addr).await.expect("a connection");
    for piece in pieces {
        stream.write_all(piece).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // The server may not have read all of it, which resets the connection.
    let _ = tokio::time::timeout(Duration::from_secs(20), read).await.expect("it ends");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_request_that_does_not_arrive_ends_its_connection() {
    let handshake_timeout = Duration::from_millis(300);
    let limits = Limits { handshake_timeout, ..Limits::default() };
    let server = TestServer::with_limits(limits, &[]).await;
    let whole = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    assert!(answer(&server, &[b"GET /eve"]).await.starts_with("HTTP/1.1 408"));
    assert!(
        answer(&server, &[b"GET / HTTP/1.1\r\n", b"a: b\r\n"]).await.starts_with("HTTP/1.1 408")
    );
    // The next one on the same connection, too.
    let second = answer(&server, &[whole, b"GET / HTTP/1.1\r\n"]).await;
    assert!(second.starts_with("HTTP/1.1 200") && second.matches("HTTP/1.1").count() == 1);
    let long = [&b"GET / HTTP/1.1\r\na: "[..], &[b'x'; 4_000].repeat(10)].concat();
    assert!(answer(&server, &[&long]).await.starts_with("HTTP/1.1 431"));
    // In pieces it works like a whole, and what is not HTTP is told so at once.
    assert!(answer(&server, &[]).await.starts_with("HTTP/1.1 408"));
    assert!(answer(&server, &[&whole[..20], &whole[20..]]).await.starts_with("HTTP/1.1 200"));
    assert!(answer(&server, &[b"\x16\x03\x01 no HTTP\r\n\r\n"]).await.starts_with("HTTP/1.1 400"));
}
