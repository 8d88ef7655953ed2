//! What no stock client sends.

use eventlog_server::model::Limits;
use eventlog_server::protocol::rpc::{
    Call, Envelope, ErrorCode, Request, RequestId, encode_write_entries,
};

use crate::support::batch;
use crate::support::rpc::{DEFAULT, Heard, RpcSocket, framed_entry};
use crate::support::server::TestServer;
use crate::support::socket::Socket;

const TEAM: [(&str, &str); 1] = [("alice", "team")];

#[tokio::test]
async fn bytes_that_are_no_frame_or_no_envelope_end_the_connection() {
    let server = TestServer::with_keys(&TEAM).await;
    let cases: [(&[u8], u16); 5] = [
        (&[0], 1002),
        (&[0x80; 11], 1002),
        (&[1, 0x21], 1007),
        (b"\x0a\x21\xa7\x1f\xbf\x48\x86\x12\xff\x6a\x03", 1007),
        (&[0x81, 0x80, 0x80, 0x08], 1009),
    ];
    for (bytes, code) in cases {
        let mut client = RpcSocket::connect(&server.rpc_url()).await;
        client.send(bytes).await;
        assert_eq!(client.socket.close_code().await, Some(code), "{bytes:x?}");
    }
    let mut client = RpcSocket::connect(&server.rpc_url()).await;
    client.socket.send_text("hello").await;
    assert_eq!(client.socket.close_code().await, Some(1003));
    server.comes_to("eventlog_connections_broken_total", 6).await;
}

/// A request with this tag and payload.
fn request(tag: &str, payload: &[u8]) -> Vec<u8> {
    let hello = Call::Hello.encode(&RequestId::from_number(70));
    // The length takes one byte.
    match Envelope::decode(&hello[1..]) {
        Ok(Envelope::Request(hello)) => {
            Envelope::Request(Request { tag, payload, ..hello }).encode().to_vec()
        }
        other => panic!("not a request: {other:?}"),
    }
}

/// Such a request crashes, but nothing else does.
#[tokio::test]
async fn an_unknown_request_or_payload_ends_that_request_alone() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    for (tag, payload) in [
        ("EventLog.Compact", &b"\x01\x20"[..]),
        ("EventLog.Hello", b"\x02\x20\x00"),
        ("EventLog.Changes", b"\x01\x20"),
        ("EventLog.WriteChunked", b"\x01\x20"),
        ("EventLog.Authenticate", b""),
    ] {
        client.send(&request(tag, payload)).await;
        let next = client.next().await;
        assert!(matches!(next, Heard::Died(..)), "{tag}: {next:?}");
    }
    client.write("alice", &[framed_entry("E", "1", b"")]).await.expect("acked");
}

/// Names and tags are up to the client, and may be of any length. No answer is longer than what a client can read, or
/// costs the server more than the request did.
#[tokio::test]
async fn what_a_client_said_does_not_make_answers_long() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let long = "\u{1}".repeat(600_000);
    client.send(&request(&long, b"\x01\x20")).await;
    match client.next().await {
        Heard::Died(_, text) => assert!(text.len() < 1_000, "{} bytes", text.len()),
        other => panic!("{other:?}"),
    }
    let entries = batch(&[framed_entry("E", "1", b"")]);
    for (name, store, code) in
        [(&*long, DEFAULT, ErrorCode::Forbidden), ("alice", &*long, ErrorCode::NotFound)]
    {
        let data = encode_write_entries(name, store, &entries);
        let write = client.call(&Call::WriteSingle { data: &data }).await;
        let mut answers = vec![client.refused(&write).await];
        let feed = client.subscribe(name, store, 0).await;
        answers.push(client.refused(&feed).await);
        for refused in answers {
            assert_eq!(refused.code, code);
            assert!(refused.message.len() < 4_000, "{} bytes", refused.message.len());
            assert!(refused.public_key.is_none_or(|key| key == "alice"));
            assert!(refused.store_id.is_none_or(|store| store == DEFAULT));
        }
    }
}

/// Claimed lengths cost nothing before their bytes arrive.
#[tokio::test]
async fn a_frame_above_the_limit_for_messages_is_refused_at_its_length() {
    let limits = Limits { message_bytes_max: 1_000, ..Limits::default() };
    let server = TestServer::with_limits(limits, &TEAM).await;
    let mut client = RpcSocket::connect(&server.rpc_url()).await;
    client.send(&[0xe9, 0x07]).await;
    assert_eq!(client.socket.close_code().await, Some(1009));
}

#[tokio::test]
async fn a_foreign_origin_is_refused() {
    let server = TestServer::with_keys(&TEAM).await;
    let origin = [("Origin", "https://evil.example")];
    assert_eq!(Socket::refused_status(&server.rpc_url(), &origin).await, 403);
}
