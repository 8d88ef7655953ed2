//! Compaction over sockets: the specification's core tests 10 and 11 under its names, and what else only a whole
//! server can show.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eventlog_server::model::{Entry, EntryId, Limits};
use eventlog_server::processing::compaction::{
    Compaction, CompactionGuard, EventPattern, Strategy,
};

use crate::support::server::{TestServer, in_memory};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An entry that was created so long ago.
fn aged(age: Duration, event: &str, primary_key: &str, payload: &[u8]) -> Entry {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    let created = now.saturating_sub(age).as_millis() as u64;
    let mut entry = entry(event, primary_key, payload);
    let mut id = *entry.id.as_bytes();
    id[..6].copy_from_slice(&created.to_be_bytes()[2..]);
    entry.id = EntryId::from_bytes(id);
    entry
}

/// A server for alice and bob, who share a store, with a compactor for their notes.
async fn server_with(strategy: Strategy) -> (TestServer, CompactionGuard) {
    let compaction = Compaction::new(&Limits::default());
    let guard = compaction.register([EventPattern::glob("Note*")], DAY, strategy);
    let builder = in_memory().compaction(compaction);
    let server = TestServer::start(builder, &[("alice", "team"), ("bob", "team")]).await;
    (server, guard.expect("the first compactor"))
}

/// Puts the payloads of a bucket into one note.
fn join() -> Strategy {
    Strategy::effect(|bucket, out| {
        let payloads: Vec<_> = bucket.entries.iter().map(|entry| &*entry.payload).collect();
        out.write("NoteJoined", payloads.concat());
        Ok(())
    })
}

async fn write(server: &TestServer, entries: &[Entry]) {
    let mut writer = Socket::connect(&server.url()).await;
    writer.write(&key("alice"), 1, &batch(entries)).await;
    writer.next_ack().await;
}

/// What a new connection of `name` is sent from `start` on, when `count` entries are due.
async fn read(server: &TestServer, name: &str, start: u64, count: usize) -> Vec<(u64, Entry)> {
    let mut reader = Socket::connect(&server.url()).await;
    reader.subscribe(&key(name), start).await;
    let entries = reader.next_entries(count).await;
    reader.nothing_comes().await;
    entries
}

#[tokio::test]
async fn read_time_compaction_only_affects_old_entries_in_a_shared_store_feed() {
    let (server, _guard) = server_with(join()).await;
    let old = [
        aged(3 * DAY, "NoteMade", "a", b"1"),
        aged(3 * DAY, "NoteMade", "b", b"2"),
        aged(2 * DAY, "NoteEdited", "a", b"3"),
        aged(2 * DAY, "Other", "a", b"4"),
    ];
    let recent = [entry("NoteEdited", "a", b"5"), entry("NoteEdited", "b", b"6")];
    write(&server, &old).await;
    write(&server, &recent).await;
    let sent = read(&server, "bob", 0, 5).await;
    let joined = |at: usize| (&*sent[at].1.event, &*sent[at].1.primary_key, &*sent[at].1.payload);
    assert_eq!((sent[0].0, joined(0)), (2, ("NoteJoined", "b", &b"2"[..])));
    assert_eq!((sent[1].0, joined(1)), (3, ("NoteJoined", "a", &b"13"[..])));
    let [five, six] = recent;
    assert_eq!(sent[2..], [(4, old[3].clone()), (5, five), (6, six)]);
    assert_eq!(read(&server, "alice", 1, 5).await, sent, "for every key and the same ids");
}

#[tokio::test]
async fn compacted_outputs_preserve_cursor_progression_across_public_keys_mapped_to_the_same_store()
{
    let (server, _guard) = server_with(join()).await;
    let payloads: Vec<[u8; 1]> = (0..60).map(|n| [n]).collect();
    let entries: Vec<Entry> = (0..60)
        .map(|n| aged(3 * DAY, "NoteMade", ["a", "b", "c", "d"][n % 7 % 4], &payloads[n]))
        .collect();
    write(&server, &entries).await;
    let whole = read(&server, "alice", 0, 4).await;
    assert!(whole.is_sorted_by(|(one, _), (two, _)| one < two));
    assert_eq!(whole.last().map(|(sequence, _)| *sequence), Some(60), "the last one ends a bucket");
    // Whoever resumes, with whichever key, from the highest sequence seen or from the one behind it.
    for (at, (sequence, _)) in whole.iter().enumerate() {
        assert_eq!(read(&server, "bob", *sequence, 4 - at).await, whole[at..]);
        if at < 3 {
            assert_eq!(read(&server, "bob", *sequence + 1, 3 - at).await, whole[at + 1..]);
        }
    }
}

/// The backlog ends with entries that are dropped: taking the last delivered sequence for the place where live
/// entries begin would lose or repeat some.
#[tokio::test]
async fn live_entries_follow_a_backlog_whose_end_was_compacted_away() {
    let (server, _guard) = server_with(Strategy::Drop).await;
    let kept = aged(3 * DAY, "Other", "a", b"kept");
    let dropped = (0..50).map(|_| aged(3 * DAY, "NoteMade", "a", b"dropped"));
    let entries: Vec<Entry> = [kept.clone()].into_iter().chain(dropped).collect();
    write(&server, &entries).await;
    let mut reader = Socket::connect(&server.url()).await;
    reader.subscribe(&key("bob"), 0).await;
    assert_eq!(reader.next_entries(1).await, [(1, kept)]);
    // Old by its id, but live: it is sent as it is.
    let live = [aged(3 * DAY, "NoteMade", "a", b"live"), entry("Other", "a", b"last")];
    write(&server, &live).await;
    let [note, other] = live;
    assert_eq!(reader.next_entries(2).await, [(52, note), (53, other)]);
    reader.nothing_comes().await;
}

/// Writers never pause while readers come and go: each of them ends with the last entry of every key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_feed_that_moves_end_with_the_last_entry_of_each_key() {
    let (server, _guard) = server_with(Strategy::KeepLatest).await;
    let mut writer = Socket::connect(&server.url()).await;
    let mut readers = Vec::new();
    for round in 0..20_u64 {
        let entries: Vec<Entry> = (0..50_u64)
            .map(|n| {
                let key = ["a", "b", "c", "d", "e"][(n * round % 5) as usize];
                let age = if n % 3 == 0 { Duration::ZERO } else { 2 * DAY };
                aged(age, "NoteMade", key, &(round * 50 + n + 1).to_be_bytes())
            })
            .collect();
        writer.write(&key("alice"), round, &batch(&entries)).await;
        let mut reader = Socket::connect(&server.url()).await;
        reader.subscribe(&key("bob"), round * 7).await;
        readers.push(reader);
        assert_eq!(writer.next_ack().await.0, round);
    }
    for mut reader in readers {
        let mut latest = BTreeMap::new();
        let mut seen = 0;
        while seen < 1_000 {
            for (sequence, entry) in reader.next_changes().await {
                assert!(sequence > seen, "{sequence} comes after {seen}");
                assert_eq!(*entry.payload, sequence.to_be_bytes(), "an entry as it was written");
                seen = sequence;
                latest.insert(entry.primary_key, sequence);
            }
        }
        let last = |key: &str| (1..=1_000_u64).rev().find(|sequence| key_of(*sequence) == key);
        for (key, sequence) in latest {
            assert_eq!(Some(sequence), last(&key), "the last of {key}");
        }
    }
}

/// The key that the entry at `sequence` was written with above.
fn key_of(sequence: u64) -> &'static str {
    let (round, n) = ((sequence - 1) / 50, (sequence - 1) % 50);
    ["a", "b", "c", "d", "e"][(n * round % 5) as usize]
}
