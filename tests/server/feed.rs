//! Feeds and acks beyond the specification's cases.

use eventlog_server::model::PublicKey;
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

/// 20 connections write while 5 subscribers come and go: every feed is 1..n, and agrees with every ack.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_feed_is_gapless_and_agrees_with_every_ack() {
    const WRITERS: usize = 20;
    const BATCHES: usize = 50;
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    let alice = key("alice");
    let total = WRITERS * BATCHES * 2;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write_batches(server.url(), alice.clone(), writer, BATCHES)))
        .collect();
    let readers: Vec<_> = (0..5)
        .map(|reader| tokio::spawn(read_in_pieces(server.url(), alice.clone(), total, 37 + reader)))
        .collect();
    let mut acked = std::collections::BTreeMap::new();
    for writer in writers {
        for (sequence, name) in writer.await.expect("a writer") {
            assert!(acked.insert(sequence, name).is_none(), "{sequence} was given out twice");
        }
    }
    assert!(acked.keys().copied().eq(1..=total as u64));
    let expected: Vec<(u64, String)> = acked.into_iter().collect();
    for reader in readers {
        assert_eq!(reader.await.expect("a reader"), expected);
    }
}

/// Writes batches of two entries, four in flight, and gives what the acks say.
async fn write_batches(
    url: String,
    alice: PublicKey,
    writer: usize,
    batches: usize,
) -> Vec<(u64, String)> {
    let mut socket = Socket::connect(&url).await;
    let name = |number: usize, slot: usize| format!("{writer}/{number}/{slot}");
    let mut acked = Vec::new();
    for number in 0..batches + 4 {
        if number < batches {
            let entries = [entry("E", &name(number, 0), b"x"), entry("E", &name(number, 1), b"y")];
            socket.write(&alice, number as u64, &batch(&entries)).await;
        }
        if number >= 4 {
            let (id, sequences) = socket.next_ack().await;
            let named = sequences.iter().enumerate();
            acked.extend(named.map(|(slot, sequence)| (*sequence, name(id as usize, slot))));
        }
    }
    acked
}

/// Reads the whole feed over many connections, each of which resumes where the last one broke off.
async fn read_in_pieces(
    url: String,
    alice: PublicKey,
    total: usize,
    piece: usize,
) -> Vec<(u64, String)> {
    let mut feed: Vec<(u64, String)> = Vec::new();
    while feed.len() < total {
        let mut socket = Socket::connect(&url).await;
        socket.subscribe(&alice, feed.len() as u64 + 1).await;
        let until = (feed.len() + piece).min(total);
        while feed.len() < until {
            for (sequence, entry) in socket.next_changes().await {
                assert_eq!(sequence, feed.len() as u64 + 1, "no gap, no repeat");
                feed.push((sequence, entry.primary_key));
            }
        }
    }
    feed
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
