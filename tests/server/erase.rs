//! Stores from which entries are erased. Readers skip these entries on both wires and in process, and entries that are
//! sent again are recognized.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use eventlog_server::client::{EventLogRemote, Options};
use eventlog_server::model::{Entry, EntryId, Limits, Sequence};
use eventlog_server::processing::compaction::{Compaction, EventPattern, Strategy};
use eventlog_server::protocol::msgpack::{Response, encode_request_changes_with};
use eventlog_server::server::{Before, Erase, Erased, Server};
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::Storage;
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

async fn erase(server: &TestServer, what: Erase) -> Erased {
    server.server.erase(&store("team"), what).await.expect("erased")
}

type Feed = Vec<(u64, Entry)>;

/// Reads from the beginning and from the middle, on both wires and in process.
async fn check(server: &TestServer, feed: &Feed) {
    for start in [0, 1, 5, 400] {
        let expected: Feed = feed.iter().filter(|(at, _)| *at >= start).cloned().collect();
        let mut socket = Socket::connect(&server.url()).await;
        socket.subscribe(&key("bob"), start).await;
        assert_eq!(socket.next_entries(expected.len()).await, expected, "from {start}");
        socket.nothing_comes().await;
        let mut rpc = RpcSocket::authenticated(&server.rpc_url(), &["carol"]).await;
        let subscription = rpc.subscribe("carol", DEFAULT, start).await;
        assert_eq!(rpc.next_entries(&subscription, expected.len()).await, expected);
        rpc.nothing_comes().await;
        let changes = server.server.changes(&store("team"), at(start)).await.expect("a feed");
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
async fn whoever_reads_passes_over_what_is_erased_and_it_does_not_come_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut server, mut database) = start(&directory).await;
    let entries = notes(600);
    // One client is subscribed meanwhile, so its entries are in memory.
    let mut live = Socket::connect(&server.url()).await;
    live.subscribe(&key("bob"), 1).await;
    for part in entries.chunks(90) {
        write(&server, part).await;
        live.next_entries(part.len()).await;
    }
    let mut feed: Feed = (1..).zip(entries.clone()).collect();
    // A primary key first. Then, by ids, the whole beginning and the whole end.
    let unknown = EntryId::now();
    let mut ids: Vec<EntryId> = entries[..30].iter().map(|entry| entry.id).collect();
    ids.extend(entries[550..].iter().map(|entry| entry.id));
    ids.push(unknown);
    let gone = ids.clone();
    for (what, count, missing) in [
        (Erase::PrimaryKey("3".to_owned()), 86, vec![]),
        (Erase::PrimaryKey("3".to_owned()), 0, vec![]),
        (Erase::Ids(ids), 80, vec![unknown]),
    ] {
        let by_ids = matches!(what, Erase::Ids(_));
        let expected = Erased { entries: count, unknown: missing, ..Erased::default() };
        assert_eq!(erase(&server, what).await, expected);
        feed.retain(|(_, one)| one.primary_key != "3" && !(by_ids && gone.contains(&one.id)));
        check(&server, &feed).await;
        // Entries that are sent again get their old sequences, and nobody is told about them.
        assert!(write(&server, &entries).await.into_iter().eq(1..=600));
        server.stop();
        database.close().expect("closed");
        (server, database) = start(&directory).await;
        check(&server, &feed).await;
    }
    // A live reader continues after them.
    let mut live = Socket::connect(&server.url()).await;
    live.subscribe(&key("bob"), 551).await;
    live.nothing_comes().await;
    let more = notes(1);
    assert_eq!(write(&server, &more).await, [601]);
    assert_eq!(live.next_entries(1).await, [(601, more[0].clone())]);
    let none = server.server.erase(&store("nobody's"), Erase::Ids(vec![unknown])).await;
    assert!(none.expect_err("no store").to_string().contains("does not exist"));
}

type Elements = Vec<(u64, Option<Entry>)>;

/// Subscribes with `marks`; what comes until there are `count` elements, and where the feed begins.
async fn marked(server: &TestServer, start: u64, count: usize) -> (u64, Elements) {
    let mut socket = Socket::connect(&server.url()).await;
    let mut bytes = BytesMut::new();
    encode_request_changes_with(&mut bytes, &key("bob"), at(start), true, true);
    socket.send(bytes).await;
    let (mut begins, mut elements) = (0, Elements::new());
    while elements.len() < count {
        match socket.next().await {
            Response::Subscribed { begins: first, .. } => begins = first.get(),
            Response::Changes(view) => {
                assert!(view.bytes() < 200_000, "{} bytes in one message", view.bytes());
                let some =
                    view.elements().map(|(at, one)| (at.get(), one.map(|one| one.to_entry())));
                elements.extend(some);
            }
            other => panic!("expected changes, got {other:?}"),
        }
    }
    socket.nothing_comes().await;
    (begins, elements)
}

#[tokio::test]
async fn who_asks_for_marks_is_told_what_is_erased_and_our_client_passes_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut server, database) = start(&directory).await;
    let entries = notes(9_000);
    for part in entries.chunks(1_000) {
        write(&server, part).await;
    }
    // More than one message of marks.
    let gone = |n: usize| n == 1 || (3..8_997).contains(&n) || n == 8_999;
    let ids = (0..9_000).filter(|n| gone(*n)).map(|n| entries[n].id).collect();
    erase(&server, Erase::Ids(ids)).await;
    let expected: Elements =
        (0..9_000).map(|n| (n as u64 + 1, Some(entries[n].clone()).filter(|_| !gone(n)))).collect();
    for start in [1, 2, 5_000] {
        let (begins, elements) = marked(&server, start, 9_001 - start as usize).await;
        assert_eq!(begins, 1);
        assert!(elements == expected[start as usize - 1..], "from {start}");
    }
    let trimmed = server.server.trim(&store("team"), Before::Sequence(at(3)), true).await;
    trimmed.expect("trimmed");
    let (begins, elements) = marked(&server, 0, 8_998).await;
    assert_eq!(begins, 3);
    assert!(elements == expected[2..]);

    // A stream of our client continues after erased entries, even if they are at the end.
    let options =
        || Options { reconnect_delay_max: Duration::from_millis(50), ..Options::default() };
    let remote = EventLogRemote::connect(&server.url(), options()).await.expect("a connection");
    let mut changes = remote.changes(&key("bob"), Sequence::ZERO);
    for n in [2_u64, 8_997, 8_998] {
        let Some(Ok(next)) = changes.next().await else { panic!("no entry") };
        assert_eq!(next.remote_sequence.get(), n + 1);
    }
    let more = notes(1);
    assert_eq!(write(&server, &more).await, [9_001]);
    let Some(Ok(next)) = changes.next().await else { panic!("no entry") };
    assert_eq!(next.remote_sequence.get(), 9_001);
    server.stop();
    database.close().expect("closed");
}

#[tokio::test]
async fn a_store_that_is_erased_goes_on_behind_its_last_entry() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut server, mut database) = start(&directory).await;
    let entries = notes(3_000);
    let mut live = Socket::connect(&server.url()).await;
    live.subscribe(&key("bob"), 2_001).await;
    for part in entries.chunks(1_000) {
        write(&server, part).await;
    }
    live.next_entries(1_000).await;
    let erased = erase(&server, Erase::Store).await;
    assert_eq!(erased, Erased { entries: 3_000, keys: 3, ..Erased::default() });
    let size = SledStorage::new(database.clone()).size(&store("team")).expect("read");
    assert_eq!((size.trimmed, size.entries), (at(3_000), 0), "its feed begins behind them");
    // Who is connected is told, and the keys have no store.
    let refusal = live.next_refusal().await;
    assert_eq!(refusal.request_tag, "RequestChanges");
    assert!(server.server.remove(key("alice")).await.is_err());
    assert_eq!(erase(&server, Erase::Store).await, Erased::default());
    for round in 0..2 {
        for name in ["alice", "bob", "carol"] {
            server.server.assign(key(name), store("team")).await.expect("assigned");
        }
        check(&server, &Feed::new()).await;
        // What is sent again is known.
        for (n, part) in entries.chunks(1_000).enumerate() {
            let first = n as u64 * 1_000 + 1;
            assert!(write(&server, part).await.into_iter().eq(first..first + 1_000));
        }
        check(&server, &Feed::new()).await;
        server.stop();
        database.close().expect("closed");
        if round == 0 {
            (server, database) = start(&directory).await;
        }
    }
    (server, database) = start(&directory).await;
    let more = notes(2);
    assert_eq!(write(&server, &more).await, [3_001, 3_002]);
    check(&server, &(3_001..).zip(more).collect()).await;
    server.stop();
    database.close().expect("closed");
}

#[tokio::test]
async fn compacted_history_has_nothing_of_what_is_erased() {
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
        let server = TestServer::start(in_memory().compaction(compaction), &TEAM).await;
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
        // The last entry of key 5, which is in memory, and all entries of key 0.
        erase(&server, Erase::Ids(vec![entries[35].id])).await;
        erase(&server, Erase::PrimaryKey("0".to_owned())).await;
        let rest = read(9).await;
        let mut keys: Vec<&str> = rest.iter().map(|(_, one)| &*one.primary_key).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
        let of_five = rest.iter().find(|(_, one)| one.primary_key == "5").expect("one");
        if of_five.1.event == "Joined" {
            let left = [&entries[5], &entries[15], &entries[25]].map(|one| one.payload.clone());
            assert_eq!(of_five.1.payload, left.concat());
        } else {
            assert_eq!(*of_five, (26, entries[25].clone()));
        }
        let others = |feed: &Feed| -> Feed {
            feed.iter()
                .filter(|(_, one)| !["0", "5"].contains(&&*one.primary_key))
                .cloned()
                .collect()
        };
        assert_eq!(others(&rest), others(&whole));
    }
}
