//! What only the RPC protocol has: identities that are proved, named stores, payloads with a required form.

use std::sync::Arc;
use std::time::Duration;

use eventlog_server::client::{
    ConnectError, ErrorCode, EventLogRemote, Identity, Options, Protocol, RemoteError, RpcOptions,
};
use eventlog_server::model::Sequence;
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::memory::MemoryStorage;

use super::{BOTH, Speaks, entries, hasty, identity, next, numbered, take};
use crate::support::proxy::Proxy;
use crate::support::random::Random;
use crate::support::server::TestServer;
use crate::support::{entry, framed, key, store};

fn as_identities(identities: &[Identity], named: Option<&str>) -> Options {
    let rpc = RpcOptions { identities: identities.to_vec(), store: named.map(store) };
    Options { protocol: Protocol::Rpc(rpc), ..hasty() }
}

fn code(error: &RemoteError) -> Option<ErrorCode> {
    match error {
        RemoteError::Rejected { code, .. } => Some(*code),
        _ => None,
    }
}

#[tokio::test]
async fn a_key_that_another_signing_key_has_is_refused_for_writes_and_streams() {
    let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
    let first = Speaks::Rpc.connect(&server).await;
    first.write(&key("alice"), entries(1)).await.expect("an ack");

    let thief = Identity::generate(key("alice"));
    let options = as_identities(&[thief, identity("bob")], None);
    let second = Speaks::Rpc.connect_with(&server, options).await;
    let mut changes = second.changes(&key("alice"), Sequence::ZERO);
    let write = second.write(&key("alice"), entries(1)).await.expect_err("a refusal");
    let read = next(&mut changes).await.expect("an item").expect_err("a refusal");
    for error in [write, read] {
        assert_eq!(code(&error), Some(ErrorCode::Forbidden), "{error}");
        assert!(error.is_definite());
    }
    // Others on that connection are not affected, nor is the key's owner.
    assert_eq!(second.write(&key("bob"), entries(1)).await.expect("an ack")[0].get(), 2);
    assert_eq!(first.write(&key("alice"), entries(1)).await.expect("an ack")[0].get(), 3);
}

#[tokio::test]
async fn a_key_without_identity_is_not_asked_for() {
    let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
    let options = as_identities(&[identity("alice")], None);
    let remote = Speaks::Rpc.connect_with(&server, options).await;
    let expected = RemoteError::NoIdentity(key("bob"));
    assert_eq!(remote.write(&key("bob"), entries(1)).await, Err(expected.clone()));
    let mut changes = remote.changes(&key("bob"), Sequence::ZERO);
    assert_eq!(next(&mut changes).await, Some(Err(expected)));
    assert!(remote.write(&key("alice"), entries(1)).await.is_ok());
}

#[tokio::test]
async fn a_store_may_be_named_if_it_is_the_keys_own() {
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    let own = as_identities(&[identity("alice")], Some("team"));
    let own = Speaks::Rpc.connect_with(&server, own).await;
    let written = entries(2);
    own.write(&key("alice"), written.clone()).await.expect("an ack");
    let mut changes = own.changes(&key("alice"), Sequence::ZERO);
    assert_eq!(take(&mut changes, 2).await, numbered(1, &written));

    let other = as_identities(&[identity("alice")], Some("den"));
    let other = Speaks::Rpc.connect_with(&server, other).await;
    let error = other.write(&key("alice"), entries(1)).await.expect_err("a refusal");
    assert_eq!(code(&error), Some(ErrorCode::NotFound), "{error}");
}

#[tokio::test]
async fn an_entry_whose_payload_has_no_form_is_refused_by_its_slot() {
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    let remote = Speaks::Rpc.connect(&server).await;
    let mut batch = entries(2);
    batch.push(entry("Note", "n", b"no frame"));
    let error = remote.write(&key("alice"), batch).await.expect_err("a refusal");
    assert_eq!(code(&error), Some(ErrorCode::InvalidRequest), "{error}");
    assert!(error.to_string().contains("entry 2"), "{error}");
}

#[tokio::test]
async fn clients_of_both_protocols_share_a_store() {
    let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
    let [msgpack, rpc] = [BOTH[0].connect(&server).await, BOTH[1].connect(&server).await];
    let (alice, bob) = (key("alice"), key("bob"));
    let mut streams = [msgpack.changes(&alice, Sequence::ZERO), rpc.changes(&bob, Sequence::ZERO)];
    let mut all = Vec::new();
    for n in 0..20 {
        let (remote, key) = if n % 2 == 0 { (&msgpack, &alice) } else { (&rpc, &bob) };
        let written = entries(3);
        remote.write(key, written.clone()).await.expect("an ack");
        all.extend(written);
    }
    for stream in &mut streams {
        assert_eq!(take(stream, all.len()).await, numbered(1, &all));
    }
}

/// What a client of the other protocol wrote in another form is withheld from this one, and its own entries after that
/// are not held back forever.
#[tokio::test]
async fn entries_that_are_kept_from_it_do_not_stop_a_stream() {
    let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
    let [msgpack, rpc] = [BOTH[0].connect(&server).await, BOTH[1].connect(&server).await];
    let bob = key("bob");
    let mut changes = rpc.changes(&bob, Sequence::ZERO);
    let first = entries(1);
    rpc.write(&bob, first.clone()).await.expect("an ack");
    assert_eq!(take(&mut changes, 1).await, numbered(1, &first));
    msgpack.write(&key("alice"), entry("Note", "n", b"\x81")).await.expect("an ack");
    let third = entries(1);
    rpc.write(&bob, third.clone()).await.expect("an ack");
    assert_eq!(take(&mut changes, 1).await, numbered(3, &third));
}

#[tokio::test]
async fn a_server_that_restarts_is_authenticated_to_again_and_nothing_is_lost() {
    let (storage, registry) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryRegistry::new()));
    let builder = || Server::builder(storage.clone(), registry.clone(), Arc::new(AllowAll));
    let mut server = TestServer::start(builder(), &[("alice", "team")]).await;
    let proxy = Proxy::start(server.addr, Random::new(1)).await;
    proxy.behave();
    let url = Speaks::Rpc.url(proxy.addr);
    let remote = EventLogRemote::connect(&url, Speaks::Rpc.options()).await.expect("a connection");
    let alice = key("alice");
    let mut changes = remote.changes(&alice, Sequence::ZERO);
    let mut all = entries(3);
    remote.write(&alice, all.clone()).await.expect("an ack");
    server.stop();
    let late = entries(2);
    let (write, (late_key, late_batch)) = (remote.clone(), (alice.clone(), late.clone()));
    let writing = tokio::spawn(async move { write.write(&late_key, late_batch).await });
    let server = TestServer::start(builder(), &[]).await;
    proxy.forward_to(server.addr);
    let sequences = writing.await.expect("a task").expect("an ack");
    assert_eq!(sequences.iter().map(|s| s.get()).collect::<Vec<_>>(), [4, 5]);
    all.extend(late);
    assert_eq!(take(&mut changes, 5).await, numbered(1, &all));
}

#[tokio::test]
async fn a_server_of_the_other_protocol_is_told_apart() {
    let server = TestServer::with_keys(&[]).await;
    let impatient = |speaks: Speaks| Options {
        connect_timeout: Duration::from_millis(500),
        ..speaks.options()
    };
    let (msgpack_url, rpc_url) = (BOTH[0].url(server.addr), BOTH[1].url(server.addr));
    let wrong = EventLogRemote::connect(&msgpack_url, impatient(Speaks::Rpc)).await;
    assert!(matches!(wrong, Err(ConnectError::NotHello(_))), "{wrong:?}");
    let wrong = EventLogRemote::connect(&rpc_url, impatient(Speaks::Msgpack)).await;
    assert!(wrong.is_err());
}

#[tokio::test]
async fn an_empty_batch_is_acknowledged_in_both_protocols() {
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    for speaks in BOTH {
        let remote = speaks.connect(&server).await;
        assert_eq!(remote.write(&key("alice"), Vec::new()).await, Ok(Vec::new()), "{speaks:?}");
    }
}

#[tokio::test]
async fn many_writes_are_under_way_at_once() {
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    let remote = Speaks::Rpc.connect(&server).await;
    let payload = framed(b"x");
    let writes = (0..500).map(|_| {
        let (remote, entry) = (remote.clone(), entry("E", "k", &payload));
        async move { remote.write(&key("alice"), entry).await.expect("an ack")[0].get() }
    });
    let mut sequences = futures_util::future::join_all(writes).await;
    sequences.sort_unstable();
    assert!(sequences.into_iter().eq(1..=500), "one each");
}
