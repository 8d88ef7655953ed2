//! The specification's core tests that need no handlers, under its names.

use std::sync::Arc;

use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::Storage;
use eventlog_server::storage::memory::MemoryStorage;

use crate::support::auth::RejectAll;
use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key, store};
use eventlog_server::protocol::msgpack::ErrorCode;

#[tokio::test]
async fn two_public_keys_mapped_to_the_same_store_share_transport_history() {
    let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
    let (alice, bob) = (key("alice"), key("bob"));
    let entries = [entry("Note", "n1", b"one"), entry("Note", "n2", b"two")];
    let mut writer = Socket::connect(&server.url()).await;
    writer.write(&alice, 7, &batch(&entries)).await;
    assert_eq!(writer.next_ack().await, (7, vec![1, 2]));
    let mut reader = Socket::connect(&server.url()).await;
    reader.subscribe(&bob, 0).await;
    let [one, two] = entries;
    assert_eq!(reader.next_entries(2).await, [(1, one), (2, two)]);
    let live = entry("Note", "n3", b"three");
    writer.write(&alice, 8, &batch(std::slice::from_ref(&live))).await;
    assert_eq!(writer.next_ack().await, (8, vec![3]));
    assert_eq!(reader.next_entries(1).await, [(3, live)]);
}

#[tokio::test]
async fn server_authored_writes_broadcast_to_mapped_clients() {
    let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
    let mut readers = Vec::new();
    for name in ["alice", "bob"] {
        let mut reader = Socket::connect(&server.url()).await;
        reader.subscribe(&key(name), 0).await;
        readers.push(reader);
    }
    let written = entry("Reminder", "r1", b"soon");
    let entries = vec![written.clone()];
    let outcome = server.server.write_to_store(store("team"), entries, true).await;
    let outcome = outcome.expect("the write");
    assert_eq!(outcome.sequence_numbers[0].get(), 1);
    assert_eq!(outcome.committed[0].entry, written);
    for reader in &mut readers {
        assert_eq!(reader.next_entries(1).await, [(1, written.clone())]);
    }
}

#[tokio::test]
async fn server_authored_writes_bypass_auth() {
    let (registry, storage) = (Arc::new(MemoryRegistry::new()), Arc::new(MemoryStorage::new()));
    let builder = Server::builder(storage.clone(), registry.clone(), Arc::new(RejectAll));
    let rejecting = TestServer::start(builder, &[("alice", "team")]).await;
    let written = entry("Reminder", "r1", b"soon");
    let entries = vec![written.clone()];
    rejecting.server.write_to_store(store("team"), entries, true).await.expect("the write");
    let mut client = Socket::connect(&rejecting.url()).await;
    client.subscribe(&key("alice"), 0).await;
    assert_eq!(client.next_refusal().await.code, ErrorCode::Unauthorized);
    let allowing = Server::builder(storage, registry, Arc::new(AllowAll));
    let allowing = TestServer::start(allowing, &[]).await;
    let mut reader = Socket::connect(&allowing.url()).await;
    reader.subscribe(&key("alice"), 0).await;
    assert_eq!(reader.next_entries(1).await, [(1, written)]);
}

#[tokio::test]
async fn unauthorized_client_write_rejects_the_full_batch() {
    let storage = Arc::new(MemoryStorage::new());
    let registry = Arc::new(MemoryRegistry::new());
    let builder = Server::builder(storage.clone(), registry, Arc::new(RejectAll));
    let server = TestServer::start(builder, &[("alice", "team")]).await;
    let mut client = Socket::connect(&server.url()).await;
    client.write(&key("alice"), 3, &batch(&[entry("E", "a", b""), entry("E", "b", b"")])).await;
    let refusal = client.next_refusal().await;
    assert_eq!(refusal.code, ErrorCode::Unauthorized);
    assert_eq!((refusal.request_tag.as_str(), refusal.id), ("WriteEntries", Some(3)));
    assert_eq!(refusal.public_key.as_deref(), Some("alice"));
    client.nothing_comes().await;
    assert!(storage.stores(None, 1).expect("the stores").is_empty(), "nothing was stored");
}

#[tokio::test]
async fn unmapped_public_key_rejects_read_and_write_requests() {
    let server = TestServer::with_keys(&[]).await;
    let mut client = Socket::connect(&server.url()).await;
    client.write(&key("nobody"), 9, &batch(&[entry("E", "", b"")])).await;
    let write = client.next_refusal().await;
    client.subscribe(&key("nobody"), 0).await;
    let read = client.next_refusal().await;
    assert_eq!((write.code, read.code), (ErrorCode::InvalidRequest, ErrorCode::InvalidRequest));
    assert_eq!((write.id, read.id), (Some(9), None));
    assert_eq!(
        (write.request_tag.as_str(), read.request_tag.as_str()),
        ("WriteEntries", "RequestChanges")
    );
    assert_eq!(write.message, read.message);
    // No subscription was left behind: later entries of the store do not come.
    server.server.assign(key("nobody"), store("late")).await.expect("an assignment");
    let entries = vec![entry("E", "", b"")];
    server.server.write_to_store(store("late"), entries, true).await.expect("a write");
    client.nothing_comes().await;
}

#[tokio::test]
async fn duplicate_writes_are_idempotent_but_still_ack_every_input_slot() {
    let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
    let (one, two) = (entry("E", "1", b""), entry("E", "2", b""));
    let mut client = Socket::connect(&server.url()).await;
    client.write(&key("alice"), 1, &batch(&[one.clone(), two.clone()])).await;
    assert_eq!(client.next_ack().await, (1, vec![1, 2]));
    let three = entry("E", "3", b"");
    let again = [two.clone(), three.clone(), one.clone(), three.clone()];
    client.write(&key("bob"), 2, &batch(&again)).await;
    assert_eq!(client.next_ack().await, (2, vec![2, 3, 1, 3]));
    let mut reader = Socket::connect(&server.url()).await;
    reader.subscribe(&key("bob"), 0).await;
    assert_eq!(reader.next_entries(3).await, [(1, one), (2, two), (3, three)]);
    reader.nothing_comes().await;
}
