//! Feeds with gaps, as after a restore: readers pass them, and nobody is told about an entry that does not exist.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eventlog_server::client::{EventLogRemote, Options};
use eventlog_server::model::{
    Batch, Entry, EntryId, Limits, Origin, Segment, SegmentBuilder, Sequence,
};
use eventlog_server::processing::compaction::{Compaction, EventPattern, Strategy};
use eventlog_server::processing::{Committed, EventGroup, Processor};
use eventlog_server::server::Server;
use eventlog_server::services::Caller;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::journal::{EventJournal, MemoryJournal};
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::Storage;
use eventlog_server::storage::memory::MemoryStorage;
use futures_util::StreamExt;

use crate::processing::{Handled, TodoAdded, Todos, added, processed};
use crate::support::rpc::{DEFAULT, RpcSocket, framed_entry};
use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, key, store};

const TEAM: [(&str, &str); 3] = [("alice", "team"), ("bob", "team"), ("carol", "team")];
const JUMP: u64 = 1_000_000_000;

type Feed = Vec<(u64, Entry)>;

fn at(sequence: u64) -> Sequence {
    Sequence::new(sequence).expect("a sequence")
}

/// A store whose feed has these entries, and gaps of one jump between and after them.
async fn storage(parts: &[Vec<Entry>]) -> (Arc<MemoryStorage>, Feed) {
    let storage = Arc::new(MemoryStorage::new());
    let log = storage.open(&store("team")).expect("it opens");
    let mut feed = Feed::new();
    for part in parts {
        let mut builder = SegmentBuilder::new(log.head().next());
        let written: Batch = batch(part);
        for (slot, entry) in part.iter().enumerate() {
            let record = written.record(slot).expect("a slot");
            let sequence = builder.push(record, &Origin::Server { run_handlers: true });
            feed.push((sequence.get(), entry.clone()));
        }
        log.append(builder.finish()).await.expect("appended");
        let gap = Segment::gap(log.head().next(), JUMP as u32).expect("a gap");
        log.append(vec![gap]).await.expect("appended");
    }
    (storage, feed)
}

fn notes(counts: &[usize]) -> Vec<Vec<Entry>> {
    let part = |(at, count): (usize, &usize)| {
        (0..*count).map(|n| framed_entry("Note", &format!("{}", n % 3), &[at as u8; 300])).collect()
    };
    counts.iter().enumerate().map(part).collect()
}

async fn start(storage: &Arc<MemoryStorage>) -> TestServer {
    let builder =
        Server::builder(storage.clone(), Arc::new(MemoryRegistry::new()), Arc::new(AllowAll));
    TestServer::start(builder, &TEAM).await
}

/// Where readers begin: around every boundary.
fn starts(feed: &Feed, head: u64) -> Vec<u64> {
    let around = |at: u64| [at.saturating_sub(1), at, at + 1];
    let mut starts: Vec<u64> = feed.iter().flat_map(|(at, _)| around(*at)).collect();
    starts.extend([0, 1, JUMP / 2, head - JUMP / 2, head - 1, head, head + 1]);
    starts.sort_unstable();
    starts.dedup();
    starts.into_iter().filter(|start| *start <= head + 1).collect()
}

fn from(feed: &Feed, start: u64) -> Feed {
    feed.iter().filter(|(at, _)| *at >= start).cloned().collect()
}

#[tokio::test]
async fn every_reader_passes_them_from_wherever_it_begins() {
    let (storage, mut feed) = storage(&notes(&[3, 0, 400, 1])).await;
    let server = start(&storage).await;
    let head = storage.open(&store("team")).expect("open").head().get();
    let mut begun = Vec::new();
    for start in starts(&from(&feed, 0).into_iter().step_by(100).collect(), head) {
        let expected = from(&feed, start);
        let mut socket = Socket::connect(&server.url()).await;
        socket.subscribe(&key("bob"), start).await;
        if !expected.is_empty() {
            assert_eq!(socket.next_entries(expected.len()).await, expected, "from {start}");
        }
        let mut rpc = RpcSocket::authenticated(&server.rpc_url(), &["carol"]).await;
        let subscription = rpc.subscribe("carol", DEFAULT, start).await;
        if !expected.is_empty() {
            assert_eq!(rpc.next_entries(&subscription, expected.len()).await, expected);
        }
        begun.push((start, socket, rpc, subscription));
    }
    for (_, socket, rpc, _) in &mut begun {
        socket.nothing_comes().await;
        rpc.nothing_comes().await;
    }
    // The next entry comes after the last one, for all of them.
    let more = framed_entry("Note", "more", b"");
    let mut writer = Socket::connect(&server.url()).await;
    writer.subscribe(&key("alice"), head - JUMP / 2).await;
    writer.write(&key("alice"), 1, &batch(std::slice::from_ref(&more))).await;
    assert_eq!(writer.next_ack().await, (1, vec![head + 1]));
    writer.nothing_comes().await;
    feed.push((head + 1, more));
    for (start, mut socket, mut rpc, subscription) in begun {
        assert_eq!(socket.next_entries(1).await, from(&feed, head + 1), "from {start}");
        assert_eq!(rpc.next_entries(&subscription, 1).await, from(&feed, head + 1));
    }
}

#[tokio::test]
async fn code_in_the_process_passes_them_too() {
    let (storage, mut feed) = storage(&notes(&[3, 50, 1])).await;
    let running = start(&storage).await;
    let server = &running.server;
    let head = server.head(&store("team")).await.expect("a head").get();
    for start in starts(&feed.iter().step_by(20).cloned().collect(), head) {
        let mut paged = Feed::new();
        let mut next = at(start.max(1));
        loop {
            let page = server.entries(&store("team"), next, 7).await.expect("a page");
            let Some(last) = page.last() else { break };
            next = last.remote_sequence.next();
            paged.extend(page.into_iter().map(|one| (one.remote_sequence.get(), one.entry)));
        }
        assert_eq!(paged, from(&feed, start), "from {start}");
    }
    let mut raw = server.changes(&store("team"), at(2)).await.expect("a stream");
    let mut late = server.changes(&store("team"), at(head - 1)).await.expect("a stream");
    let caller = Caller::default();
    let mut own = server.request_changes(&caller, &key("bob"), at(0)).await.expect("a stream");
    let remote = EventLogRemote::connect(&running.url(), Options::default()).await;
    let remote = remote.expect("a client");
    let mut streamed = remote.changes(&key("bob"), Sequence::ZERO);
    for (sequence, entry) in &feed {
        if *sequence >= 2 {
            assert_eq!(raw.next().await.expect("one").expect("an entry").entry, *entry);
        }
        assert_eq!(own.next().await.expect("one").expect("an entry").entry, *entry);
        let one = streamed.next().await.expect("one").expect("an entry");
        assert_eq!((one.remote_sequence.get(), one.entry), (*sequence, entry.clone()));
    }
    // A client's own entry is acknowledged far above what it was fed, and streamed anyway.
    let mine = framed_entry("Note", "mine", b"");
    let sequences = remote.write(&key("bob"), vec![mine.clone()]).await.expect("an ack");
    assert_eq!(sequences, [at(head + 1)]);
    feed.push((head + 1, mine.clone()));
    for stream in [&mut raw, &mut late, &mut own] {
        let one = stream.next().await.expect("one").expect("an entry");
        assert_eq!((one.remote_sequence.get(), one.entry), (head + 1, mine.clone()));
    }
    let one = tokio::time::timeout(Duration::from_secs(20), streamed.next()).await.expect("soon");
    assert_eq!(one.expect("one").expect("an entry").remote_sequence.get(), head + 1);
}

/// The same entries with gaps and without: the results are the same.
#[tokio::test]
async fn compaction_makes_the_same_of_a_feed_with_gaps() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let old = |mut entry: Entry| {
        let mut id = *entry.id.as_bytes();
        id[1] -= 1;
        entry.id = EntryId::from_bytes(id);
        entry
    };
    let parts: Vec<Vec<Entry>> = notes(&[40, 40, 1, 40])
        .into_iter()
        .map(|part| part.into_iter().map(old).collect())
        .collect();
    let mut parts = parts;
    parts[2].push(framed_entry("Other", "o", b"kept"));
    let strategies = [
        || Strategy::KeepLatest,
        || Strategy::Drop,
        || {
            Strategy::effect(|bucket, out| {
                let count = bucket.entries.len() as u64;
                out.write("NotesCounted", count.to_be_bytes().to_vec());
                Ok(())
            })
        },
    ];
    for strategy in strategies {
        // With an index for all readers; and without the memory for one.
        for compaction_bytes_max in [64 << 20, 600] {
            let limits = Limits { compaction_bytes_max, ..Limits::default() };
            let mut found = Vec::new();
            for (parts, start) in
                [(parts.clone(), 0), (vec![parts.concat()], 0), (parts.clone(), JUMP / 2)]
            {
                let (storage, feed) = storage(&parts).await;
                let compaction = Compaction::new(&limits);
                let guard = compaction.register([EventPattern::glob("Note*")], DAY, strategy());
                let _guard = guard.expect("the first compactor");
                let registry = Arc::new(MemoryRegistry::new());
                let builder = Server::builder(storage, registry, Arc::new(AllowAll));
                let builder = builder.compaction(compaction).limits(limits.clone());
                let server = TestServer::start(builder, &TEAM).await;
                let place: BTreeMap<u64, usize> =
                    feed.iter().enumerate().map(|(place, (at, _))| (*at, place)).collect();
                for is_live in [true, false] {
                    let mut reader = Socket::connect(&server.url()).await;
                    reader.subscribe(&key("bob"), start).await;
                    if is_live {
                        let end = vec![framed_entry("End", "e", b"")];
                        server
                            .server
                            .write_to_store(store("team"), end, true)
                            .await
                            .expect("written");
                    }
                    let mut sent = Vec::new();
                    while sent.last().is_none_or(|(_, entry): &(u64, Entry)| entry.event != "End") {
                        sent.extend(reader.next_changes().await);
                    }
                    sent.retain(|(_, entry)| entry.event != "End");
                    reader.nothing_comes().await;
                    let sent = sent
                        .into_iter()
                        .map(|(at, entry)| (place[&at], entry.event, entry.payload));
                    found.push(sent.collect::<Vec<_>>());
                }
            }
            assert_eq!(found[0], found[2]);
            assert_eq!(found[1], found[0]);
            assert!(found[2].len() < 60 && !found[2].is_empty(), "{}", found[2].len());
            let behind: Vec<_> =
                found[0].iter().filter(|(place, ..)| *place >= 40).cloned().collect();
            assert_eq!(found[4], behind);
        }
    }
}

fn group(
    handled: &Handled,
) -> impl FnOnce(eventlog_server::processing::ProcessorBuilder) -> Processor + use<> {
    let group =
        Todos::handlers(Arc::clone(handled)).on(async |handled, todo: Committed<TodoAdded>| {
            handled.lock().push(format!("{} {}", todo.sequence(), todo.title));
        });
    move |builder| builder.group(group).build().expect("one group")
}

#[tokio::test]
async fn handlers_pass_them_once_and_go_on_behind_them() {
    let parts: Vec<Vec<Entry>> = [3, 0, 200, 1]
        .iter()
        .map(|count| (0..*count).map(|n| added(&n.to_string(), "t")).collect())
        .collect();
    let (storage, feed) = storage(&parts).await;
    let head = storage.open(&store("team")).expect("open").head().get();
    let journal: Arc<dyn EventJournal> = Arc::new(MemoryJournal::new());
    let mut expected: Vec<String> = feed.iter().map(|(at, _)| format!("{at} t")).collect();
    for more in 0..3 {
        let handled = Handled::default();
        let processor = group(&handled)(Processor::builder(journal.clone()));
        let registry = Arc::new(MemoryRegistry::new());
        let builder = Server::builder(storage.clone(), registry, Arc::new(AllowAll));
        let mut server = TestServer::start(builder.processor(processor), &TEAM).await;
        processed(&server.server, "team", head + more).await;
        server
            .server
            .write_to_store(store("team"), vec![added("m", "more")], true)
            .await
            .expect("written");
        processed(&server.server, "team", head + more + 1).await;
        expected.push(format!("{} more", head + more + 1));
        assert_eq!(std::mem::take(&mut *handled.lock()), std::mem::take(&mut expected));
        server.comes_to("eventlog_replay_lag", 0).await;
        server.stop();
    }
}

/// Clients know what the directory lost: it is counted, and has no other effect.
#[tokio::test]
async fn a_client_that_knows_more_than_the_server_is_counted() {
    let server = TestServer::with_keys(&TEAM).await;
    server.server.write_to_store(store("team"), notes(&[3]).concat(), true).await.expect("written");
    let mut socket = Socket::connect(&server.url()).await;
    for start in [3, 4] {
        socket.subscribe(&key("bob"), start).await;
        socket.ping(1).await;
    }
    server.comes_to("eventlog_subscriptions_ahead_total", 0).await;
    let mut ahead = Socket::connect(&server.url()).await;
    ahead.subscribe(&key("bob"), 5).await;
    server.comes_to("eventlog_subscriptions_ahead_total", 1).await;
    ahead.nothing_comes().await;
}
