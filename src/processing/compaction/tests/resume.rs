//! Clients that return with a cursor, again and again, while time passes and others write.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;

use super::super::Strategy;
use super::*;

/// What a client has seen, by primary key.
#[derive(Debug, Default)]
struct Client {
    ids: HashSet<EntryId>,
    cursor: u64,
    /// The entry with the greatest id of each key: what a client shows that resolves conflicts as clients do.
    latest: BTreeMap<String, (EntryId, Vec<u8>)>,
    /// Everything that the payloads of each key said: what a client would lack that missed something.
    all: BTreeMap<String, BTreeSet<u8>>,
}

impl Client {
    /// Receives a message; returns whether anything in it was new.
    fn take(&mut self, message: &[RemoteEntry]) -> bool {
        let mut new = false;
        for RemoteEntry { remote_sequence, entry } in message {
            self.cursor = self.cursor.max(remote_sequence.get());
            if !self.ids.insert(entry.id) {
                continue;
            }
            new = true;
            let this = (entry.id, entry.payload.to_vec());
            let latest = self.latest.entry(entry.primary_key.clone()).or_insert(this.clone());
            *latest = this.max(latest.clone());
            let all = self.all.entry(entry.primary_key.clone()).or_default();
            all.extend(entry.payload.iter());
        }
        new
    }
}

/// A replacement that says everything that its bucket said.
fn union(bucket: &Bucket<'_>, out: &mut Replacements) {
    let all: BTreeSet<u8> =
        bucket.entries.iter().flat_map(|entry| entry.payload.to_vec()).collect();
    out.write("Union", all.into_iter().collect::<Vec<u8>>());
}

/// One step of a client's life: who wrote what (key, age at writing), how much time passes, whether it asks again for
/// the last thing it saw.
type Step = (Vec<(u8, u64)>, u64, bool);

fn write(feed: &mut Feed, now: u64, written: &[(u8, u64)]) {
    for (key, age) in written {
        let number = feed.entries.len() as u8;
        let key = ["a", "b", "c", "d"][*key as usize];
        feed.append(now.saturating_sub(*age), "Event", key, &[number]);
    }
}

/// Runs the steps, one message a connection, then reads on until it has everything.
fn live(feed: &mut Feed, compaction: &Compaction, steps: &[Step]) -> (Client, u64) {
    let (mut client, mut now) = (Client::default(), 1_000);
    for (written, later, again) in steps {
        now += later;
        write(feed, now, written);
        let start = if *again { client.cursor } else { client.cursor + 1 };
        let mut backlog = feed.backlog(compaction, start, now);
        // A message with nothing new does not end the connection, or a client that asks again would never get further.
        while next(&mut backlog, 1).is_some_and(|message| !client.take(&message)) {}
    }
    while let Some(message) = next(&mut feed.backlog(compaction, client.cursor + 1, now), 1) {
        client.take(&message);
        now += 7;
    }
    (client, now)
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    let written = prop::collection::vec((0_u8..4, 0_u64..300), 0..6);
    prop::collection::vec((written, 0_u64..60, any::<bool>()), 1..40)
}

fn compaction(strategy: Strategy) -> (Compaction, CompactionGuard) {
    let compaction = Compaction::new(&limits(1 << 20));
    let guard = compaction.register([EventPattern::exact("Event")], DAY, strategy);
    (compaction, guard.expect("the first"))
}

proptest! {
    #[test]
    fn resuming_after_each_message_ends_where_one_read_ends(
        before in prop::collection::vec((0_u8..4, 0_u64..300), 0..40),
        steps in steps(),
    ) {
        let (compaction, _guard) = compaction(Strategy::KeepLatest);
        let mut feed = Feed::new();
        write(&mut feed, 1_000, &before);
        let (client, now) = live(&mut feed, &compaction, &steps);
        let (mut at_once, mut raw) = (Client::default(), Client::default());
        at_once.take(&feed.read(&compaction, (0, now), 1 << 20));
        prop_assert_eq!(&client.latest, &at_once.latest);
        raw.take(&feed.read(&Compaction::new(&limits(0)), (0, 0), 1 << 20));
        prop_assert_eq!(&client.latest, &raw.latest);
    }

    #[test]
    fn no_cursor_skips_what_a_bucket_holds(
        before in prop::collection::vec((0_u8..4, 0_u64..300), 0..40),
        steps in steps(),
    ) {
        let (compaction, _guard) = compaction(Strategy::effect(|bucket, out| {
            union(bucket, out);
            Ok(())
        }));
        let mut feed = Feed::new();
        write(&mut feed, 1_000, &before);
        let (client, _) = live(&mut feed, &compaction, &steps);
        let mut everything = Client::default();
        let raw = Compaction::new(&limits(0));
        everything.take(&feed.read(&raw, (0, 0), 1 << 20));
        prop_assert_eq!(client.all, everything.all);
    }

    #[test]
    fn at_one_moment_a_cursor_lies_before_a_bucket_or_behind_it(
        before in prop::collection::vec((0_u8..4, 0_u64..300), 0..40),
        bytes_max in 1_usize..200,
        keep_latest: bool,
    ) {
        let parts = Strategy::effect(|bucket, out| {
            (0..3).for_each(|n| out.write("Part", vec![n, bucket.entries.len() as u8]));
            Ok(())
        });
        let (compaction, _guard) =
            compaction(if keep_latest { Strategy::KeepLatest } else { parts });
        let mut feed = Feed::new();
        write(&mut feed, 1_000, &before);
        let whole = feed.read(&compaction, (0, 1_000), 1 << 20);
        let (mut sent, mut cursor) = (Vec::new(), 0);
        while let Some(message) = next(&mut feed.backlog(&compaction, cursor + 1, 1_000), bytes_max) {
            cursor = message.last().expect("not empty").remote_sequence.get();
            sent.extend(message);
        }
        prop_assert_eq!(sent, whole);
    }
}
