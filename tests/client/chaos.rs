//! A minute on a bad network.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eventlog_server::client::{EventLogRemote, Options};
use eventlog_server::model::{Entry, EntryId, PublicKey, Sequence};
use futures_util::future::join_all;

use super::{PATIENCE, Speaks, take};
use crate::support::proxy::Proxy;
use crate::support::random::Random;
use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{entry, framed, key};

/// How long, unless `EVENTLOG_CHAOS_SECONDS` says otherwise.
const SECONDS: u64 = 60;

/// Entries of one write: mostly few and small, now and then a message of several chunks.
fn batch(random: &mut Random) -> Vec<Entry> {
    let large = random.one_in(200);
    let count = if large { 300 } else { 1 + random.below(10) };
    let payload = framed(&vec![1; if large { 4_000 } else { random.below(300) as usize }]);
    (0..count).map(|_| entry("Note", "key", &payload)).collect()
}

/// Writes until `stop`, now and then the same entries twice, and returns the answers.
async fn write_on(
    remote: EventLogRemote,
    key: PublicKey,
    mut random: Random,
    stop: Arc<AtomicBool>,
) -> Vec<(u64, EntryId)> {
    let (mut answered, mut last) = (Vec::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        if random.one_in(4) || last.is_empty() {
            last = batch(&mut random);
        } else {
            last.drain(..last.len() / 2);
            last.extend(batch(&mut random));
        }
        let sequences = remote.write(&key, last.clone()).await.expect("an ack");
        assert_eq!(sequences.len(), last.len());
        answered.extend(sequences.iter().map(|s| s.get()).zip(last.iter().map(|entry| entry.id)));
        tokio::time::sleep(random.millis_below(20)).await;
    }
    answered
}

#[tokio::test]
async fn a_minute_of_cuts_delays_and_splits_loses_and_repeats_nothing() {
    minute(Speaks::Msgpack).await;
}

#[tokio::test]
async fn a_minute_of_cuts_delays_and_splits_loses_and_repeats_nothing_in_rpc() {
    minute(Speaks::Rpc).await;
}

async fn minute(speaks: Speaks) {
    let mut random = Random::seeded_by("EVENTLOG_CHAOS_SEED");
    let seconds = std::env::var("EVENTLOG_CHAOS_SECONDS").ok().and_then(|s| s.parse().ok());
    let keys = ["alice", "bob", "carol"].map(|name| (name, "team"));
    let server = TestServer::with_keys(&keys).await;
    let proxy = Proxy::start(server.addr, random.split()).await;
    let options = Options { read_ahead_entries: 500, ..speaks.options() };
    let (alice, bob) = (key("alice"), key("bob"));
    let remote = loop {
        // The network is bad from the start; the program has to repeat the first attempt.
        match EventLogRemote::connect(&speaks.url(proxy.addr), options.clone()).await {
            Ok(remote) => break remote,
            Err(error) => println!("not connected: {error}"),
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    let near = speaks.connect(&server).await;
    let writers = [
        (&remote, &alice),
        (&remote, &alice),
        (&remote, &alice),
        (&remote, &alice),
        (&remote, &bob),
        (&near, &bob),
        (&near, &alice),
    ];
    let writers: Vec<_> = writers
        .into_iter()
        .map(|(remote, key)| {
            let writing = write_on(remote.clone(), key.clone(), random.split(), stop.clone());
            tokio::spawn(writing)
        })
        .collect();

    // Both of the client's keys are followed; one of them by a program that is sometimes slow.
    let readers = [(&alice, true), (&bob, false)].map(|(key, slow)| {
        let (mut changes, mut random) = (remote.changes(key, Sequence::ZERO), random.split());
        let stop = stop.clone();
        tokio::spawn(async move {
            let mut got = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                if slow && random.one_in(200) {
                    tokio::time::sleep(random.millis_below(500)).await;
                }
                let soon = Duration::from_millis(100);
                if let Ok(one) = tokio::time::timeout(soon, take(&mut changes, 1)).await {
                    got.extend(one);
                }
            }
            (changes, got)
        })
    });

    tokio::time::sleep(Duration::from_secs(seconds.unwrap_or(SECONDS))).await;
    stop.store(true, Ordering::Relaxed);
    proxy.behave();
    let answered = tokio::time::timeout(PATIENCE, join_all(writers)).await;
    let answered = answered.expect("every write is answered").into_iter();
    let answered = answered.flat_map(|writer| writer.expect("a writer"));

    let mut by_sequence = HashMap::new();
    let mut by_id = HashMap::new();
    for (sequence, id) in answered {
        assert_eq!(*by_sequence.entry(sequence).or_insert(id), id, "one entry a sequence");
        assert_eq!(*by_id.entry(id).or_insert(sequence), sequence, "one sequence an entry");
    }
    let count = by_sequence.len();
    println!("{count} entries, {} cuts", proxy.cuts());
    assert!(proxy.cuts() > seconds.unwrap_or(SECONDS) / 10);

    // The feed as a simple client sees it.
    let mut socket = Socket::connect(&server.url()).await;
    socket.subscribe(&key("carol"), 0).await;
    let feed = socket.next_entries(count).await;
    assert!(feed.iter().map(|(sequence, _)| *sequence).eq(1..=count as u64));
    assert!(feed.iter().all(|(sequence, entry)| by_sequence.get(sequence) == Some(&entry.id)));
    for reader in readers {
        let (mut changes, mut got) = reader.await.expect("a reader");
        let rest = count - got.len();
        got.extend(take(&mut changes, rest).await);
        assert!(got == feed, "a stream differs from the feed");
    }
}
