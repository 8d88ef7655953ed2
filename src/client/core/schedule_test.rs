//! Drives the core and a model of the server through random schedules.
//!
//! The model does all that the protocol allows a server to do: it subscribes late, commits when it likes, answers
//! writes of different keys out of order, feeds in pieces of any size, lets a feed run ahead of an `Ack`, compacts
//! entries away, hangs up between commit and `Ack`; and, in half of the schedules, lets an `Ack` run ahead of the feed.
//! It shares no code with the core.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::super::entries::Entries;
use super::super::error::RemoteError;
use super::super::queue::{Queue, Taken};
use super::{Command, Core, Incoming, Outgoing, Pending, Policy};
use crate::model::{Batch, EntryId, EntryRef, PublicKey, Sequence};
use crate::protocol::msgpack::{
    Response, decode_response, encode_changes_header, encode_remote_entries,
};

type Answer = oneshot::Receiver<Result<Vec<Sequence>, RemoteError>>;

/// Good enough for schedules: a multiplicative generator with a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

fn id(n: u32) -> EntryId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    EntryId::from_bytes(bytes)
}

fn seq(n: u64) -> Sequence {
    Sequence::new(n).expect("a sequence")
}

/// A subscription as the server has it.
struct Subscription {
    number: u64,
    cursor: u64,
    own: BTreeSet<u64>,
}

struct Write {
    key: PublicKey,
    id: u64,
    ids: Vec<EntryId>,
    noted: Option<u64>,
}

/// One store, and one connection to it.
#[derive(Default)]
struct Server {
    log: Vec<EntryId>,
    compacted: BTreeSet<u64>,
    /// Whether it determines the subscription of a write at commit, or already when the write arrives.
    notes_at_commit: bool,
    /// Whether it keeps an `Ack` until the feed has passed it.
    acks_follow_the_feed: bool,
    // The connection.
    subscribing: VecDeque<(PublicKey, u64)>,
    subscriptions: HashMap<PublicKey, Subscription>,
    subscribed: u64,
    writes: Vec<Write>,
    acks: VecDeque<(u64, u64, Vec<u64>)>,
    to_client: VecDeque<Incoming>,
}

impl Server {
    fn append(&mut self, ids: &[EntryId]) -> (Vec<u64>, Vec<u64>) {
        let mut fresh = Vec::new();
        let slots = ids.iter().map(|id| {
            let known = self.log.iter().position(|known| known == id);
            let at = known.unwrap_or_else(|| {
                self.log.push(*id);
                fresh.push(self.log.len() as u64);
                self.log.len() - 1
            });
            at as u64 + 1
        });
        (slots.collect(), fresh)
    }

    fn receive(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Write { key, id, batch } => {
                let noted = self.subscriptions.get(&key).map(|sub| sub.number);
                self.writes.push(Write { key, id, ids: batch.ids().collect(), noted });
            }
            Outgoing::RequestChanges { key, start } => {
                self.stop(&key);
                self.subscribing.push_back((key, start.get().max(1)));
            }
            Outgoing::StopChanges { key } => self.stop(&key),
            Outgoing::Ping { id } => self.to_client.push_back(Incoming::Pong { id }),
        }
    }

    fn stop(&mut self, key: &PublicKey) {
        self.subscribing.retain(|(other, _)| other != key);
        self.subscriptions.remove(key);
    }

    fn subscribe(&mut self) {
        let Some((key, cursor)) = self.subscribing.pop_front() else { return };
        self.subscribed += 1;
        let sub = Subscription { number: self.subscribed, cursor, own: BTreeSet::new() };
        self.subscriptions.insert(key, sub);
    }

    /// Commits the first write of a random key.
    fn commit(&mut self, random: &mut Random) {
        if self.writes.is_empty() {
            return;
        }
        let key = self.writes[random.below(self.writes.len())].key.clone();
        let at = self.writes.iter().position(|write| write.key == key).expect("a write");
        let write = self.writes.remove(at);
        let (slots, fresh) = self.append(&write.ids);
        if let Some(sub) = self.subscriptions.get_mut(&write.key)
            && (self.notes_at_commit || Some(sub.number) == write.noted)
        {
            sub.own.extend(fresh);
        }
        let greatest = slots.iter().copied().max().unwrap_or_default();
        self.acks.push_back((greatest, write.id, slots));
    }

    /// Feeds a random subscription up to some entries, skipping its own and the compacted ones.
    fn feed(&mut self, random: &mut Random) {
        let mut keys: Vec<_> = self.subscriptions.keys().cloned().collect();
        keys.sort();
        if keys.is_empty() {
            return;
        }
        let key = keys[random.below(keys.len())].clone();
        let sub = self.subscriptions.get_mut(&key).expect("a subscription");
        let (mut elements, count) = (Vec::new(), 1 + random.below(6));
        while elements.len() < count && sub.cursor <= self.log.len() as u64 {
            if !sub.own.contains(&sub.cursor) && !self.compacted.contains(&sub.cursor) {
                elements.push(sub.cursor);
            }
            sub.cursor += 1;
        }
        let log = &self.log;
        let entry = |n: &u64| {
            let id = log[*n as usize - 1];
            (seq(*n), EntryRef { id, event: "E", primary_key: "", payload: b"" })
        };
        let encoded = encode_remote_entries(elements.iter().map(entry));
        if !encoded.is_empty() {
            let mut out = BytesMut::new();
            encode_changes_header(&mut out, &key, encoded.len());
            out.extend_from_slice(encoded.bytes());
            let Ok(Response::Changes(view)) = decode_response(&out.freeze()) else {
                panic!("no changes")
            };
            self.to_client.push_back(Incoming::Fed { key, entries: Entries::Msgpack(view) });
        }
    }

    fn ack(&mut self) {
        let passed = |greatest| self.subscriptions.values().all(|sub| sub.cursor > greatest);
        if let Some((greatest, _, _)) = self.acks.front()
            && (passed(*greatest) || !self.acks_follow_the_feed)
            && let Some((_, id, slots)) = self.acks.pop_front()
        {
            let sequences = slots.into_iter().map(seq).collect();
            self.to_client.push_back(Incoming::Acked { id, sequences });
        }
    }

    /// The connection breaks; what was received may still be committed.
    fn hang_up(&mut self, random: &mut Random) {
        for write in std::mem::take(&mut self.writes) {
            if random.one_in(2) {
                self.append(&write.ids);
            }
        }
        let (log, compacted) = (std::mem::take(&mut self.log), std::mem::take(&mut self.compacted));
        *self = Self {
            log,
            compacted,
            notes_at_commit: self.notes_at_commit,
            acks_follow_the_feed: self.acks_follow_the_feed,
            subscribed: self.subscribed,
            ..Self::default()
        };
    }
}

/// Somebody who holds a stream.
struct Reader {
    key: PublicKey,
    stream: u64,
    queue: Arc<Queue>,
    /// Everything it got, over its successive streams, each of which begins after the previous one.
    got: Vec<(u64, EntryId)>,
}

struct World {
    random: Random,
    core: Core,
    server: Server,
    to_server: VecDeque<Outgoing>,
    connected: bool,
    readers: Vec<Reader>,
    streams: u64,
    ids: u32,
    writes: Vec<(Vec<EntryId>, Answer)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let held_bytes_max = if random.one_in(4) { 100 } else { 100_000 };
        let (notes_at_commit, acks_follow_the_feed) = (random.one_in(2), random.one_in(2));
        let server = Server { notes_at_commit, acks_follow_the_feed, ..Server::default() };
        let policy = Policy { resend_writes: true, held_bytes_max, acks_follow_the_feed };
        let mut world = Self {
            random,
            core: Core::new(policy),
            server,
            to_server: VecDeque::new(),
            connected: false,
            readers: Vec::new(),
            streams: 0,
            ids: 0,
            writes: Vec::new(),
        };
        for _ in 0..world.random.below(20) {
            world.foreign_write();
        }
        world
    }

    fn key(n: usize) -> PublicKey {
        PublicKey::new(["a", "b"][n]).expect("a key")
    }

    fn fresh_id(&mut self) -> EntryId {
        self.ids += 1;
        id(self.ids)
    }

    fn foreign_write(&mut self) {
        for _ in 0..=self.random.below(3) {
            let id = self.fresh_id();
            self.server.append(&[id]);
            if self.random.one_in(5) {
                self.server.compacted.insert(self.server.log.len() as u64);
            }
        }
    }

    fn write(&mut self) {
        let mut ids = Vec::new();
        for _ in 0..self.random.below(4) {
            let old = self.ids > 0 && self.random.one_in(4);
            ids.push(if old {
                id(1 + self.random.below(self.ids as usize) as u32)
            } else {
                self.fresh_id()
            });
        }
        let entries =
            ids.iter().map(|id| EntryRef { id: *id, event: "E", primary_key: "", payload: b"" });
        let batch = Arc::new(Batch::from_entries(entries));
        let (reply, answer) = oneshot::channel();
        let key = Self::key(self.random.below(2));
        self.core.command(Command::Write(Pending { key, batch, reply, permit: None }));
        self.writes.push((ids, answer));
    }

    fn open(&mut self, n: usize) {
        let key = Self::key(n);
        let queue = Queue::new(if self.random.one_in(2) { 3 } else { 1_000 }, 1 << 20);
        self.streams += 1;
        let stream = self.streams;
        let got = match self.readers.iter().position(|reader| reader.key == key) {
            Some(at) => {
                let reader = self.readers.remove(at);
                let (key, stream) = (reader.key, reader.stream);
                self.core.command(Command::Drop { key, stream });
                // Starting over is as good as continuing.
                if self.random.one_in(2) { Vec::new() } else { reader.got }
            }
            None => Vec::new(),
        };
        let start = got.last().map_or(Sequence::ZERO, |(last, _)| seq(last + 1));
        let open = Arc::clone(&queue);
        self.core.command(Command::Open { key: key.clone(), stream, start, queue: open });
        self.readers.push(Reader { key, stream, queue, got });
    }

    /// Takes what one stream has; `false` if it has nothing.
    fn take(&mut self, n: usize) -> bool {
        let Some(reader) = self.readers.get_mut(n) else { return false };
        match reader.queue.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Taken::Page { page, resume }) => {
                reader.got.extend(page.iter().map(|(sequence, entry)| (sequence.get(), entry.id)));
                if resume {
                    let (key, stream) = (reader.key.clone(), reader.stream);
                    self.core.command(Command::Resume { key, stream });
                }
                true
            }
            Poll::Ready(other) => panic!("the stream ended: {other:?}"),
            Poll::Pending => false,
        }
    }

    fn connection(&mut self) {
        if self.connected {
            self.server.hang_up(&mut self.random);
            self.to_server.clear();
            self.core.disconnected(None);
        } else {
            self.core.connected();
        }
        self.connected = !self.connected;
    }

    fn send(&mut self) {
        if self.connected {
            self.to_server.extend(self.core.next_outgoing());
        }
    }

    fn receive(&mut self) {
        if let Some(incoming) = self.server.to_client.pop_front() {
            self.core.receive(incoming).expect("a server that keeps to the protocol");
        }
    }

    fn step(&mut self) {
        match self.random.below(40) {
            0 => self.connection(),
            1 if self.random.one_in(3) => {
                let n = self.random.below(2);
                self.open(n);
            }
            2 | 3 => self.foreign_write(),
            4..=8 => self.write(),
            9..=13 => self.send(),
            14..=18 => {
                if let Some(outgoing) = self.to_server.pop_front() {
                    self.server.receive(outgoing);
                }
            }
            19 | 20 => self.server.subscribe(),
            21..=23 => self.server.commit(&mut self.random),
            24..=27 => self.server.feed(&mut self.random),
            28..=30 => self.server.ack(),
            31..=36 => self.receive(),
            37 => self.core.tick(),
            _ => {
                let n = self.random.below(2);
                self.take(n);
            }
        }
    }

    /// Lets everybody do what remains to be done.
    fn settle(&mut self) {
        if !self.connected {
            self.connection();
        }
        let mut idle = 0;
        for _ in 0..20_000 {
            let before = (self.streams_got(), self.server.acks.len(), self.writes_left());
            for _ in 0..20 {
                self.send();
                if let Some(outgoing) = self.to_server.pop_front() {
                    self.server.receive(outgoing);
                }
                self.server.subscribe();
                self.server.commit(&mut self.random);
                self.server.feed(&mut self.random);
                self.server.ack();
                self.receive();
                self.take(0);
                self.take(1);
            }
            let after = (self.streams_got(), self.server.acks.len(), self.writes_left());
            idle = if before == after { idle + 1 } else { 0 };
            match idle {
                // What the feed never delivers may still be missing.
                3 => (0..10).for_each(|_| self.core.tick()),
                10 => return,
                _ => {}
            }
        }
        panic!("it never comes to rest");
    }

    fn streams_got(&self) -> usize {
        self.readers.iter().map(|reader| reader.got.len()).sum()
    }

    fn writes_left(&self) -> usize {
        self.writes.iter().filter(|(_, answer)| answer.is_empty()).count()
    }

    fn check(mut self) {
        assert!(self.core.is_answered(), "writes without an answer");
        for (ids, answer) in &mut self.writes {
            let sequences = answer.try_recv().expect("an answer").expect("an ack");
            let stored =
                sequences.iter().map(|sequence| self.server.log[sequence.get() as usize - 1]);
            assert!(stored.eq(ids.iter().copied()), "an answer with the wrong sequences");
        }
        for reader in &self.readers {
            let got = &reader.got;
            assert!(got.is_sorted_by(|(a, _), (b, _)| a < b), "out of order or repeated: {got:?}");
            for (sequence, id) in got {
                assert_eq!(self.server.log[*sequence as usize - 1], *id, "another entry");
            }
            let missing: Vec<u64> = (1..=self.server.log.len() as u64)
                .filter(|n| !self.server.compacted.contains(n))
                .filter(|n| got.binary_search_by_key(n, |(sequence, _)| *sequence).is_err())
                .collect();
            assert_eq!(missing, [0_u64; 0], "{:?} misses entries, has {got:?}", reader.key);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn streams_are_complete_and_writes_answered_whatever_the_schedule(seed: u64) {
        let mut world = World::new(seed);
        world.connection();
        world.open(0);
        for _ in 0..400 {
            world.step();
        }
        world.settle();
        world.check();
    }
}
