//! The backlog of a client that was offline for very long, on the binary.

use std::path::Path;

use eventlog_server::model::limits::CHUNK_BYTES;
use eventlog_server::model::{Batch, EntryId, EntryRef, Sequence};
use eventlog_server::protocol::rpc::{Acks, Call, Part, RequestId, encode_write_entries};
use tempfile::tempdir;

use crate::support::process::{Process, binary};
use crate::support::rpc::{DEFAULT, RpcSocket, acks, framed_entry};
use crate::support::{batch, http};

/// How many entries; `EVENTLOG_TEST_LARGE_ENTRIES=1000000` makes them 1,000,000, and 200 MiB or more.
const ENTRIES: usize = 100_000;

/// More than it takes while idle. For 1,000,000 entries that come in small batches the storage alone takes 250, because
/// what is written is in memory until a checkpoint; in one write they took up to 390, and 2,500,000 took 370.
fn more_mib_max(count: usize) -> u64 {
    if count > ENTRIES { 500 } else { 150 }
}

fn entries() -> usize {
    let given = std::env::var("EVENTLOG_TEST_LARGE_ENTRIES").ok();
    given.map_or(ENTRIES, |count| count.parse().expect("a number"))
}

fn rpc_url(server: &Process) -> String {
    server.url.replace("/eventlog", "/rpc")
}

async fn metric(server: &Process, name: &str) -> usize {
    let address = server.url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    let text = http::get(address.parse().expect("an address"), "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.expect("a metric").parse().expect("a number")
}

/// A write of entries whose ids are numbers.
fn data(count: usize) -> Vec<u8> {
    let mut payload = vec![7; 203];
    payload[..3].copy_from_slice(&[0xc9, 0x01, 0x20]);
    let mut batch = Batch::default();
    for number in 0..count as u64 {
        let id = 0x0192_0000_0000_7000_8000_0000_0000_0000_u128 + u128::from(number);
        let id = EntryId::from_bytes(id.to_be_bytes());
        let primary_key = format!("note {}", number % 5_000);
        batch.push(&EntryRef {
            id,
            event: "NoteSet",
            primary_key: &primary_key,
            payload: &payload,
        });
    }
    encode_write_entries("alice", DEFAULT, &batch)
}

/// Sends every part, the last of which is answered when everything is stored, with a few in flight as stock clients
/// have.
async fn send(client: &mut RpcSocket, data: &[u8]) -> RequestId {
    let total = data.len().div_ceil(CHUNK_BYTES) as u64;
    let mut last = None;
    for (index, part) in (0..).zip(data.chunks(CHUNK_BYTES)) {
        if let Some(last) = last.take() {
            assert_eq!(client.acked(&last).await, Ok(vec![]));
        }
        let part = Part { id: 0, index, total, data: part };
        last = Some(client.call(&Call::WriteChunked(part)).await);
    }
    last.expect("a part")
}

fn start(data_dir: &Path) -> Process {
    Process::serve_dev(data_dir)
}

#[tokio::test]
async fn a_large_write_takes_little_memory_and_a_kill_between_its_pieces_loses_nothing() {
    let (directory, count) = (tempdir().expect("a directory"), entries());
    let data = data(count);
    let server = start(directory.path());
    let mut client = RpcSocket::authenticated(&rpc_url(&server), &["alice"]).await;
    let idle = server.memory_bytes().0;
    send(&mut client, &data).await;
    let committed = loop {
        let committed = metric(&server, "eventlog_entries_committed_total").await;
        if committed > 0 {
            break committed;
        }
    };
    server.signal("KILL");
    drop((server, client));
    assert!(committed < count, "all of it was stored before the kill");

    let server = start(directory.path());
    let left = std::fs::read_dir(directory.path().join("spill")).expect("a directory").count();
    assert_eq!(left, 0, "what a killed process left is removed");
    let mut client = RpcSocket::authenticated(&rpc_url(&server), &["alice"]).await;
    let last = send(&mut client, &data).await;
    let value = client.exit(&last).await.expect("stored");
    let mut acks = Acks::decode(&value).expect("acknowledgements");
    let mut acknowledged = 0;
    while let Some((_, sequence)) = acks.next_ack().expect("an acknowledgement") {
        acknowledged += 1;
        assert_eq!(sequence, Sequence::new(acknowledged).expect("a sequence"));
    }
    // An answer that a client can read has no more than about 500,000.
    assert!(acknowledged as usize >= count.min(500_000), "{acknowledged}");
    let stored = metric(&server, "eventlog_entries_committed_total").await;
    let again = metric(&server, "eventlog_entries_duplicate_total").await;
    assert!(again >= committed && stored + again == count, "{committed}, {again}, {stored}");
    let most = server.memory_bytes().1;
    println!(
        "{count} entries, {} MiB: {} MiB, idle {} MiB",
        data.len() >> 20,
        most >> 20,
        idle >> 20
    );
    assert!((most - idle) >> 20 < more_mib_max(count), "{} MiB more", (most - idle) >> 20);

    let mut reader = RpcSocket::authenticated(&rpc_url(&server), &["bob"]).await;
    let feed = reader.subscribe("bob", DEFAULT, 0).await;
    let mut next = 1;
    while next <= count as u64 {
        for (sequence, entry) in reader.next_changes(&feed).await {
            let number = u128::from_be_bytes(*entry.id.as_bytes()) as u64 & 0xffff_ffff;
            assert_eq!((sequence, number), (next, next - 1));
            next += 1;
        }
        reader.ack(&feed).await;
    }
}

/// The first part of a set that does not fit into a message.
async fn begin(client: &mut RpcSocket, data: &[u8]) -> RequestId {
    let total = data.len().div_ceil(CHUNK_BYTES) as u64;
    let part = Part { id: 0, index: 0, total, data: &data[..CHUNK_BYTES] };
    client.call(&Call::WriteChunked(part)).await
}

/// Two begin a set and stop. Whoever waits meanwhile is not closed for that, and comes in the order of arrival.
#[tokio::test]
async fn sets_that_wait_for_room_come_in_order_and_are_not_too_old() {
    let directory = tempdir().expect("a directory");
    let mut server = binary();
    server.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.path());
    // Room for one of three parts.
    for (name, value) in [
        ("EVENTLOG_LIMITS_MESSAGE_BYTES_MAX", "600000"),
        ("EVENTLOG_SPILL_BYTES_MAX", "2MiB"),
        ("EVENTLOG_LIMITS_CHUNK_SET_AGE_MAX", "3s"),
    ] {
        server.env(name, value);
    }
    let server = Process::start(server);
    let entries: Vec<_> =
        (0..3).map(|n| framed_entry("E", &n.to_string(), &vec![7; 500_000])).collect();
    let mut waiting = Vec::new();
    for (number, name) in ["alice", "bob", "carol"].into_iter().enumerate() {
        let mut client = RpcSocket::authenticated(&rpc_url(&server), &[name]).await;
        let data = encode_write_entries(name, DEFAULT, &batch(&entries));
        let first = begin(&mut client, &data).await;
        while number > 0 && metric(&server, "eventlog_spill_sets_waiting").await < number {
            tokio::task::yield_now().await;
        }
        waiting.push((client, first, data));
    }
    let [(alice, of_alice, _), (bob, of_bob, _), (carol, of_carol, data)] = &mut waiting[..] else {
        panic!("three of them")
    };
    for (client, first) in [(alice, of_alice), (bob, of_bob)] {
        assert_eq!(client.acked(first).await, Ok(vec![]));
        assert_eq!(client.socket.close_code().await, Some(1002));
    }
    assert_eq!(carol.acked(of_carol).await, Ok(vec![]));
    let total = data.len().div_ceil(CHUNK_BYTES) as u64;
    for (index, part) in (0..).zip(data.chunks(CHUNK_BYTES)).skip(1) {
        let part = carol.call(&Call::WriteChunked(Part { id: 0, index, total, data: part })).await;
        let expected = if index + 1 == total { acks(&entries, &[1, 2, 3]) } else { vec![] };
        assert_eq!(carol.acked(&part).await, Ok(expected));
    }
}
