//! A table that is partly in memory and partly in sled, against a map.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;

use super::OnDisk;
use crate::storage::sled::{Keyspace, Ops};
use crate::testing::{Subject, wait};

#[derive(Clone, Debug)]
enum Action {
    /// Sets this many keys, starting with one, in steps.
    Insert {
        from: u16,
        count: u16,
        step: u16,
    },
    Remove {
        from: u16,
        count: u16,
        step: u16,
    },
    /// All of it gets into sled.
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    let keys = (0..900_u16, 1..400_u16, 1..4_u16);
    prop_oneof![
        3 => keys.clone().prop_map(|(from, count, step)| Action::Insert { from, count, step }),
        2 => keys.prop_map(|(from, count, step)| Action::Remove { from, count, step }),
        1 => Just(Action::Reopen),
    ]
}

fn bound() -> impl Strategy<Value = Bound<[u8; 2]>> {
    let key = (0..1_000_u16).prop_map(u16::to_be_bytes);
    prop_oneof![
        Just(Bound::Unbounded),
        key.clone().prop_map(Bound::Included),
        key.prop_map(Bound::Excluded)
    ]
}

fn is_sensible(range: (Bound<[u8; 2]>, Bound<[u8; 2]>)) -> bool {
    match range {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Excluded(low), Bound::Excluded(high)) => low < high,
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Included(high) | Bound::Excluded(high),
        ) => low <= high,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn shows_what_a_map_has(
        actions in proptest::collection::vec(action(), 1..12),
        ranges in proptest::collection::vec((bound(), bound()), 8),
    ) {
        let mut subject = OnDisk::new();
        let mut expected = BTreeMap::new();
        for (value, action) in (0_u64..).zip(actions) {
            let mut ops = Ops::default();
            let value = value.to_be_bytes();
            match action {
                Action::Insert { from, count, step } => {
                    for key in (from..from + count).step_by(step.into()).map(u16::to_be_bytes) {
                        ops.insert(&key, &value);
                        expected.insert(key, value);
                    }
                }
                Action::Remove { from, count, step } => {
                    for key in (from..from + count).step_by(step.into()).map(u16::to_be_bytes) {
                        ops.remove(&key);
                        expected.remove(&key);
                    }
                }
                Action::Reopen => subject.reopen(),
            }
            wait(subject.database().commit(Keyspace::Journal, ops)).expect("durable");
        }
        let tree = subject.database().tree(Keyspace::Journal).expect("a table");
        for range in ranges {
            let all: Vec<_> = if is_sensible(range) {
                expected.range(range).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
            } else {
                Vec::new()
            };
            let plain = |pair: Result<(sled::IVec, sled::IVec), _>| {
                let (key, value) = pair.expect("a read");
                (key.to_vec(), value.to_vec())
            };
            let forwards: Vec<_> = tree.range(range).map(plain).collect();
            prop_assert_eq!(&forwards, &all);
            let mut backwards: Vec<_> = tree.range_backwards(range).map(plain).collect();
            backwards.reverse();
            prop_assert_eq!(&backwards, &all);
        }
        for key in (0..1_000_u16).step_by(7).map(u16::to_be_bytes) {
            let value = tree.get(key).expect("a read").map(|value| value.to_vec());
            prop_assert_eq!(value, expected.get(&key).map(|value| value.to_vec()));
        }
    }
}
