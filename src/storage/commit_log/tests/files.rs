//! Files made ahead of time, and finished files.

use super::ground::{append, folder, new, options, reopen, reopen_damaged};
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
    let outcome = second.read(options.generation, None, |found| {
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
    // This opening has begun a file in place of an older one, and still found its end.
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
        let outcome = finished.read(options.generation, None, |found| {
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

/// Beginning a file used to need a new name, and waited until the folder was on disk.
#[test]
fn a_file_that_was_named_ahead_of_time_is_begun_where_it_is() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    append(&mut log, &[1; 10_000]);
    log.files.prepare().expect("prepared");
    let names = || names::list(&options.folder).expect("a folder").files;
    assert_eq!(names(), [1, 2]);
    append(&mut log, &[2; 10_000]);
    assert_eq!((names(), log.files.number_of(Position(2))), (vec![1, 2], 2));
    append(&mut log, &[3; 10_000]);
    assert_eq!(names(), [1, 2, 3]);
    drop(log);
    let bodies = reopen(&options, 0).frames.into_iter().map(|(_, body)| body[0]);
    assert_eq!(bodies.collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_file_that_was_not_begun_is_no_end_of_the_log_and_is_used_after_the_next_start() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    append(&mut log, b"one");
    log.files.prepare().expect("prepared");
    append(&mut log, b"two");
    drop(log);
    let ahead = names::file(&options.folder, 2);
    assert!(ahead.exists());
    let mut opened = reopen(&options, 0);
    assert_eq!(opened.frames.len(), 2);
    append(&mut opened.log, b"three");
    assert_eq!(
        opened.log.files.number_of(Position(3)),
        3,
        "a file behind the one that was not begun"
    );
    opened.log.files.prepare().expect("prepared");
    assert!(!ahead.exists());
    drop(opened);
    assert_eq!(reopen(&options, 0).frames.len(), 3);
}

#[test]
fn a_frame_that_is_too_large_for_the_file_ahead_has_one_behind_it() {
    let folder = folder();
    let options = options(folder.path());
    for cut_before_clearing in [true, false] {
        let mut log = new(&options);
        log.files.prepare().expect("prepared");
        append(&mut log, &vec![1; 100_000]);
        assert_eq!(log.files.number_of(Position(1)), 3);
        if !cut_before_clearing {
            log.files.prepare().expect("prepared");
            assert!(!names::file(&options.folder, 2).exists());
        }
        append(&mut log, &[2; 10_000]);
        append(&mut log, &[3; 10_000]);
        drop(log);
        let opened = reopen(&options, 0);
        assert_eq!(opened.frames.len(), 3);
        drop(opened);
        std::fs::remove_dir_all(&options.folder).expect("removed");
    }
}

/// A cut between the two leaves one of them unchanged.
#[test]
fn a_file_is_begun_where_one_of_its_headers_says_so() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    append(&mut log, &[1; 10_000]);
    log.files.prepare().expect("prepared");
    let path = names::file(&options.folder, 2);
    let not_begun = std::fs::read(&path).expect("a file");
    append(&mut log, &[2; 10_000]);
    drop(log);
    let begun = std::fs::read(&path).expect("a file");
    for block in [0, begun.len() / 512 - 1] {
        let mut bytes = begun.clone();
        bytes[block * 512..][..512].copy_from_slice(&not_begun[block * 512..][..512]);
        std::fs::write(&path, bytes).expect("written");
        let opened = reopen(&options, 0);
        assert_eq!(opened.frames.len(), 2);
    }
}

#[test]
fn the_file_ahead_is_missed_if_it_is_lost() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    append(&mut log, &[1; 10_000]);
    log.files.prepare().expect("prepared");
    drop(log);
    // It may have been begun: nobody can know.
    std::fs::remove_file(names::file(&options.folder, 2)).expect("removed");
    assert_eq!(reopen_damaged(&options, 0).damages.len(), 1);
}
