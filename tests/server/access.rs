//! Answers of `Auth` that change while sessions live.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use eventlog_server::model::{Batch, Sequence};
use eventlog_server::protocol::msgpack::ErrorCode;
use eventlog_server::server::{ClientError, Server};
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::services::{Auth, AuthError, AuthReason, Caller, Claim, Revocation, Revoked};
use eventlog_server::storage::memory::MemoryStorage;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::support::rpc::{DEFAULT, RpcSocket, identity};
use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key, store};

/// Allows everything to everyone except these keys, once it may answer.
struct Switch {
    refused: Mutex<HashSet<String>>,
    answers: watch::Sender<bool>,
    /// How long a permission to read counts.
    holds: Option<Duration>,
    asked: AtomicUsize,
}

impl Switch {
    fn new(holds: Option<Duration>) -> Arc<Self> {
        let (refused, answers) = (Mutex::default(), watch::Sender::new(true));
        Arc::new(Self { refused, answers, holds, asked: AtomicUsize::new(0) })
    }

    fn refuse(&self, name: &str) {
        self.refused.lock().insert(name.to_owned());
    }

    fn answer<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        // The state at the time of the question.
        let refused = self.refused.lock().contains(claim.key.as_str());
        let (reason, key, message) = (AuthReason::Forbidden, claim.key.clone(), "no more".into());
        Box::pin(async move {
            self.answers.subscribe().wait_for(|may| *may).await.expect("it lives");
            if refused { Err(AuthError { reason, key, message }) } else { Ok(()) }
        })
    }
}

impl Auth for Switch {
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        _: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        self.answer(claim)
    }

    fn authorize_read<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        self.answer(claim)
    }

    fn authorize_identity<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        self.answer(claim)
    }

    fn holds_until(&self, _: Claim<'_>) -> Option<Instant> {
        self.holds.map(|holds| Instant::now() + holds)
    }
}

async fn start(switch: &Arc<Switch>) -> TestServer {
    let (storage, registry) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryRegistry::new()));
    let builder = Server::builder(storage, registry, switch.clone());
    TestServer::start(builder, &[("alice", "team"), ("bob", "team")]).await
}

async fn subscribed(server: &TestServer, names: &[&str]) -> Socket {
    let mut client = Socket::connect(&server.url()).await;
    for name in names {
        client.subscribe(&key(name), 0).await;
    }
    client.ping(1).await;
    client.next().await;
    client
}

async fn write_one(server: &TestServer) {
    let entries = vec![entry("E", "", b"")];
    server.server.write_to_store(store("team"), entries, true).await.expect("written");
}

#[tokio::test]
async fn a_subscription_that_is_not_allowed_any_more_ends_and_others_go_on() {
    let switch = Switch::new(None);
    let server = start(&switch).await;
    let mut client = subscribed(&server, &["alice", "bob"]).await;
    switch.refuse("alice");
    server.server.access_changed();
    let refused = client.next_refusal().await;
    assert_eq!((refused.code, refused.public_key), (ErrorCode::Unauthorized, Some("alice".into())));
    assert_eq!(refused.message, "forbidden: no more");
    write_one(&server).await;
    assert_eq!(client.next_entries(1).await[0].0, 1);
    client.nothing_comes().await;
    server.comes_to("eventlog_subscriptions_open", 1).await;
}

#[tokio::test]
async fn a_feed_of_the_rpc_protocol_ends_as_a_refused_request_does() {
    let switch = Switch::new(None);
    let server = start(&switch).await;
    let mut client = RpcSocket::connect(&server.rpc_url()).await;
    client.authenticate(&identity("alice")).await.expect("authenticated");
    let feed = client.subscribe("alice", DEFAULT, 0).await;
    server.comes_to("eventlog_subscriptions_open", 1).await;
    switch.refuse("alice");
    server.server.access_changed();
    let refused = client.refused(&feed).await;
    assert_eq!(refused.message, "forbidden: no more");
    assert_eq!(refused.code, eventlog_server::protocol::rpc::ErrorCode::Unauthorized);
}

/// Outdated answers do not count, whenever they arrive.
#[tokio::test]
async fn what_was_asked_before_a_change_is_asked_again() {
    let switch = Switch::new(None);
    let server = start(&switch).await;
    let mut client = Socket::connect(&server.url()).await;
    let mut asked = 0;
    for reads in [true, false] {
        switch.refused.lock().clear();
        switch.answers.send_replace(false);
        if reads {
            client.subscribe(&key("alice"), 0).await;
        } else {
            client.write(&key("alice"), 7, &batch(&[entry("E", "", b"")])).await;
        }
        asked += 1;
        while switch.asked.load(Ordering::SeqCst) < asked {
            tokio::task::yield_now().await;
        }
        switch.refuse("alice");
        server.server.access_changed();
        switch.answers.send_replace(true);
        assert_eq!(client.next_refusal().await.message, "forbidden: no more", "reads: {reads}");
        asked += 1;
    }
    assert_eq!(server.server.head(&store("team")).await.expect("a head"), Sequence::ZERO);
}

/// The binding would be for good.
#[tokio::test]
async fn whoever_is_revoked_while_a_proof_is_checked_binds_nothing() {
    let switch = Switch::new(None);
    let server = start(&switch).await;
    let mut client = RpcSocket::connect(&server.rpc_url()).await;
    switch.answers.send_replace(false);
    let revoking = async {
        while switch.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let alice = Revocation::new(Revoked::PublicKey(key("alice")));
        server.server.revoke(alice).await.expect("revoked");
        switch.answers.send_replace(true);
    };
    let alice = identity("alice");
    let (proved, ()) = tokio::join!(client.authenticate(&alice), revoking);
    assert!(proved.expect_err("refused").message.starts_with("revoked: "));
    assert_eq!(server.server.signing_key(&key("alice")).await.expect("known"), None);
}

/// A slow `Auth` holds up nothing, and is asked one thing at a time.
#[tokio::test]
async fn a_session_goes_on_while_it_is_asked_about() {
    let switch = Switch::new(None);
    let server = start(&switch).await;
    let mut client = subscribed(&server, &["alice"]).await;
    switch.answers.send_replace(false);
    for round in 0..20 {
        server.server.access_changed();
        write_one(&server).await;
        assert_eq!(client.next_entries(1).await[0].0, round + 1);
    }
    assert_eq!(switch.asked.load(Ordering::SeqCst), 2, "to begin, and once since");
    switch.refuse("alice");
    switch.answers.send_replace(true);
    // The first answer is outdated: alice was allowed then.
    assert_eq!(client.next_refusal().await.message, "forbidden: no more");
    assert_eq!(switch.asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_answer_that_holds_for_some_time_is_asked_for_again_at_its_end() {
    let switch = Switch::new(Some(Duration::from_millis(1_200)));
    let server = start(&switch).await;
    let mut client = subscribed(&server, &["alice"]).await;
    // Nothing else wakes the session.
    let begun = Instant::now();
    while switch.asked.load(Ordering::SeqCst) < 3 {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody asks again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(2), "asked more often than it has to be");
    switch.refuse("alice");
    assert_eq!(client.next_refusal().await.message, "forbidden: no more");
}

#[tokio::test]
async fn a_stream_in_process_ends_when_its_reader_may_not_read_any_more() {
    for holds in [None, Some(Duration::from_secs(1))] {
        let switch = Switch::new(holds);
        let server = start(&switch).await;
        let (caller, alice) = (Caller::default(), key("alice"));
        let changes = server.server.request_changes(&caller, &alice, Sequence::ZERO).await;
        let mut changes = changes.expect("allowed");
        write_one(&server).await;
        changes.next().await.expect("not the end").expect("an entry");
        switch.refuse("alice");
        if holds.is_none() {
            server.server.access_changed();
        }
        let ended = tokio::time::timeout(Duration::from_secs(20), changes.next()).await;
        let ended = ended.expect("soon").expect("an error");
        assert!(matches!(ended, Err(ClientError::Auth(_))), "{ended:?}");
    }
}
