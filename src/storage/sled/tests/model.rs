//! Random appends, reopenings and lookups, against a list in memory.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Database, OnDisk, soon};
use crate::model::{EntryId, Segment, Sequence};
use crate::storage::{ERASE_MAX, StoreLog};
use crate::testing::storage::{all_ids, client, read_all, segments};
use crate::testing::{Subject, store, wait};

#[derive(Clone, Debug)]
enum Action {
    /// Appends of this many entries each, all queued before the first is awaited.
    Append { store: usize, counts: Vec<usize>, bytes: usize, clock: u8 },
    /// Appends of one entry each to all stores, at the same time.
    AppendToAll { bytes: usize },
    /// Appends a gap, with entries before and after it if there are any, as one piece.
    Jump { store: usize, before: usize, gap: u32, behind: usize },
    /// Trims a part of what there is.
    Trim { store: usize, part: u64 },
    /// Erases every `step`th existing entry, starting with one of them.
    Erase { store: usize, from: usize, step: usize },
    /// Closes the storage and opens it again.
    Reopen,
    /// Opens the store's log again.
    Open { store: usize },
    /// Asks for existing ids and for others.
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
        2 => (store.clone(), 0..3_usize, prop_oneof![1..4_u32, Just(1_000_000_000)], 0..3_usize)
            .prop_map(|(store, before, gap, behind)| Action::Jump { store, before, gap, behind }),
        2 => (store.clone(), 0..=10_u64).prop_map(|(store, part)| Action::Trim { store, part }),
        2 => (store.clone(), 0..9_000_usize, 1..40_usize)
            .prop_map(|(store, from, step)| Action::Erase { store, from, step }),
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
    expected: Vec<Expected>,
}

/// What a store has.
#[derive(Clone, Default)]
struct Expected {
    head: Sequence,
    trimmed: Sequence,
    /// All of them, including trimmed and erased ones.
    entries: Vec<(Sequence, EntryId)>,
    erased: BTreeSet<Sequence>,
}

impl Expected {
    fn kept(&self) -> impl Iterator<Item = (Sequence, EntryId)> {
        self.behind_trimmed().filter(|(at, _)| !self.erased.contains(at))
    }

    fn behind_trimmed(&self) -> impl Iterator<Item = (Sequence, EntryId)> {
        self.entries.iter().copied().filter(|(at, _)| *at > self.trimmed)
    }

    fn push(&mut self, ids: &[EntryId]) {
        for id in ids {
            self.head = self.head.next();
            self.entries.push((self.head, *id));
        }
    }
}

impl Checked {
    fn new(checkpoint_bytes: u64) -> Self {
        let mut subject = OnDisk::new();
        subject.options.checkpoint_bytes = checkpoint_bytes;
        subject.reopen();
        let mut checked =
            Self { subject, logs: Vec::new(), expected: vec![Expected::default(); STORES] };
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
            Action::Jump { store, before, gap, behind } => {
                self.jump(*store, (*before, *gap, *behind));
            }
            Action::Trim { store, part } => {
                let expected = &mut self.expected[*store];
                let (last, part) =
                    (expected.entries.len() as u64, expected.entries.len() as u64 * part / 10);
                let at = expected.entries.get((part.min(last)).saturating_sub(1) as usize);
                let to = at.map_or(Sequence::ZERO, |(at, _)| *at);
                wait(self.logs[*store].trim(to)).expect("trimmed");
                expected.trimmed = expected.trimmed.max(to);
            }
            Action::Erase { store, from, step } => {
                let expected = &mut self.expected[*store];
                let gone: Vec<_> = expected
                    .entries
                    .iter()
                    .skip(*from)
                    .step_by(*step)
                    .take(ERASE_MAX)
                    .copied()
                    .collect();
                wait(self.logs[*store].erase(&gone)).expect("erased");
                expected.erased.extend(gone.iter().map(|(at, _)| *at));
            }
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
            assert_eq!((log.head(), log.trimmed()), (expected.head, expected.trimmed));
        }
        for (number, expected) in self.expected.iter().enumerate() {
            let size = self.subject.storage().size(&store(&format!("store {number}")));
            let size = size.expect("a size");
            assert_eq!(size.trimmed, expected.trimmed);
            assert_eq!(size.entries, expected.behind_trimmed().count() as u64);
        }
    }

    fn jump(&mut self, store: usize, (before, gap, behind): (usize, u32, usize)) {
        let expected = &mut self.expected[store];
        let (before, behind) = (ids_at(0, before), ids_at(0, behind));
        let mut pieces = segments(expected.head.next(), &before, 10, &client("c"));
        expected.push(&before);
        let gap = Segment::gap(expected.head.next(), gap).expect("a gap");
        expected.head = gap.last();
        pieces.push(gap);
        pieces.extend(segments(expected.head.next(), &behind, 10, &client("c")));
        expected.push(&behind);
        wait(self.logs[store].append(pieces)).expect("appended");
    }

    fn append(&mut self, store: usize, counts: &[usize], bytes: usize, clock: u8) {
        let mut pending = Vec::new();
        for count in counts {
            let batch = ids_at(clock, *count);
            let first = self.expected[store].head.next();
            pending.push(self.logs[store].append(segments(first, &batch, bytes, &client("a"))));
            self.expected[store].push(&batch);
        }
        pending.into_iter().for_each(|append| wait(append).expect("appended"));
    }

    fn append_to_all(&mut self, bytes: usize) {
        let mut pending = Vec::new();
        for (log, expected) in self.logs.iter().zip(&mut self.expected) {
            let id = EntryId::now();
            pending.push(log.append(segments(log.head().next(), &[id], bytes, &client("b"))));
            expected.push(&[id]);
        }
        pending.into_iter().for_each(|append| wait(append).expect("appended"));
    }

    fn lookup(&self, store: usize, step: usize) {
        let entries = &self.expected[store].entries;
        let there = entries.iter().step_by(step).map(|(at, id)| (*id, Some(*at)));
        let mut asked: Vec<(EntryId, Option<Sequence>)> = there.collect();
        let absent = (0..3).flat_map(|clock| ids_at(clock, 5)).map(|id| (id, None));
        asked.extend(absent);
        let other = &self.expected[(store + 1) % STORES].entries;
        asked.extend(other.iter().step_by(step * 10).map(|(_, id)| (*id, None)));
        let ids: Vec<EntryId> = asked.iter().map(|(id, _)| *id).collect();
        let expected: Vec<_> = asked.iter().map(|(_, at)| *at).collect();
        let probed = self.logs[store].probe(&ids);
        for (at, known) in probed.known.iter().enumerate() {
            let is_open = probed.open.contains(&at);
            assert_eq!(*known, if is_open { None } else { expected[at] });
        }
        assert_eq!(self.logs[store].lookup(&ids).expect("a lookup"), expected);
        let Some((before, id)) = entries.get(entries.len() / 2) else { return };
        let kept = self.expected[store].behind_trimmed();
        let above = kept.filter(|(at, other)| at < before && other > id);
        let above: Vec<Sequence> = above.map(|(at, _)| at).collect();
        let told = self.logs[store].above(*id, *before, entries.len()).expect("a read");
        assert!(told.is_none_or(|told| told == above));
    }

    fn read(&self, store: usize, from: u64, bytes_max: usize) {
        let expected = &self.expected[store];
        // At an entry, before it, after it, or anywhere.
        let at = expected.entries.get(from as usize % (expected.entries.len() + 1));
        let from = at.map_or(Sequence::ZERO.plus(from), |(at, _)| at.prev().plus(from % 3));
        let from = from.max(Sequence::FIRST);
        let read = self.logs[store].read(from, bytes_max).expect("a read");
        assert_eq!(read.is_empty(), from > expected.head);
        let Some(last) = read.last().map(Segment::last) else { return };
        let begins = read[0].first()..=read[0].last();
        assert!(begins.contains(&from) && last <= expected.head);
        let entries = read.iter().flat_map(Segment::ids);
        let kept = expected.kept();
        assert!(entries.eq(kept.filter(|(at, _)| read[0].first() <= *at && *at <= last)));
        // What follows a gap comes with it.
        assert!(!read[0].is_gap() || read.len() > 1 || last == self.expected[store].head);
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
            let ids: Vec<EntryId> = expected.kept().map(|(_, id)| id).collect();
            prop_assert_eq!(all_ids(&**log), ids);
        }
        (0..STORES).for_each(|store| checked.lookup(store, 1));
        for (log, expected) in checked.logs.iter().zip(&checked.expected) {
            let kept: Vec<Segment> = read_all(&**log, 1 << 20);
            let bytes = kept.iter().map(|segment| segment.records().len() as u64).sum::<u64>();
            // Erased entries are still counted.
            let is_erased = expected.erased.iter().any(|at| *at > expected.trimmed);
            soon(|| (log.bytes() == bytes || is_erased && log.bytes() > bytes).then_some(()));
            prop_assert!(kept.iter().flat_map(Segment::ids).eq(expected.kept()));
        }
        checked.apply(&Action::Reopen);
        (0..STORES).for_each(|store| checked.lookup(store, 1));
        checked.logs.clear();
        let Checked { subject: OnDisk { directory, options, storage }, .. } = checked;
        storage.expect("open").database.close().expect("closed");
        let verified = Database::verify(directory.path(), &options).expect("read");
        prop_assert_eq!(verified.faults, []);
    }
}
