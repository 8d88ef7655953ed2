//! Writes that are too large for one batch, or for memory: a client that was offline for long has one.

use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::limits::CHUNK_BYTES;
use eventlog_server::model::{Batch, Entry, Limits, Quota, Quotas};
use eventlog_server::protocol::rpc::{Call, ErrorCode, Part, RequestId, encode_write_entries};
use eventlog_server::server::{Builder, Server};
use eventlog_server::services::auth::{AllowAll, Grant, Grants};
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::services::{Auth, AuthError, AuthReason, Claim};
use eventlog_server::storage::memory::MemoryStorage;
use eventlog_server::testing::fault::{FailedAppend, Faults, FaultyStorage};
use futures_util::future::BoxFuture;
use tempfile::{TempDir, tempdir};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::support::rpc::{DEFAULT, Heard, RpcSocket, acks, framed_entry};
use crate::support::server::{TestServer, in_memory};
use crate::support::{batch, key};

const KEYS: [(&str, &str); 3] = [("alice", "team"), ("bob", "team"), ("carol", "team")];
const CHUNK: u64 = CHUNK_BYTES as u64;

/// What exceeds this goes to disk.
fn limits() -> Limits {
    Limits { message_bytes_max: 600_000, batch_entries_max: 100, ..Limits::default() }
}

/// A server with disk space for `parts` parts.
async fn with_room(builder: Builder, limits: Limits, parts: u64) -> (TestServer, TempDir) {
    let directory = tempdir().expect("a directory");
    let builder = builder.limits(limits).spill(directory.path(), Some(parts * CHUNK));
    (TestServer::start(builder, &KEYS).await, directory)
}

fn entries(count: usize, bytes: usize) -> Vec<Entry> {
    (0..count).map(|n| framed_entry("E", &n.to_string(), &vec![7; bytes])).collect()
}

pub fn data(name: &str, entries: &[Entry]) -> Vec<u8> {
    encode_write_entries(name, DEFAULT, &batch(entries))
}

async fn send(client: &mut RpcSocket, set: i64, index: usize, data: &[u8]) -> RequestId {
    let (total, part) = (data.len().div_ceil(CHUNK_BYTES), data.chunks(CHUNK_BYTES).nth(index));
    let (index, total, data) = (index as u64, total as u64, part.expect("a part"));
    client.call(&Call::WriteChunked(Part { id: set, index, total, data })).await
}

/// Sends all parts but the last, each when the previous one is answered, then the last.
pub async fn send_all(client: &mut RpcSocket, set: i64, data: &[u8]) -> RequestId {
    let last = data.len().div_ceil(CHUNK_BYTES) - 1;
    for index in 0..last {
        let part = send(client, set, index, data).await;
        assert_eq!(client.acked(&part).await, Ok(vec![]));
    }
    send(client, set, last, data).await
}

fn sequences(count: usize) -> Vec<u64> {
    (1..=count as u64).collect()
}

#[tokio::test]
async fn more_entries_than_a_batch_has_are_stored_in_pieces_and_acknowledged_together() {
    let server = TestServer::with_limits(limits(), &KEYS).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice", "bob"]).await;
    let (mine, others) =
        (client.subscribe("alice", DEFAULT, 0).await, client.subscribe("bob", DEFAULT, 0).await);
    let mut written = entries(1_050, 10);
    written.push(written[3].clone());
    let write = client.call(&Call::WriteSingle { data: &data("alice", &written) }).await;
    // The writer gets no echo; the other subscription is sent everything, and before the acknowledgement.
    let read = client.next_entries(&others, 1_050).await;
    assert!(read.iter().map(|(_, entry)| entry).eq(&written[..1_050]));
    let mut expected = sequences(1_050);
    expected.push(4);
    assert_eq!(client.acked(&write).await, Ok(acks(&written, &expected)));
    client.interrupt(&mine).await;
    server.comes_to("eventlog_entries_duplicate_total", 1).await;
    assert!(server.metric("eventlog_writes_acked_total").await >= 11.0);
}

#[tokio::test]
async fn parts_that_are_too_many_for_memory_wait_on_disk() {
    let (server, directory) = with_room(in_memory(), limits(), 8).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let files = || std::fs::read_dir(directory.path()).expect("a directory").count();
    // An entry is larger than a piece.
    let mut written = entries(300, 8_000);
    written[77] = framed_entry("Large", "l", &vec![8; 590_000]);
    let data = data("alice", &written);
    let parts = data.len().div_ceil(CHUNK_BYTES);
    let mut sent = Vec::new();
    for index in (1..parts).rev().chain([3, 1]) {
        sent.push(send(&mut client, 9, index, &data).await);
    }
    // Many are written at once: they are answered in any order.
    while !sent.is_empty() {
        let Heard::Success(id, value) = client.next().await else { panic!("no answer to a part") };
        assert_eq!(value, [0], "no acknowledgement");
        sent.retain(|part| *part != id);
    }
    assert_eq!(files(), 1);
    let room = u32::try_from(parts * CHUNK_BYTES).expect("a small room");
    server.comes_to("eventlog_spill_reserved_bytes", room).await;
    let last = send(&mut client, 9, 0, &data).await;
    assert_eq!(client.acked(&last).await, Ok(acks(&written, &sequences(300))));
    let mut reader = RpcSocket::authenticated(&server.rpc_url(), &["bob"]).await;
    let feed = reader.subscribe("bob", DEFAULT, 0).await;
    let read = reader.next_entries(&feed, 300).await;
    assert!(read.into_iter().map(|(_, entry)| entry).eq(written));
    server.comes_to("eventlog_spill_reserved_bytes", 0).await;
    assert_eq!(files(), 0);
}

/// `Auth` sees each piece before the first one is stored.
struct NoSecrets;

impl Auth for NoSecrets {
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        batch: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        let secret = batch.iter().any(|entry| entry.event == "Secret");
        let slow = batch.iter().any(|entry| entry.event == "Slow");
        Box::pin(async move {
            if slow {
                std::future::pending::<()>().await;
            }
            if secret {
                let (reason, message) = (AuthReason::Forbidden, "no secrets".into());
                return Err(AuthError { reason, key: claim.key.clone(), message });
            }
            Ok(())
        })
    }

    fn authorize_read<'a>(&'a self, _: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn nothing_is_stored_of_a_large_write_that_has_one_bad_entry() {
    let storage = Arc::new(MemoryStorage::new());
    let builder = Server::builder(storage, Arc::new(MemoryRegistry::new()), Arc::new(NoSecrets));
    let (server, _directory) = with_room(builder, limits(), 8).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let good = entries(1_000, 1_000);
    for (set, (at, bad, code, what)) in (0..).zip([
        (999, framed_entry("Secret", "", b""), ErrorCode::Unauthorized, "no secrets"),
        (999, framed_entry("", "", b""), ErrorCode::InvalidRequest, "entry 999 ("),
        (700, crate::support::entry("E", "", b"junk"), ErrorCode::InvalidRequest, "entry 700 ("),
        (1, framed_entry("E", "", &vec![7; 650_000]), ErrorCode::InvalidRequest, "entry 1 has 650"),
    ]) {
        let mut written = good.clone();
        written[at] = bad;
        let write = send_all(&mut client, set, &data("alice", &written)).await;
        let refused = client.refused(&write).await;
        assert_eq!(refused.code, code, "{}", refused.message);
        assert!(refused.message.contains(what), "{}", refused.message);
    }
    let write = send_all(&mut client, 9, &data("bob", &good)).await;
    assert_eq!(client.refused(&write).await.code, ErrorCode::Forbidden);
    let one = [framed_entry("E", "", b"")];
    assert_eq!(client.write("alice", &one).await, Ok(acks(&one, &[1])));
}

/// The client knows nothing of pieces.
#[tokio::test]
async fn an_event_that_may_not_be_written_is_named_by_its_slot_in_the_whole_write() {
    let grant =
        Grant { public_key: key("alice"), write: true, read: true, events: Some(vec!["E".into()]) };
    let (storage, registry) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryRegistry::new()));
    let grants = Arc::new(Grants::new([grant]).expect("one grant"));
    let builder = Server::builder(storage, registry, grants);
    let (server, _directory) = with_room(builder, limits(), 8).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let mut written = entries(1_000, 1_000);
    written[770] = framed_entry("Secret", "", b"");
    let write = send_all(&mut client, 0, &data("alice", &written)).await;
    let refused = client.refused(&write).await;
    assert_eq!(refused.code, ErrorCode::Unauthorized);
    let named = format!("entry 770 ({})", written[770].id);
    assert!(refused.message.contains(&named), "{}", refused.message);
}

/// A client that gets no `Pong` for five seconds reconnects.
#[tokio::test]
async fn a_connection_goes_on_while_its_large_write_is_checked() {
    let storage = Arc::new(MemoryStorage::new());
    let builder = Server::builder(storage, Arc::new(MemoryRegistry::new()), Arc::new(NoSecrets));
    let (server, _directory) = with_room(builder, limits(), 8).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let mut written = entries(1_000, 1_000);
    written[900] = framed_entry("Slow", "", b"");
    send_all(&mut client, 0, &data("alice", &written)).await;
    client.nothing_comes().await;
    let one = [framed_entry("E", "", b"")];
    assert_eq!(client.write("alice", &one).await, Ok(acks(&one, &[1])));
}

#[tokio::test]
async fn a_set_without_room_is_not_answered_until_there_is_some() {
    // Sets without space do not age.
    let limits = Limits { chunk_set_age_max: Duration::from_secs(10), ..limits() };
    let (server, _directory) = with_room(in_memory(), limits, 4).await;
    let url = server.rpc_url();
    let mut alice = RpcSocket::authenticated(&url, &["alice"]).await;
    let mut bob = RpcSocket::authenticated(&url, &["bob"]).await;
    let mut carol = RpcSocket::authenticated(&url, &["carol"]).await;
    let written = entries(3, 500_000);
    let [of_alice, of_bob, of_carol] = ["alice", "bob", "carol"].map(|name| data(name, &written));
    let first = send(&mut alice, 0, 0, &of_alice).await;
    assert_eq!(alice.acked(&first).await, Ok(vec![]));
    let of_bob = (send(&mut bob, 0, 0, &of_bob).await, of_bob);
    bob.nothing_comes().await;
    server.comes_to("eventlog_spill_sets_waiting", 1).await;
    let of_carol = (send(&mut carol, 0, 0, &of_carol).await, of_carol);
    carol.nothing_comes().await;
    server.comes_to("eventlog_spill_sets_waiting", 2).await;
    // A write that needs no space waits for nobody.
    let one = [framed_entry("E", "", b"")];
    assert_eq!(bob.write("bob", &one).await, Ok(acks(&one, &[1])));
    let part = send(&mut alice, 0, 1, &of_alice).await;
    assert_eq!(alice.acked(&part).await, Ok(vec![]));
    let last = send(&mut alice, 0, 2, &of_alice).await;
    assert_eq!(alice.acked(&last).await, Ok(acks(&written, &[2, 3, 4])));
    // In the order of arrival.
    for (client, (first, data)) in [(&mut bob, of_bob), (&mut carol, of_carol)] {
        assert_eq!(client.acked(&first).await, Ok(vec![]));
        let part = send(client, 0, 1, &data).await;
        assert_eq!(client.acked(&part).await, Ok(vec![]));
        let last = send(client, 0, 2, &data).await;
        assert_eq!(client.acked(&last).await, Ok(acks(&written, &[2, 3, 4])));
    }
}

#[tokio::test]
async fn a_key_has_one_set_on_disk_at_a_time_and_the_end_of_a_connection_gives_it_back() {
    let (server, _directory) = with_room(in_memory(), limits(), 100).await;
    let url = server.rpc_url();
    let [mut one, mut other] = [
        RpcSocket::authenticated(&url, &["alice"]).await,
        RpcSocket::authenticated(&url, &["alice"]).await,
    ];
    let written = entries(3, 500_000);
    let data = data("alice", &written);
    let first = send(&mut one, 0, 0, &data).await;
    assert_eq!(one.acked(&first).await, Ok(vec![]));
    let waiting = send(&mut other, 0, 0, &data).await;
    other.nothing_comes().await;
    drop(one);
    assert_eq!(other.acked(&waiting).await, Ok(vec![]));
}

#[tokio::test]
async fn a_set_that_trickles_loses_its_room() {
    let limits = Limits {
        chunk_set_age_max: Duration::from_millis(500),
        spill_rate_min: 1 << 40,
        ..limits()
    };
    let (server, _directory) = with_room(in_memory(), limits, 4).await;
    let url = server.rpc_url();
    let mut slow = RpcSocket::authenticated(&url, &["alice"]).await;
    let mut next = RpcSocket::authenticated(&url, &["bob"]).await;
    let written = entries(3, 500_000);
    let first = send(&mut slow, 0, 0, &data("alice", &written)).await;
    assert_eq!(slow.acked(&first).await, Ok(vec![]));
    let waiting = send(&mut next, 0, 0, &data("bob", &written)).await;
    assert_eq!(slow.socket.close_code().await, Some(1002));
    assert_eq!(next.acked(&waiting).await, Ok(vec![]));
}

/// However much arrives: space is not held forever.
#[tokio::test]
async fn a_set_that_is_never_whole_loses_its_room() {
    let limits = Limits {
        chunk_set_age_max: Duration::from_millis(200),
        spill_age_max: Duration::from_millis(1_500),
        spill_rate_min: 1,
        ..limits()
    };
    let (server, _directory) = with_room(in_memory(), limits, 4).await;
    let url = server.rpc_url();
    let mut endless = RpcSocket::authenticated(&url, &["alice"]).await;
    let mut next = RpcSocket::authenticated(&url, &["bob"]).await;
    let written = entries(3, 500_000);
    let first = send(&mut endless, 0, 0, &data("alice", &written)).await;
    assert_eq!(endless.acked(&first).await, Ok(vec![]));
    let waiting = send(&mut next, 0, 0, &data("bob", &written)).await;
    let ended = loop {
        match endless.socket.next_message().await.expect("a reason") {
            Message::Close(Some(CloseFrame { code, reason })) => break (u16::from(code), reason),
            _ => endless.socket.send_bytes(b"").await,
        }
    };
    assert_eq!(ended.0, 1002);
    assert!(ended.1.ends_with("spill_age_max"), "{}", ended.1);
    assert_eq!(next.acked(&waiting).await, Ok(vec![]));
}

/// Parts of waiting sets are in memory, 32 MiB in total.
#[tokio::test]
async fn too_much_that_waits_for_room_is_refused_for_now_and_the_connection_stays() {
    let (server, _directory) = with_room(in_memory(), limits(), 100).await;
    let url = server.rpc_url();
    let mut holder = RpcSocket::authenticated(&url, &["alice"]).await;
    let mut waiting = RpcSocket::authenticated(&url, &["bob"]).await;
    let part = vec![7; CHUNK_BYTES];
    let part = |index, total| Call::WriteChunked(Part { id: 0, index, total, data: &part });
    let held = holder.call(&part(0, 100)).await;
    assert_eq!(holder.acked(&held).await, Ok(vec![]));
    for index in 0..65 {
        waiting.call(&part(index, 70)).await;
    }
    waiting.nothing_comes().await;
    server.comes_to("eventlog_spill_sets_waiting", 1).await;
    waiting.call(&part(65, 70)).await;
    for _ in 0..66 {
        let Heard::Refused(_, refused) = waiting.next().await else { panic!("it is refused") };
        assert_eq!(refused.code, ErrorCode::InternalServerError);
        assert!(refused.message.starts_with("busy: "), "{}", refused.message);
    }
    server.comes_to("eventlog_spill_sets_waiting", 0).await;
    let one = [framed_entry("E", "", b"")];
    assert_eq!(waiting.write("bob", &one).await, Ok(acks(&one, &[1])));
    drop(holder);
    let written = entries(3, 500_000);
    let last = send_all(&mut waiting, 1, &data("bob", &written)).await;
    assert_eq!(waiting.acked(&last).await, Ok(acks(&written, &[2, 3, 4])));
}

/// A large write above its quota waits, and others have their turn meanwhile.
#[tokio::test]
async fn a_large_write_over_its_quota_waits_and_holds_up_nobody() {
    let burst = Duration::from_secs(1);
    let quota = Quota { writes_per_second: Some(1), burst, ..Quota::default() };
    let builder = in_memory().quotas(Quotas { per_key: quota, ..Quotas::default() });
    let (server, _directory) = with_room(builder, limits(), 100).await;
    let url = server.rpc_url();
    let written = entries(3, 500_000);
    let mut over = Vec::new();
    // As many as may be read at once.
    for _ in 0..2 {
        over.push(RpcSocket::authenticated(&url, &["alice"]).await);
    }
    let mut other = RpcSocket::authenticated(&url, &["bob"]).await;
    for n in 0..2 {
        let one = [framed_entry("E", "", b"")];
        assert!(over[0].write("alice", &one).await.is_ok(), "{n}: it waits for a second");
    }
    let mut sent = Vec::new();
    for client in &mut over {
        sent.push(client.call(&Call::WriteSingle { data: &many("alice") }).await);
    }
    let last = send_all(&mut other, 0, &data("bob", &written)).await;
    assert_eq!(other.acked(&last).await.map(|acked| acked.len()), Ok(3));
    for (client, sent) in over.iter_mut().zip(sent) {
        assert_eq!(client.acked(&sent).await.map(|acked| acked.len()), Ok(150));
    }
    let held = "eventlog_quota_held_total{of=\"key\",what=\"writes\"}";
    assert!(server.metric(held).await >= 2.0, "they waited");
}

/// More entries than a batch has.
fn many(name: &str) -> Vec<u8> {
    data(name, &entries(150, 10))
}

#[tokio::test]
async fn a_set_above_all_the_room_there_is_is_refused_with_the_setting() {
    let (server, _directory) = with_room(in_memory(), limits(), 2).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let data = data("alice", &entries(3, 500_000));
    for index in 0..3 {
        let part = send(&mut client, 0, index, &data).await;
        let refused = client.refused(&part).await;
        assert_eq!(refused.code, ErrorCode::InvalidRequest);
        assert!(index > 0 || refused.message.contains("spill_bytes_max"), "{}", refused.message);
    }
    // Many small parts are not a large write.
    let one = [framed_entry("E", "", b"")];
    for index in 0..9 {
        let part = client.send_part(1, (index, 9), &self::data("alice", &one)).await;
        let expected = if index < 8 { vec![] } else { acks(&one, &[1]) };
        assert_eq!(client.acked(&part).await, Ok(expected));
    }
}

/// What an operator does for a client of a server without a quarantine: otherwise it is refused forever, with
/// everything that follows.
#[tokio::test]
async fn an_entry_above_the_limit_is_taken_and_delivered_once_the_limit_is_raised() {
    let mib = 1_024 * 1_024;
    let written = [framed_entry("E", "large", &vec![7; 20 * mib]), framed_entry("E", "after", b"")];
    let data = data("alice", &written);
    for (message_bytes_max, is_taken) in [(16 * mib, false), (24 * mib, true)] {
        let limits = Limits { message_bytes_max, ..Limits::default() };
        let (server, _directory) = with_room(in_memory(), limits, 50).await;
        let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
        let write = send_all(&mut client, 0, &data).await;
        if !is_taken {
            let refused = client.refused(&write).await;
            let message =
                "entry 0 has 20971553 bytes, at most 16777216 are allowed (entry_bytes_max)";
            assert_eq!((refused.code, &*refused.message), (ErrorCode::InvalidRequest, message));
            continue;
        }
        assert_eq!(client.acked(&write).await, Ok(acks(&written, &[1, 2])));
        let mut reader = RpcSocket::authenticated(&server.rpc_url(), &["bob"]).await;
        let feed = reader.subscribe("bob", DEFAULT, 0).await;
        let read = reader.next_entries(&feed, 2).await;
        assert!(read.into_iter().map(|(_, entry)| entry).eq(written.clone()));
    }
}

#[tokio::test]
async fn after_a_failure_in_between_the_prefix_stays_and_the_resend_completes_it() {
    let storage = Arc::new(FaultyStorage::new(Arc::new(MemoryStorage::new())));
    let registry = Arc::new(MemoryRegistry::new());
    let builder = Server::builder(storage.clone(), registry, Arc::new(AllowAll));
    let (server, _directory) = with_room(builder, limits(), 8).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let written = entries(1_000, 1_000);
    let data = data("alice", &written);
    storage.set(Faults { append: Some((3, FailedAppend::IndefiniteLost)), ..Faults::default() });
    let write = send_all(&mut client, 0, &data).await;
    assert_eq!(client.refused(&write).await.code, ErrorCode::InternalServerError);
    let committed = server.metric("eventlog_entries_committed_total").await;
    assert!((100.0..1_000.0).contains(&committed), "{committed}");
    let write = send_all(&mut client, 1, &data).await;
    assert_eq!(client.acked(&write).await, Ok(acks(&written, &sequences(1_000))));
    server.comes_to("eventlog_entries_committed_total", 1_000).await;
}
