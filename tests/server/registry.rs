//! Keys come and go while clients are connected, but do not move.

use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::{Limits, PublicKey, Sequence, StoreId};
use eventlog_server::protocol::msgpack::{ErrorCode, Response};
use eventlog_server::protocol::rpc;
use eventlog_server::server::{Builder, ClientError, Server};
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::{DevRegistry, MemoryRegistry};
use eventlog_server::services::{Caller, RegistryError, StoreRegistry};
use eventlog_server::storage::Storage;
use eventlog_server::storage::memory::MemoryStorage;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, ready};

use crate::support::rpc::RpcSocket;
use crate::support::server::TestServer;
use crate::support::socket::{Refusal, Socket};
use crate::support::{batch, entry, key, store};

#[tokio::test]
async fn removing_a_key_ends_its_live_subscription_and_its_writes() {
    let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
    let mut alice = Socket::connect(&server.url()).await;
    alice.subscribe(&key("alice"), 0).await;
    alice.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(alice.next_ack().await, (1, vec![1]));
    assert_eq!(server.server.remove(key("alice")).await.expect("removed"), store("team"));
    let refusal = alice.next_refusal().await;
    assert_eq!(refusal.request_tag, "RequestChanges");
    assert_eq!(
        (refusal.code, refusal.public_key.as_deref()),
        (ErrorCode::InvalidRequest, Some("alice"))
    );
    alice.write(&key("alice"), 2, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(alice.next_refusal().await.code, ErrorCode::InvalidRequest);
    let mut bob = Socket::connect(&server.url()).await;
    bob.write(&key("bob"), 3, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(bob.next_ack().await, (3, vec![2]));
    alice.nothing_comes().await;
}

fn over(storage: &Arc<MemoryStorage>, registry: &Arc<MemoryRegistry>) -> Builder {
    Server::builder(storage.clone(), registry.clone(), Arc::new(AllowAll))
}

fn head(storage: &MemoryStorage, name: &str) -> u64 {
    storage.size(&store(name)).expect("a size").head.get()
}

/// Writes one entry as alice.
async fn write(client: &mut Socket, id: u64) -> Result<(u64, Vec<u64>), Refusal> {
    client.write(&key("alice"), id, &batch(&[entry("E", "", b"")])).await;
    client.next_answer().await
}

/// What somebody does in the application's table, without telling the server.
async fn move_in_the_table(registry: &MemoryRegistry, name: &str, to: &str) {
    registry.remove(&key(name)).await.expect("removed");
    registry.assign(&key(name), &store(to)).await.expect("assigned");
}

#[tokio::test]
async fn a_key_that_was_used_goes_to_another_store_only_when_it_is_released() {
    let running = TestServer::with_keys(&[("alice", "old")]).await;
    let server = &running.server;
    let mut alice = Socket::connect(&running.url()).await;
    for id in [1, 2] {
        assert_eq!(write(&mut alice, id).await, Ok((id, vec![id])));
    }
    server.remove(key("alice")).await.expect("removed");
    let moved = server.assign(key("alice"), store("new")).await;
    assert_eq!(moved, Err(RegistryError::Moved { key: key("alice"), store: store("old") }));
    // To the same store, it is not a move.
    server.assign(key("alice"), store("old")).await.expect("its own store");
    assert_eq!(write(&mut alice, 3).await, Ok((3, vec![3])));
    server.remove(key("alice")).await.expect("removed");
    assert_eq!(server.release(key("alice")).await, Ok(Some(store("old"))));
    assert_eq!(server.release(key("alice")).await, Ok(None));
    server.assign(key("alice"), store("new")).await.expect("a free key");
    assert_eq!(write(&mut alice, 4).await, Ok((4, vec![1])), "the new store begins at 1");
}

#[tokio::test]
async fn a_key_that_nobody_used_has_the_store_that_it_had_last() {
    let server = TestServer::with_keys(&[("alice", "old")]).await.server.clone();
    server.remove(key("alice")).await.expect("removed");
    let moved = server.assign(key("alice"), store("new")).await;
    assert_eq!(moved, Err(RegistryError::Moved { key: key("alice"), store: store("old") }));
}

#[tokio::test]
async fn a_table_that_moves_a_key_without_a_word_ends_what_the_key_had_in_a_bounded_time() {
    let (storage, registry) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryRegistry::new()));
    let limits =
        Limits { registry_answer_age_max: Duration::from_millis(200), ..Limits::default() };
    let running = TestServer::start(
        over(&storage, &registry).limits(limits),
        &[("alice", "team-a"), ("bob", "team-b")],
    )
    .await;
    let mut writer = Socket::connect(&running.url()).await;
    let mut reader = Socket::connect(&running.url()).await;
    reader.subscribe(&key("alice"), 0).await;
    let caller = Caller::default();
    let follow = async || {
        let changes = running.server.request_changes(&caller, &key("alice"), Sequence::FIRST).await;
        changes.expect("a feed")
    };
    let mut in_process = follow().await;
    assert_eq!(write(&mut writer, 1).await, Ok((1, vec![1])));
    assert_eq!(reader.next_entries(1).await[0].0, 1);

    move_in_the_table(&registry, "alice", "team-b").await;
    // Until the registry's last answer is too old, writes go where they went.
    let mut id = 1;
    let refused = loop {
        id += 1;
        match write(&mut writer, id).await {
            Ok((_, sequences)) => assert_eq!(sequences, [id]),
            Err(refused) => break refused,
        }
        assert!(id < 1_000, "the server does not notice");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((refused.id, refused.code), (Some(id), ErrorCode::InvalidRequest));
    assert!(refused.message.starts_with("moved: ") && !refused.message.contains("team"));
    assert_eq!((head(&storage, "team-a"), head(&storage, "team-b")), (id - 1, 0));
    // A client that only reads is told, without having asked.
    let mut seen = 1;
    let ended = loop {
        match reader.next().await {
            Response::Changes(view) => seen += view.iter().count() as u64,
            Response::Error { message, .. } => break message,
            other => panic!("neither entries nor an end: {other:?}"),
        }
    };
    assert!(seen == id - 1 && ended.contains("moved"), "{seen} of {id}: {ended}");
    let ended = loop {
        match in_process.next().await.expect("its end is an error") {
            Ok(entry) => assert!(entry.remote_sequence.get() < id),
            Err(ended) => break ended,
        }
    };
    assert!(matches!(ended, ClientError::KeyRemoved), "{ended:?}");
    reader.subscribe(&key("alice"), 0).await;
    assert!(reader.next_refusal().await.message.starts_with("moved: "));
    // Another server on the same storage knows it too.
    let again = TestServer::start(over(&storage, &registry), &[]).await;
    let refused = write(&mut Socket::connect(&again.url()).await, 1).await;
    assert!(refused.expect_err("refused").message.starts_with("moved: "));
    // Whoever says that nothing of the old store is left makes both follow.
    assert_eq!(running.server.release(key("alice")).await, Ok(Some(store("team-a"))));
    assert_eq!(write(&mut writer, 900).await, Ok((900, vec![1])));
    reader.subscribe(&key("alice"), 0).await;
    assert_eq!(reader.next_entries(1).await[0].0, 1);
    assert_eq!((head(&storage, "team-a"), head(&storage, "team-b")), (id - 1, 1));
}

#[tokio::test]
async fn a_change_that_the_server_is_told_of_counts_at_once() {
    let (storage, registry) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryRegistry::new()));
    let limits = Limits { registry_answer_age_max: Duration::MAX, ..Limits::default() };
    let keys = [("alice", "team-a")];
    let running = TestServer::start(over(&storage, &registry).limits(limits), &keys).await;
    let mut alice = Socket::connect(&running.url()).await;
    alice.subscribe(&key("alice"), 0).await;
    for id in [1, 2] {
        assert_eq!(write(&mut alice, id).await, Ok((id, vec![id])));
    }
    registry.remove(&key("alice")).await.expect("removed");
    running.server.forget(&key("alice"));
    assert_eq!(alice.next_refusal().await.request_tag, "RequestChanges");
    let refused = write(&mut alice, 3).await.expect_err("it has no store");
    assert!(refused.message.contains("not mapped"), "{}", refused.message);
    // It gets the store back that it had, without waiting.
    registry.assign(&key("alice"), &store("team-a")).await.expect("assigned");
    assert_eq!(write(&mut alice, 4).await, Ok((4, vec![3])));
    move_in_the_table(&registry, "alice", "team-b").await;
    running.server.forget(&key("alice"));
    let refused = write(&mut alice, 5).await.expect_err("it does not move");
    assert!(refused.message.starts_with("moved: "), "{}", refused.message);
    assert_eq!((head(&storage, "team-a"), head(&storage, "team-b")), (3, 0));
    // In process, the application is told which store it was.
    let caller = Caller::default();
    let read = running.server.request_changes(&caller, &key("alice"), Sequence::FIRST).await;
    let expected = RegistryError::Moved { key: key("alice"), store: store("team-a") };
    assert!(matches!(read, Err(ClientError::Registry(error)) if error == expected));
}

#[tokio::test]
async fn a_registry_that_assigns_by_itself_leaves_a_removed_key_alone() {
    let inner = Arc::new(MemoryRegistry::new());
    let dev = Arc::new(DevRegistry::new(inner.clone(), store("default")));
    let builder = Server::builder(Arc::new(MemoryStorage::new()), dev, Arc::new(AllowAll));
    let running = TestServer::start(builder, &[("alice", "team")]).await;
    let mut alice = Socket::connect(&running.url()).await;
    assert_eq!(write(&mut alice, 1).await, Ok((1, vec![1])));
    running.server.remove(key("alice")).await.expect("removed");
    assert!(write(&mut alice, 2).await.is_err());
    assert_eq!(inner.list(None, 9).await, Ok(vec![]));
    running.server.assign(key("alice"), store("team")).await.expect("its own store");
    assert_eq!(write(&mut alice, 3).await, Ok((3, vec![2])));
}

/// A table behind a broken connection, with the usual kind of error.
struct Down;

const SECRET: &str = "postgres://app:hunter2@10.0.0.7/users: connection refused";

impl StoreRegistry for Down {
    fn resolve<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        Box::pin(ready(Err(RegistryError::unavailable(Some(key), SECRET))))
    }

    fn assign<'a>(
        &'a self,
        _: &'a PublicKey,
        _: &'a StoreId,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        Box::pin(ready(Err(RegistryError::unavailable(None, SECRET))))
    }

    fn remove<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        self.resolve(key)
    }

    fn list<'a>(
        &'a self,
        _: Option<&'a PublicKey>,
        _: usize,
    ) -> BoxFuture<'a, Result<Vec<(PublicKey, StoreId)>, RegistryError>> {
        Box::pin(ready(Err(RegistryError::unavailable(None, SECRET))))
    }
}

#[tokio::test]
async fn clients_are_not_told_how_the_registry_is_made_and_the_application_is() {
    let builder =
        Server::builder(Arc::new(MemoryStorage::new()), Arc::new(Down), Arc::new(AllowAll));
    let running = TestServer::start(builder, &[]).await;
    let mut client = Socket::connect(&running.url()).await;
    let written = write(&mut client, 1).await.expect_err("refused");
    client.subscribe(&key("alice"), 0).await;
    for refused in [written, client.next_refusal().await] {
        assert_eq!(refused.code, ErrorCode::InternalServerError);
        assert_eq!(refused.message, "the store registry is unavailable");
    }
    let mut client = RpcSocket::authenticated(&running.rpc_url(), &["alice"]).await;
    let feed = client.subscribe("alice", "default", 0).await;
    for refused in
        [client.refused(&feed).await, client.write("alice", &[]).await.expect_err("refused")]
    {
        assert_eq!(refused.code, rpc::ErrorCode::InternalServerError);
        assert_eq!(refused.message, "the store registry is unavailable");
    }
    let caller = Caller::default();
    let written = running.server.ingest_client(&caller, &key("alice"), Vec::new()).await;
    assert!(written.expect_err("refused").to_string().contains(SECRET));
}
