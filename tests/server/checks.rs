//! The order of a request's checks: a request that fails one of them never gets to the next, and leaves nothing there.

use std::sync::Arc;

use eventlog_server::model::{Batch, PublicKey, StoreId};
use eventlog_server::protocol::msgpack::ErrorCode;
use eventlog_server::server::Server;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::services::{Auth, AuthError, AuthReason, Claim, RegistryError, StoreRegistry};
use eventlog_server::storage::Storage;
use eventlog_server::storage::memory::MemoryStorage;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key, store};

/// Authorization and registry for everybody, recording what it is asked. Only `mallory` may do nothing.
#[derive(Default)]
struct Noting {
    asked: Mutex<Vec<String>>,
    registry: MemoryRegistry,
}

impl Noting {
    fn note(&self, question: String) {
        self.asked.lock().push(question);
    }

    /// What was asked since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock())
    }

    fn decide(key: &PublicKey) -> BoxFuture<'static, Result<(), AuthError>> {
        let (reason, message) = (AuthReason::Forbidden, "stay outside".into());
        let refused = AuthError { reason, key: key.clone(), message };
        Box::pin(ready(if key.as_str() == "mallory" { Err(refused) } else { Ok(()) }))
    }
}

impl Auth for Noting {
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        entries: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        self.note(format!("may {} write {}", claim.key, entries.len()));
        Self::decide(claim.key)
    }

    fn authorize_read<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        self.note(format!("may {} read", claim.key));
        Self::decide(claim.key)
    }
}

impl StoreRegistry for Noting {
    fn resolve<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        self.note(format!("which store has {key}"));
        self.registry.resolve(key)
    }

    fn assign<'a>(
        &'a self,
        key: &'a PublicKey,
        store: &'a StoreId,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.registry.assign(key, store)
    }

    fn remove<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        self.registry.remove(key)
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a PublicKey>,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<(PublicKey, StoreId)>, RegistryError>> {
        self.registry.list(after, count)
    }
}

async fn noting() -> (TestServer, Arc<Noting>, Arc<MemoryStorage>) {
    let (noting, storage) = (Arc::new(Noting::default()), Arc::new(MemoryStorage::new()));
    let builder = Server::builder(storage.clone(), noting.clone(), noting.clone());
    let server = TestServer::start(builder, &[("alice", "team"), ("mallory", "team")]).await;
    // What an assignment asks is not checked here.
    noting.asked();
    (server, noting, storage)
}

#[tokio::test]
async fn a_write_is_authorized_once_as_a_whole_then_resolved_then_validated() {
    let (server, noting, storage) = noting().await;
    let mut client = Socket::connect(&server.url()).await;
    let good = [entry("E", "", b""), entry("E", "", b"")];
    let bad = [entry("E", "", b""), entry("", "", b"")];
    for (name, entries, code, asked) in [
        ("mallory", &bad, ErrorCode::Unauthorized, &["may mallory write 2"][..]),
        (
            "nobody",
            &bad,
            ErrorCode::InvalidRequest,
            &["may nobody write 2", "which store has nobody"],
        ),
        ("alice", &bad, ErrorCode::InvalidRequest, &["may alice write 2", "which store has alice"]),
    ] {
        client.write(&key(name), 1, &batch(entries)).await;
        assert_eq!(client.next_refusal().await.code, code, "{name}");
        assert_eq!(noting.asked(), asked);
    }
    assert!(storage.stores(None, 1).expect("the stores").is_empty(), "nothing was stored");
    client.write(&key("alice"), 2, &batch(&good)).await;
    assert_eq!(client.next_ack().await, (2, vec![1, 2]));
    assert_eq!(noting.asked(), ["may alice write 2", "which store has alice"]);
}

#[tokio::test]
async fn a_read_is_authorized_then_resolved_and_a_refused_one_leaves_no_subscription() {
    let (server, noting, _) = noting().await;
    let mut client = Socket::connect(&server.url()).await;
    for (name, code, asked) in [
        ("mallory", ErrorCode::Unauthorized, &["may mallory read"][..]),
        ("nobody", ErrorCode::InvalidRequest, &["may nobody read", "which store has nobody"]),
    ] {
        client.subscribe(&key(name), 0).await;
        assert_eq!(client.next_refusal().await.code, code);
        assert_eq!(noting.asked(), asked);
    }
    for gauge in ["eventlog_subscriptions_open", "eventlog_stores_open"] {
        assert!(server.metric(gauge).await < 0.5, "{gauge}");
    }
    client.subscribe(&key("alice"), 0).await;
    client.ping(1).await;
    client.next().await;
    assert_eq!(noting.asked(), ["may alice read", "which store has alice"]);
    assert!(server.metric("eventlog_subscriptions_open").await > 0.5);
}

#[tokio::test]
async fn the_servers_own_writes_are_validated_and_nothing_else() {
    let (server, noting, storage) = noting().await;
    let write =
        |event| server.server.write_to_store(store("team"), vec![entry(event, "", b"")], true);
    let refused = write("").await.expect_err("an empty event");
    assert!(refused.to_string().contains("entry 0"), "{refused}");
    assert!(storage.stores(None, 1).expect("the stores").is_empty(), "nothing was stored");
    write("E").await.expect("written");
    assert_eq!(noting.asked(), <[String; 0]>::default());
}
