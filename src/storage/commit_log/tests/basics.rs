//! Without faults.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::ground::{append, folder, new, options, reopen, try_append, verify, verify_running};
use crate::storage::commit_log::{
    DamageKind, Found, Generation, LogError, LogOptions, Position, create, open,
};

fn bodies() -> Vec<Vec<u8>> {
    // Around the ends of the first and the second block, and more than a file.
    let lengths = [0_usize, 1, 467, 468, 469, 959, 960, 961, 40_000, 3];
    lengths.iter().map(|len| (0..*len).map(|at| (at + len) as u8).collect()).collect()
}

#[test]
fn what_was_appended_is_given_again() {
    let folder = folder();
    let options = options(folder.path());
    let (mut log, bodies) = (new(&options), bodies());
    for (number, body) in (1..).zip(&bodies) {
        assert_eq!(append(&mut log, body), Position(number));
    }
    log.writer.close().expect("closed");
    for from in 0..=bodies.len() {
        let opened = reopen(&options, from as u64);
        assert_eq!(opened.log.last, Position(bodies.len() as u64));
        let expected: Vec<_> =
            (from as u64 + 1..).map(Position).zip(bodies[from..].iter().cloned()).collect();
        assert_eq!(opened.frames, expected, "from {from}");
    }
    let mut log = reopen(&options, 0).log;
    assert_eq!(append(&mut log, b"more"), Position(bodies.len() as u64 + 1));
    drop(log);
    let verified = verify(&options, Position(0), Position(0)).expect("readable");
    assert_eq!((verified.frames, verified.damages.len()), (bodies.len() as u64 + 1, 0));
}

#[test]
fn times_never_go_back() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    let write = |log: &mut crate::storage::commit_log::Log, now| {
        let frame = log.writer.frame(0).expect("a frame");
        log.writer.append(frame, now).expect("appended");
    };
    write(&mut log, 5_000);
    write(&mut log, 3_000);
    drop(log);
    let mut log = reopen(&options, 1).log;
    write(&mut log, 4_000);
    drop(log);
    let mut times = Vec::new();
    let log = open(options, Position(0), Position(0), |found| {
        if let Found::Frame(frame) = found {
            times.push(frame.time_ms);
        }
        Ok::<(), LogError>(())
    });
    drop(log.expect("a log"));
    assert_eq!(times, [5_000, 5_000, 5_000]);
}

#[test]
fn a_frame_says_which_file_it_goes_to_before_it_is_written() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    let mut seen = Vec::new();
    for _ in 0..40 {
        let mut frame = log.writer.frame(1_000).expect("a frame");
        seen.push(frame.file());
        frame.write(&[1; 900]);
        log.writer.append(frame, 0).expect("appended");
    }
    assert!(seen.is_sorted() && seen.last() > seen.first());
}

#[test]
fn a_frame_that_was_announced_too_small_is_refused_and_nothing_else_happens() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    append(&mut log, b"one");
    let mut frame = log.writer.frame(10).expect("a frame");
    frame.write(&vec![0; 100_000]);
    let error = log.writer.append(frame, 0).expect_err("too large");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(append(&mut log, b"two"), Position(2));
    assert!(log.writer.frame(u64::MAX).is_err());
    assert_eq!(try_append(&mut log, b"three").expect("appended"), Position(3));
}

#[test]
fn a_log_can_begin_behind_a_position_and_begins_once() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = create(options.clone(), Position(99)).expect("a log");
    assert_eq!(append(&mut log, b"hundred"), Position(100));
    drop(log);
    assert!(matches!(create(options.clone(), Position(0)), Err(LogError::Exists(_))));
    assert_eq!(reopen(&options, 99).frames.len(), 1);
}

#[test]
fn a_missing_log_is_damage_and_no_fresh_start() {
    let folder = folder();
    let outcome = open(options(folder.path()), Position(0), Position(0), |found| match found {
        Found::Frame(_) => Ok(()),
        Found::Damage(damage) => Err(LogError::Damaged(damage.clone())),
    });
    let Err(LogError::Damaged(damage)) = outcome else { panic!("opened") };
    assert_eq!((damage.kind, damage.from, damage.to), (DamageKind::FileMissing, Position(1), None));
}

#[test]
fn a_log_of_another_directory_is_damage() {
    let folder = folder();
    let options = options(folder.path());
    append(&mut new(&options), b"one");
    let other = LogOptions { generation: Generation([8; 16]), ..options };
    let verified = verify(&other, Position(0), Position(0)).expect("readable");
    assert_eq!(verified.damages[0].kind, DamageKind::Foreign);
}

#[test]
fn a_log_that_ends_before_what_is_known_from_elsewhere_is_damage() {
    let folder = folder();
    let options = options(folder.path());
    append(&mut new(&options), b"one");
    let clean = verify(&options, Position(0), Position(1)).expect("readable");
    assert_eq!(clean.damages, []);
    let early = verify(&options, Position(0), Position(2)).expect("readable");
    assert_eq!(early.damages[0].from, Position(2));
}

#[test]
fn an_error_of_the_caller_ends_the_opening() {
    let folder = folder();
    let options = options(folder.path());
    append(&mut new(&options), b"one");
    let outcome = open(options, Position(0), Position(0), |_| {
        Err(LogError::Unavailable(std::io::Error::other("enough")))
    });
    assert!(matches!(outcome, Err(LogError::Unavailable(error)) if error.to_string() == "enough"));
}

#[test]
fn a_log_can_be_verified_while_it_is_written_to() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    append(&mut log, b"one");
    let (stop, appended) = (AtomicBool::new(false), AtomicU64::new(1));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            // Bounded: each look reads all of it, so otherwise it would grow for as long as it is looked at.
            for _ in 0..2_000 {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                appended.store(append(&mut log, &[3; 1_000]).0, Ordering::Release);
            }
        });
        for _ in 0..50 {
            let last = Position(appended.load(Ordering::Acquire));
            let verified = verify_running(&options, Position(0), last).expect("readable");
            assert_eq!(
                (verified.frames, verified.read.last, verified.damages),
                (last.0, last, vec![])
            );
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("appended");
    });
}
