//! Feeds and acks beyond the specification's cases.

use eventlog_server::protocol::msgpack::Response;

use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key, store};

/// Entries that a connection wrote with the key it is subscribed with are answered by their ack alone; another
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

/// A subscription that is replaced starts afresh; one that is stopped gets nothing more.
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

/// A message above 512,000 bytes travels in chunks, both ways.
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
