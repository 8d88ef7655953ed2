//! A disk that fails: what was not stored is not acknowledged; writing it again tells what may have been stored.

use std::sync::Arc;

use eventlog_server::protocol::msgpack::ErrorCode;
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::memory::MemoryStorage;
use eventlog_server::testing::fault::{FailedAppend, Faults, FaultyStorage};

use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

#[tokio::test]
async fn a_failed_append_is_refused_and_the_retry_finds_out() {
    for how in [FailedAppend::IndefiniteStored, FailedAppend::IndefiniteLost] {
        let storage = FaultyStorage::new(Arc::new(MemoryStorage::new()));
        let registry = Arc::new(MemoryRegistry::new());
        let builder = Server::builder(Arc::new(storage.clone()), registry, Arc::new(AllowAll));
        let server = TestServer::start(builder, &[("alice", "team"), ("bob", "team")]).await;
        let mut reader = Socket::connect(&server.url()).await;
        reader.subscribe(&key("bob"), 0).await;
        let mut client = Socket::connect(&server.url()).await;
        let (one, two) = (entry("E", "1", b""), entry("E", "2", b""));
        client.write(&key("alice"), 1, &batch(std::slice::from_ref(&one))).await;
        assert_eq!(client.next_ack().await, (1, vec![1]));
        assert_eq!(reader.next_entries(1).await, [(1, one)]);
        storage.set(Faults { append: Some((0, how)), ..Faults::default() });
        client.write(&key("alice"), 2, &batch(std::slice::from_ref(&two))).await;
        assert_eq!(client.next_refusal().await.code, ErrorCode::InternalServerError, "{how:?}");
        storage.set(Faults::default());
        // While the store is opened again it refuses; then the same entry gets its existing sequence, or a new one.
        let mut id = 3;
        loop {
            client.write(&key("alice"), id, &batch(std::slice::from_ref(&two))).await;
            match client.next_answer().await {
                Ok((_, sequences)) => break assert_eq!(sequences, [2], "{how:?}"),
                Err(refusal) => assert_eq!(refusal.code, ErrorCode::InternalServerError),
            }
            id += 1;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(reader.next_entries(1).await, [(2, two)], "{how:?}: once, and only now");
        reader.nothing_comes().await;
    }
}

#[tokio::test]
async fn whether_writes_are_taken_is_a_metric() {
    let storage = FaultyStorage::new(Arc::new(MemoryStorage::new()));
    let registry = Arc::new(MemoryRegistry::new());
    let builder = Server::builder(Arc::new(storage.clone()), registry, Arc::new(AllowAll));
    let server = TestServer::start(builder, &[]).await;
    server.comes_to("eventlog_storage_is_ready", 1).await;
    storage.set(Faults { opening: true, ..Faults::default() });
    server.comes_to("eventlog_storage_is_ready", 0).await;
}
