//! Small appends do not leave small segments.

use super::OnDisk;
use crate::model::{EntryId, Segment};
use crate::storage::sled::key::{SegmentKey, SlotKey};
use crate::testing::storage::{all_ids, append, ids, read_all};
use crate::testing::{Subject, store};

fn keys_on_disk(subject: &OnDisk) -> (usize, usize) {
    subject.wait_for_checkpoint();
    let trees = subject.database().shared().access.trees().expect("sled");
    let tree = trees.log();
    let count = |used: fn(&[u8], &[u8]) -> bool| {
        tree.iter()
            .map(|item| item.expect("a read"))
            .filter(|(key, value)| used(key, value))
            .count()
    };
    let segments = count(|key, _| SegmentKey::parse(key).is_some());
    let slots = count(|key, value| SlotKey::parse(key).is_some() && !value.is_empty());
    (segments, slots)
}

#[test]
fn single_entries_end_up_in_large_segments() {
    let mut subject = OnDisk::with_checkpoints();
    let log = subject.storage().open(&store("a")).expect("open");
    let batch = ids(1_000);
    for (n, id) in batch.iter().enumerate() {
        let log = subject.storage().open(&store("a")).expect("open");
        append(&*log, std::slice::from_ref(id), 100);
        subject.wait_for_checkpoint();
        if n % 300 == 299 {
            subject.reopen();
        }
    }
    drop(log);
    let log = subject.storage().open(&store("a")).expect("open");
    assert_eq!(all_ids(&*log), batch);
    let segments = read_all(&*log, 1 << 20);
    assert!(segments.len() < 50, "{} segments of 1,000 entries", segments.len());
    let longest = segments.iter().map(Segment::len).max();
    assert!(longest >= Some(150), "the longest has {longest:?} entries");
    let (segments_on_disk, slots) = keys_on_disk(&subject);
    assert_eq!(segments_on_disk, segments.len(), "merged ones are gone");
    assert!(slots <= segments.len(), "merged ones give their slots back: {slots}");
}

#[test]
fn a_larger_append_closes_a_run_of_small_ones() {
    let subject = OnDisk::with_checkpoints();
    let log = subject.storage().open(&store("a")).expect("open");
    let mut expected: Vec<EntryId> = Vec::new();
    for _ in 0..3 {
        for _ in 0..6 {
            let batch = ids(25);
            append(&*log, &batch, 100);
            subject.wait_for_checkpoint();
            expected.extend(batch);
        }
        let batch = ids(200);
        append(&*log, &batch, 100);
        subject.wait_for_checkpoint();
        expected.extend(batch);
    }
    assert_eq!(all_ids(&*log), expected);
    let (segments, slots) = keys_on_disk(&subject);
    assert_eq!(segments, 6, "of each round one of small ones and a large one");
    assert_eq!(slots, 6);
}

#[test]
fn what_is_read_while_it_is_merged_has_no_gap() {
    let subject = OnDisk::with_checkpoints();
    let log = subject.storage().open(&store("a")).expect("open");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reads = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                read_all(&*log, 10_000);
                reads += 1;
            }
            reads
        });
        for n in 0..600 {
            append(&*log, &ids(n % 3 * 10 + 1), 100);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reads.join().expect("no gap") > 0);
    });
}
