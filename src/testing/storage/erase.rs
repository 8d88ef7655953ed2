//! What every [`Storage`](crate::storage::Storage) must do with erased entries.

use std::collections::BTreeSet;

use super::{Tested, append, ids, known, read_all};
use crate::model::{EntryId, Segment, Sequence};
use crate::storage::{AppendError, ERASE_MAX, StoreLog};
use crate::testing::{store, wait};

/// Everything that is left is as it was written.
fn check(log: &dyn StoreLog, written: &[Segment], gone: &BTreeSet<Sequence>) {
    for bytes_max in [1, 100_000] {
        let read = read_all(log, bytes_max);
        let kept = read.iter().filter(|segment| !segment.is_gap());
        let kept = kept.flat_map(|segment| segment.iter().zip(segment.origin_of_each()));
        let all = written.iter().flat_map(|segment| segment.iter().zip(segment.origin_of_each()));
        let trimmed = log.trimmed();
        let is_kept = |at: &Sequence| *at > trimmed && !gone.contains(at);
        assert!(kept.eq(all.filter(|((at, _), _)| is_kept(at))));
        for gap in read.iter().filter(|segment| segment.is_gap() && segment.first() > trimmed) {
            let mut sequences = (0..gap.span()).map(|n| gap.first().plus(n));
            assert!(sequences.all(|at| gone.contains(&at) == gap.is_erased()));
        }
    }
}

pub(super) fn what_is_erased_is_a_gap_whose_ids_stay_known(subject: Tested<'_>) {
    let at = |sequence| Sequence::ZERO.plus(sequence);
    let log = subject.service().open(&store("a")).expect("open");
    let all = ids(6_000);
    let mut written: Vec<Segment> = Vec::new();
    for part in all.chunks(701) {
        written.extend(append(&*log, part, 100));
    }
    let (head, hash) = (log.head(), subject.service().hash(&store("a")).expect("a hash"));
    let rounds: [Vec<u64>; 4] = [
        vec![3, 1, 6_000],
        (1_000..3_000).chain([3]).collect(),
        (1..6_000).step_by(7).collect(),
        (4_000..6_001).collect(),
    ];
    let mut gone = BTreeSet::new();
    for (round, numbers) in rounds.into_iter().enumerate() {
        let log = subject.service().open(&store("a")).expect("open");
        let before = log.erasures();
        let entries: Vec<(Sequence, EntryId)> =
            numbers.iter().map(|n| (at(*n), all[*n as usize - 1])).collect();
        for _ in 0..2 {
            wait(log.erase(&entries)).expect("erased");
        }
        gone.extend(entries.iter().map(|(at, _)| *at));
        assert!(log.erasures() > before, "what was made of it is not right any more");
        check(&*log, &written, &gone);
        if round % 2 == 1 {
            subject.reopen();
        }
        let log = subject.service().open(&store("a")).expect("open");
        check(&*log, &written, &gone);
        let places: Vec<_> = (1..=6_000).map(|n| Some(at(n))).collect();
        assert_eq!(known(&*log, &all), places, "ids stay known");
        let size = subject.service().size(&store("a")).expect("a size");
        assert_eq!((log.head(), size.head, size.entries), (head, head, 6_000));
        assert_eq!(subject.service().hash(&store("a")).expect("a hash"), hash);
    }
    // From within a gap.
    let log = subject.service().open(&store("a")).expect("open");
    let read = log.read(at(2_000), 1).expect("a read");
    assert!(read[0].is_erased() && (read[0].first()..=read[0].last()).contains(&at(2_000)));
    assert_eq!(read.iter().find(|segment| !segment.is_gap()).expect("more").first(), at(3_000));
    // The store continues, and is trimmed in the middle.
    written.extend(append(&*log, &ids(10), 100));
    check(&*log, &written, &gone);
    wait(log.trim(at(2_005))).expect("trimmed");
    for _ in 0..2 {
        check(&*subject.service().open(&store("a")).expect("open"), &written, &gone);
        subject.reopen();
    }
}

pub(super) fn what_is_not_there_is_not_erased(subject: Tested<'_>) {
    let at = |sequence| Sequence::ZERO.plus(sequence);
    let refused = |entries: &[(Sequence, EntryId)]| {
        let log = subject.service().open(&store("a")).expect("open");
        matches!(wait(log.erase(entries)), Err(AppendError::Definite(_)))
    };
    let all = ids(3);
    assert!(refused(&[(at(1), all[0])]), "an empty store");
    let log = subject.service().open(&store("a")).expect("open");
    let written = append(&*log, &all, 100);
    let other = subject.service().open(&store("b")).expect("open");
    let elsewhere = append(&*other, &all, 100);
    assert!(refused(&[(at(1), all[0]), (at(2), all[0])]), "another entry");
    assert!(refused(&[(at(1), all[0]), (at(4), ids(1)[0])]), "beyond the head");
    assert!(refused(&vec![(at(1), all[0]); ERASE_MAX + 1]), "too many");
    let log = subject.service().open(&store("a")).expect("open");
    wait(log.erase(&[])).expect("nothing to do");
    check(&*log, &written, &BTreeSet::new());
    // All of one store, nothing of the other.
    let entries: Vec<_> = (1..).map(at).zip(all.iter().copied()).collect();
    wait(log.erase(&entries)).expect("erased");
    subject.reopen();
    let log = subject.service().open(&store("a")).expect("open");
    check(&*log, &written, &(1..4).map(at).collect());
    assert_eq!(known(&*log, &all), [Some(at(1)), Some(at(2)), Some(at(3))]);
    check(&*subject.service().open(&store("b")).expect("open"), &elsewhere, &BTreeSet::new());
}
