//! Compaction over sockets: the specification's core tests 10 and 11 under their names, and what else only a whole
//! server can show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eventlog_server::model::{Entry, EntryId, Limits, Sequence};
use eventlog_server::processing::compaction::{
    Compaction, CompactionGuard, EventPattern, Strategy,
};
use eventlog_server::services::Caller;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::server::{TestServer, in_memory};
use crate::support::socket::Socket;
use crate::support::{batch, entry, http, key, store};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An entry that was created this long ago.
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

/// Joins the payloads of a bucket into one note.
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

/// What the admin API shows for a new reader is what a new reader is sent.
#[tokio::test]
async fn what_is_sent_of_a_primary_key_can_be_looked_at() {
    let compaction = Compaction::new(&Limits::default());
    let guard = compaction.register([EventPattern::glob("Note*")], DAY, Strategy::KeepLatest);
    let _guard = guard.expect("the first compactor");
    let builder = in_memory().compaction(compaction).admin_token("s3cret");
    let server = TestServer::start(builder, &[("alice", "team")]).await;
    let old = |key: &str, text: &[u8]| aged(3 * DAY, "NoteSet", key, text);
    let new = aged(Duration::ZERO, "NoteSet", "a", b"new");
    write(&server, &[old("a", b"1"), old("b", b"2"), old("a", b"3"), new]).await;
    let shown = async |query: &str| {
        let path = format!("/admin/stores/team/entries?primaryKey=a{query}");
        let answer = http::get_with_token(server.addr, &path, "s3cret").await;
        let body = answer.split_once("\r\n\r\n").expect("a body").1;
        let page: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(page.get("next"), None, "{page}");
        let entries = page["entries"].as_array().expect("a list").clone();
        let sequence = |entry: &Value| entry["sequence"].as_u64().expect("a number");
        (entries.iter().map(sequence).collect::<Vec<_>>(), entries[0]["origin"].clone())
    };
    assert_eq!(shown("").await, (vec![1, 3, 4], json!({ "publicKey": "alice" })));
    assert_eq!(shown("&compacted=true").await, (vec![3, 4], json!({})));
    let sent = read(&server, "alice", 1, 3).await;
    assert_eq!(sent.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [2, 3, 4]);
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
    // Every reader that resumes, with either key, from the highest sequence seen or from the next one.
    for (at, (sequence, _)) in whole.iter().enumerate() {
        assert_eq!(read(&server, "bob", *sequence, 4 - at).await, whole[at..]);
        if at < 3 {
            assert_eq!(read(&server, "bob", *sequence + 1, 3 - at).await, whole[at + 1..]);
        }
    }
}

/// The backlog ends with entries that are dropped: if live entries began right after the last delivered sequence, some
/// would be lost or repeated.
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
    // Old according to its id, but live: it is sent unchanged.
    let live = [aged(3 * DAY, "NoteMade", "a", b"live"), entry("Other", "a", b"last")];
    write(&server, &live).await;
    let [note, other] = live;
    assert_eq!(reader.next_entries(2).await, [(52, note), (53, other)]);
    reader.nothing_comes().await;
}

/// A device that was offline delivers at one o'clock what it wrote at eleven; somebody else wrote at noon. Existing
/// readers end up with the value of noon by the clients' rule, so a new reader must too.
#[tokio::test]
async fn an_old_value_that_comes_late_does_not_win_for_new_readers() {
    let (server, _guard) = server_with(Strategy::KeepLatest).await;
    let noon = aged(3 * DAY, "NoteMade", "k", b"noon");
    let eleven = aged(3 * DAY + Duration::from_secs(3_600), "NoteMade", "k", b"eleven");
    let other = aged(3 * DAY, "NoteMade", "other", b"");
    write(&server, std::slice::from_ref(&noon)).await;
    write(&server, &[eleven, other.clone()]).await;
    assert_eq!(read(&server, "bob", 0, 2).await, [(1, noon), (3, other.clone())]);
    assert_eq!(read(&server, "bob", 2, 1).await, [(3, other)], "noon was seen");
}

/// An effect that writes 20 MiB for a primary key: no client accepts such a message, and one that got none waited
/// forever.
#[tokio::test]
async fn a_replacement_that_no_client_could_read_leaves_the_entries_as_they_are() {
    let (server, _guard) = server_with(Strategy::effect(|bucket, out| {
        let bytes = if bucket.primary_key == "large" { 20 << 20 } else { 1 };
        out.write("NoteJoined", vec![7; bytes]);
        Ok(())
    }))
    .await;
    let old = |key: &str| aged(3 * DAY, "NoteMade", key, b"1");
    let entries = [old("small"), old("large"), old("small"), old("large")];
    write(&server, &entries).await;
    let sent = read(&server, "bob", 0, 3).await;
    let [_, two, _, four] = entries;
    assert_eq!((sent[1].0, &*sent[1].1.payload), (3, &[7][..]), "the other key is compacted");
    assert_eq!([&sent[0], &sent[2]], [&(2, two), &(4, four)]);
}

/// Many readers wait for an effect that does not return, on a runtime with fewer threads than readers.
#[test]
fn a_slow_effect_holds_up_its_own_store_only() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let compaction = Compaction::new(&Limits::default());
    let effect = Strategy::effect(move |bucket, out| {
        if bucket.primary_key == "slow" {
            // Ends when the sender is gone.
            let _ = released.lock().expect("no panic").recv();
        }
        out.write("NoteJoined", b"joined".to_vec());
        Ok(())
    });
    let _guard =
        compaction.register([EventPattern::glob("Note*")], DAY, effect).expect("the first");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let server = in_memory().compaction(compaction).start().expect("a server");
        for name in ["slow", "quick"] {
            server.assign(key(name), store(name)).await.expect("an assignment");
            let old = vec![aged(3 * DAY, "NoteMade", name, b"1")];
            server.write_to_store(store(name), old, false).await.expect("written");
        }
        let waiting = Arc::new(AtomicUsize::new(0));
        let first_of = |name: &'static str| {
            let (server, waiting) = (server.clone(), waiting.clone());
            async move {
                let caller = Caller::default();
                let changes = server.request_changes(&caller, &key(name), Sequence::ZERO).await;
                let mut changes = changes.expect("a stream");
                waiting.fetch_add(1, Ordering::SeqCst);
                changes.next().await.expect("an entry").expect("no error").entry.event
            }
        };
        let slow: Vec<_> = (0..40).map(|_| tokio::spawn(first_of("slow"))).collect();
        while waiting.load(Ordering::SeqCst) < slow.len() {
            tokio::task::yield_now().await;
        }
        let quick = tokio::time::timeout(Duration::from_secs(60), first_of("quick")).await;
        assert_eq!(quick.as_deref(), Ok("NoteJoined"));
        assert!(slow.iter().all(|reader| !reader.is_finished()));
        drop(release);
        for reader in slow {
            assert_eq!(reader.await.expect("no panic"), "NoteJoined");
        }
    });
}

/// Writers never pause while readers come and go: each reader ends with the greatest id of every key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_feed_that_moves_end_with_the_greatest_id_of_each_key() {
    let (server, _guard) = server_with(Strategy::KeepLatest).await;
    let mut writer = Socket::connect(&server.url()).await;
    let mut readers = Vec::new();
    let mut greatest: BTreeMap<String, (EntryId, u64)> = BTreeMap::new();
    for round in 0..20_u64 {
        let entries: Vec<Entry> = (0..50_u64)
            .map(|n| {
                let key = ["a", "b", "c", "d", "e"][(n * round % 5) as usize];
                let age = if n % 3 == 0 { Duration::ZERO } else { 2 * DAY };
                aged(age, "NoteMade", key, &(round * 50 + n + 1).to_be_bytes())
            })
            .collect();
        for (entry, sequence) in entries.iter().zip(round * 50 + 1..) {
            let this = (entry.id, sequence);
            let known = greatest.entry(entry.primary_key.clone()).or_insert(this);
            *known = this.max(*known);
        }
        writer.write(&key("alice"), round, &batch(&entries)).await;
        let mut reader = Socket::connect(&server.url()).await;
        let start = round * 7;
        reader.subscribe(&key("bob"), start).await;
        readers.push((reader, start));
        assert_eq!(writer.next_ack().await.0, round);
    }
    for (mut reader, start) in readers {
        let mut seen_of: BTreeMap<String, (EntryId, u64)> = BTreeMap::new();
        let mut seen = 0;
        while seen < 1_000 {
            for (sequence, entry) in reader.next_changes().await {
                assert!(sequence > seen, "{sequence} comes after {seen}");
                assert_eq!(*entry.payload, sequence.to_be_bytes(), "an entry as it was written");
                seen = sequence;
                let this = (entry.id, sequence);
                let known = seen_of.entry(entry.primary_key).or_insert(this);
                *known = this.max(*known);
            }
        }
        // A reader that begins there has seen what is before its start.
        for (key, greatest) in greatest.iter().filter(|(_, (_, sequence))| *sequence >= start) {
            assert_eq!(seen_of.get(key), Some(greatest), "the greatest of {key} from {start} on");
        }
    }
}
