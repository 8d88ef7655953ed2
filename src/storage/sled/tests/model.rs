//! Random appends, reopenings and lookups, against a list in memory.

use proptest::prelude::*;

use super::OnDisk;
use crate::model::{EntryId, Segment, Sequence};
use crate::storage::StoreLog;
use crate::testing::storage::{all_ids, client, segments};
use crate::testing::{Subject, store, wait};

#[derive(Clone, Debug)]
enum Action {
    /// Appends of so many entries each, all queued before the first is waited for.
    Append { store: usize, counts: Vec<usize>, bytes: usize, clock: u8 },
    /// Appends of one entry each to all stores, at the same time.
    AppendToAll { bytes: usize },
    /// Closes the storage and opens it again.
    Reopen,
    /// Opens the store's log again.
    Open { store: usize },
    /// Asks for ids that are there and ids that are not.
    Lookup { store: usize, step: usize },
    /// Reads from somewhere.
    Read { store: usize, from: u64, bytes_max: usize },
}

const STORES: usize = 4;

fn action() -> impl Strategy<Value = Action> {
    let counts = prop_oneof![
        4 => proptest::collection::vec(1..4_usize, 1..6),
        2 => proptest::collection::vec(1..300_usize, 1..4),
        1 => proptest::collection::vec(5_000..9_000_usize, 1..3),
    ];
    let bytes = prop_oneof![4 => 0..300_usize, 1 => 1_000..3_000_usize];
    let store = 0..STORES;
    prop_oneof![
        6 => (store.clone(), counts, bytes, 0..3_u8)
            .prop_map(|(store, counts, bytes, clock)| Action::Append { store, counts, bytes, clock }),
        6 => (0..200_usize).prop_map(|bytes| Action::AppendToAll { bytes }),
        1 => Just(Action::Reopen),
        1 => store.clone().prop_map(|store| Action::Open { store }),
        2 => (store.clone(), 1..50_usize).prop_map(|(store, step)| Action::Lookup { store, step }),
        2 => (store, 0..40_000_u64, 0..200_000_usize)
            .prop_map(|(store, from, bytes_max)| Action::Read { store, from, bytes_max }),
    ]
}

/// Ids of a writer whose clock is off by some days, so that ranges of blocks overlap.
fn ids_at(clock: u8, count: usize) -> Vec<EntryId> {
    let shifted = |id: EntryId| {
        let mut bytes = *id.as_bytes();
        bytes[1] = bytes[1].wrapping_add(clock);
        EntryId::from_bytes(bytes)
    };
    (0..count).map(|_| shifted(EntryId::now())).collect()
}

struct Checked {
    subject: OnDisk,
    logs: Vec<std::sync::Arc<dyn StoreLog>>,
    expected: Vec<Vec<EntryId>>,
}

impl Checked {
    fn new(checkpoint_bytes: u64) -> Self {
        let mut subject = OnDisk::new();
        subject.options.checkpoint_bytes = checkpoint_bytes;
        subject.reopen();
        let mut checked = Self { subject, logs: Vec::new(), expected: vec![Vec::new(); STORES] };
        checked.open_all();
        checked
    }

    fn open(&self, number: usize) -> std::sync::Arc<dyn StoreLog> {
        self.subject.storage().open(&store(&format!("store {number}"))).expect("open")
    }

    fn open_all(&mut self) {
        self.logs = (0..STORES).map(|number| self.open(number)).collect();
    }

    fn apply(&mut self, action: &Action) {
        match action {
            Action::Append { store, counts, bytes, clock } => {
                self.append(*store, counts, *bytes, *clock);
            }
            Action::AppendToAll { bytes } => self.append_to_all(*bytes),
            Action::Reopen => {
                self.logs.clear();
                self.subject.reopen();
                self.open_all();
            }
            Action::Open { store } => self.logs[*store] = self.open(*store),
            Action::Lookup { store, step } => self.lookup(*store, *step),
            Action::Read { store, from, bytes_max } => self.read(*store, *from, *bytes_max),
        }
        for (log, expected) in self.logs.iter().zip(&self.expected) {
            assert_eq!(log.head().get(), expected.len() as u64);
        }
    }

    fn append(&mut self, store: usize, counts: &[usize], bytes: usize, clock: u8) {
        let mut pending = Vec::new();
        for count in counts {
            let batch = ids_at(clock, *count);
            let first = Sequence::new(self.expected[store].len() as u64 + 1).expect("a sequence");
            pending.push(self.logs[store].append(segments(first, &batch, bytes, &client("a"))));
            self.expected[store].extend(batch);
        }
        pending.into_iter().for_each(|append| wait(append).expect("appended"));
    }

    fn append_to_all(&mut self, bytes: usize) {
        let mut pending = Vec::new();
        for (log, expected) in self.logs.iter().zip(&mut self.expected) {
            let id = EntryId::now();
            pending.push(log.append(segments(log.head().next(), &[id], bytes, &client("b"))));
            expected.push(id);
        }
        pending.into_iter().for_each(|append| wait(append).expect("appended"));
    }

    fn lookup(&self, store: usize, step: usize) {
        let mut asked: Vec<(EntryId, Option<Sequence>)> = self.expected[store]
            .iter()
            .zip(1_u64..)
            .step_by(step)
            .map(|(id, at)| (*id, Some(Sequence::new(at).expect("a sequence"))))
            .collect();
        let absent = (0..3).flat_map(|clock| ids_at(clock, 5)).map(|id| (id, None));
        asked.extend(absent);
        let other = &self.expected[(store + 1) % STORES];
        asked.extend(other.iter().step_by(step * 10).map(|id| (*id, None)));
        let ids: Vec<EntryId> = asked.iter().map(|(id, _)| *id).collect();
        let expected: Vec<_> = asked.iter().map(|(_, at)| *at).collect();
        if let Some(known) = self.logs[store].probe(&ids) {
            assert_eq!(known, expected);
        }
        assert_eq!(self.logs[store].lookup(&ids).expect("a lookup"), expected);
    }

    fn read(&self, store: usize, from: u64, bytes_max: usize) {
        let expected = &self.expected[store];
        let from = from % (expected.len() as u64 + 2) + 1;
        let read = self.logs[store].read(Sequence::new(from).expect("one"), bytes_max);
        let read = read.expect("a read");
        assert_eq!(read.is_empty(), from > expected.len() as u64);
        let entries = read.iter().flat_map(Segment::ids);
        for (sequence, id) in entries {
            assert_eq!(id, expected[sequence.get() as usize - 1]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_a_list(
        actions in proptest::collection::vec(action(), 1..40),
        checkpoint_bytes in prop_oneof![Just(0), Just(1_000), Just(20_000), Just(32 << 20)],
    ) {
        let mut checked = Checked::new(checkpoint_bytes);
        actions.iter().for_each(|action| checked.apply(action));
        checked.apply(&Action::Reopen);
        for (log, expected) in checked.logs.iter().zip(&checked.expected) {
            prop_assert_eq!(&all_ids(&**log), expected);
        }
        (0..STORES).for_each(|store| checked.lookup(store, 1));
    }
}
