//! Random ids, seals, merges, failures and lookups, against a list of all ids.

use std::collections::HashMap;

use proptest::prelude::*;

use super::{Ids, Kind, Random, Subject};
use crate::model::{EntryId, Sequence};
use crate::storage::Probed;
use crate::storage::sled::ids::above::Above;
use crate::storage::sled::ids::lookup::{lookup, probe};

#[derive(Clone, Debug)]
enum Action {
    /// Adds this many ids, of two kinds in this proportion.
    Push { kinds: [Kind; 2], share: u64, count: usize },
    /// A step: seals at most this many of those that are not sealed, and merges this many. It may fail, or be the last
    /// thing before a crash.
    Step { seal: usize, merge: Vec<usize>, fails: bool, crash: bool },
    /// Merges until nothing is due.
    Settle,
    /// Asks for existing ids and for others, while this step is made.
    Lookup { step: usize, meanwhile: Option<usize> },
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => Just(Kind::Fresh),
        3 => Just(Kind::Spread),
        1 => Just(Kind::Future),
        1 => Just(Kind::SameTime),
        1 => Just(Kind::SamePrefix),
        1 => Just(Kind::Extreme),
    ]
}

fn action(count: usize) -> impl Strategy<Value = Action> {
    let merge = proptest::collection::vec(1..count * 4, 0..3);
    let rare = || prop::bool::weighted(0.1);
    prop_oneof![
        4 => ([kind(), kind()], 0..4_u64, 1..count)
            .prop_map(|(kinds, share, count)| Action::Push { kinds, share, count }),
        6 => (0..count * 2, merge, rare(), rare())
            .prop_map(|(seal, merge, fails, crash)| Action::Step { seal, merge, fails, crash }),
        1 => Just(Action::Settle),
        2 => (1..50_usize, proptest::option::of(1..count * 4))
            .prop_map(|(step, meanwhile)| Action::Lookup { step, meanwhile }),
    ]
}

struct Checked {
    subject: Subject,
    ids: Ids,
    random: Random,
    model: HashMap<EntryId, Sequence>,
}

impl Checked {
    fn new(seed: u64) -> Self {
        let (ids, random) = (Ids::new(seed), Random(seed));
        Self { subject: Subject::new(), ids, random, model: HashMap::new() }
    }

    fn apply(&mut self, action: &Action) {
        match action {
            Action::Push { kinds, share, count } => {
                for _ in 0..*count {
                    let kind = kinds[usize::from(self.random.below(4) < *share)];
                    let id = self.ids.id(kind);
                    self.subject.push([id]);
                    let at = Sequence::ZERO.plus(self.subject.ids.len() as u64);
                    assert_eq!(self.model.insert(id, at), None);
                }
            }
            Action::Step { seal, merge, fails, crash } => {
                self.subject.step_with(*seal, merge, *fails, *crash);
            }
            Action::Settle => {
                while self.subject.index.owes() {
                    self.subject.step_with(0, &[1_000], false, false);
                }
            }
            Action::Lookup { step, meanwhile } => self.lookup(*step, *meanwhile),
        }
    }

    /// Every `step`th id, in any order, and similar ones.
    fn asked(&mut self, step: usize) -> Vec<EntryId> {
        let start = self.random.below(step as u64) as usize;
        let mut asked: Vec<_> =
            self.subject.ids.iter().skip(start).step_by(step).copied().collect();
        for at in 0..asked.len().min(50) {
            let mut id = *asked[at].as_bytes();
            id[self.random.below(16) as usize] ^= 1 << self.random.below(8);
            asked.push(EntryId::from_bytes(id));
        }
        asked.extend([[0; 16], [255; 16]].map(EntryId::from_bytes));
        for at in (1..asked.len()).rev() {
            asked.swap(at, self.random.below(at as u64 + 1) as usize);
        }
        asked
    }

    fn lookup(&mut self, step: usize, meanwhile: Option<usize>) {
        let asked = self.asked(step);
        let expected: Vec<_> = asked.iter().map(|id| self.model.get(id).copied()).collect();
        // A lookup that began before steps ends after them: the second of these empties what the first one freed.
        let begun = self.subject.known.lock().begin(&asked);
        let steps = meanwhile.into_iter().flat_map(|ids_max| [ids_max, 1]);
        steps.for_each(|ids_max| self.subject.step_with(0, &[ids_max], false, false));
        let begun = std::cell::RefCell::new(Some(begun));
        let begin = || begun.take().unwrap_or_else(|| self.subject.known.lock().begin(&asked));
        let Subject { cache, disk, .. } = &self.subject;
        let found = lookup(&asked, cache, disk, begin).expect("looked up");
        assert_eq!(found, expected);
        let begun = self.subject.known.lock().begin(&asked).expect("no gap");
        let Probed { mut known, open } = probe(&asked, cache, begun);
        open.iter().for_each(|at| assert_eq!(known[*at], None));
        open.iter().for_each(|at| known[*at] = expected[*at]);
        assert_eq!(known, expected);
    }

    fn above(&mut self) {
        let count = self.subject.ids.len() as u64;
        if count == 0 {
            return;
        }
        let id = self.subject.ids[self.random.below(count) as usize];
        let before = Sequence::FIRST.plus(self.random.below(count));
        let sequences = (1..before.get()).map(|at| Sequence::ZERO.plus(at));
        let expected: Vec<_> =
            sequences.zip(&self.subject.ids).filter(|(_, o)| **o > id).map(|(at, _)| at).collect();
        let Subject { cache, disk, known, .. } = &self.subject;
        let told = |count_max| {
            let above = Above { id, before, count_max };
            above.find(cache, disk, || known.lock().begin_above(&above)).expect("a read")
        };
        assert_eq!(told(expected.len()).as_ref(), Some(&expected));
        if let Some(too_few) = expected.len().checked_sub(1) {
            assert_eq!(told(too_few), None);
        }
    }

    fn run(seed: u64, actions: &[Action]) {
        let mut checked = Self::new(seed);
        for action in actions {
            checked.apply(action);
            checked.subject.check();
            checked.above();
        }
        checked.apply(&Action::Settle);
        checked.subject.check();
        checked.lookup(1, None);
        checked.subject.load();
        checked.lookup(1, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_a_map(seed: u64, actions in proptest::collection::vec(action(300), 1..60)) {
        Checked::run(seed, &actions);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_a_map_with_many_sections(
        seed: u64, actions in proptest::collection::vec(action(12_000), 15..30),
    ) {
        Checked::run(seed, &actions);
    }
}
