//! Panics do not harm others.

use std::sync::Arc;

use eventlog_server::protocol::msgpack::ErrorCode;
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;

use crate::support::auth::{PanicOn, PanicWhenDropped};
use crate::support::panicking::PanickingStorage;
use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

/// The StoreActor panics while it appends: the writer is told, subscriptions continue, and the next write works.
#[tokio::test]
async fn a_store_that_panics_tells_its_callers_and_is_opened_afresh() {
    let storage = Arc::new(PanickingStorage::new("boom"));
    let builder = Server::builder(storage, Arc::new(MemoryRegistry::new()), Arc::new(AllowAll));
    let server = TestServer::start(builder, &[("alice", "team"), ("bob", "team")]).await;
    let mut reader = Socket::connect(&server.url()).await;
    reader.subscribe(&key("bob"), 0).await;
    let mut client = Socket::connect(&server.url()).await;
    let one = entry("E", "1", b"");
    client.write(&key("alice"), 1, &batch(std::slice::from_ref(&one))).await;
    assert_eq!(client.next_ack().await, (1, vec![1]));
    client.write(&key("alice"), 2, &batch(&[entry("boom", "", b"")])).await;
    let refusal = client.next_refusal().await;
    assert_eq!((refusal.code, refusal.id), (ErrorCode::InternalServerError, Some(2)));
    let two = entry("E", "2", b"");
    client.write(&key("alice"), 3, &batch(std::slice::from_ref(&two))).await;
    assert_eq!(client.next_ack().await, (3, vec![2]));
    assert_eq!(reader.next_entries(2).await, [(1, one), (2, two)]);
}

#[tokio::test]
async fn an_authorization_that_panics_refuses_its_request_alone() {
    let storage = Arc::new(eventlog_server::storage::memory::MemoryStorage::new());
    let auth = Arc::new(PanicOn(key("mallory")));
    let builder = Server::builder(storage, Arc::new(MemoryRegistry::new()), auth);
    let server = TestServer::start(builder, &[("alice", "team"), ("mallory", "team")]).await;
    let mut client = Socket::connect(&server.url()).await;
    client.write(&key("mallory"), 1, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(client.next_refusal().await.code, ErrorCode::InternalServerError);
    client.subscribe(&key("mallory"), 0).await;
    assert_eq!(client.next_refusal().await.code, ErrorCode::InternalServerError);
    client.write(&key("alice"), 2, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(client.next_ack().await, (2, vec![1]));
}

/// A session panics: its connection ends, with all it held. Others continue, including those on the same thread.
#[tokio::test]
async fn a_session_that_panics_ends_its_connection_alone() {
    let storage = Arc::new(eventlog_server::storage::memory::MemoryStorage::new());
    let auth = Arc::new(PanicWhenDropped(key("mallory")));
    let builder = Server::builder(storage, Arc::new(MemoryRegistry::new()), auth);
    let server = TestServer::start(builder, &[("alice", "team"), ("mallory", "team")]).await;
    // More than the server has threads for.
    let mut others = Vec::new();
    for _ in 0..8 {
        let mut other = Socket::connect(&server.url()).await;
        other.subscribe(&key("alice"), 0).await;
        others.push(other);
    }
    for _ in 0..4 {
        let mut client = Socket::connect(&server.url()).await;
        client.subscribe(&key("mallory"), 0).await;
        client.ping(1).await;
        client.next().await;
        client.write(&key("mallory"), 1, &batch(&[entry("E", "", b"")])).await;
    }
    // They have hung up, which their sessions find out when they have something to send.
    let mut written = Vec::new();
    while written.is_empty() || server.metric("eventlog_subscriptions_open").await > 8.5 {
        assert!(written.len() < 1_000, "the sessions go on");
        let number = written.len() as u64 + 1;
        let one = entry("E", &number.to_string(), b"");
        others[0].write(&key("alice"), number, &batch(std::slice::from_ref(&one))).await;
        assert_eq!(others[0].next_ack().await, (number, vec![number]));
        written.push((number, one));
    }
    for other in &mut others[1..] {
        assert_eq!(other.next_entries(written.len()).await, written);
    }
    server.comes_to("eventlog_connections_open", 8).await;
}
