//! Signing keys that an administrator replaces: whoever proved the earlier one is out, whatever happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use eventlog_server::model::PublicKey;
use eventlog_server::protocol::rpc::ErrorCode;
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::identities::{
    Identities, IdentityError, MemoryIdentities, SigningKey,
};
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::memory::MemoryStorage;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::support::rpc::{DEFAULT, RpcSocket, framed_entry};
use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

/// Replaces at once, and answers when it may.
struct Slow {
    inner: MemoryIdentities,
    replaced: Semaphore,
    answers: Semaphore,
    fails: AtomicBool,
    /// How often it was asked for a signing key.
    asked: AtomicUsize,
    /// Binds this one behind the next answer.
    binds_next: Mutex<Option<SigningKey>>,
}

impl Identities for Slow {
    fn bind<'a>(
        &'a self,
        key: &'a PublicKey,
        signing_key: &'a SigningKey,
    ) -> BoxFuture<'a, Result<(), IdentityError>> {
        self.inner.bind(key, signing_key)
    }

    fn get<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<SigningKey>, IdentityError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let binds = self.binds_next.lock().take();
        Box::pin(async move {
            let answer = self.inner.get(key).await;
            if let Some(signing_key) = binds {
                self.inner.bind(key, &signing_key).await?;
            }
            answer
        })
    }

    fn replace<'a>(
        &'a self,
        key: &'a PublicKey,
        signing_key: Option<&'a SigningKey>,
    ) -> BoxFuture<'a, Result<Option<SigningKey>, IdentityError>> {
        Box::pin(async move {
            let before = self.inner.replace(key, signing_key).await;
            self.replaced.add_permits(1);
            self.answers.acquire().await.expect("it lives").forget();
            if self.fails.load(Ordering::SeqCst) {
                return Err(IdentityError::unavailable("the answer is lost"));
            }
            before
        })
    }

    fn count(&self, most: usize) -> BoxFuture<'_, Result<usize, IdentityError>> {
        self.inner.count(most)
    }
}

async fn start() -> (TestServer, Arc<Slow>) {
    let slow = Arc::new(Slow {
        inner: MemoryIdentities::default(),
        replaced: Semaphore::new(0),
        answers: Semaphore::new(0),
        fails: AtomicBool::new(false),
        asked: AtomicUsize::new(0),
        binds_next: Mutex::new(None),
    });
    let (storage, registry) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryRegistry::new()));
    let builder = Server::builder(storage, registry, Arc::new(AllowAll));
    let builder = builder.identities(slow.clone());
    (TestServer::start(builder, &[("alice", "team"), ("bob", "team")]).await, slow)
}

/// The administrator's connection ends, for example. What was on disk already had no effect.
#[tokio::test]
async fn a_signing_key_is_replaced_to_the_end_even_if_nobody_waits_for_it() {
    let (server, slow) = start().await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let feed = client.subscribe("alice", DEFAULT, 0).await;
    server.comes_to("eventlog_subscriptions_open", 1).await;
    let alice = key("alice");
    tokio::select! {
        _ = server.server.pin(&alice, &[9; 32]) => panic!("it waits for its answer"),
        replaced = slow.replaced.acquire() => replaced.expect("it lives").forget(),
    }
    slow.answers.add_permits(1);
    assert_eq!(client.refused(&feed).await.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_signing_key_that_may_have_been_replaced_counts_as_replaced() {
    let (server, slow) = start().await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let feed = client.subscribe("alice", DEFAULT, 0).await;
    server.comes_to("eventlog_subscriptions_open", 1).await;
    slow.fails.store(true, Ordering::SeqCst);
    slow.answers.add_permits(1);
    server.server.unpin(&key("alice")).await.expect_err("the answer is lost");
    assert_eq!(client.refused(&feed).await.code, ErrorCode::NotFound);
}

/// A session that writes with several keys in turn does not look up their signing keys for each write.
#[tokio::test]
async fn a_replaced_signing_key_is_out_at_once_also_beside_other_keys_of_its_connection() {
    let (server, slow) = start().await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice", "bob"]).await;
    for n in 0..3 {
        for name in ["alice", "bob"] {
            let payload = [n];
            client.write(name, &[framed_entry("E", "", &payload)]).await.expect("acknowledged");
        }
    }
    let asked = slow.asked.load(Ordering::SeqCst);
    client.write("alice", &[framed_entry("E", "", b"")]).await.expect("acknowledged");
    assert_eq!(slow.asked.load(Ordering::SeqCst), asked, "it was known");

    slow.answers.add_permits(1);
    server.server.pin(&key("alice"), &[9; 32]).await.expect("pinned");
    let refused = client.write("alice", &[framed_entry("E", "", b"")]).await;
    assert_eq!(refused.expect_err("another one holds it").code, ErrorCode::Forbidden);
    client.write("bob", &[framed_entry("E", "", b"")]).await.expect("acknowledged");
}

/// Nor does one whose key has none, which would ask for each write.
#[tokio::test]
async fn a_key_without_a_signing_key_is_looked_up_once_for_many_writes() {
    let (server, slow) = start().await;
    let mut client = Socket::connect(&server.url()).await;
    for n in 0..10 {
        client.write(&key("alice"), n, &batch(&[entry("E", "", b"")])).await;
        client.next_ack().await;
    }
    // Before the key was used here, and after.
    assert_eq!(slow.asked.load(Ordering::SeqCst), 2);

    slow.answers.add_permits(1);
    server.server.pin(&key("alice"), &[9; 32]).await.expect("pinned");
    client.write(&key("alice"), 11, &batch(&[entry("E", "", b"")])).await;
    assert!(client.next_answer().await.is_err(), "it needs its proof now");
}

/// Whoever binds it finds that the key was not used, and tells nobody.
#[tokio::test]
async fn a_signing_key_that_is_bound_during_the_first_write_without_one_counts() {
    let (server, slow) = start().await;
    let mut client = Socket::connect(&server.url()).await;
    *slow.binds_next.lock() = Some([9; 32]);
    client.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
    assert!(client.next_answer().await.is_err(), "it needs its proof now");
}
