//! What clients can make the server hold.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use eventlog_server::model::Limits;
use eventlog_server::protocol::msgpack::{ErrorCode, encode_write};
use eventlog_server::server::Server;

use super::embedding;
use crate::support::server::{TestServer, comes_to, in_memory};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key, store};

#[tokio::test]
async fn connections_above_the_limit_are_refused_and_places_are_given_back() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let server = TestServer::with_limits(limits, &[]).await;
    let client = Socket::connect(&server.url()).await;
    assert_eq!(Socket::refused_status(&server.url(), &[]).await, 503);
    drop(client);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while Socket::try_connect(&server.url()).await.is_none() {
        assert!(tokio::time::Instant::now() < deadline, "the place was not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn subscriptions_above_the_limit_are_refused() {
    let limits = Limits { subscriptions_max: 1, ..Limits::default() };
    let server = TestServer::with_limits(limits, &[("alice", "team"), ("bob", "team")]).await;
    let mut client = Socket::connect(&server.url()).await;
    client.subscribe(&key("alice"), 0).await;
    client.subscribe(&key("bob"), 0).await;
    let refusal = client.next_refusal().await;
    assert_eq!(
        (refusal.code, refusal.public_key.as_deref()),
        (ErrorCode::InvalidRequest, Some("bob"))
    );
    client.subscribe(&key("alice"), 0).await;
    client.write(&key("bob"), 1, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(client.next_entries(1).await.len(), 1, "replacing one is not one more");
}

/// Half of a surrogate pair, which JavaScript's encoder writes as it is.
#[tokio::test]
async fn text_that_is_not_utf8_refuses_its_write_names_the_entry_and_leaves_the_connection() {
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    let mut client = Socket::connect(&server.url()).await;
    let entries = batch(&[entry("good", "", b""), entry("half", "", b"")]);
    let mut message = BytesMut::new();
    encode_write(&mut message, &key("alice"), 7, &entries);
    let at = message.windows(4).position(|text| text == b"half").expect("the event");
    message[at..at + 4].copy_from_slice(b"a\xed\xa0\x80");
    client.send(message).await;
    let refusal = client.next_refusal().await;
    assert_eq!((refusal.code, refusal.id), (ErrorCode::InvalidRequest, Some(7)));
    assert_eq!(refusal.message, "entry 1: the event is not UTF-8");
    client.write(&key("alice"), 8, &entries).await;
    assert_eq!(client.next_ack().await, (8, vec![1, 2]));
}

/// More writes in flight than a connection may have: reading pauses, and everything is answered anyway.
#[tokio::test]
async fn writes_above_the_limit_in_flight_wait_their_turn() {
    let limits = Limits { writes_in_flight_max: 2, ..Limits::default() };
    let server = TestServer::with_limits(limits, &[("alice", "team")]).await;
    let mut client = Socket::connect(&server.url()).await;
    for id in 0..100 {
        client.write(&key("alice"), id, &batch(&[entry("E", "", b"")])).await;
    }
    for id in 0..100 {
        assert_eq!(client.next_ack().await, (id, vec![id + 1]));
    }
}

/// A client that stops reading is severed; others are served all the time, and its place is freed.
async fn assert_a_stalled_client_is_severed(server: &Server, addr: SocketAddr) {
    let url = format!("ws://{addr}/eventlog");
    let mut stalled = Socket::connect(&url).await;
    stalled.subscribe(&key("alice"), 0).await;
    let mut reader = Socket::connect(&url).await;
    reader.subscribe(&key("alice"), 0).await;
    for n in 0..40_u64 {
        let entries = vec![entry("E", "", &vec![0; 1_000_000])];
        server.write_to_store(store("team"), entries, true).await.expect("a write");
        assert_eq!(reader.next_joined_entries(1).await[0].0, n + 1);
    }
    // Nothing is read from it: the server gives up by itself.
    comes_to(addr, "eventlog_connections_stalled_total", 1).await;
    comes_to(addr, "eventlog_connections_open", 1).await;
}

/// Not so impatient that sessions are severed which only wait for a busy machine.
fn impatient() -> Limits {
    Limits { stall_timeout: Duration::from_secs(3), ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_severed() {
    let server = TestServer::with_limits(impatient(), &[("alice", "team")]).await;
    assert_a_stalled_client_is_severed(&server.server, server.addr).await;
}

/// There the socket stays with actix-http.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_severed_from_an_application() {
    let server = in_memory().limits(impatient()).start().expect("it starts");
    server.assign(key("alice"), store("team")).await.expect("assigned");
    let mounted = server.clone();
    let addr = embedding::serve(move |config| {
        mounted.configure(config);
        mounted.configure_operations(config);
    });
    assert_a_stalled_client_is_severed(&server, addr.await).await;
}

/// An idle store is closed, and the next access finds everything in place.
#[tokio::test]
async fn an_idle_store_is_closed_and_opened_again() {
    let limits = Limits { store_idle_timeout: Duration::from_millis(100), ..Limits::default() };
    let server = TestServer::with_limits(limits, &[("alice", "team")]).await;
    let mut client = Socket::connect(&server.url()).await;
    let one = entry("E", "1", b"");
    client.write(&key("alice"), 1, &batch(std::slice::from_ref(&one))).await;
    assert_eq!(client.next_ack().await, (1, vec![1]));
    server.comes_to("eventlog_stores_open", 0).await;
    client.write(&key("alice"), 2, &batch(&[one.clone(), entry("E", "2", b"")])).await;
    assert_eq!(client.next_ack().await, (2, vec![1, 2]));
}
