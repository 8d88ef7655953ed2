//! The specification's core tests 1, 4, 5, 6 and 9.

use eventlog_server::model::{Batch, PublicKey};
use eventlog_server::processing::{Observed, Observer};
use eventlog_server::server::Server as EventLogServer;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::services::{Auth, AuthError, AuthReason, Claim};
use eventlog_server::storage::memory::MemoryStorage;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};

use super::*;
use crate::support::key;
use crate::support::server::in_memory;

/// The primary keys that `observer` was told about so far.
fn told(observer: &mut Observer) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(Some(observed)) = observer.next().now_or_never() {
        if let Observed::Invalidated(one) = observed {
            told.push(one.primary_key.to_string());
        }
    }
    told
}

fn observe(server: &TestServer) -> Observer {
    server.server.reactivity().expect("handlers").observe("todos")
}

#[tokio::test]
async fn client_writes_run_handlers_for_the_resolved_store() {
    let (server, handled) = start(in_memory(), &[("alice", "team"), ("eve", "other")]).await;
    let mut observer = observe(&server);
    let mut socket = Socket::connect(&server.url()).await;
    let (alice, eve) = (key("alice"), key("eve"));
    write(&mut socket, &alice, &[added("1", "buy milk"), added("2", "call")]).await;
    processed(&server.server, "team", 2).await;
    write(&mut socket, &eve, &[added("1", "elsewhere")]).await;
    processed(&server.server, "other", 1).await;
    assert_eq!(*handled.lock(), ["team 1 buy milk", "team 2 call", "other 1 elsewhere"]);
    assert_eq!(told(&mut observer), ["1", "2", "1"]);
}

struct RefuseAll;

impl RefuseAll {
    fn refuse(key: &PublicKey) -> BoxFuture<'static, Result<(), AuthError>> {
        let (reason, key) = (AuthReason::Forbidden, key.clone());
        let message = "nobody may".into();
        Box::pin(std::future::ready(Err(AuthError { reason, key, message })))
    }
}

impl Auth for RefuseAll {
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        _: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        Self::refuse(claim.key)
    }

    fn authorize_read<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        Self::refuse(claim.key)
    }
}

/// Refuses writes and lets everyone read.
struct ReadOnly;

impl Auth for ReadOnly {
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        _: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        RefuseAll::refuse(claim.key)
    }

    fn authorize_read<'a>(&'a self, _: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn in_memory_with(auth: impl Auth) -> Builder {
    let storage = Arc::new(MemoryStorage::new());
    EventLogServer::builder(storage, Arc::new(MemoryRegistry::new()), Arc::new(auth))
}

#[tokio::test]
async fn server_authored_writes_bypass_auth() {
    let (refusing, handled) = start(in_memory_with(RefuseAll), &[("alice", "team")]).await;
    let written = refusing.server.write_to_store(store("team"), vec![added("1", "ours")], true);
    assert_eq!(written.await.expect("written").sequence_numbers[0].get(), 1);
    processed(&refusing.server, "team", 1).await;
    assert_eq!(*handled.lock(), ["team 1 ours"]);

    let (readable, handled) = start(in_memory_with(ReadOnly), &[("alice", "team")]).await;
    let mut socket = Socket::connect(&readable.url()).await;
    socket.write(&key("alice"), 1, &batch(&[added("1", "theirs")])).await;
    socket.next_refusal().await;
    let ours = added("1", "ours");
    let written = readable.server.write_to_store(store("team"), vec![ours.clone()], true);
    written.await.expect("written");
    socket.subscribe(&key("alice"), 0).await;
    assert_eq!(socket.next_entries(1).await, [(1, ours)]);
    processed(&readable.server, "team", 1).await;
    assert_eq!(*handled.lock(), ["team 1 ours"]);
}

#[tokio::test]
async fn server_authored_writes_with_run_handlers_true_run_handlers_and_reactivity() {
    let (server, handled) = start(in_memory(), &[]).await;
    let mut observer = observe(&server);
    let writer = server.server.writer(&Todos);
    let todo = |id: &str| TodoAdded { id: id.to_owned(), title: format!("todo {id}") };
    for id in ["1", "2"] {
        writer.write(&store("team"), &todo(id)).await.expect("written");
    }
    let again = writer.entry(&todo("3")).expect("encodes");
    for _ in 0..2 {
        let written = writer.write_entries(&store("team"), vec![again.clone()]).await;
        assert_eq!(written.expect("written").sequence_numbers[0].get(), 3);
    }
    writer.write(&store("team"), &todo("4")).await.expect("written");
    processed(&server.server, "team", 4).await;
    let expected = ["team 1 todo 1", "team 2 todo 2", "team 3 todo 3", "team 4 todo 4"];
    assert_eq!(*handled.lock(), expected);
    assert_eq!(told(&mut observer), ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn server_authored_writes_with_run_handlers_false_are_transport_only() {
    let (server, handled) = start(in_memory(), &[("alice", "team")]).await;
    let mut observer = observe(&server);
    let silent = added("1", "silent");
    let written = server.server.write_to_store(store("team"), vec![silent.clone()], false);
    written.await.expect("written");
    let mut socket = Socket::connect(&server.url()).await;
    socket.subscribe(&key("alice"), 0).await;
    assert_eq!(socket.next_entries(1).await, [(1, silent.clone())]);
    // A handled one after it: when it was handled, the silent one would have been.
    let loud = Entry { id: EntryId::from_bytes([0; 16]), ..added("1", "loud") };
    let written = server.server.write_to_store(store("team"), vec![loud], true);
    written.await.expect("written");
    processed(&server.server, "team", 2).await;
    assert_eq!(*handled.lock(), ["team 2 loud"]);
    assert_eq!(told(&mut observer), ["1"]);
}

#[tokio::test]
async fn duplicate_writes_are_idempotent_but_still_ack_every_input_slot() {
    let (server, handled) = start(in_memory(), &[("alice", "team")]).await;
    let mut observer = observe(&server);
    let mut socket = Socket::connect(&server.url()).await;
    let (one, two) = (added("1", "one"), added("2", "two"));
    let twice = [one.clone(), two.clone(), one.clone()];
    assert_eq!(write(&mut socket, &key("alice"), &twice).await, [1, 2, 1]);
    let again = [two, added("3", "three"), one];
    assert_eq!(write(&mut socket, &key("alice"), &again).await, [2, 3, 1]);
    processed(&server.server, "team", 3).await;
    assert_eq!(*handled.lock(), ["team 1 one", "team 2 two", "team 3 three"]);
    assert_eq!(told(&mut observer), ["1", "2", "3"]);
}
