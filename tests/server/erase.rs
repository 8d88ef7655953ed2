//! Stores from which entries are erased. Readers skip these entries on both wires and in process, and entries that are
//! sent again are recognized.

use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::{Entry, EntryId, Limits, Sequence};
use eventlog_server::processing::compaction::{Compaction, EventPattern, Strategy};
use eventlog_server::server::{Erase, Erased, Server};
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
        let expected = Erased { entries: count, unknown: missing, quarantined: 0 };
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
    // A live reader continues behind it.
    let mut live = Socket::connect(&server.url()).await;
    live.subscribe(&key("bob"), 551).await;
    live.nothing_comes().await;
    let more = notes(1);
    assert_eq!(write(&server, &more).await, [601]);
    assert_eq!(live.next_entries(1).await, [(601, more[0].clone())]);
    let none = server.server.erase(&store("nobody's"), Erase::Ids(vec![unknown])).await;
    assert!(none.expect_err("no store").to_string().contains("does not exist"));
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
