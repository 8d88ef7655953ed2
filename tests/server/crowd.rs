//! Many connections at once: all of them see the same history.

use std::sync::Arc;

use bytes::BytesMut;
use eventlog_server::model::Entry;
use eventlog_server::protocol::msgpack::{Response, decode_response, encode_write};
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use crate::support::history::{History, Witness};
use crate::support::random::Random;
use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

const WRITERS: usize = 20;
/// How many of the writers are subscribed to what they write.
const WITNESSES: usize = 3;
const READERS: usize = 5;
const BATCHES: usize = 1_000;

/// What a writer was told: sequences of entries by their names.
type Acks = Vec<(u64, String)>;

/// Every writer has all its batches in flight at once; every fifth batch repeats an entry of the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_feed_is_gapless_and_agrees_with_every_ack() {
    let mut random = Random::seeded_by("EVENTLOG_CROWD_SEED");
    let data = tempfile::tempdir().expect("a directory");
    let database = Database::open(data.path(), DatabaseOptions::default()).expect("a database");
    let (storage, registry) = (SledStorage::new(database), MemoryRegistry::new());
    let builder = Server::builder(Arc::new(storage), Arc::new(registry), Arc::new(AllowAll));
    let server = TestServer::start(builder, &[("alice", "team"), ("bob", "team")]).await;
    let batches: Vec<_> = (0..WRITERS).map(|writer| batches_of(writer, &mut random)).collect();
    let total = WRITERS * BATCHES + WRITERS * BATCHES / 2;
    let readers: Vec<_> = (0..READERS)
        .map(|_| tokio::spawn(read_in_pieces(server.url(), total, random.split())))
        .collect();
    let writers = batches.into_iter().enumerate().map(|(writer, batches)| {
        let until = if writer < WITNESSES { total } else { 0 };
        tokio::spawn(write_at_once(server.url(), batches, until))
    });
    let mut history = History::default();
    for writer in writers.collect::<Vec<_>>() {
        for (sequence, name) in writer.await.expect("a writer") {
            history.acked(sequence, &name);
        }
    }
    history.check_acks(total as u64);
    for reader in readers {
        history.check_feed(&reader.await.expect("a reader"));
    }
}

/// One new entry a batch, two in every other one, and sometimes one that an earlier batch has as well.
fn batches_of(writer: usize, random: &mut Random) -> Vec<Vec<Entry>> {
    let mut batches: Vec<Vec<Entry>> = Vec::new();
    for number in 0..BATCHES {
        let payload = vec![1; random.below(200) as usize];
        let fresh = |slot| entry("E", &format!("{writer}/{number}/{slot}"), &payload);
        let mut entries: Vec<Entry> = (0..=number % 2).map(fresh).collect();
        if number % 5 == 4 {
            entries.insert(0, batches[number - 1][0].clone());
        }
        batches.push(entries);
    }
    batches
}

/// Sends all batches, then takes their acks; with `until`, as a subscriber that has everything when it knows this many
/// entries.
async fn write_at_once(url: String, batches: Vec<Vec<Entry>>, until: usize) -> Acks {
    let mut socket = Socket::connect(&url).await;
    if until > 0 {
        socket.subscribe(&key("alice"), 0).await;
    }
    let (mut sink, mut stream) = socket.stream.split();
    let sending = async {
        for (id, entries) in batches.iter().enumerate() {
            let mut bytes = BytesMut::new();
            encode_write(&mut bytes, &key("alice"), id as u64, &batch(entries));
            sink.feed(Message::Binary(bytes.freeze())).await.expect("sent");
        }
        sink.flush().await.expect("sent");
    };
    let reading = async {
        let (mut acks, mut witness, mut answered) = (Acks::new(), Witness::default(), 0);
        while answered < batches.len() || witness.count() < until {
            let message = stream.next().await.expect("an open connection").expect("a message");
            match decode_response(&message.into_data()).expect("a response") {
                Response::Ack { id, sequences } => {
                    let sequences: Vec<u64> = sequences.iter().map(|s| s.get()).collect();
                    let names = batches[id as usize].iter().map(|entry| entry.primary_key.clone());
                    assert_eq!(sequences.len(), names.len(), "a sequence for each slot");
                    acks.extend(sequences.iter().copied().zip(names));
                    answered += 1;
                    if until > 0 {
                        witness.acked(&sequences);
                    }
                }
                Response::Changes(view) => {
                    view.iter().for_each(|(sequence, _)| witness.delivered(sequence.get()));
                }
                other => panic!("expected an ack or changes, got {other:?}"),
            }
        }
        acks
    };
    futures_util::future::join(sending, reading).await.1
}

/// Reads the whole feed over many connections, each of which resumes where the last one stopped: with the highest
/// sequence seen, or that plus one.
async fn read_in_pieces(url: String, total: usize, mut random: Random) -> Vec<(u64, String)> {
    let mut feed: Vec<(u64, String)> = Vec::new();
    while feed.len() < total {
        let mut socket = Socket::connect(&url).await;
        // With the highest sequence seen, its entry comes again.
        feed.truncate(feed.len().saturating_sub(usize::from(random.one_in(2))));
        socket.subscribe(&key("bob"), feed.len() as u64 + 1).await;
        // It may leave before anything arrived.
        let until = (feed.len() + random.below(2_000) as usize).min(total);
        while feed.len() < until {
            for (sequence, entry) in socket.next_changes().await {
                assert_eq!(sequence, feed.len() as u64 + 1, "no gap, no repeat");
                feed.push((sequence, entry.primary_key));
            }
        }
    }
    feed
}
