//! Who may act for whom on a connection.

use std::sync::Arc;
use std::time::Instant;

use eventlog_server::model::{Batch, PublicKey, RemoteId};
use eventlog_server::protocol::rpc::{Call, ErrorCode};
use eventlog_server::server::Server;
use eventlog_server::services::identities::{
    Identities, IdentityError, MemoryIdentities, SigningKey,
};
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::services::{Auth, AuthError, AuthReason, Claim};
use eventlog_server::storage::memory::MemoryStorage;
use futures_util::future::{BoxFuture, ready};
use tokio_tungstenite::tungstenite::Message;

use crate::support::key;
use crate::support::rpc::{
    DEFAULT, Heard, Refused, RpcSocket, framed_entry, identity, identity_with,
};
use crate::support::server::{TestServer, in_memory};
use crate::support::socket::Socket;

const TEAM: [(&str, &str); 2] = [("alice", "team"), ("bob", "team")];

#[tokio::test]
async fn before_authentication_everything_but_a_ping_is_forbidden_and_nothing_is_kept() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut client = RpcSocket::connect(&server.rpc_url()).await;
    client.ping().await;
    assert!(matches!(client.next().await, Heard::Pong));
    let one = framed_entry("E", "1", b"");
    let refused = client.write("alice", std::slice::from_ref(&one)).await.expect_err("refused");
    assert_eq!((refused.code, &*refused.request_tag), (ErrorCode::Forbidden, "WriteEntries"));
    let feed = client.subscribe("alice", DEFAULT, 0).await;
    let refused = client.refused(&feed).await;
    assert_eq!((refused.code, &*refused.request_tag), (ErrorCode::Forbidden, "Changes"));
    let data = eventlog_server::protocol::rpc::encode_write_entries(
        "alice",
        DEFAULT,
        &crate::support::batch(std::slice::from_ref(&one)),
    );
    let part = client.send_part(1, (0, 2), &data).await;
    assert_eq!(client.refused(&part).await.code, ErrorCode::Forbidden);
    client.authenticate(&identity("alice")).await.expect("authenticated");
    // If the first part had been kept, this one would complete the write.
    let part = client.send_part(1, (1, 2), &data).await;
    assert_eq!(client.acked(&part).await, Ok(vec![]));
    let feed = client.subscribe("alice", DEFAULT, 0).await;
    client.nothing_comes().await;
    client.interrupt(&feed).await;
}

#[tokio::test]
async fn several_identities_prove_themselves_one_after_the_other() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let entries = [framed_entry("E", "1", b"")];
    let refused = client.write("bob", &entries).await.expect_err("refused");
    assert_eq!(
        (refused.code, refused.public_key.as_deref(), refused.store_id.as_deref()),
        (ErrorCode::Forbidden, Some("bob"), Some(DEFAULT))
    );
    // A failed attempt takes nothing from a client that is already in.
    let (remote_id, challenge) = client.hello().await;
    let forged = identity("alice").sign(remote_id, &challenge);
    let refused = client.answer(&identity("bob"), &forged).await.expect_err("refused");
    assert_eq!((refused.code, &*refused.request_tag), (ErrorCode::Forbidden, "Authenticate"));
    assert_eq!(client.write("alice", &entries).await.expect("acked")[0].1, 1);
    client.authenticate(&identity("bob")).await.expect("authenticated");
    for name in ["alice", "bob"] {
        assert_eq!(client.write(name, &entries).await.expect("acked")[0].1, 1);
    }
}

/// Effect's own server binds the key of a failed attempt, so anybody can lock out a client that has not come yet.
#[tokio::test]
async fn a_bad_signature_binds_nothing_and_the_first_good_one_binds_for_all_connections() {
    let server = TestServer::with_keys(&TEAM).await;
    let (own, other) = (identity_with("alice", 1), identity_with("alice", 2));
    let mut client = RpcSocket::connect(&server.rpc_url()).await;
    let (remote_id, challenge) = client.hello().await;
    let forged = own.sign(remote_id, &challenge);
    assert_eq!(
        client.answer(&other, &forged).await.expect_err("refused").code,
        ErrorCode::Forbidden
    );
    client.authenticate(&own).await.expect("the key is still free");
    let mut elsewhere = RpcSocket::connect(&server.rpc_url()).await;
    let refused = elsewhere.authenticate(&other).await.expect_err("refused");
    assert_eq!(
        (refused.code, refused.public_key.as_deref()),
        (ErrorCode::Forbidden, Some("alice"))
    );
    elsewhere.authenticate(&own).await.expect("authenticated");
}

#[tokio::test]
async fn a_challenge_is_used_up_by_any_attempt_and_stays_the_same_until_then() {
    let server = TestServer::with_keys(&TEAM).await;
    let alice = identity("alice");
    let mut client = RpcSocket::connect(&server.rpc_url()).await;
    let refused = client.answer(&alice, &[0; 64]).await.expect_err("no hello yet");
    assert_eq!(refused.code, ErrorCode::Forbidden);
    let (remote_id, challenge) = client.hello().await;
    assert_eq!(client.hello().await, (remote_id, challenge));
    let mut elsewhere = RpcSocket::connect(&server.rpc_url()).await;
    let (same_server, other_challenge) = elsewhere.hello().await;
    assert_eq!(same_server, remote_id);
    assert_ne!(other_challenge, challenge);
    let signed = alice.sign(remote_id, &challenge);
    assert_eq!(
        elsewhere.answer(&alice, &signed).await.expect_err("replayed").code,
        ErrorCode::Forbidden
    );
    client.answer(&alice, &signed).await.expect("authenticated");
    assert_eq!(
        client.answer(&alice, &signed).await.expect_err("replayed").code,
        ErrorCode::Forbidden
    );
    assert_ne!(client.hello().await.1, challenge);
    assert_eq!(
        client.answer(&alice, &signed).await.expect_err("replayed").code,
        ErrorCode::Forbidden
    );
}

/// A write that is sent right after the proof is not accepted before the proof is.
#[tokio::test]
async fn what_follows_an_authenticate_waits_for_it() {
    let server = TestServer::with_keys(&TEAM).await;
    let alice = identity("alice");
    let mut client = RpcSocket::connect(&server.rpc_url()).await;
    let (remote_id, challenge) = client.hello().await;
    let signed = alice.sign(remote_id, &challenge);
    let claim = eventlog_server::protocol::rpc::Call::Authenticate(alice.claim(&signed));
    let proof = client.call(&claim).await;
    let entries = crate::support::batch(&[framed_entry("E", "1", b"")]);
    let write = client.send_write("alice", DEFAULT, &entries).await;
    client.exit(&proof).await.expect("authenticated");
    assert_eq!(client.acked(&write).await.expect("acked").len(), 1);
}

#[tokio::test]
async fn a_connection_proves_64_identities_and_no_more() {
    let server = TestServer::with_keys(&[]).await;
    let mut client = RpcSocket::connect(&server.rpc_url()).await;
    for number in 0..64 {
        client.authenticate(&identity(&format!("k{number}"))).await.expect("authenticated");
    }
    let refused = client.authenticate(&identity("one more")).await.expect_err("refused");
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    client.authenticate(&identity("k0")).await.expect("it is one of them");
}

/// Nobody may be mallory, and it panics when somebody wants to be the other one.
struct NotMallory;

impl Auth for NotMallory {
    fn authorize_write<'a>(
        &'a self,
        _: Claim<'a>,
        _: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(ready(Ok(())))
    }

    fn authorize_read<'a>(&'a self, _: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(ready(Ok(())))
    }

    fn authorize_identity<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        let key = claim.key;
        assert_ne!(key.as_str(), "boom", "this panic belongs to the test");
        let (reason, message) = (AuthReason::Forbidden, "not you".into());
        let refusal = AuthError { reason, key: key.clone(), message };
        let refused = key.as_str() == "mallory";
        Box::pin(ready(if refused { Err(refusal) } else { Ok(()) }))
    }
}

#[tokio::test]
async fn an_identity_that_is_not_allowed_is_not_bound() {
    let identities = Arc::new(MemoryIdentities::default());
    let (storage, registry) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryRegistry::new()));
    let builder = Server::builder(storage, registry, Arc::new(NotMallory));
    let server =
        TestServer::start(builder.identities(identities.clone()), &[("alice", "team")]).await;
    let mut client = RpcSocket::connect(&server.rpc_url()).await;
    let refused = client.authenticate(&identity("mallory")).await.expect_err("refused");
    assert_eq!((refused.code, &*refused.request_tag), (ErrorCode::Unauthorized, "Authenticate"));
    let refused = client.authenticate(&identity("boom")).await.expect_err("refused");
    assert_eq!(refused.code, ErrorCode::InternalServerError);
    client.authenticate(&identity("alice")).await.expect("the connection goes on");
    for name in ["mallory", "boom"] {
        identities.bind(&key(name), &[9; 32]).await.expect("nothing was bound");
    }
    let bound = identities.bind(&key("alice"), &[9; 32]).await;
    assert!(matches!(bound, Err(IdentityError::BoundToAnother { .. })));
}

/// Cannot be reached.
struct Unreachable;

impl Identities for Unreachable {
    fn bind<'a>(
        &'a self,
        _: &'a PublicKey,
        _: &'a SigningKey,
    ) -> BoxFuture<'a, Result<(), IdentityError>> {
        Box::pin(ready(Err(IdentityError::unavailable("on holiday"))))
    }

    fn get<'a>(
        &'a self,
        _: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<SigningKey>, IdentityError>> {
        Box::pin(ready(Err(IdentityError::unavailable("on holiday"))))
    }

    fn replace<'a>(
        &'a self,
        _: &'a PublicKey,
        _: Option<&'a SigningKey>,
    ) -> BoxFuture<'a, Result<Option<SigningKey>, IdentityError>> {
        Box::pin(ready(Err(IdentityError::unavailable("on holiday"))))
    }

    fn count(&self, _: usize) -> BoxFuture<'_, Result<usize, IdentityError>> {
        Box::pin(ready(Err(IdentityError::unavailable("on holiday"))))
    }
}

/// A binding that is not known to be made does not count, and the client is told that it may try again.
#[tokio::test]
async fn without_the_bindings_nobody_is_authenticated() {
    let builder = in_memory().identities(Arc::new(Unreachable));
    let server = TestServer::start(builder, &TEAM).await;
    let mut client = RpcSocket::connect(&server.rpc_url()).await;
    let refused = client.authenticate(&identity("alice")).await.expect_err("refused");
    assert_eq!(refused.code, ErrorCode::InternalServerError);
    let refused = client.write("alice", &[framed_entry("E", "1", b"")]).await;
    assert_eq!(refused.expect_err("refused").code, ErrorCode::Forbidden);
}

/// A well-formed proof, for another challenge.
async fn prove_wrongly(client: &mut RpcSocket) -> Result<(), Refused> {
    let alice = identity("alice");
    let signature = alice.sign(RemoteId::random(), &[1; 32]);
    let hello = client.call(&Call::Hello).await;
    client.exit(&hello).await.expect("anybody may ask");
    let request = client.call(&Call::Authenticate(alice.claim(&signature))).await;
    client.exit(&request).await.map(drop)
}

/// A stranger had 250 signatures checked on one connection, and then reconnected.
#[tokio::test]
async fn wrong_proofs_end_a_connection_and_an_address_has_few_of_them_looked_at() {
    let server = TestServer::with_keys(&TEAM).await;
    let url = server.rpc_url();
    let (mut looked_at, began) = (0, Instant::now());
    let blocked = 'blocked: loop {
        let mut client = RpcSocket::connect(&url).await;
        for _ in 0..5 {
            let refused = prove_wrongly(&mut client).await.expect_err("it is wrong");
            match refused.code {
                ErrorCode::Forbidden => looked_at += 1,
                _ => break 'blocked refused,
            }
        }
        let closed = client.socket.next_message().await;
        let Some(Message::Close(Some(frame))) = closed else { panic!("{closed:?}") };
        assert_eq!((u16::from(frame.code), &frame.reason[..7]), (1008, "proofs:"));
    };
    assert_eq!(blocked.code, ErrorCode::InternalServerError);
    assert!(blocked.message.starts_with("quota: "), "{}", blocked.message);
    let more = began.elapsed().as_secs() + 1;
    assert!((60..=60 + more).contains(&looked_at), "{looked_at} and {more}");
    // Other addresses do not notice.
    let elsewhere = Socket::try_connect_from([127, 0, 9, 9].into(), &url).await;
    let mut client = RpcSocket::of(elsewhere.expect("a connection"));
    client.authenticate(&identity("alice")).await.expect("authenticated");
}

#[tokio::test]
async fn a_few_wrong_proofs_do_not_keep_a_connection_from_a_right_one() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut client = RpcSocket::connect(&server.rpc_url()).await;
    for _ in 0..4 {
        prove_wrongly(&mut client).await.expect_err("it is wrong");
    }
    client.authenticate(&identity("alice")).await.expect("authenticated");
}
