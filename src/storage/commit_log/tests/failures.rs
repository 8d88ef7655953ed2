//! Steps that fail, and what is found after them.

use std::sync::Arc;

use parking_lot::Mutex;

use super::ground::{append, folder, new, options, reopen, try_append};
use crate::storage::commit_log::{Fault, LogOptions, LogStep, Position, Seam};

/// Makes the next of these steps fail, each once.
#[derive(Default)]
struct Plan(Mutex<Vec<(LogStep, Fault)>>);

impl Seam for Plan {
    fn fault(&self, step: LogStep) -> Fault {
        let mut plan = self.0.lock();
        match plan.iter().position(|(planned, _)| *planned == step) {
            Some(at) => plan.remove(at).1,
            None => Fault::None,
        }
    }
}

impl Plan {
    fn add(&self, step: LogStep, fault: Fault) {
        self.0.lock().push((step, fault));
    }
}

fn with_plan(options: LogOptions) -> (LogOptions, Arc<Plan>) {
    let plan = Arc::<Plan>::default();
    (LogOptions { seam: Some(plan.clone()), ..options }, plan)
}

fn bodies(options: &LogOptions) -> Vec<Vec<u8>> {
    reopen(options, 0).frames.into_iter().map(|(_, body)| body).collect()
}

#[test]
fn a_failed_append_that_is_on_disk_is_salvaged_and_one_that_is_not_is_gone() {
    let cases = [
        (LogStep::Write, Fault::NotDone, false),
        (LogStep::Write, Fault::DoneAnyway, true),
        (LogStep::Sync, Fault::NotDone, true),
        (LogStep::Sync, Fault::DoneAnyway, true),
    ];
    for (step, fault, is_there) in cases {
        let folder = folder();
        let (options, plan) = with_plan(options(folder.path()));
        let mut log = new(&options);
        append(&mut log, b"one");
        plan.add(step, fault);
        assert!(try_append(&mut log, &[2; 3_000]).is_err());
        assert!(try_append(&mut log, b"too early").is_err(), "it takes nothing yet");
        let salvaged = log.writer.reopen_after_failure().expect("reopened");
        let found = salvaged.map(|found| (found.position, found.body));
        assert_eq!(found, is_there.then(|| (Position(2), vec![2; 3_000])), "{step:?} {fault:?}");
        let next = append(&mut log, b"three");
        assert_eq!(next, Position(if is_there { 3 } else { 2 }));
        drop(log);
        let mut expected = vec![b"one".to_vec(), vec![2; 3_000], b"three".to_vec()];
        if !is_there {
            expected.remove(1);
        }
        assert_eq!(bodies(&options), expected, "{step:?} {fault:?}");
    }
}

#[test]
fn a_reopening_that_fails_can_be_tried_again_and_keeps_what_it_found() {
    for step in [LogStep::Salvage, LogStep::Begin, LogStep::Acked, LogStep::Write, LogStep::Sync] {
        for fault in [Fault::NotDone, Fault::DoneAnyway] {
            let folder = folder();
            let (options, plan) = with_plan(options(folder.path()));
            let mut log = new(&options);
            append(&mut log, b"one");
            log.writer.wait_until_noted();
            plan.add(LogStep::Sync, Fault::DoneAnyway);
            assert!(try_append(&mut log, b"two").is_err());
            plan.add(step, fault);
            assert!(log.writer.reopen_after_failure().is_err(), "{step:?}");
            assert!(try_append(&mut log, b"too early").is_err());
            let salvaged = log.writer.reopen_after_failure().expect("reopened").expect("found");
            assert_eq!((salvaged.position, &*salvaged.body), (Position(2), &b"two"[..]));
            append(&mut log, b"three");
            drop(log);
            assert_eq!(bodies(&options), [&b"one"[..], b"two", b"three"], "{step:?} {fault:?}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_begun_fails_the_writer_until_it_can() {
    for fault in [Fault::NotDone, Fault::DoneAnyway] {
        let folder = folder();
        let (options, plan) = with_plan(options(folder.path()));
        let mut log = new(&options);
        append(&mut log, &vec![1; 10_000]);
        plan.add(LogStep::Begin, fault);
        assert!(try_append(&mut log, &vec![2; 10_000]).is_err());
        // It would fit in the previous file; but if the new one is there, that ends the previous one.
        assert!(try_append(&mut log, b"small").is_err());
        assert_eq!(log.writer.reopen_after_failure().expect("reopened"), None);
        append(&mut log, &vec![3; 10_000]);
        drop(log);
        assert_eq!(bodies(&options), [vec![1; 10_000], vec![3; 10_000]]);
    }
}

#[test]
fn what_was_salvaged_is_salvaged_once() {
    let folder = folder();
    let (options, plan) = with_plan(options(folder.path()));
    let mut log = new(&options);
    plan.add(LogStep::Sync, Fault::DoneAnyway);
    assert!(try_append(&mut log, b"one").is_err());
    assert!(log.writer.reopen_after_failure().expect("reopened").is_some());
    assert_eq!(log.writer.reopen_after_failure().expect("nothing to do"), None);
    plan.add(LogStep::Write, Fault::NotDone);
    assert!(try_append(&mut log, b"lost").is_err());
    assert_eq!(log.writer.reopen_after_failure().expect("reopened"), None);
    drop(log);
    assert_eq!(bodies(&options), [b"one"]);
}

#[test]
fn a_process_that_ends_before_it_could_reopen_leaves_the_same() {
    let folder = folder();
    let (options, plan) = with_plan(options(folder.path()));
    let mut log = new(&options);
    append(&mut log, b"one");
    plan.add(LogStep::Sync, Fault::DoneAnyway);
    assert!(try_append(&mut log, b"two").is_err());
    plan.add(LogStep::Write, Fault::NotDone);
    assert!(log.writer.reopen_after_failure().is_err());
    drop(log);
    // The reopening has begun a file that voids the second frame, but did not get to writing it there.
    assert_eq!(bodies(&options), [b"one"]);
}

#[test]
fn a_spare_file_that_could_not_be_made_fails_nothing() {
    let folder = folder();
    let (options, plan) = with_plan(options(folder.path()));
    let mut log = new(&options);
    plan.add(LogStep::Prepare, Fault::NotDone);
    assert!(log.files.prepare().is_err());
    append(&mut log, &vec![1; 10_000]);
    append(&mut log, &vec![2; 10_000]);
    assert_eq!(bodies_after_drop(log, &options), 2);
}

fn bodies_after_drop(log: crate::storage::commit_log::Log, options: &LogOptions) -> usize {
    drop(log);
    bodies(options).len()
}
