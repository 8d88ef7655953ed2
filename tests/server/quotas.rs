//! Quotas of keys and stores: a client above one is delayed or refused, others are not affected, and nobody is blocked
//! for good.

use std::time::Duration;

use eventlog_server::model::{Limits, Quota, Quotas};
use eventlog_server::protocol::msgpack::ErrorCode;
use eventlog_server::protocol::rpc;
use tokio::time::Instant;

use crate::support::expanding;
use crate::support::rpc::{RpcSocket, framed_entry};
use crate::support::server::{TestServer, in_memory};
use crate::support::socket::{Refusal, Socket};
use crate::support::{batch, entry, key, store};

const KEYS: [(&str, &str); 3] = [("alice", "team"), ("bob", "team"), ("carol", "other")];

async fn start(quotas: Quotas) -> TestServer {
    TestServer::start(in_memory().quotas(quotas), &KEYS).await
}

fn per_key(quota: Quota) -> Quotas {
    Quotas { per_key: quota, ..Quotas::default() }
}

fn per_store(shared: Quota, bytes_stored: Option<u64>) -> Quotas {
    Quotas { per_store: Quota { bytes_stored, ..shared }, ..Quotas::default() }
}

/// So few bytes that a client that wrote some is in debt for longer than a test takes.
fn hardly_any() -> Quota {
    Quota { bytes_per_second: Some(1), burst: Duration::from_secs(1), ..Quota::default() }
}

async fn write(client: &mut Socket, name: &str) -> Result<(), Refusal> {
    client.write(&key(name), 1, &batch(&[entry("E", "", &[0; 100])])).await;
    client.next_answer().await.map(drop)
}

/// The seconds in a refusal.
fn come_back(refusal: &Refusal) -> u64 {
    assert_eq!(refusal.code, ErrorCode::InternalServerError);
    assert!(refusal.message.starts_with("quota: "), "{}", refusal.message);
    let (_, seconds) = refusal.message.rsplit_once("; try again in ").expect("when to come back");
    seconds.trim_end_matches(" s").parse().expect("a number")
}

#[tokio::test]
async fn a_little_above_its_rate_a_client_is_held_back_and_nobody_else() {
    let burst = Duration::from_millis(100);
    let quota = Quota { writes_per_second: Some(10), burst, ..Quota::default() };
    let server = start(per_key(quota)).await;
    let mut alice = Socket::connect(&server.url()).await;
    let mut bob = Socket::connect(&server.url()).await;
    bob.subscribe(&key("bob"), 0).await;
    let began = Instant::now();
    for id in 0..6 {
        alice.write(&key("alice"), id, &batch(&[entry("E", "", b"")])).await;
    }
    bob.next_entries(1).await;
    bob.write(&key("bob"), 1, &batch(&[entry("E", "", b"")])).await;
    for id in 0..6 {
        assert_eq!(alice.next_ack().await.0, id);
    }
    // The first passes at once, the others at the rate.
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    let held = "eventlog_quota_held_total{of=\"key\",what=\"writes\"}";
    server.comes_to(held, 5).await;
    assert!(server.metric("eventlog_requests_refused_total").await < 0.5);
}

/// What others write arrives meanwhile: a session that stopped completely while its write waited would not show it.
#[tokio::test]
async fn a_connection_that_is_held_back_still_gets_its_feed() {
    let quota = Quota { writes_per_second: Some(1), ..Quota::default() };
    let server = start(per_key(Quota { burst: Duration::from_secs(1), ..quota })).await;
    let mut alice = Socket::connect(&server.url()).await;
    alice.subscribe(&key("alice"), 0).await;
    for id in 0..2 {
        alice.write(&key("alice"), id, &batch(&[entry("E", "", b"")])).await;
    }
    assert_eq!(alice.next_ack().await, (0, vec![1]));
    let entries = vec![entry("FromServer", "", b"")];
    server.server.write_to_store(store("team"), entries, true).await.expect("written");
    assert_eq!(alice.next_entries(1).await[0].0, 2);
    assert_eq!(alice.next_ack().await, (1, vec![3]));
}

#[tokio::test]
async fn a_batch_above_the_burst_passes_and_what_follows_is_told_when_to_come_back() {
    let burst = Duration::from_secs(1);
    let quota = Quota { bytes_per_second: Some(10_000), burst, ..Quota::default() };
    let server = start(per_key(quota)).await;
    let mut alice = Socket::connect(&server.url()).await;
    let large = vec![0; 50_000];
    alice.write(&key("alice"), 7, &batch(&[entry("E", "", &large)])).await;
    assert_eq!(alice.next_ack().await, (7, vec![1]));
    let refusal = write(&mut alice, "alice").await.expect_err("refused");
    assert_eq!(refusal.id, Some(1));
    let seconds = come_back(&refusal);
    assert!((3..=5).contains(&seconds), "{seconds}");
    // The connection continues, and so does everybody else.
    alice.nothing_comes().await;
    let mut bob = Socket::connect(&server.url()).await;
    write(&mut bob, "bob").await.expect("his share");
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    write(&mut alice, "alice").await.expect("as it was told");
    server.comes_to("eventlog_quota_refused_total{of=\"key\",what=\"bytes\"}", 1).await;
}

/// Entries that refer to one key: 100 KB on the wire, 7 MB in the store.
#[tokio::test]
async fn a_large_write_counts_as_what_is_stored_of_it() {
    let burst = Duration::from_secs(1);
    let quota = Quota { bytes_per_second: Some(100_000), burst, ..Quota::default() };
    let limits = Limits { batch_entries_max: 1_000, ..Limits::default() };
    let builder = in_memory().limits(limits).quotas(per_key(quota));
    let server = TestServer::start(builder, &KEYS).await;
    let mut alice = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let data = expanding::write(2_000, 3_500);
    assert!(data.len() < 150_000);
    let written = alice.call(&rpc::Call::WriteSingle { data: &data }).await;
    assert_eq!(alice.acked(&written).await.expect("stored").len(), 3_500);
    let one = [framed_entry("E", "", b"")];
    let refused = alice.write("alice", &one).await.expect_err("refused");
    assert!(refused.message.starts_with("quota: "), "{}", refused.message);
}

#[tokio::test]
async fn the_keys_of_a_store_have_its_share_together_and_other_stores_their_own() {
    let server = start(per_store(hardly_any(), None)).await;
    let mut client = Socket::connect(&server.url()).await;
    write(&mut client, "alice").await.expect("the first");
    for name in ["bob", "alice"] {
        let refusal = write(&mut client, name).await.expect_err("refused");
        assert!(refusal.message.contains("the store of the public key"), "{}", refusal.message);
        assert!(come_back(&refusal) > 60);
    }
    write(&mut client, "carol").await.expect("another store");
}

#[tokio::test]
async fn duplicates_count_and_what_the_server_writes_does_not() {
    let server = start(per_store(hardly_any(), Some(1_000_000))).await;
    for _ in 0..100 {
        let entries = vec![entry("E", "", &[0; 1_000])];
        server.server.write_to_store(store("team"), entries, true).await.expect("written");
    }
    let mut alice = Socket::connect(&server.url()).await;
    let one = batch(&[entry("E", "", b"")]);
    alice.write(&key("alice"), 1, &one).await;
    assert_eq!(alice.next_ack().await, (1, vec![101]));
    alice.write(&key("alice"), 2, &one).await;
    assert!(come_back(&alice.next_answer().await.expect_err("counted")) > 1);
}

/// With another quota for some: the first matching pattern.
#[tokio::test]
async fn keys_and_stores_can_have_a_quota_of_their_own() {
    let quotas = Quotas {
        per_key: hardly_any(),
        keys: vec![("b*".to_owned(), Quota::default())],
        ..Quotas::default()
    };
    let server = start(quotas).await;
    let mut client = Socket::connect(&server.url()).await;
    for _ in 0..3 {
        write(&mut client, "bob").await.expect("not bounded");
    }
    write(&mut client, "alice").await.expect("the first");
    write(&mut client, "alice").await.expect_err("refused");
}

#[tokio::test]
async fn subscriptions_are_counted_over_all_connections_and_given_back() {
    let quota = Quota { subscriptions: Some(2), ..Quota::default() };
    let server = start(per_store(quota, None)).await;
    let (mut first, mut second) =
        (Socket::connect(&server.url()).await, Socket::connect(&server.url()).await);
    first.subscribe(&key("alice"), 0).await;
    // It replaces the first, so it is not one more.
    first.subscribe(&key("alice"), 0).await;
    first.subscribe(&key("bob"), 0).await;
    first.nothing_comes().await;
    second.subscribe(&key("alice"), 0).await;
    let refusal = second.next_refusal().await;
    assert_eq!(refusal.request_tag, "RequestChanges");
    assert!(refusal.message.contains("2 subscriptions"), "{}", refusal.message);
    assert_eq!(come_back(&refusal), 10);
    first.stop(&key("bob")).await;
    first.nothing_comes().await;
    second.subscribe(&key("alice"), 0).await;
    second.nothing_comes().await;
    first.subscribe(&key("bob"), 0).await;
    first.next_refusal().await;
    drop(second);
    server.comes_to("eventlog_connections_open", 1).await;
    first.subscribe(&key("bob"), 0).await;
    first.nothing_comes().await;
}

#[tokio::test]
async fn connections_are_counted_with_the_keys_that_they_use() {
    let quota = Quota { connections: Some(1), ..Quota::default() };
    let quotas = Quotas { per_store: Quota::default(), ..per_key(quota) };
    let server = start(quotas).await;
    let mut first = Socket::connect(&server.url()).await;
    let mut second = Socket::connect(&server.url()).await;
    for _ in 0..2 {
        write(&mut first, "alice").await.expect("the first connection");
    }
    second.subscribe(&key("alice"), 0).await;
    let refusal = second.next_refusal().await;
    assert!(refusal.message.contains("1 connections"), "{}", refusal.message);
    assert_eq!(come_back(&write(&mut second, "alice").await.expect_err("refused")), 10);
    write(&mut second, "bob").await.expect("another key");
    drop(first);
    server.comes_to("eventlog_connections_open", 1).await;
    write(&mut second, "alice").await.expect("its place was given back");
}

#[tokio::test]
async fn a_store_has_one_connection_that_uses_several_of_its_keys_once() {
    let quota = Quota { connections: Some(1), ..Quota::default() };
    let server = start(per_store(quota, None)).await;
    let mut first = Socket::connect(&server.url()).await;
    write(&mut first, "alice").await.expect("the first key");
    write(&mut first, "bob").await.expect("the second key");
    let mut second = Socket::connect(&server.url()).await;
    write(&mut second, "carol").await.expect("another store");
    write(&mut second, "bob").await.expect_err("refused");
}

/// Exact to the byte, however many writes are in flight; and a client that did not get its ack gets it.
#[tokio::test]
async fn a_store_that_is_full_takes_what_it_knows_and_what_the_server_writes() {
    // A record has these bytes besides its payload.
    let record = |payload: usize| batch(&[entry("E", "", &vec![0; payload])]).bytes() as u64;
    let server = start(per_store(Quota::default(), Some(5 * record(100)))).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Socket::connect(&server.url()).await);
    }
    let batches: Vec<_> = (0..20).map(|_| batch(&[entry("E", "", &[0; 100])])).collect();
    for (n, one) in batches.iter().enumerate() {
        clients[n % 4].write(&key("alice"), n as u64, one).await;
    }
    let mut stored = Vec::new();
    for n in 0..20 {
        match clients[n % 4].next_answer().await {
            Ok((id, _)) => stored.push(id),
            Err(refusal) => {
                assert_eq!(refusal.code, ErrorCode::InternalServerError);
                assert!(refusal.message.starts_with("quota: "), "{}", refusal.message);
            }
        }
    }
    assert_eq!(stored.len(), 5);
    let client = &mut clients[0];
    client.write(&key("alice"), 90, &batches[stored[0] as usize]).await;
    assert_eq!(client.next_ack().await.0, 90);
    let entries = vec![entry("E", "", b"")];
    server.server.write_to_store(store("team"), entries, true).await.expect("the server's own");
    write(client, "bob").await.expect_err("the same store");
    write(client, "carol").await.expect("another store");
    server.comes_to("eventlog_quota_refused_total{of=\"store\",what=\"bytes_stored\"}", 16).await;
}

#[tokio::test]
async fn clients_of_the_rpc_protocol_are_told_the_same() {
    let server = start(per_key(hardly_any())).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice", "bob"]).await;
    let one = [framed_entry("E", "", b"")];
    client.write("alice", &one).await.expect("the first");
    let refused = client.write("alice", &one).await.expect_err("refused");
    assert_eq!(refused.code, rpc::ErrorCode::InternalServerError);
    assert!(refused.message.starts_with("quota: the public key "), "{}", refused.message);
    client.write("bob", &one).await.expect("another key");
    client.nothing_comes().await;
}

#[tokio::test]
async fn a_key_that_has_written_all_it_may_is_refused_until_an_administrator_says_otherwise() {
    let server = start(per_key(Quota { bytes_stored: Some(1_000), ..Quota::default() })).await;
    let mut client = Socket::connect(&server.url()).await;
    let mut taken = 0;
    while write(&mut client, "alice").await.is_ok() {
        taken += 1;
    }
    // Each has some 120 bytes.
    assert_eq!(taken, 9);
    let refused = write(&mut client, "alice").await.expect_err("refused");
    assert!(
        refused.message.starts_with("quota: the public key may write 1000 bytes"),
        "{refused:?}"
    );
    write(&mut client, "bob").await.expect("another key of the same store");
    let before = server.server.usage(&key("alice"));
    assert_eq!(server.server.reset_usage(&key("alice")).await, Ok(before));
    write(&mut client, "alice").await.expect("it begins again");
    assert!((1_000..1_200).contains(&before), "{before}");
    server.server.set_quotas(Quotas::default());
    for _ in 0..20 {
        write(&mut client, "alice").await.expect("no quota any more");
    }
    server.server.set_quotas(per_store(Quota::default(), Some(1)));
    let full = write(&mut client, "alice").await.expect_err("its store is full");
    assert!(full.message.contains("may hold 1 bytes"), "{full:?}");
}
