//! The core under random schedules: writers, subscribers, slow readers, failing disks, crashes, another server on the same storage.
//!
//! The world around the core is a model in a few lines: a disk that holds ids, appends in progress, and connections.
//! Each step does one thing that the actors do without interruption, so everything that can happen between two such
//! things does. The checks know nothing about how the core decides: they compare what clients were sent with the disk.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::connection::{ConnectionCore, SequenceRun, SubscriptionId};
use super::store::{Acked, PlacedIds, Sender, Settled, Slots, StoreCore, Write};
use crate::model::{Batch, EntryId, EntryRef, Origin, PublicKey, Segment, Sequence, StoreId};

const CONNECTIONS: usize = 3;
const KEYS: [&str; 2] = ["a", "b"];
const SCHEDULES: u64 = 3_000;
const STEPS: usize = 300;

#[derive(Clone, Debug)]
struct ReplyTo {
    connection: usize,
    /// Answers for a closed connection are discarded.
    incarnation: u64,
    write: u64,
}

#[derive(Debug)]
enum Answer {
    Acked(Acked),
    Failed,
}

struct Sent {
    ids: Vec<EntryId>,
    key: usize,
    subscription: Option<SubscriptionId>,
}

/// What a client knows about one of its subscriptions.
#[derive(Debug)]
struct Seen {
    start: u64,
    /// Sequences that came as entries, and as acks of its own entries.
    sequences: BTreeSet<u64>,
    last: u64,
}

#[derive(Default)]
struct Connection {
    incarnation: u64,
    core: ConnectionCore<StoreId, (u64, Slots), ()>,
    inbox: Vec<(u64, Answer)>,
    heads: Option<u64>,
    writes: HashMap<u64, Sent>,
    next_write: u64,
    subscriptions: BTreeMap<usize, (SubscriptionId, Seen)>,
}

struct World {
    rng: TestRng,
    disk: Vec<EntryId>,
    core: StoreCore<ReplyTo>,
    /// Appended, not durable; storage knows their ids from then on.
    appending: VecDeque<Vec<Segment>>,
    /// Answered, but the head has not moved yet.
    publishing: Option<u64>,
    head: u64,
    connections: Vec<Connection>,
    /// The id of each sequence at the time when somebody was told.
    told: BTreeMap<u64, EntryId>,
    /// The greatest id in use.
    used: u64,
    acks: usize,
    failures: usize,
    overtaken: usize,
}

fn id(n: u64) -> EntryId {
    EntryId::from_bytes(u128::from(n).to_be_bytes())
}

fn key(n: usize) -> PublicKey {
    PublicKey::new(KEYS[n]).expect("a key")
}

fn store() -> StoreId {
    StoreId::new("s").expect("a store")
}

fn sequence(n: u64) -> Sequence {
    Sequence::new(n).expect("a sequence")
}

impl World {
    fn new(rng: TestRng) -> Self {
        Self {
            rng,
            disk: Vec::new(),
            core: StoreCore::new(Sequence::ZERO),
            appending: VecDeque::new(),
            publishing: None,
            head: 0,
            connections: (0..CONNECTIONS).map(|_| Connection::default()).collect(),
            told: BTreeMap::new(),
            used: 0,
            acks: 0,
            failures: 0,
            overtaken: 0,
        }
        .shared()
    }

    fn shared(mut self) -> Self {
        self.core.set_shared();
        self
    }

    fn below(&mut self, bound: usize) -> usize {
        self.rng.random_range(0..bound)
    }

    fn step(&mut self) {
        let connection = self.below(CONNECTIONS);
        match self.below(100) {
            0..20 => self.client_writes(connection),
            20..40 => self.store_places(),
            40..55 => self.disk_syncs(),
            55..63 => self.head_moves(),
            63..73 => self.connection_looks(connection),
            73..90 => self.connection_runs(connection),
            90..95 => self.client_subscribes(connection),
            95..96 => self.client_stops(connection),
            96..98 => self.client_reconnects(connection),
            98..99 => self.disk_fails(),
            _ if self.below(3) > 0 => self.another_server_appends(),
            _ => self.crash(),
        }
        self.check();
    }

    /// A fresh id, or one that may have been used: duplicates are common.
    fn any_id(&mut self) -> EntryId {
        let fresh = self.used + 1;
        let n = if self.below(3) == 0 { self.rng.random_range(0..fresh) } else { fresh };
        self.used = self.used.max(n);
        id(n)
    }

    fn client_writes(&mut self, at: usize) {
        let count = self.below(4);
        let ids: Vec<EntryId> = (0..count).map(|_| self.any_id()).collect();
        let key_at = self.below(KEYS.len());
        let connection = &mut self.connections[at];
        let write = connection.next_write;
        connection.next_write += 1;
        let subscription = connection.core.subscription_of(&key(key_at));
        connection.writes.insert(write, Sent { ids: ids.clone(), key: key_at, subscription });
        let entries =
            ids.iter().map(|id| EntryRef { id: *id, event: "E", primary_key: "", payload: b"" });
        let incarnation = connection.incarnation;
        self.core.enqueue(vec![Write {
            batch: Batch::from_entries(entries),
            origin: Origin::Client(key(key_at)),
            sender: Sender(at),
            reply: ReplyTo { connection: at, incarnation, write },
        }]);
    }

    /// What storage would answer: ids on disk, and those handed to append.
    fn lookup(&self, wanted: EntryId) -> Option<Sequence> {
        let on_disk = self.disk.iter().position(|id| *id == wanted);
        let on_disk = on_disk.map(|at| sequence(at as u64 + 1));
        let mut appending = self.appending.iter().flatten().flat_map(Segment::ids);
        on_disk.or_else(|| appending.find(|(_, id)| *id == wanted).map(|(sequence, _)| sequence))
    }

    fn store_places(&mut self) {
        // The actor shows a settled group in one turn, so it places nothing in between.
        if self.publishing.is_some() {
            return;
        }
        let Some(group) = self.core.take_group() else { return };
        let known: Vec<_> = group.ids().into_iter().map(|id| self.lookup(id)).collect();
        let segments = self.core.place(group, &known, &mut PlacedIds::default());
        if segments.is_empty() {
            self.settle_known();
        } else {
            self.appending.push_back(segments);
        }
    }

    fn settle_known(&mut self) {
        while let Some(settled) = self.core.settle_known() {
            self.answer(settled);
        }
    }

    fn write_to_disk(&mut self, segments: &[Segment]) {
        for (sequence, id) in segments.iter().flat_map(Segment::ids) {
            assert_eq!(sequence.get(), self.disk.len() as u64 + 1, "sequences have no holes");
            assert!(!self.disk.contains(&id), "an id is placed once");
            self.disk.push(id);
        }
    }

    /// It overtakes what is in progress here, which is noticed at the append.
    fn another_server_appends(&mut self) {
        // The actor shows what it has answered in the same turn.
        if self.publishing.is_some() {
            return;
        }
        for _ in 0..=self.below(3) {
            let other = self.any_id();
            if !self.disk.contains(&other) {
                self.disk.push(other);
            }
        }
        if self.appending.is_empty() && !self.core.has_placed() {
            // Reported while nothing is in progress.
            self.head = self.disk.len() as u64;
            self.core.resume(sequence(self.head));
        }
    }

    /// Whether others have the sequences, or one of the ids, of the next append.
    fn is_overtaken(&self) -> bool {
        let first = self.appending.front().and_then(|segments| segments.first());
        first.is_some_and(|segment| segment.first().get() != self.disk.len() as u64 + 1)
    }

    /// Everything is placed again, under the lock.
    fn place_again(&mut self) {
        self.overtaken += 1;
        self.appending.clear();
        self.core.unplace();
        let Some(group) = self.core.take_group() else { return };
        self.head = self.disk.len() as u64;
        self.core.resume(sequence(self.head));
        let known: Vec<_> = group.ids().into_iter().map(|id| self.lookup(id)).collect();
        let segments = self.core.place(group, &known, &mut PlacedIds::default());
        if segments.is_empty() {
            return self.settle_known();
        }
        self.write_to_disk(&segments);
        let settled = self.core.settle_appended().expect("the append");
        self.answer(settled);
        self.publishing = Some(self.disk.len() as u64);
    }

    fn disk_syncs(&mut self) {
        if self.publishing.is_some() {
            return;
        }
        if self.is_overtaken() {
            return self.place_again();
        }
        let Some(segments) = self.appending.pop_front() else { return };
        self.write_to_disk(&segments);
        let settled = self.core.settle_appended().expect("the oldest append");
        self.answer(settled);
        self.publishing = Some(self.disk.len() as u64);
    }

    fn answer(&mut self, settled: Settled<ReplyTo>) {
        for (reply, acked) in settled.answers {
            self.deliver_answer(&reply, Answer::Acked(acked));
        }
    }

    fn deliver_answer(&mut self, reply: &ReplyTo, answer: Answer) {
        let connection = &mut self.connections[reply.connection];
        if connection.incarnation == reply.incarnation {
            connection.inbox.push((reply.write, answer));
        }
    }

    fn head_moves(&mut self) {
        if let Some(head) = self.publishing.take() {
            self.head = head;
            self.settle_known();
        }
    }

    /// The failed append may be stored anyway; those behind it are not.
    fn disk_fails(&mut self) {
        if self.publishing.is_some() || self.appending.is_empty() {
            return;
        }
        if self.is_overtaken() {
            return;
        }
        self.failures += 1;
        let failed = self.appending.pop_front().expect("an append");
        self.appending.clear();
        if self.below(2) == 0 {
            self.write_to_disk(&failed);
        }
        for reply in self.core.fail() {
            self.deliver_answer(&reply, Answer::Failed);
        }
        self.core.resume(sequence(self.disk.len() as u64));
        self.head = self.disk.len() as u64;
    }

    fn crash(&mut self) {
        if self.below(2) == 0
            && !self.is_overtaken()
            && let Some(segments) = self.appending.pop_front()
        {
            self.write_to_disk(&segments);
        }
        self.appending.clear();
        self.publishing = None;
        self.head = self.disk.len() as u64;
        self.core = StoreCore::new(sequence(self.head));
        self.core.set_shared();
        (0..CONNECTIONS).for_each(|at| self.client_reconnects(at));
    }

    fn client_subscribes(&mut self, at: usize) {
        let (key_at, start) = (self.below(KEYS.len()), self.below(self.disk.len() + 3) as u64);
        self.subscribe(at, key_at, start);
    }

    fn subscribe(&mut self, at: usize, key_at: usize, start: u64) {
        let connection = &mut self.connections[at];
        let (id, _) = connection.core.subscribe(key(key_at), store(), sequence(start), ());
        let start = start.max(1);
        let seen = Seen { start, sequences: BTreeSet::new(), last: start - 1 };
        connection.subscriptions.insert(key_at, (id, seen));
    }

    fn client_stops(&mut self, at: usize) {
        let key_at = self.below(KEYS.len());
        let connection = &mut self.connections[at];
        let stopped = connection.core.unsubscribe_key(&key(key_at));
        let known = connection.subscriptions.remove(&key_at).map(|(id, _)| id);
        assert_eq!(stopped.map(|sub| sub.id()), known);
    }

    /// A new connection of the same client: it subscribes again from the highest sequence it saw, or the next.
    fn client_reconnects(&mut self, at: usize) {
        let old = std::mem::take(&mut self.connections[at]);
        self.connections[at].incarnation = old.incarnation + 1;
        for (key_at, (_, seen)) in old.subscriptions {
            let start = seen.last + self.below(2) as u64;
            self.subscribe(at, key_at, start);
        }
    }

    fn connection_looks(&mut self, at: usize) {
        self.connections[at].heads = Some(self.head);
    }

    /// What a session does on a poll, after reading the head: events, then acks and entries, a few of them.
    fn connection_runs(&mut self, at: usize) {
        let Some(head) = self.connections[at].heads.take() else { return };
        for (write, answer) in std::mem::take(&mut self.connections[at].inbox) {
            self.take_answer(at, write, answer);
        }
        for _ in 0..self.below(5) {
            while let Some((write, slots)) = self.connections[at].core.next_ack() {
                self.client_gets_ack(at, write, &slots);
            }
            let pull = self.connections[at].core.next_pull(|()| sequence(head), |()| true);
            let Some(sub) = pull else { return };
            let (id, cursor) = (sub.id(), sub.cursor());
            let last = head.min(cursor.get() + self.rng.random_range(0..6_usize) as u64);
            if let Some(run) = sub.take(SequenceRun { first: cursor, last: sequence(last) }).send {
                self.client_gets_entries(at, id, run);
            }
        }
    }

    fn take_answer(&mut self, at: usize, write: u64, answer: Answer) {
        let connection = &mut self.connections[at];
        let sent = connection.writes.get(&write).expect("a write is answered once");
        match answer {
            Answer::Acked(acked) => {
                let ack = (write, acked.slots.clone());
                connection.core.answered(store(), sent.subscription, &acked, ack);
            }
            Answer::Failed => {
                connection.writes.remove(&write);
            }
        }
    }

    fn client_gets_ack(&mut self, at: usize, write: u64, slots: &Slots) {
        self.acks += 1;
        let connection = &mut self.connections[at];
        let sent = connection.writes.remove(&write).expect("a write is answered once");
        let sequences: Vec<u64> = slots.iter().map(Sequence::get).collect();
        assert_eq!(sequences.len(), sent.ids.len(), "one sequence per slot");
        let greatest = sequences.iter().copied().max().unwrap_or(0);
        // As JavaScript clients do: an ack on a subscribed key counts as having the entries.
        if let Some((_, seen)) = connection.subscriptions.get_mut(&sent.key) {
            seen.sequences.extend(sequences.iter().filter(|sequence| **sequence >= seen.start));
            seen.last = seen.last.max(greatest);
        }
        for (_, seen) in connection.subscriptions.values() {
            let below = seen.start..greatest;
            let missing: Vec<u64> = below.filter(|n| !seen.sequences.contains(n)).collect();
            assert!(missing.is_empty(), "the ack of {greatest} overtook {missing:?}");
        }
        for (sequence, id) in sequences.into_iter().zip(sent.ids) {
            self.tell(sequence, id);
        }
    }

    fn client_gets_entries(&mut self, at: usize, id: SubscriptionId, run: SequenceRun) {
        let mut of_connection = self.connections[at].subscriptions.values_mut();
        let (_, seen) = of_connection.find(|(of, _)| *of == id).expect("a live subscription");
        for n in run.first.get()..=run.last.get() {
            assert!(n > seen.last, "{n} comes after {}", seen.last);
            assert!(seen.sequences.insert(n), "{n} is sent twice");
            seen.last = n;
            let skipped: Vec<u64> =
                (seen.start..n).filter(|n| !seen.sequences.contains(n)).collect();
            assert!(skipped.is_empty(), "{n} is sent, {skipped:?} never was");
        }
        for n in run.first.get()..=run.last.get() {
            self.tell(n, self.disk[n as usize - 1]);
        }
    }

    fn tell(&mut self, sequence: u64, id: EntryId) {
        let before = self.told.insert(sequence, id);
        assert!(
            before.is_none_or(|before| before == id),
            "sequence {sequence} named another entry"
        );
    }

    /// Everything that anybody was ever told is on disk.
    fn check(&self) {
        for (sequence, id) in &self.told {
            assert_eq!(self.disk.get(*sequence as usize - 1), Some(id), "sequence {sequence}");
        }
    }

    /// Lets everything finish: every write is answered, every subscription reaches the head.
    fn finish(&mut self) {
        for _ in 0..200 {
            self.store_places();
            self.disk_syncs();
            self.head_moves();
            for at in 0..CONNECTIONS {
                self.connection_looks(at);
                self.connection_runs(at);
            }
        }
        self.check();
        let head = self.disk.len() as u64;
        for connection in &self.connections {
            assert!(connection.writes.is_empty(), "every write is answered");
            for (_, seen) in connection.subscriptions.values() {
                let all = (seen.start..=head).all(|n| seen.sequences.contains(&n));
                assert!(all, "a subscription has not had everything: {seen:?} of {head}");
            }
        }
    }
}

#[test]
fn clients_see_one_gapless_feed_under_any_schedule() {
    let (mut acks, mut failures, mut overtaken) = (0, 0, 0);
    for seed in 0..SCHEDULES {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut world = World::new(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let run = std::panic::AssertUnwindSafe(|| {
            (0..STEPS).for_each(|_| world.step());
            world.finish();
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("the schedule of seed {seed} fails");
            std::panic::resume_unwind(panic);
        }
        acks += world.acks;
        failures += world.failures;
        overtaken += world.overtaken;
    }
    assert!(acks > 50_000, "{acks} acks: the schedules reach what they are for");
    assert!(failures > 1_000, "{failures} failures: the schedules reach what they are for");
    assert!(
        overtaken > 1_000,
        "overtaken {overtaken} times: the schedules reach what they are for"
    );
}
