//! The cost for ids of any kind: how many runs are searched, how often an id is written.

use super::{Ids, Kind, Subject};
use crate::model::EntryId;
use crate::storage::sled::ids::SEAL_IDS_MIN;

/// What was observed while ids were sealed.
#[derive(Debug, Default)]
struct Seen {
    /// Most runs at a time.
    runs_max: usize,
    /// Most sections that an id of the next block was looked for in, on average over the block.
    asked_max: f64,
    /// How often an id was written into sections, on average.
    written: f64,
}

fn asked(subject: &Subject, id: EntryId) -> usize {
    let around = |run: &super::super::runs::Run| {
        run.sections.iter().any(|section| section.first <= id && id <= section.last)
    };
    subject.index.runs.iter().filter(|run| around(run)).count()
}

/// Seals blocks of the least size, each made by `block`, and merges what is due after each.
fn seal(blocks: usize, mut block: impl FnMut(usize, &mut Ids) -> Vec<EntryId>) -> Seen {
    let mut subject = Subject::new();
    let mut ids = Ids::new(1);
    let mut seen = Seen::default();
    for number in 0..blocks {
        let block = block(number, &mut ids);
        let each = block.iter().step_by(100);
        let count = each.len();
        let sum: usize = each.map(|id| asked(&subject, *id)).sum();
        seen.asked_max = seen.asked_max.max(sum as f64 / count as f64);
        subject.push(block);
        subject.step_with(SEAL_IDS_MIN, &[], false, false);
        while subject.index.owes() {
            subject.step_with(0, &[SEAL_IDS_MIN * 2], false, false);
        }
        seen.runs_max = seen.runs_max.max(subject.index.runs.iter().count());
    }
    subject.check();
    seen.written = subject.written as f64 / subject.ids.len() as f64;
    seen
}

const BLOCKS: usize = 40;
/// Seven of each of two classes.
const RUNS_MAX: usize = 14;

#[test]
fn fresh_ids_are_written_once_and_asked_for_in_few_runs() {
    let seen = seal(BLOCKS, |_, ids| ids.take(Kind::Fresh, SEAL_IDS_MIN));
    assert!(seen.runs_max <= 2 && seen.asked_max < 1.5 && seen.written < 1.01, "{seen:?}");
}

#[test]
fn ids_of_any_time_are_asked_for_in_few_runs_and_written_a_few_times() {
    for kind in [Kind::Spread, Kind::SameTime, Kind::Extreme] {
        let seen = seal(BLOCKS, |_, ids| ids.take(kind, SEAL_IDS_MIN));
        assert!(seen.runs_max <= RUNS_MAX && seen.written < 2.5, "{kind:?} {seen:?}");
    }
}

#[test]
fn fresh_ids_are_no_slower_behind_ids_of_the_future() {
    let alternating =
        seal(BLOCKS, |number, ids| ids.take([Kind::Fresh, Kind::Future][number % 2], SEAL_IDS_MIN));
    assert!(alternating.runs_max <= RUNS_MAX && alternating.written < 2.0, "{alternating:?}");
    let behind = seal(BLOCKS, |number, ids| {
        ids.take(if number < 12 { Kind::Future } else { Kind::Fresh }, SEAL_IDS_MIN)
    });
    assert!(behind.runs_max <= 12 && behind.written < 2.0, "{behind:?}");
    let mixed = |kind: Kind| {
        seal(BLOCKS, move |_, ids| {
            (0..SEAL_IDS_MIN)
                .map(|n| ids.id(if n % 100 == 7 { kind } else { Kind::Fresh }))
                .collect()
        })
    };
    for kind in [Kind::Future, Kind::Spread, Kind::Extreme] {
        let seen = mixed(kind);
        assert!(
            seen.runs_max <= 12 && seen.asked_max < 2.0 && seen.written < 1.3,
            "{kind:?} {seen:?}"
        );
    }
}
