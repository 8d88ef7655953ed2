//! What every [`Storage`](crate::storage::Storage) must do with the beginning of a store.

use super::{Tested, all_ids, append, ids, known};
use crate::model::limits::SEGMENT_BYTES_TARGET;
use crate::model::{EntryId, Segment, Sequence};
use crate::storage::{AppendError, Keep, Storage};
use crate::testing::{Subject, store, wait};

pub(super) fn what_is_trimmed_is_a_gap_whose_ids_stay_known(subject: Tested<'_>) {
    let at = |sequence| Sequence::ZERO.plus(sequence);
    let log = subject.service().open(&store("a")).expect("open");
    assert_eq!(log.trimmed(), Sequence::ZERO);
    let written = ids(12_000);
    let parts: Vec<&[EntryId]> = written.chunks(701).collect();
    for part in &parts[..10] {
        append(&*log, part, 100);
    }
    wait(log.append(vec![Segment::gap(log.head().next(), 1_000).expect("a gap")])).expect("done");
    for part in &parts[10..] {
        append(&*log, part, 100);
    }
    let (head, bytes) = (log.head(), log.bytes());
    let hash = subject.service().hash(&store("a")).expect("a hash");
    // Into the middle of a segment, into the gap, and after it.
    for (round, trimmed) in (0_u64..).zip([at(3_333), at(7_500), at(8_500)]) {
        let log = subject.service().open(&store("a")).expect("open");
        let refused = wait(log.trim(log.head().next()));
        assert!(matches!(refused, Err(AppendError::Definite(_))), "{refused:?}");
        wait(log.trim(trimmed)).expect("trimmed");
        if round == 1 {
            subject.reopen();
        }
        let log = subject.service().open(&store("a")).expect("open");
        assert_eq!((log.trimmed(), log.head()), (trimmed, head.plus(round)));
        let kept: Vec<EntryId> = all_ids(&*log);
        let gone = [3_333, 7_010, 7_500][round as usize];
        assert_eq!(kept[..12_000 - gone], written[gone..]);
        for from in [1, 2, 1_000, trimmed.get() - 1, trimmed.get()] {
            let read = log.read(at(from), 1).expect("a read");
            assert!(read[0].is_gap() && read[0].first() <= at(from) && read[0].last() <= trimmed);
            let entries = read.iter().find(|segment| !segment.is_gap()).expect("comes with it");
            assert_eq!(entries.ids().next().expect("one").1, written[gone]);
            assert!(entries.iter().all(|(_, entry)| entry.event == "Noted"));
        }
        let size = subject.service().size(&store("a")).expect("a size");
        let entries = 12_000 - gone as u64 + round;
        assert_eq!((size.head, size.trimmed, size.entries), (head.plus(round), trimmed, entries));
        assert!(size.bytes <= bytes + 1_000);
        assert_eq!(subject.service().stores(None, 9).expect("stores").len(), 1);
        let places = |n: usize| if n < 7_010 { at(n as u64 + 1) } else { at(n as u64 + 1_001) };
        let expected: Vec<_> = (0..12_000).map(|n| Some(places(n))).collect();
        assert_eq!(known(&*log, &written), expected, "they stay known");
        let above = log.above(written[0], head, 20_000).expect("a read");
        assert!(above.is_none_or(|above| above.len() == 12_000 - gone.max(1) - 1));
        if round == 0 {
            assert_eq!(subject.service().hash(&store("a")).expect("a hash"), hash);
        }
        append(&*log, &ids(1), 100);
    }
}

pub(super) fn more_can_be_trimmed_and_never_less(subject: Tested<'_>) {
    let at = |sequence| Sequence::ZERO.plus(sequence);
    let log = subject.service().open(&store("a")).expect("open");
    wait(log.trim(Sequence::ZERO)).expect("nothing to trim");
    append(&*log, &ids(5), 10);
    let earlier = log;
    let log = subject.service().open(&store("a")).expect("open");
    wait(log.trim(at(3))).expect("trimmed");
    wait(earlier.trim(at(2))).expect("trimmed before");
    assert_eq!((log.trimmed(), earlier.trimmed()), (at(3), at(3)));
    wait(earlier.trim(at(4))).expect("trimmed");
    assert_eq!(log.trimmed(), at(4));
    // All of it; then the store continues.
    wait(log.trim(at(5))).expect("trimmed");
    for _ in 0..2 {
        let log = subject.service().open(&store("a")).expect("open");
        let read = log.read(at(1), 1).expect("a read");
        assert!(read.iter().all(Segment::is_gap) && read.last().expect("one").last() == at(5));
        assert_eq!(subject.service().size(&store("a")).expect("a size").entries, 0);
        assert!(log.read(at(6), 1).expect("a read").is_empty());
        subject.reopen();
    }
    let log = subject.service().open(&store("a")).expect("open");
    let other = subject.service().open(&store("b")).expect("open");
    append(&*other, &ids(5), 10);
    assert_eq!((append(&*log, &ids(1), 10)[0].first(), log.trimmed()), (at(6), at(5)));
    subject.reopen();
    let log = subject.service().open(&store("a")).expect("open");
    assert_eq!((log.trimmed(), all_ids(&*log).len()), (at(5), 1));
    let other = subject.service().open(&store("b")).expect("open");
    assert_eq!((other.trimmed(), all_ids(&*other).len()), (Sequence::ZERO, 5));
}

pub(super) fn what_is_beyond_is_told(subject: Tested<'_>) {
    let at = |sequence| Sequence::ZERO.plus(sequence);
    let log = subject.service().open(&store("a")).expect("open");
    let all = Keep::default();
    let none = Keep { entries_max: Some(0), bytes_max: Some(0), since_ms: Some(u64::MAX) };
    for keep in [all, none] {
        let beyond = subject.service().beyond(&store("a"), &keep);
        assert_eq!(beyond.expect("a read"), Sequence::ZERO);
    }
    for count in [4_000, 3_000, 1_000] {
        append(&*log, &ids(count), 100);
    }
    let kept = Keep { entries_max: Some(7_000), ..all };
    assert_eq!(subject.service().beyond(&store("a"), &kept).expect("a read"), at(1_000));
    // All of it is settled.
    subject.reopen();
    let log = subject.service().open(&store("a")).expect("open");
    let beyond = |keep: &Keep| subject.service().beyond(&store("a"), keep).expect("a read");
    let a_segment = SEGMENT_BYTES_TARGET as u64;
    for trimmed in [at(0), at(1_000), at(3_500)] {
        wait(log.trim(trimmed)).expect("trimmed");
        assert_eq!(beyond(&all), trimmed);
        for entries in [1, 2_500, 4_500, 7_500, 8_000, 9_000] {
            let keep = Keep { entries_max: Some(entries), ..all };
            let expected = at(8_000_u64.saturating_sub(entries)).max(trimmed);
            assert_eq!(beyond(&keep), expected);
            let bytes = entries * 130;
            let told = beyond(&Keep { bytes_max: Some(bytes), ..all });
            assert!(told >= trimmed);
            // A record has 126 bytes.
            let kept = log.head().since(told) * 126;
            assert!(kept <= bytes && (told == trimmed || kept + 2 * a_segment >= bytes), "{told}");
        }
        assert_eq!(beyond(&Keep { since_ms: Some(1), ..all }), trimmed);
        assert_eq!(beyond(&Keep { since_ms: Some(u64::MAX), ..all }), at(8_000));
        let both = Keep { entries_max: Some(2_000), since_ms: Some(1), ..all };
        assert_eq!(beyond(&both), at(6_000));
    }
}

pub(super) fn times_of_commits_are_told(subject: Tested<'_>) {
    let at = |sequence| Sequence::ZERO.plus(sequence);
    let times = |subject: &dyn Subject<dyn Storage>, from, count| {
        subject.service().times(&store("a"), from, count).expect("a read")
    };
    // A storage does not have to know.
    let Some(none) = times(subject, Sequence::FIRST, 10) else { return };
    assert_eq!(none, []);
    let log = subject.service().open(&store("a")).expect("open");
    let (mut before, mut clock) = (Vec::new(), EntryId::now().created_at_millis());
    for count in [5, 1, 300] {
        before.extend(std::iter::repeat_n(clock, count));
        append(&*log, &ids(count), 50);
        clock = EntryId::now().created_at_millis();
    }
    drop(log);
    for round in 0..2 {
        let all = times(subject, Sequence::FIRST, 1_000).expect("it says");
        assert_eq!(all.last().map(|(last, _)| *last), Some(at(306)));
        assert!(all.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1), "{all:?}");
        assert!(all.iter().all(|(_, by)| *by <= clock), "{all:?} after {clock}");
        for (index, begun) in before.iter().enumerate() {
            let from = at(index as u64 + 1);
            let (last, by) = times(subject, from, 1).expect("it says")[0];
            assert!(last >= from && by >= *begun, "{round}: {from} by {by}, begun at {begun}");
        }
        assert_eq!(times(subject, at(307), 10), Some(vec![]));
        subject.reopen();
    }
}
