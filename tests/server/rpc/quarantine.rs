//! Entries that exceed `entry_bytes_max`: put aside, so that the client's later writes are not held up behind them.

use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::{Batch, Entry, Limits};
use eventlog_server::protocol::rpc::{Call, ErrorCode};
use eventlog_server::server::{InQuarantine, QuarantineError, Server};
use eventlog_server::services::quarantine::MemoryQuarantine;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::services::{Auth, AuthError, AuthReason, Claim, Quarantine, Quarantined};
use eventlog_server::storage::memory::MemoryStorage;
use futures_util::future::BoxFuture;
use tempfile::{TempDir, tempdir};

use super::large::{data, send_all};
use crate::support::rpc::{DEFAULT, Heard, RpcSocket, acks, framed_entry};
use crate::support::server::{TestServer, in_memory};
use crate::support::socket::Socket;
use crate::support::{batch, key};

const KEYS: [(&str, &str); 3] = [("alice", "team"), ("bob", "team"), ("carol", "other")];
const KIB: usize = 1_024;

fn limits() -> Limits {
    Limits {
        message_bytes_max: 600_000,
        batch_entries_max: 100,
        entry_bytes_max: 100_000,
        quarantine_bytes_max: 2_000 * KIB,
        quarantine_key_bytes_max: 1_100 * KIB,
        ..Limits::default()
    }
}

async fn start(kept: &Arc<MemoryQuarantine>, limits: Limits) -> (TestServer, TempDir) {
    let directory = tempdir().expect("a directory");
    let quarantine: Arc<dyn Quarantine> = kept.clone();
    let builder = in_memory().limits(limits).spill(directory.path(), Some(20_000_000));
    (TestServer::start(builder.quarantine(quarantine), &KEYS).await, directory)
}

fn shelf(server: &Server) -> InQuarantine {
    server.quarantine().expect("a quarantine")
}

async fn content(shelf: &InQuarantine, entry: &Quarantined) -> Vec<u8> {
    let mut content = Vec::new();
    while (content.len() as u64) < entry.bytes() {
        content.extend(shelf.read(entry, content.len() as u64).await.expect("a part"));
    }
    content
}

/// Small entries with large ones in between, at the beginning and at the end.
fn mixed(large: &[usize]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for bytes in large {
        entries.push(framed_entry("Large", &format!("ключ {bytes}"), &vec![7; *bytes]));
        entries.push(framed_entry("Small", "s", b"small"));
    }
    entries.pop();
    entries
}

fn small(entries: &[Entry]) -> Vec<Entry> {
    entries.iter().filter(|entry| entry.event == "Small").cloned().collect()
}

#[tokio::test]
async fn a_large_entry_is_put_aside_and_everything_else_is_stored() {
    let kept = Arc::new(MemoryQuarantine::default());
    let (server, _spill) = start(&kept, limits()).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    // In one request; and in parts on disk, where one is larger than a message may be.
    for (round, large) in [[100_001, 120_000], [150_000, 700_000]].into_iter().enumerate() {
        let entries = mixed(&large);
        let data = data("alice", &entries);
        let write = if round == 0 {
            client.call(&Call::WriteSingle { data: &data }).await
        } else {
            send_all(&mut client, 1, &data).await
        };
        let expected = acks(&small(&entries), &[round as u64 + 1]);
        assert_eq!(client.acked(&write).await, Ok(expected));
    }
    // What follows is not lost.
    let after = [framed_entry("After", "a", b"x")];
    let write = client.call(&Call::WriteSingle { data: &data("alice", &after) }).await;
    assert_eq!(client.acked(&write).await, Ok(acks(&after, &[3])));

    let shelf = shelf(&server.server);
    let listed = shelf.list(0, 9);
    assert_eq!(listed.len(), 4);
    assert_eq!(shelf.list(listed[0].number, 2), listed[1..3]);
    let last = &listed[3];
    assert_eq!((last.event.as_str(), last.primary_key.as_str()), ("Large", "ключ 700000"));
    assert_eq!((last.public_key.as_str(), last.store_id.as_str()), ("alice", "team"));
    let whole = framed_entry("Large", "ключ 700000", &vec![7; 700_000]);
    let expected = [b"Large", "ключ 700000".as_bytes(), &whole.payload].concat();
    assert!(content(&shelf, last).await == expected, "it is not what was written");
    assert!(server.metric("eventlog_quarantine_entries").await > 3.5);
    assert!(server.metric("eventlog_quarantine_bytes").await > 1_070_000.0);

    // The next server has it as well.
    drop(server);
    let (server, _spill) = start(&kept, limits()).await;
    assert_eq!(self::shelf(&server.server).list(0, 9), listed);
}

#[tokio::test]
async fn an_entry_that_comes_again_is_kept_once() {
    let kept = Arc::new(MemoryQuarantine::default());
    let (server, _spill) = start(&kept, limits()).await;
    let entries = mixed(&[200_000, 100_001]);
    for name in ["alice", "alice", "bob"] {
        let mut client = RpcSocket::authenticated(&server.rpc_url(), &[name]).await;
        let write = client.call(&Call::WriteSingle { data: &data(name, &entries) }).await;
        assert_eq!(client.acked(&write).await, Ok(acks(&small(&entries), &[1])));
    }
    assert_eq!(shelf(&server.server).list(0, 9).len(), 2);
    // Another store is a different case.
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["carol"]).await;
    let write = client.call(&Call::WriteSingle { data: &data("carol", &entries) }).await;
    assert_eq!(client.acked(&write).await, Ok(acks(&small(&entries), &[1])));
    assert_eq!(shelf(&server.server).list(0, 9).len(), 4);
}

#[tokio::test]
async fn without_room_the_write_is_refused_as_a_whole_and_the_setting_named() {
    let kept = Arc::new(MemoryQuarantine::default());
    let (server, _spill) = start(&kept, limits()).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice", "bob", "carol"]).await;
    let mut entries = mixed(&[400_000, 400_000]);
    let write = send_all(&mut client, 1, &data("alice", &entries)).await;
    assert_eq!(client.acked(&write).await, Ok(acks(&small(&entries), &[1])));
    // Together with the existing ones it would be more than the key may have.
    let mut more = mixed(&[150_000, 200_000]);
    more.insert(0, framed_entry("Small", "first", b"x"));
    let write = client.call(&Call::WriteSingle { data: &data("alice", &more) }).await;
    let refused = client.acked(&write).await.expect_err("refused");
    assert_eq!(refused.code, ErrorCode::InternalServerError);
    let named = format!("quarantine: entry 3 ({})", more[3].id);
    assert!(refused.message.starts_with(&named), "{}", refused.message);
    assert!(refused.message.contains("(quarantine_key_bytes_max)"), "{}", refused.message);
    assert_eq!(shelf(&server.server).list(0, 9).len(), 2, "nothing of it was put aside");
    assert!(server.metric("eventlog_entries_committed_total").await < 1.5, "nothing was stored");
    // The others share what is left.
    entries = mixed(&[400_000, 500_000]);
    let write = send_all(&mut client, 2, &data("bob", &entries)).await;
    assert!(client.acked(&write).await.is_ok());
    let write = client.call(&Call::WriteSingle { data: &data("carol", &mixed(&[400_000])) }).await;
    let refused = client.acked(&write).await.expect_err("refused");
    assert!(refused.message.contains("(quarantine_bytes_max)"), "{}", refused.message);
    server.comes_to("eventlog_quarantine_refused_total", 2).await;
    // Once there is space, it is accepted.
    let first = shelf(&server.server).list(0, 1)[0].number;
    shelf(&server.server).remove(first).await.expect("removed");
    let write = client.call(&Call::WriteSingle { data: &data("carol", &mixed(&[400_000])) }).await;
    assert_eq!(client.acked(&write).await, Ok(vec![]));
    assert!(matches!(
        shelf(&server.server).remove(first).await,
        Err(QuarantineError::NoSuchEntry(number)) if number == first
    ));
}

#[tokio::test]
async fn without_a_quarantine_the_slot_and_the_setting_are_named() {
    let server = TestServer::with_limits(limits(), &KEYS).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let mut entries = mixed(&[100_001]);
    entries.insert(0, framed_entry("Small", "first", b"x"));
    let write = client.call(&Call::WriteSingle { data: &data("alice", &entries) }).await;
    let refused = client.acked(&write).await.expect_err("refused");
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    assert!(refused.message.starts_with("entry 1 has 100"), "{}", refused.message);
    assert!(refused.message.ends_with("(entry_bytes_max)"), "{}", refused.message);
}

#[tokio::test]
async fn on_the_msgpack_wire_the_batch_is_refused_and_the_slot_named() {
    let kept = Arc::new(MemoryQuarantine::default());
    let (server, _spill) = start(&kept, limits()).await;
    let mut socket = Socket::connect(&server.url()).await;
    let entries = [framed_entry("Small", "s", b"x"), framed_entry("Large", "l", &vec![7; 100_001])];
    socket.write(&key("alice"), 1, &batch(&entries)).await;
    let refused = socket.next_refusal().await.message;
    let named = format!("entry 1 ({}): the entry has 100", entries[1].id);
    assert!(refused.starts_with(&named) && refused.ends_with("(entry_bytes_max)"), "{refused}");
    assert!(shelf(&server.server).list(0, 9).is_empty());
}

#[tokio::test]
async fn a_raised_limit_takes_what_was_put_aside_and_what_is_sent_again() {
    let kept = Arc::new(MemoryQuarantine::default());
    let (server, _spill) = start(&kept, limits()).await;
    let entries = mixed(&[150_000, 200_000, 550_000]);
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let write = send_all(&mut client, 1, &data("alice", &entries)).await;
    assert_eq!(client.acked(&write).await, Ok(acks(&small(&entries), &[1, 2])));
    let shelf = shelf(&server.server);
    let number = shelf.list(0, 1)[0].number;
    let error = shelf.release(number).await.expect_err("it is too large yet").to_string();
    assert!(error.ends_with("at most 100000 are allowed (entry_bytes_max)"), "{error}");
    drop(server);

    let (server, _spill) = start(&kept, Limits { entry_bytes_max: 300_000, ..limits() }).await;
    let shelf = self::shelf(&server.server);
    assert_eq!(shelf.list(0, 9).len(), 3);
    let sequence = shelf.release(number).await.expect("released");
    assert_eq!(sequence.get(), 1);
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["bob"]).await;
    let feed = client.subscribe("bob", DEFAULT, 0).await;
    assert_eq!(client.next_entries(&feed, 1).await, [(1, entries[0].clone())]);
    // When the next one is sent again, it is stored and removed from quarantine; the one that is too large stays.
    let write = send_all(&mut client, 1, &data("bob", &entries[2..])).await;
    let stored = [entries[2].clone(), entries[3].clone()];
    assert_eq!(client.acked(&write).await, Ok(acks(&stored, &[2, 3])));
    server.comes_to("eventlog_quarantine_entries", 1).await;
    assert_eq!(shelf.list(0, 9)[0].entry_id, entries[4].id);
}

/// Alice may not write `Secret` events; `Auth` never sees a payload that was not read.
struct NoSecrets;

impl Auth for NoSecrets {
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        batch: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        let secret = batch.iter().any(|entry| entry.event == "Secret");
        let seen = batch.iter().all(|entry| entry.event == "Small" || entry.payload.is_empty());
        let (reason, message) = (AuthReason::Forbidden, "no secrets".into());
        let error = AuthError { reason, key: claim.key.clone(), message };
        Box::pin(async move { if secret || !seen { Err(error) } else { Ok(()) } })
    }

    fn authorize_read<'a>(&'a self, _: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn what_may_not_be_written_is_not_put_aside() {
    let kept = Arc::new(MemoryQuarantine::default());
    let quarantine: Arc<dyn Quarantine> = kept.clone();
    let storage = Arc::new(MemoryStorage::new());
    let builder = Server::builder(storage, Arc::new(MemoryRegistry::new()), Arc::new(NoSecrets));
    let builder = builder.limits(limits()).quarantine(quarantine);
    let server = TestServer::start(builder, &KEYS).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let allowed = mixed(&[150_000]);
    let forbidden =
        [&mixed(&[150_000])[..], &[framed_entry("Secret", "s", &vec![7; 150_000])]].concat();
    let write = client.call(&Call::WriteSingle { data: &data("alice", &forbidden) }).await;
    let refused = client.acked(&write).await.expect_err("refused");
    assert_eq!(refused.code, ErrorCode::Unauthorized);
    assert!(shelf(&server.server).list(0, 9).is_empty());
    let write = client.call(&Call::WriteSingle { data: &data("alice", &allowed) }).await;
    assert_eq!(client.acked(&write).await, Ok(vec![]));
    assert_eq!(shelf(&server.server).list(0, 9).len(), 1);
    // An event must have a name, here as well.
    let nameless = [framed_entry("Small", "s", b"x"), framed_entry("", "s", &vec![7; 150_000])];
    let write = client.call(&Call::WriteSingle { data: &data("alice", &nameless) }).await;
    let refused = client.acked(&write).await.expect_err("refused");
    assert!(refused.message.starts_with("entry 1 ("), "{}", refused.message);
}

#[tokio::test]
async fn pings_are_answered_while_an_entry_is_put_aside() {
    let kept = Arc::new(MemoryQuarantine::default());
    let limits = Limits {
        quarantine_key_bytes_max: 20_000_000,
        quarantine_bytes_max: 20_000_000,
        ..limits()
    };
    let (server, _spill) = start(&kept, limits).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let entries = mixed(&[8_000_000]);
    let write = send_all(&mut client, 1, &data("alice", &entries)).await;
    client.ping().await;
    let answered = async {
        let (mut pong, mut acked) = (false, false);
        while !(pong && acked) {
            match client.next().await {
                Heard::Pong => pong = true,
                Heard::Success(id, _) => acked = id == write,
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), answered).await.expect("both in time");
}
