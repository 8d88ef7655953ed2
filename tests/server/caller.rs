//! What `Auth` gets to know about the caller.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::HttpRequest;
use eventlog_server::model::{Batch, PublicKey};
use eventlog_server::protocol::msgpack::ErrorCode;
use eventlog_server::protocol::rpc;
use eventlog_server::server::{Builder, Server};
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::services::{Auth, AuthError, AuthReason, Claim};
use eventlog_server::storage::memory::MemoryStorage;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use crate::server::embedding::serve;
use crate::support::rpc::{DEFAULT, RpcSocket, framed_entry, identity};
use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key, store};

/// What the application derives from a request: the user whose token is in the query.
#[derive(Clone, Debug, PartialEq)]
struct User(String);

fn user_of(request: &HttpRequest) -> User {
    User(request.query_string().trim_start_matches("token=").to_owned())
}

/// Refuses keys that are not the user's, and records everything that it is told.
#[derive(Default)]
struct Noting(Mutex<Vec<Told>>);

#[derive(Clone, Debug, PartialEq)]
struct Told {
    question: &'static str,
    key: PublicKey,
    proof: Option<[u8; 32]>,
    peer: Option<SocketAddr>,
    target: String,
    agent: Option<String>,
    user: Option<User>,
}

impl Noting {
    fn decide(&self, question: &'static str, claim: Claim<'_>) -> Result<(), AuthError> {
        let (caller, key) = (claim.caller, claim.key.clone());
        let user = caller.get::<User>().cloned();
        let own = user.as_ref().is_some_and(|User(name)| name == key.as_str());
        self.0.lock().push(Told {
            question,
            key: key.clone(),
            proof: claim.proof.copied(),
            peer: caller.peer(),
            target: format!("{} {}", caller.path(), caller.query()),
            agent: caller.header("user-agent").map(str::to_owned),
            user,
        });
        let (reason, message) = (AuthReason::Forbidden, "not yours".into());
        if own { Ok(()) } else { Err(AuthError { reason, key, message }) }
    }
}

impl Auth for Noting {
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        _: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(ready(self.decide("write", claim)))
    }

    fn authorize_read<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(ready(self.decide("read", claim)))
    }

    fn authorize_identity<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(ready(self.decide("be", claim)))
    }
}

fn noting() -> (Builder, Arc<Noting>) {
    let (noting, storage) = (Arc::new(Noting::default()), Arc::new(MemoryStorage::new()));
    (Server::builder(storage, Arc::new(MemoryRegistry::new()), noting.clone()), noting)
}

const TEAM: [(&str, &str); 2] = [("alice", "team"), ("bob", "team")];

/// Makes every kind of request with both keys, and succeeds with the user's own.
async fn ask_by_msgpack(client: &mut Socket) {
    for name in ["alice", "bob"] {
        client.write(&key(name), 1, &batch(&[entry("E", "", b"")])).await;
        if name == "alice" {
            assert_eq!(client.next_ack().await, (1, vec![1]));
        } else {
            assert_eq!(client.next_refusal().await.code, ErrorCode::Unauthorized);
            client.subscribe(&key(name), 0).await;
            assert_eq!(client.next_refusal().await.code, ErrorCode::Unauthorized);
        }
    }
}

#[tokio::test]
async fn every_check_sees_the_handshake_and_the_applications_own_user() {
    let (builder, noting) = noting();
    let called = Arc::new(AtomicUsize::new(0));
    let count = called.clone();
    let builder = builder.caller(move |request| {
        count.fetch_add(1, Ordering::Relaxed);
        user_of(request)
    });
    let server = TestServer::start(builder, &TEAM).await;
    let agent = [("User-Agent", "a test")];
    let url = format!("{}?token=alice", server.url());
    let mut client = Socket::connect_with(&url, &agent).await;
    let peer = client.local_addr();
    client.next().await;
    ask_by_msgpack(&mut client).await;
    let told = |question, name, proof| Told {
        question,
        key: key(name),
        proof,
        peer: Some(peer),
        target: "/eventlog token=alice".to_owned(),
        agent: Some("a test".to_owned()),
        user: Some(User("alice".to_owned())),
    };
    let all = [told("write", "alice", None), told("write", "bob", None), told("read", "bob", None)];
    assert_eq!(*noting.0.lock(), all);
    assert_eq!(called.load(Ordering::Relaxed), 1, "once for the connection");
}

#[tokio::test]
async fn a_proved_key_comes_with_its_proof() {
    let (builder, noting) = noting();
    let server = TestServer::start(builder.caller(user_of), &TEAM).await;
    let mut client = RpcSocket::connect(&format!("{}?token=alice", server.rpc_url())).await;
    let refused = client.authenticate(&identity("bob")).await.expect_err("refused");
    assert_eq!(refused.code, rpc::ErrorCode::Unauthorized);
    client.authenticate(&identity("alice")).await.expect("authenticated");
    client.write("alice", &[framed_entry("E", "", b"")]).await.expect("acknowledged");
    client.subscribe("alice", DEFAULT, 0).await;
    client.next().await;
    let noted = noting.0.lock();
    let asked = noted.iter().map(|told| (told.question, told.key.as_str(), told.proof));
    let (alice, bob) = (identity("alice"), identity("bob"));
    let (alice, bob) = (Some(*alice.signing_public_key()), Some(*bob.signing_public_key()));
    let all = [
        ("be", "bob", bob),
        ("be", "alice", alice),
        ("write", "alice", alice),
        ("read", "alice", alice),
    ];
    assert_eq!(asked.collect::<Vec<_>>(), all);
    assert!(noted.iter().all(|told| told.target == "/rpc token=alice"));
}

/// Where the dispatcher of actix-http keeps the socket, as in every application that mounts the server.
#[tokio::test]
async fn a_mounted_server_sees_who_connects_as_well() {
    let (builder, noting) = noting();
    let server = builder.caller(user_of).start().expect("it starts");
    server.assign(key("alice"), store("team")).await.expect("assigned");
    let mounted = server.clone();
    let address = serve(move |config| mounted.configure(config)).await;
    let mut client = Socket::connect(&format!("ws://{address}/eventlog?token=alice")).await;
    let peer = client.local_addr();
    ask_by_msgpack(&mut client).await;
    let noted = noting.0.lock();
    assert!(noted.iter().all(|told| told.peer == Some(peer) && told.user.is_some()), "{noted:?}");
}

/// It is kept for as long as the connection lives.
#[tokio::test]
async fn a_handshake_of_more_than_16_kib_is_refused() {
    let server = TestServer::with_keys(&TEAM).await;
    let (most, more) = ("c".repeat(15 * 1_024), "c".repeat(16 * 1_024));
    Socket::connect_with(&server.url(), &[("Cookie", &most)]).await;
    assert_eq!(Socket::refused_status(&server.url(), &[("Cookie", &more)]).await, 431);
}
