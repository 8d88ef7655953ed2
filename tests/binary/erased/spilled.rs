//! What is erased while a client sends it again, in a message that is too large for memory and waits on disk.

use std::time::Instant;

use eventlog_server::model::Entry;
use eventlog_server::model::limits::CHUNK_BYTES;
use eventlog_server::protocol::rpc::{Call, Part, RequestId, encode_write_entries};

use super::*;
use crate::support::rpc::{DEFAULT, RpcSocket, framed_entry};

/// Enough entries for a message that does not stay in memory.
const ENTRIES: usize = 1_300;
const PAYLOAD: [u8; 16 << 10] = [7; 16 << 10];
const PATIENCE: Duration = Duration::from_secs(120);

async fn connect(server: &Process) -> RpcSocket {
    RpcSocket::authenticated(&server.url.replace("/eventlog", "/rpc"), &["alice"]).await
}

/// The entry to erase, and others.
fn entries() -> Vec<Entry> {
    let others = (1..ENTRIES).map(|n| framed_entry("Note", &n.to_string(), &PAYLOAD));
    std::iter::once(framed_entry("Note", "somebody", SECRET.as_bytes())).chain(others).collect()
}

fn message(entries: &[Entry]) -> Vec<u8> {
    encode_write_entries("alice", DEFAULT, &batch(entries))
}

/// Sends the parts of a message up to the last but `left`, each once the one before it is on disk.
async fn send(client: &mut RpcSocket, (message, id): (&[u8], i64), left: usize) -> RequestId {
    let total = message.len().div_ceil(CHUNK_BYTES);
    let mut last = None;
    for (index, data) in message.chunks(CHUNK_BYTES).enumerate().take(total - left) {
        if let Some(last) = last.take() {
            assert_eq!(client.acked(&last).await, Ok(vec![]));
        }
        let part = Part { id, index: index as u64, total: total as u64, data };
        last = Some(client.call(&Call::WriteChunked(part)).await);
    }
    last.expect("a part")
}

async fn until_no_file_has_it(place: &Place) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = files_with(&place.data(), SECRET);
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Everything but the first entry, and nothing else.
async fn shows_the_others(server: &Process) {
    let mut reader = Socket::connect(&server.url).await;
    reader.subscribe(&key("bob"), 0).await;
    let read = reader.next_joined_entries(ENTRIES - 1).await;
    assert!(read.iter().map(|(at, _)| *at).eq(2..=ENTRIES as u64));
    assert!(read.iter().all(|(_, entry)| entry.primary_key != "somebody"));
    reader.nothing_comes().await;
}

#[tokio::test]
async fn it_leaves_the_disk_with_the_message_and_does_not_come_back() {
    // The client pauses in the middle, for as long as a busy machine takes to look through all files.
    let place = Place::new("[limits]\nchunk_set_age_max = \"1h\"\n");
    let server = place.serve("0s");
    let spill = place.data().join("spill");
    let all = entries();
    let message = message(&all);
    let mut client = connect(&server).await;
    let acks = client.write("alice", &all[..2]).await.expect("stored");
    assert!(acks.iter().map(|(_, at)| *at).eq([1, 2]));

    // All of it but the last part is on disk when the entry is erased.
    let total = message.len().div_ceil(CHUNK_BYTES) as u64;
    let last = send(&mut client, (&message, 0), 1).await;
    assert_eq!(client.acked(&last).await, Ok(vec![]));
    let waiting = files_with(&spill, SECRET);
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    place.well(&ERASE, &server);
    is_clean(&server).await;
    assert_eq!(files_with(&place.data(), SECRET), waiting, "nothing else has it");
    let (clean, said) = place.verify(Some(&server), &[]);
    let line = said.lines().find(|line| line.starts_with("spill ")).unwrap_or_default();
    assert!(!clean && line.ends_with("1 with content of erased entries"), "{said}");
    assert!(said.contains(": 1 record; it is removed when the client has sent all"), "{said}");

    let data = &message[(total as usize - 1) * CHUNK_BYTES..];
    let part = Part { id: 0, index: total - 1, total, data };
    let last = client.call(&Call::WriteChunked(part)).await;
    let acks = client.acked(&last).await.expect("stored");
    assert!(acks.iter().map(|(_, at)| *at).eq(1..=ENTRIES as u64), "it has its old sequence");
    until_no_file_has_it(&place).await;
    shows_the_others(&server).await;
    let (clean, said) = place.verify(Some(&server), &["--text", SECRET]);
    assert!(clean, "{said}");

    // A client that goes away in the middle leaves nothing.
    let last = send(&mut client, (&message, 1), 2).await;
    assert_eq!(client.acked(&last).await, Ok(vec![]));
    assert_eq!(files_with(&spill, SECRET).len(), 1);
    drop(client);
    until_no_file_has_it(&place).await;

    // Nor does a server that is killed in the middle, once it is started again.
    let mut client = connect(&server).await;
    let last = send(&mut client, (&message, 2), 2).await;
    assert_eq!(client.acked(&last).await, Ok(vec![]));
    drop(server);
    assert_eq!(files_with(&spill, SECRET).len(), 1);
    let server = place.serve("0s");
    assert_eq!(files_with(&place.data(), SECRET), Vec::<String>::new());
    shows_the_others(&server).await;
}

#[tokio::test]
async fn what_is_erased_while_its_message_is_stored_does_not_come_back() {
    let place = Place::new("");
    let server = place.serve("0s");
    let message = message(&entries());
    let mut client = connect(&server).await;
    let last = send(&mut client, (&message, 0), 0).await;
    // The first piece has it. There are more than ten, so this is seldom too late.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut erase = place.command(&ERASE);
        let (done, said) = run({
            erase.args(["--url", &server.url]);
            erase
        });
        if done && said.contains("1 entry is erased") {
            break;
        }
        assert!(Instant::now() < deadline, "{said}");
    }
    let acks = client.acked(&last).await.expect("stored");
    assert!(acks.iter().map(|(_, at)| *at).eq(1..=ENTRIES as u64));
    is_clean(&server).await;
    until_no_file_has_it(&place).await;
    shows_the_others(&server).await;
    // The client did not hear the answer, and sends all of it again.
    let last = send(&mut client, (&message, 1), 0).await;
    let acks = client.acked(&last).await.expect("known");
    assert!(acks.iter().map(|(_, at)| *at).eq(1..=ENTRIES as u64));
    until_no_file_has_it(&place).await;
    drop(server);
    shows_the_others(&place.serve("0s")).await;
}
