//! Feeds and acks beyond the specification's cases.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use eventlog_server::client::{EventLogRemote, Options};
use eventlog_server::model::{Entry, Limits, Sequence};
use eventlog_server::protocol::msgpack::{Response, encode_request_changes_with_ack, encode_write};
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};
use futures_util::StreamExt;

use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key, store};

/// Entries that a connection wrote with the key of its subscription are answered only by their ack; another
/// subscription of the same connection gets them.
#[tokio::test]
async fn own_entries_come_as_acks_alone() {
    let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
    let mut client = Socket::connect(&server.url()).await;
    client.subscribe(&key("alice"), 0).await;
    let mine = entry("E", "mine", b"");
    client.write(&key("alice"), 1, &batch(std::slice::from_ref(&mine))).await;
    assert_eq!(client.next_ack().await, (1, vec![1]));
    client.subscribe(&key("bob"), 0).await;
    assert_eq!(client.next_entries(1).await, [(1, mine.clone())], "bob reads what alice wrote");
    let other = entry("E", "other", b"");
    let entries = vec![other.clone()];
    server.server.write_to_store(store("team"), entries, true).await.expect("a write");
    for _ in 0..2 {
        assert_eq!(client.next_entries(1).await, [(2, other.clone())]);
    }
    client.nothing_comes().await;
}

/// A replaced subscription starts afresh; a stopped one gets nothing more.
#[tokio::test]
async fn a_second_request_replaces_the_first_and_stop_ends_it() {
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    let one = entry("E", "1", b"");
    let entries = vec![one.clone()];
    server.server.write_to_store(store("team"), entries, true).await.expect("a write");
    let mut client = Socket::connect(&server.url()).await;
    for start in [0, 1] {
        client.subscribe(&key("alice"), start).await;
        assert_eq!(client.next_entries(1).await, [(1, one.clone())]);
    }
    client.stop(&key("alice")).await;
    client.stop(&key("nobody")).await;
    client.ping(5).await;
    assert!(matches!(client.next().await, Response::Pong { id: 5 }));
    let entries = vec![entry("E", "2", b"")];
    server.server.write_to_store(store("team"), entries, true).await.expect("a write");
    client.nothing_comes().await;
}

/// A message above 512,000 bytes is sent in chunks, both ways.
#[tokio::test]
async fn large_batches_and_large_entries_travel_in_chunks() {
    let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
    let mut reader = Socket::connect(&server.url()).await;
    reader.subscribe(&key("bob"), 0).await;
    let mut writer = Socket::connect(&server.url()).await;
    let large = entry("E", "large", &vec![7; 3_000_000]);
    let small = entry("E", "small", b"s");
    let entries = [small.clone(), large.clone(), small.clone()];
    writer.write_in_chunks(&key("alice"), 4, &batch(&entries)).await;
    assert_eq!(writer.next_ack().await, (4, vec![1, 2, 1]));
    let got = reader.next_joined_entries(2).await;
    assert_eq!(got, [(1, small), (2, large)]);
}

/// The largest message that a client may send is stored on disk and comes back; with one byte more nothing is stored.
#[tokio::test]
async fn an_entry_that_fills_a_message_is_served_and_a_larger_one_closes_the_connection() {
    let data = tempfile::tempdir().expect("a directory");
    let database = Database::open(data.path(), DatabaseOptions::default()).expect("a database");
    let (storage, registry) = (SledStorage::new(database), MemoryRegistry::new());
    let builder = Server::builder(Arc::new(storage), Arc::new(registry), Arc::new(AllowAll));
    let server = TestServer::start(builder, &[("alice", "team"), ("bob", "team")]).await;
    let alice = key("alice");
    let of_size = |bytes: usize| entry("E", "large", &vec![7; bytes]);
    let encoded_bytes = |entry: &Entry| {
        let mut bytes = BytesMut::new();
        encode_write(&mut bytes, &alice, 1, &batch(std::slice::from_ref(entry)));
        bytes.len()
    };
    let around = encoded_bytes(&of_size(1_000_000)) - 1_000_000;
    let largest = of_size(Limits::default().message_bytes_max - around);
    assert_eq!(encoded_bytes(&largest), 16 * 1_024 * 1_024);
    let mut reader = Socket::connect(&server.url()).await;
    reader.subscribe(&key("bob"), 0).await;
    let mut writer = Socket::connect(&server.url()).await;
    writer.write_in_chunks(&alice, 1, &batch(std::slice::from_ref(&largest))).await;
    assert_eq!(writer.next_ack().await, (1, vec![1]));
    let larger = of_size(largest.payload.len() + 1);
    writer.write_in_chunks(&alice, 1, &batch(&[larger])).await;
    assert_eq!(writer.close_code().await, Some(1009));
    let remote = EventLogRemote::connect(&server.url(), Options::default()).await;
    let mut changes = remote.expect("a connection").changes(&key("bob"), Sequence::ZERO);
    // A client that could not take it would reconnect forever.
    let change = tokio::time::timeout(Duration::from_secs(20), changes.next()).await;
    let change = change.expect("in time").expect("it goes on").expect("an entry");
    assert!(change.entry == largest, "the client's stream");
    assert!(reader.next_joined_entries(1).await == [(1, largest)], "as it is sent");
}

/// A client that asks is told when the subscription has begun, and where the store is, before anything else; a client
/// that does not ask is not told.
#[tokio::test]
async fn a_subscription_is_acknowledged_if_that_is_wanted() {
    let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
    let one = entry("E", "1", b"");
    server.server.write_to_store(store("team"), vec![one.clone()], true).await.expect("a write");
    let mut client = Socket::connect(&server.url()).await;
    let ask = |name: &str| {
        let mut bytes = BytesMut::new();
        encode_request_changes_with_ack(&mut bytes, &key(name), Sequence::ZERO);
        bytes
    };
    client.send(ask("alice")).await;
    let (public_key, head) = (key("alice"), Sequence::FIRST);
    let stands = Response::Subscribed { public_key, head, begins: Sequence::FIRST };
    assert_eq!(client.next().await, stands);
    assert_eq!(client.next_entries(1).await, [(1, one.clone())]);
    client.send(ask("nobody")).await;
    assert_eq!(client.next_refusal().await.request_tag, "RequestChanges");
    client.subscribe(&key("bob"), 0).await;
    assert_eq!(client.next_entries(1).await, [(1, one)]);
}
