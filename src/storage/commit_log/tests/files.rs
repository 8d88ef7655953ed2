//! Files ahead of time, and files that are done with.

use super::ground::{append, folder, new, options, reopen};
use crate::storage::commit_log::{Found, LogError, Position, folder as names};

#[test]
fn a_file_is_let_go_of_only_when_all_its_frames_may_go() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    for _ in 0..100 {
        append(&mut log, &[1; 1_000]);
    }
    let finished = log.files.finished(Position(100));
    assert!(finished.len() > 3);
    let (first, second) = (&finished[0], &finished[1]);
    assert_eq!((first.first, second.first), (Position(1), first.last.next()));
    let mut read = Vec::new();
    let outcome = second.read(options.generation, |found| {
        let Found::Frame(frame) = found else { panic!("{found:?}") };
        read.push(frame.position);
        Ok::<(), LogError>(())
    });
    outcome.expect("readable");
    assert_eq!(read, (second.first.0..=second.last.0).map(Position).collect::<Vec<_>>());

    let mut done = Vec::new();
    let mut note = |file: &crate::storage::commit_log::FinishedFile| {
        done.push(file.number);
        Ok(())
    };
    log.files.release(first.last.before(), &mut note).expect("released");
    log.files.release(first.last, &mut note).expect("released");
    assert_eq!(done, [first.number]);
    let failing = log.files.release(Position(100), |_| Err(std::io::Error::other("no")));
    assert!(failing.is_err());
    let frames = log.writer.last().0 - first.last.0;
    drop(log);
    assert_eq!(reopen(&options, first.last.0).frames.len(), frames as usize);
}

#[test]
fn files_that_are_done_with_are_used_again_and_show_nothing_of_before() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    let mut files_max = 0;
    for round in 0..300_u64 {
        append(&mut log, &[round as u8; 1_000]);
        log.files.prepare().expect("prepared");
        log.files.release(Position(round), |_| Ok(())).expect("released");
        let names = names::list(&options.folder).expect("a folder");
        files_max = files_max.max(names.files.len() + names.spares.len());
    }
    assert!(files_max <= 4, "{files_max} files");
    append(&mut log, b"last");
    drop(log);
    let opened = reopen(&options, 299);
    assert_eq!(
        opened.frames,
        [(Position(300), vec![43; 1_000]), (Position(301), b"last".to_vec())]
    );
    // This opening has begun a file in the place of an older one, and found its end nevertheless.
    drop(opened);
    assert_eq!(reopen(&options, 300).frames.len(), 1);
}

#[test]
fn a_file_that_was_made_for_a_large_frame_is_not_kept() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    append(&mut log, &vec![1; 100_000]);
    append(&mut log, b"two");
    log.writer.finish_file().expect("begun");
    log.files.release(Position(2), |_| Ok(())).expect("released");
    let spares = names::list(&options.folder).expect("a folder").spares;
    assert!(!spares.is_empty());
    for spare in spares {
        let spare = names::spare(&options.folder, spare);
        assert_eq!(spare.metadata().expect("a file").len(), options.file_bytes);
    }
}

#[test]
fn finishing_a_file_makes_all_frames_releasable_and_an_empty_one_stays() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    log.writer.finish_file().expect("nothing to do");
    append(&mut log, b"one");
    assert_eq!(log.files.finished(Position(1)), []);
    log.writer.finish_file().expect("begun");
    log.writer.finish_file().expect("nothing to do");
    assert_eq!(log.files.finished(Position(1)).len(), 1);
    log.files.release(Position(1), |_| Ok(())).expect("released");
    append(&mut log, b"two");
    drop(log);
    assert_eq!(reopen(&options, 1).frames.len(), 1);
}

#[test]
fn a_file_that_somebody_removed_holds_up_nothing() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    append(&mut log, b"one");
    log.writer.finish_file().expect("begun");
    std::fs::remove_file(names::file(&options.folder, 1)).expect("removed");
    log.files.release(Position(1), |_| Ok(())).expect("released");
    assert_eq!(log.files.finished(Position(1)), []);
}

#[test]
fn what_was_left_of_a_spare_file_is_removed() {
    let folder = folder();
    let options = options(folder.path());
    let log = new(&options);
    log.files.prepare().expect("prepared");
    log.files.prepare().expect("there is one");
    drop(log);
    let half = names::spare(&options.folder, 90);
    std::fs::write(&half, [0; 100]).expect("written");
    drop(reopen(&options, 0));
    assert!(!half.exists());
}

#[test]
fn a_finished_file_that_was_damaged_says_so_when_it_is_read() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    append(&mut log, b"one");
    append(&mut log, b"two");
    log.writer.finish_file().expect("begun");
    let finished = log.files.finished(Position(2)).remove(0);
    let bytes = std::fs::read(&finished.path).expect("a file");
    let lost = || {
        let mut lost = Vec::new();
        let outcome = finished.read(options.generation, |found| {
            if let Found::Damage(damage) = found {
                lost.push((damage.from.0, damage.to.expect("the end is known").0));
            }
            Ok::<(), LogError>(())
        });
        outcome.expect("readable");
        lost
    };
    for (block, expected) in [(1, (1, 1)), (2, (2, 2))] {
        let mut bytes = bytes.clone();
        bytes[block * 512..][..512].fill(0);
        std::fs::write(&finished.path, bytes).expect("written");
        assert_eq!(lost(), [expected]);
    }
    std::fs::write(&finished.path, [0; 5_000]).expect("written");
    assert_eq!(lost(), [(1, 2)]);
    std::fs::write(&finished.path, &bytes).expect("written");
    assert_eq!(lost(), []);
}
