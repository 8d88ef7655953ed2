//! Stores whose beginning is trimmed. All readers are served from there on, and entries that are sent again are
//! recognized.

use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::{Entry, Limits, Quota, Quotas, Sequence};
use eventlog_server::processing::compaction::{Compaction, EventPattern, Strategy};
use eventlog_server::protocol::msgpack::{Response, encode_request_changes_with_ack};
use eventlog_server::server::{Before, Server};
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};
use futures_util::StreamExt;

use crate::support::rpc::{DEFAULT, RpcSocket, framed_entry};
use crate::support::server::{TestServer, in_memory};
use crate::support::socket::Socket;
use crate::support::{batch, key, store};

const TEAM: [(&str, &str); 3] = [("alice", "team"), ("bob", "team"), ("carol", "team")];

fn at(sequence: u64) -> Sequence {
    Sequence::new(sequence).expect("a sequence")
}

fn notes(count: usize) -> Vec<Entry> {
    (0..count).map(|n| framed_entry("Note", &format!("{}", n % 7), &[n as u8; 300])).collect()
}

async fn write(server: &TestServer, entries: &[Entry]) -> Vec<u64> {
    let mut socket = Socket::connect(&server.url()).await;
    socket.write(&key("alice"), 1, &batch(entries)).await;
    socket.next_ack().await.1
}

async fn trim(server: &TestServer, before: u64) {
    let trimmed = server.server.trim(&store("team"), Before::Sequence(at(before)), false).await;
    assert_eq!(trimmed.expect("trimmed").trimmed, at(before).prev());
}

type Feed = Vec<(u64, Entry)>;

/// Reads from around every edge, on both wires and in process.
async fn check(server: &TestServer, feed: &Feed, trimmed: u64) {
    for start in [0, 1, 2, trimmed - 1, trimmed, trimmed + 1, trimmed + 2] {
        let expected: Feed =
            feed.iter().filter(|(at, _)| *at > trimmed && *at >= start).cloned().collect();
        let mut socket = Socket::connect(&server.url()).await;
        let mut request = bytes::BytesMut::new();
        encode_request_changes_with_ack(&mut request, &key("bob"), at(start));
        socket.send(request).await;
        let (public_key, head) = (key("bob"), at(feed.len() as u64));
        let stands = Response::Subscribed { public_key, head, begins: at(trimmed + 1) };
        assert_eq!(socket.next().await, stands);
        assert_eq!(socket.next_entries(expected.len()).await, expected, "from {start}");
        socket.nothing_comes().await;
        let mut rpc = RpcSocket::authenticated(&server.rpc_url(), &["carol"]).await;
        let subscription = rpc.subscribe("carol", DEFAULT, start).await;
        assert_eq!(rpc.next_entries(&subscription, expected.len()).await, expected);
        rpc.nothing_comes().await;
        let changes = server.server.changes(&store("team"), at(start)).await.expect("a feed");
        assert_eq!(changes.begins(), at(trimmed + 1));
        let read: Vec<_> = changes.take(expected.len()).collect().await;
        let read = read.into_iter().map(|entry| entry.expect("an entry"));
        assert!(read.map(|one| (one.remote_sequence.get(), one.entry)).eq(expected));
    }
}

async fn start(directory: &tempfile::TempDir) -> (TestServer, Database) {
    let options = DatabaseOptions { checkpoint_bytes: 50_000, ..DatabaseOptions::default() };
    let database = Database::open(directory.path(), options).expect("open");
    let storage = Arc::new(SledStorage::new(database.clone()));
    let registry = Arc::new(MemoryRegistry::new());
    let builder = Server::builder(storage, registry, Arc::new(AllowAll));
    (TestServer::start(builder, &TEAM).await, database)
}

#[tokio::test]
async fn whoever_asks_below_is_served_from_where_the_feed_begins() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut server, mut database) = start(&directory).await;
    let entries = notes(1_000);
    // One client is subscribed meanwhile, so its entries are in memory.
    let mut live = Socket::connect(&server.url()).await;
    live.subscribe(&key("bob"), 1).await;
    for part in entries.chunks(90) {
        write(&server, part).await;
        live.next_entries(part.len()).await;
    }
    let mut feed: Feed = (1..).zip(entries.clone()).collect();
    for trimmed in [400, 960] {
        trim(&server, trimmed + 1).await;
        check(&server, &feed, trimmed).await;
        server.stop();
        database.close().expect("closed");
        (server, database) = start(&directory).await;
        check(&server, &feed, trimmed).await;
        // Entries that are sent again get their old sequences, and nobody is told about them.
        assert!(write(&server, &entries).await.into_iter().eq(1..=1_000));
        check(&server, &feed, trimmed).await;
    }
    // Trims everything. New entries follow.
    trim(&server, 1_001).await;
    let mut early = Socket::connect(&server.url()).await;
    early.subscribe(&key("bob"), 0).await;
    early.nothing_comes().await;
    let more = notes(1);
    assert_eq!(write(&server, &more).await, [1_001]);
    feed.push((1_001, more[0].clone()));
    assert_eq!(early.next_entries(1).await, feed[1_000..]);
    // Nothing is trimmed beyond the end. A store that was never used does not exist.
    trim(&server, 1_002).await;
    let beyond = server.server.trim(&store("team"), Before::Sequence(at(9_999)), false).await;
    assert_eq!(beyond.expect("all of it").trimmed, at(1_001));
    let none = server.server.trim(&store("nobody's"), Before::Millis(1), false).await;
    assert!(none.expect_err("no store").to_string().contains("does not exist"));
}

#[tokio::test]
async fn compacted_history_has_nothing_of_what_is_trimmed() {
    for strategy in [
        Strategy::KeepLatest,
        Strategy::effect(|bucket, out| {
            let payloads: Vec<_> = bucket.entries.iter().map(|entry| &*entry.payload).collect();
            out.write("Joined", payloads.concat());
            Ok(())
        }),
    ] {
        let compaction = Compaction::new(&Limits::default());
        let pattern = [EventPattern::glob("Note*")];
        let _guard = compaction.register(pattern, Duration::ZERO, strategy).expect("one");
        let builder = in_memory().compaction(compaction);
        let server = TestServer::start(builder, &TEAM).await;
        let entries: Vec<Entry> =
            (0..40_u8).map(|n| framed_entry("Note", &format!("{}", n % 10), &[n; 30])).collect();
        write(&server, &entries).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
        let read = async |count| {
            let mut socket = Socket::connect(&server.url()).await;
            socket.subscribe(&key("bob"), 0).await;
            let read = socket.next_entries(count).await;
            socket.nothing_comes().await;
            read
        };
        let whole = read(10).await;
        // The entries of keys 0 to 4 are removed from memory as well.
        trim(&server, 36).await;
        let rest = read(5).await;
        assert!(rest.iter().all(|(at, _)| *at > 35), "{rest:?}");
        assert!(rest.iter().map(|(_, one)| &one.primary_key).eq(["5", "6", "7", "8", "9"]));
        if whole[5].1.event == "Joined" {
            assert_eq!(rest[0].1.payload, entries[35].payload, "of one entry");
        } else {
            assert_eq!(rest, whole[5..]);
        }
    }
}

#[tokio::test]
async fn a_full_store_has_room_again() {
    let quotas = Quotas {
        per_store: Quota { bytes_stored: Some(20_000), ..Quota::default() },
        ..Quotas::default()
    };
    let server = TestServer::start(in_memory().quotas(quotas), &TEAM).await;
    write(&server, &notes(60)).await;
    let mut socket = Socket::connect(&server.url()).await;
    socket.write(&key("alice"), 7, &batch(&notes(20))).await;
    assert!(matches!(socket.next().await, Response::Error { id: Some(7), .. }));
    trim(&server, 41).await;
    socket.write(&key("alice"), 8, &batch(&notes(20))).await;
    assert_eq!(socket.next_ack().await, (8, (61..=80).collect::<Vec<u64>>()));
}
