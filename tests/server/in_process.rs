//! What a client does over a socket, done by code in this process.

use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::{Entry, Limits, RemoteEntry, Sequence};
use eventlog_server::server::{Changes, ClientError, Server};
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::services::{Caller, RegistryError, StoreRegistry};
use eventlog_server::storage::memory::MemoryStorage;
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};
use futures_util::StreamExt;

use crate::support::auth::RejectAll;
use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key, store};

fn at(sequence: u64) -> Sequence {
    Sequence::new(sequence).expect("a sequence")
}

async fn next(changes: &mut Changes) -> RemoteEntry {
    let next = tokio::time::timeout(Duration::from_secs(20), changes.next()).await;
    next.expect("soon").expect("not the end").expect("an entry")
}

async fn write(server: &Server, count: usize) -> Vec<Entry> {
    let entries: Vec<Entry> = (0..count).map(|_| entry("E", "k", &[7; 40])).collect();
    server.write_to_store(store("team"), entries.clone(), true).await.expect("a write");
    entries
}

#[tokio::test]
async fn a_client_s_entries_are_taken_with_all_checks_of_a_socket() {
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    let (caller, alice) = (Caller::default(), key("alice"));
    let ingest = |name: &str, entries: Vec<Entry>| {
        let (server, caller, name) = (server.server.clone(), caller.clone(), key(name));
        async move { server.ingest_client(&caller, &name, entries).await }
    };
    let entries = vec![entry("E", "1", b""), entry("E", "2", b"")];
    let outcome = ingest("alice", entries.clone()).await.expect("taken");
    assert_eq!(outcome.sequence_numbers, [at(1), at(2)]);
    // If it is sent again, it is known.
    let again = ingest("alice", entries.clone()).await.expect("taken");
    assert_eq!((again.sequence_numbers, again.committed.len()), (vec![at(1), at(2)], 0));
    let unknown = ingest("nobody", entries.clone()).await;
    assert!(matches!(unknown, Err(ClientError::Registry(RegistryError::NotMapped { .. }))));
    let empty = ingest("alice", vec![entry("", "", b"")]).await;
    assert!(matches!(empty, Err(ClientError::Invalid(_))), "{empty:?}");
    // It counts as a client's: another connection gets it, and so does a stream.
    let mut other = Socket::connect(&server.url()).await;
    other.subscribe(&alice, 0).await;
    let expected = [(1, entries[0].clone()), (2, entries[1].clone())];
    assert_eq!(other.next_entries(2).await, expected);
}

#[tokio::test]
async fn who_is_not_authorized_neither_writes_nor_reads() {
    let storage = Arc::new(MemoryStorage::new());
    let builder = Server::builder(storage, Arc::new(MemoryRegistry::new()), Arc::new(RejectAll));
    let running = TestServer::start(builder, &[("alice", "team")]).await;
    let server = &running.server;
    let (caller, alice) = (Caller::default(), key("alice"));
    let written = server.ingest_client(&caller, &alice, vec![entry("E", "", b"")]).await;
    assert!(matches!(written, Err(ClientError::Auth(_))), "{written:?}");
    let read = server.request_changes(&caller, &alice, at(1)).await;
    assert!(matches!(read, Err(ClientError::Auth(_))));
    assert_eq!(server.head(&store("team")).await.expect("a head"), Sequence::ZERO);
}

#[tokio::test]
async fn a_stream_has_every_entry_once_and_in_order_while_the_store_is_closed_and_opened() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = Database::open(directory.path(), DatabaseOptions::default()).expect("open");
    let storage = Arc::new(SledStorage::new(database.clone()));
    let limits = Limits {
        store_idle_timeout: Duration::from_millis(5),
        recent_bytes_max: 2_000,
        ..Limits::default()
    };
    let builder = Server::builder(
        storage,
        Arc::new(MemoryRegistry::new()),
        Arc::new(eventlog_server::services::auth::AllowAll),
    );
    let server = TestServer::start(builder.limits(limits), &[("alice", "team")]).await;
    let mut expected = write(&server.server, 5_000).await;
    let mut changes = server.server.changes(&store("team"), Sequence::ZERO).await.expect("a feed");
    let caller = Caller::default();
    let later = server.server.request_changes(&caller, &key("alice"), at(4_990)).await;
    let mut later = later.expect("a feed");
    let writer = server.server.clone();
    let writing = tokio::spawn(async move {
        let mut written = Vec::new();
        for round in 0..50 {
            written.extend(write(&writer, 1 + round % 7).await);
            if round % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
        written
    });
    expected.extend(writing.await.expect("written"));
    for (sequence, entry) in (1..).zip(&expected) {
        let found = next(&mut changes).await;
        assert_eq!((found.remote_sequence.get(), &found.entry), (sequence, entry));
        if sequence >= 4_990 {
            assert_eq!(next(&mut later).await, found);
        }
    }
    drop((changes, later));
    // Reading did not take the store from anybody.
    let entries = server.server.entries(&store("team"), at(1), 10).await.expect("entries");
    assert_eq!(entries.len(), 10);
    let mut client = Socket::connect(&server.url()).await;
    client.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(client.next_ack().await, (1, vec![expected.len() as u64 + 1]));
}

#[tokio::test]
async fn a_stream_ends_when_its_key_is_removed_or_moved_and_when_the_server_stops() {
    let registry = Arc::new(MemoryRegistry::new());
    let builder = Server::builder(
        Arc::new(MemoryStorage::new()),
        registry.clone(),
        Arc::new(eventlog_server::services::auth::AllowAll),
    );
    let keys = [("alice", "team"), ("bob", "team"), ("carol", "team")];
    let running = TestServer::start(builder, &keys).await;
    let server = &running.server;
    write(server, 1).await;
    let caller = Caller::default();
    let mut feeds = Vec::new();
    for name in ["alice", "bob", "carol"] {
        let changes = server.request_changes(&caller, &key(name), at(1)).await;
        let mut changes = changes.expect("a feed");
        assert_eq!(next(&mut changes).await.remote_sequence, at(1));
        feeds.push(changes);
    }
    let [alice, bob, carol] = &mut feeds[..] else { panic!("three") };
    server.remove(key("alice")).await.expect("removed");
    assert!(matches!(alice.next().await, Some(Err(ClientError::KeyRemoved))));
    assert!(alice.next().await.is_none());
    // Changed in the application's registry: takes effect once the server is told.
    registry.remove(&key("bob")).await.expect("removed");
    registry.assign(&key("bob"), &store("other")).await.expect("assigned");
    server.forget(&key("bob"));
    assert!(matches!(bob.next().await, Some(Err(ClientError::KeyRemoved))));
    let moved = key("bob");
    let ingest = || server.ingest_client(&caller, &moved, vec![entry("E", "", b"")]);
    let refused = ingest().await;
    let is_moved = matches!(refused, Err(ClientError::Registry(RegistryError::Moved { .. })));
    assert!(is_moved, "{refused:?}");
    assert_eq!(server.release(key("bob")).await, Ok(Some(store("team"))));
    assert_eq!(ingest().await.expect("taken").sequence_numbers, [at(1)], "in the other store");
    // The third one continues, until the end.
    write(server, 1).await;
    assert_eq!(next(carol).await.remote_sequence, at(2));
    server.shutdown(Duration::from_secs(5)).await;
    assert!(carol.next().await.is_none());
}

#[tokio::test]
async fn entries_heads_and_stores_come_in_pages() {
    let running = TestServer::with_keys(&[]).await;
    let server = &running.server;
    let written = write(server, 2_500).await;
    let other = vec![entry("E", "", b"")];
    server.write_to_store(store("other"), other, true).await.expect("a write");
    let (mut found, mut from) = (Vec::new(), Sequence::ZERO);
    loop {
        let page = server.entries(&store("team"), from, 1_000).await.expect("a page");
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 1_000);
        from = last.remote_sequence.next();
        found.extend(page.into_iter().map(|found| found.entry));
    }
    assert_eq!(found, written);
    assert!(server.entries(&store("nobody"), at(1), 10).await.expect("a page").is_empty());
    assert_eq!(server.head(&store("team")).await.expect("a head"), at(2_500));
    let first = server.stores(None, 1).await.expect("a page");
    assert_eq!(first, [(store("other"), at(1))]);
    let rest = server.stores(Some(&store("other")), 10).await.expect("a page");
    assert_eq!(rest, [(store("team"), at(2_500))]);
}
