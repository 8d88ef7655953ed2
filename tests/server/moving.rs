//! A key gets another store in one operation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eventlog_server::model::{PublicKey, StoreId};
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::services::{RegistryError, StoreRegistry};
use eventlog_server::storage::memory::MemoryStorage;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, http, key, store};

/// A registry that assigns nothing while it is told so.
#[derive(Default)]
struct Refusing {
    registry: MemoryRegistry,
    /// Refuses the store `other` alone.
    refuses_other: AtomicBool,
    refuses: AtomicBool,
}

impl StoreRegistry for Refusing {
    fn resolve<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        self.registry.resolve(key)
    }

    fn look_up<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        self.registry.look_up(key)
    }

    fn assign<'a>(
        &'a self,
        key: &'a PublicKey,
        to: &'a StoreId,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        let is_other = to.as_str() == "other" && self.refuses_other.load(Ordering::SeqCst);
        if is_other || self.refuses.load(Ordering::SeqCst) {
            let error = RegistryError::unavailable(Some(key), std::io::Error::other("away"));
            return async move { Err(error) }.boxed();
        }
        self.registry.assign(key, to)
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

async fn server() -> (TestServer, Arc<Refusing>) {
    let registry = Arc::new(Refusing::default());
    let storage = Arc::new(MemoryStorage::new());
    let builder = Server::builder(storage, registry.clone(), Arc::new(AllowAll));
    let server = TestServer::start(builder.admin_token("s3cret"), &[("alice", "team")]).await;
    (server, registry)
}

/// The answer to a request to move a key: its status and the rest.
async fn move_key(server: &TestServer, name: &str, to: &str) -> (String, String) {
    let (line, header) =
        (format!("POST /admin/keys/{name}/move"), "authorization: Bearer s3cret\r\n");
    let body = format!("{{\"storeId\":{to:?}}}");
    let answer = http::request(server.addr, &line, header, &body).await;
    (answer[9..12].to_owned(), answer)
}

/// Writes an entry as alice.
async fn write(client: &mut Socket, id: u64) -> Result<Vec<u64>, String> {
    client.write(&key("alice"), id, &batch(&[entry("E", "", b"")])).await;
    client.next_answer().await.map(|(_, at)| at).map_err(|refusal| refusal.message)
}

#[tokio::test]
async fn a_moved_key_writes_to_its_new_store_and_its_subscription_ends() {
    let (server, _) = server().await;
    let mut alice = Socket::connect(&server.url()).await;
    alice.subscribe(&key("alice"), 0).await;
    assert_eq!(write(&mut alice, 1).await, Ok(vec![1]));
    assert_eq!(write(&mut alice, 2).await, Ok(vec![2]));
    let (status, answer) = move_key(&server, "alice", "other").await;
    assert_eq!(
        (status.as_str(), answer.ends_with("{\"storeId\":\"other\"}")),
        ("200", true),
        "{answer}"
    );
    assert_eq!(alice.next_refusal().await.request_tag, "RequestChanges");
    assert_eq!(write(&mut alice, 3).await, Ok(vec![1]), "in the other store");
    // Nothing is left of the first store; to move it where it is changes nothing.
    assert_eq!(move_key(&server, "alice", "other").await.0, "200");
    let (status, answer) = move_key(&server, "nobody", "other").await;
    assert_eq!((status.as_str(), answer.contains("no-such-key")), ("404", true), "{answer}");
    assert_eq!(move_key(&server, "alice", "").await.0, "400");
    assert_eq!(server.server.remove(key("alice")).await.expect("removed"), store("other"));
}

#[tokio::test]
async fn a_key_that_cannot_be_moved_keeps_its_store() {
    let (server, registry) = server().await;
    let mut alice = Socket::connect(&server.url()).await;
    assert_eq!(write(&mut alice, 1).await, Ok(vec![1]));
    registry.refuses_other.store(true, Ordering::SeqCst);
    assert_eq!(move_key(&server, "alice", "other").await.0, "503");
    assert_eq!(write(&mut alice, 2).await, Ok(vec![2]), "in its own store");
}

#[tokio::test]
async fn a_move_that_was_interrupted_is_ended_by_the_next_one() {
    let (server, registry) = server().await;
    let mut alice = Socket::connect(&server.url()).await;
    assert_eq!(write(&mut alice, 1).await, Ok(vec![1]));
    // As after a crash: removed and not assigned.
    registry.refuses.store(true, Ordering::SeqCst);
    assert_eq!(move_key(&server, "alice", "other").await.0, "503");
    registry.refuses.store(false, Ordering::SeqCst);
    assert!(registry.look_up(&key("alice")).await.is_err());
    assert!(write(&mut alice, 2).await.is_err());
    assert_eq!(move_key(&server, "alice", "other").await.0, "200");
    assert_eq!(write(&mut alice, 3).await, Ok(vec![1]));
    // As after a crash between the last two steps: assigned, and the note still says the first store.
    registry.remove(&key("alice")).await.expect("removed");
    registry.assign(&key("alice"), &store("third")).await.expect("assigned");
    server.server.forget(&key("alice"));
    assert!(write(&mut alice, 4).await.expect_err("elsewhere").starts_with("moved"));
    assert_eq!(move_key(&server, "alice", "third").await.0, "200");
    assert_eq!(write(&mut alice, 5).await, Ok(vec![1]));
}
