//! A revoked caller is disconnected, and stays out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use eventlog_server::model::{Batch, Sequence};
use eventlog_server::protocol::msgpack::{ErrorCode, Response, decode_response, encode_write};
use eventlog_server::server::{ClientError, RevokeError, Server};
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::services::{
    Auth, AuthError, Caller, Claim, Rejected, Revocation, Revoked, Verified,
};
use eventlog_server::storage::memory::MemoryStorage;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, ready};
use tokio_tungstenite::tungstenite::Message;

use crate::support::rpc::{RpcSocket, identity};
use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key, store};

/// Everybody may do everything. The query says who somebody is: `ann,token-1`.
struct Named;

impl Auth for Named {
    fn verify<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<Option<Verified>, Rejected>> {
        let named = caller.query().split_once(',').map(|(subject, token_id)| Verified {
            subject: Some(subject.into()),
            token_id: Some(token_id.into()),
            ..Verified::default()
        });
        Box::pin(ready(Ok(named)))
    }

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
}

async fn start() -> TestServer {
    let (storage, registry) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryRegistry::new()));
    let builder = Server::builder(storage, registry, Arc::new(Named));
    TestServer::start(builder, &[("alice", "team"), ("bob", "team")]).await
}

fn of_key(name: &str) -> Revocation {
    Revocation::new(Revoked::PublicKey(key(name)))
}

fn of_subject(name: &str) -> Revocation {
    Revocation::new(Revoked::Subject(name.into()))
}

/// Subscribed with these keys.
async fn subscribed(url: &str, names: &[&str]) -> Socket {
    let mut client = Socket::connect(url).await;
    for name in names {
        client.subscribe(&key(name), 0).await;
    }
    client.ping(1).await;
    client.next().await;
    client
}

#[tokio::test]
async fn a_revoked_key_is_refused_whatever_it_asks_for_and_others_go_on() {
    let server = start().await;
    let mut client = subscribed(&server.url(), &["alice", "bob"]).await;
    let reason = Some("the device was stolen".into());
    server.server.revoke(Revocation { reason, ..of_key("alice") }).await.expect("revoked");
    let refused = client.next_refusal().await;
    assert_eq!((refused.code, refused.public_key), (ErrorCode::Unauthorized, Some("alice".into())));
    let told = "revoked: this public key was revoked: the device was stolen";
    assert_eq!(refused.message, told);
    for client in [&mut client, &mut Socket::connect(&server.url()).await] {
        client.subscribe(&key("alice"), 0).await;
        assert_eq!(client.next_refusal().await.message, told);
        client.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
        assert_eq!(client.next_refusal().await.message, told);
    }
    let mut rpc = RpcSocket::connect(&server.rpc_url()).await;
    let refused = rpc.authenticate(&identity("alice")).await.expect_err("refused");
    assert_eq!(refused.message, told);
    client.write(&key("bob"), 2, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(client.next_ack().await, (2, vec![1]));
    let lifted = server.server.lift("key:alice").await.expect("lifted");
    assert_eq!(lifted.and_then(|one| one.reason).as_deref(), Some("the device was stolen"));
    client.write(&key("alice"), 3, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(client.next_entries(1).await[0].0, 2);
}

#[tokio::test]
async fn a_revoked_user_or_token_is_told_and_not_let_in_again() {
    let server = start().await;
    let url = |query: &str| format!("{}?{query}", server.url());
    for (revoked, gone, what, others) in [
        (Revoked::Subject("ann".into()), "ann,1", "user", ["ben,1", "an,1", "key:ann,1"]),
        (Revoked::TokenId("7".into()), "cat,7", "token", ["cat,8", "7,1", "cat,77"]),
    ] {
        let mut client = subscribed(&url(gone), &["alice", "bob"]).await;
        let mut rpc = RpcSocket::connect(&format!("{}?{gone}", server.rpc_url())).await;
        rpc.hello().await;
        let mut stays = subscribed(&url(others[0]), &["alice"]).await;
        server.server.revoke(Revocation::new(revoked)).await.expect("revoked");
        let told = format!("revoked: this {what} was revoked");
        for _ in 0..2 {
            assert_eq!(client.next_refusal().await.message, told);
        }
        assert_eq!(client.close_code().await, Some(1008));
        let (status, said) = Socket::refused(&url(gone), &[]).await;
        assert_eq!((status, said.trim_end()), (401, &*told));
        stays.nothing_comes().await;
        for other in others {
            subscribed(&url(other), &["alice"]).await;
        }
    }
}

/// The session is not polled: it is ended from outside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_gone_as_well() {
    for revocation in [of_key("bob"), of_subject("ann")] {
        let server = start().await;
        let url = format!("{}?ann,1", server.url());
        let _frozen = subscribed(&url, &["alice", "bob"]).await;
        let mut other = subscribed(&server.url(), &["alice"]).await;
        for _ in 0..10 {
            let entries = vec![entry("E", "", &vec![0; 1_000_000])];
            server.server.write_to_store(store("team"), entries, true).await.expect("written");
            other.next_joined_entries(1).await;
        }
        server.server.revoke(revocation).await.expect("revoked");
        server.comes_to("eventlog_connections_open", 1).await;
        other.nothing_comes().await;
    }
}

/// What was sent when the client was revoked is acknowledged or refused, and what is refused is not written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_under_way_are_acknowledged_or_refused_and_never_both() {
    const WRITES: u64 = 2_000;
    for revocation in [of_key("alice"), of_subject("ann")] {
        let server = start().await;
        let mut client = Socket::connect(&format!("{}?ann,1", server.url())).await;
        let entries: Vec<_> = (0..WRITES).map(|_| entry("E", "", b"")).collect();
        let (mut acked, mut refused) = (HashSet::new(), HashSet::new());
        for (id, entry) in (0..).zip(&entries) {
            let mut bytes = BytesMut::new();
            encode_write(&mut bytes, &key("alice"), id, &batch(std::slice::from_ref(entry)));
            client.send_too_much(&bytes).await;
            if id == WRITES / 2 {
                let server = server.server.clone();
                let revocation = revocation.clone();
                tokio::spawn(async move { server.revoke(revocation).await.expect("revoked") });
            }
        }
        while acked.len() + refused.len() < entries.len() {
            let Some(Message::Binary(message)) = client.next_message().await else { break };
            match decode_response(&message).expect("a response") {
                Response::Ack { id, .. } => assert!(acked.insert(id), "{id} twice"),
                Response::Error { id: Some(id), message, .. } => {
                    assert!(message.starts_with("revoked: "), "{message}");
                    assert!(refused.insert(id), "{id} twice");
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(acked.is_disjoint(&refused));
        let stored = server.server.entries(&store("team"), Sequence::FIRST, entries.len()).await;
        let stored: HashSet<_> = stored.expect("entries").iter().map(|one| one.entry.id).collect();
        let ids = |of: &HashSet<u64>| -> HashSet<_> {
            of.iter().map(|id| entries[*id as usize].id).collect()
        };
        assert!(ids(&acked).is_subset(&stored), "acknowledged and not written");
        assert!(ids(&refused).is_disjoint(&stored), "refused and written");
    }
}

#[tokio::test]
async fn code_in_process_is_refused_as_a_client_is() {
    let server = start().await;
    let server = &server.server;
    let (caller, alice) = (Caller::default(), key("alice"));
    let changes = server.request_changes(&caller, &alice, Sequence::ZERO).await;
    let mut changes = changes.expect("allowed");
    server.revoke(of_key("alice")).await.expect("revoked");
    let ended = tokio::time::timeout(Duration::from_secs(20), changes.next()).await;
    let ended = ended.expect("soon").expect("an error");
    assert!(matches!(ended, Err(ClientError::Revoked(_))), "{ended:?}");
    let read = server.request_changes(&caller, &alice, Sequence::ZERO).await;
    assert!(matches!(read, Err(ClientError::Revoked(_))));
    let written = server.ingest_client(&caller, &alice, vec![entry("E", "", b"")]).await;
    assert!(matches!(written, Err(ClientError::Revoked(_))), "{written:?}");
}

#[tokio::test]
async fn a_revocation_ends_by_itself_and_the_last_one_of_somebody_counts() {
    let server = start().await;
    let running = &server.server;
    let names = || async {
        let all = running.revocations(None, 9).await.expect("a list");
        all.iter().map(|one| one.revoked.id()).collect::<Vec<_>>()
    };
    let until = |seconds| Some(SystemTime::now() + Duration::from_secs(seconds));
    let over = Some(SystemTime::now() - Duration::from_secs(1));
    running.revoke(Revocation { until: until(600), ..of_key("alice") }).await.expect("revoked");
    running.revoke(of_subject("ann")).await.expect("revoked");
    assert_eq!(names().await, ["key:alice", "subject:ann"]);
    running.revoke(Revocation { until: over, ..of_key("alice") }).await.expect("revoked");
    assert_eq!(names().await, ["subject:ann"]);
    subscribed(&server.url(), &["alice"]).await;
    assert_eq!(running.lift("key:bob").await, Ok(None));
    let long = Revocation::new(Revoked::Subject("s".repeat(1_025).into()));
    assert!(matches!(running.revoke(long).await, Err(RevokeError::Invalid(_))));
    assert_eq!(names().await, ["subject:ann"]);
}

#[tokio::test]
async fn many_revocations_come_in_pages() {
    let server = start().await;
    let running = &server.server;
    for number in 0..250 {
        let over = (number % 2 == 0).then(|| SystemTime::now() - Duration::from_secs(1));
        let revocation = Revocation { until: over, ..of_subject(&format!("{number:04}")) };
        running.revoke(revocation).await.expect("revoked");
    }
    let (mut after, mut found) = (None::<String>, Vec::new());
    loop {
        let page = running.revocations(after.as_deref(), 20).await.expect("a page");
        let Some(last) = page.last() else { break };
        after = Some(last.revoked.id());
        found.extend(page.iter().map(|one| one.revoked.id()));
    }
    let expected = (0..250).filter(|number| number % 2 == 1);
    assert_eq!(found, expected.map(|number| format!("subject:{number:04}")).collect::<Vec<_>>());
}
