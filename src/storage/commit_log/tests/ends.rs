//! Where a log ends, if the note of how far it reached is missing or outdated.

use std::path::PathBuf;

use tempfile::TempDir;

use super::ground::{Bodies, append, folder, new, options, reopen, reopen_damaged, verify};
use crate::storage::commit_log::{DamageKind, LogOptions, Position, folder as names};

const BLOCK: usize = 512;
const FRAMES: usize = 5;
const FRAME_BLOCKS: usize = 3;

/// One file with some frames of three blocks, and a note from before them.
struct Lagging {
    _folder: TempDir,
    options: LogOptions,
    path: PathBuf,
    bytes: Vec<u8>,
    appended: Bodies,
}

impl Lagging {
    fn new() -> Self {
        let folder = folder();
        let options = options(folder.path());
        let mut log = new(&options);
        let note = std::fs::read(options.folder.join("acked")).expect("a note");
        let appended: Bodies = (1..=FRAMES).map(|number| vec![number as u8; 1_100]).collect();
        for body in &appended {
            append(&mut log, body);
        }
        drop(log);
        std::fs::write(options.folder.join("acked"), note).expect("written");
        let path = names::file(&options.folder, 1);
        let bytes = std::fs::read(&path).expect("a file");
        Self { _folder: folder, options, path, bytes, appended }
    }

    fn write(&self, bytes: &[u8]) {
        std::fs::write(&self.path, bytes).expect("written");
    }

    /// Every block of every frame: its frame, its index, and its place.
    fn blocks() -> impl Iterator<Item = (usize, usize, usize)> {
        (0..FRAMES * FRAME_BLOCKS)
            .map(|block| (block / FRAME_BLOCKS + 1, block % FRAME_BLOCKS, (1 + block) * BLOCK))
    }
}

#[test]
fn a_changed_block_is_damage_wherever_it_is() {
    let log = Lagging::new();
    for (frame, index, at) in Lagging::blocks() {
        for bits in [[0, 1], [70, 4_000], [160, 161], [2_000, 3_000]] {
            let mut bytes = log.bytes.clone();
            bits.iter().for_each(|bit| bytes[at + bit / 8] ^= 1 << (bit % 8));
            log.write(&bytes);
            let verified =
                verify(&log.options, Position(0), Position(0)).expect("readable").damages;
            let [damage] = &*verified else { panic!("{verified:?}") };
            let expected = (DamageKind::Block, (at / BLOCK) as u32, Position(frame as u64));
            assert_eq!((damage.kind, damage.block.expect("a block"), damage.from), expected);
            // As far as is known, the first block of the last frame belonged to the last one; maybe there were more.
            let to = (frame < FRAMES).then_some(damage.from);
            assert_eq!(damage.to, to, "frame {frame} block {index}");
        }
    }
}

#[test]
fn a_missing_block_is_the_end_only_in_the_last_frame() {
    let log = Lagging::new();
    for (frame, index, at) in Lagging::blocks() {
        let mut bytes = log.bytes.clone();
        bytes[at..at + BLOCK].fill(0);
        log.write(&bytes);
        let verified = verify(&log.options, Position(0), Position(0)).expect("readable");
        let lost: Vec<_> = verified.damages.iter().map(|damage| (damage.from, damage.to)).collect();
        if frame < FRAMES {
            let frame = Position(frame as u64);
            assert_eq!(lost, [(frame, Some(frame))], "block {index}");
        } else {
            assert_eq!((lost, verified.read.last), (vec![], Position(FRAMES as u64 - 1)));
        }
    }
}

#[test]
fn a_changed_block_is_damage_also_behind_one_that_is_missing() {
    let log = Lagging::new();
    let mut bytes = log.bytes.clone();
    let last = (1 + (FRAMES - 1) * FRAME_BLOCKS) * BLOCK;
    bytes[last..last + BLOCK].fill(0);
    bytes[last + BLOCK + 100..][..100].fill(0xff);
    log.write(&bytes);
    let verified = verify(&log.options, Position(0), Position(0)).expect("readable");
    assert_eq!(verified.damages[0].from, Position(FRAMES as u64));
}

#[test]
fn a_block_of_a_later_frame_is_missed_by_what_comes_before_it() {
    let log = Lagging::new();
    let mut bytes = log.bytes.clone();
    // The fourth frame, and the first block of the fifth.
    bytes[10 * BLOCK..14 * BLOCK].fill(0);
    log.write(&bytes);
    let verified = verify(&log.options, Position(0), Position(0)).expect("readable");
    let [damage] = &*verified.damages else { panic!("{:?}", verified.damages) };
    assert_eq!((damage.kind, damage.from), (DamageKind::BlockMissing, Position(4)));
}

#[test]
fn a_block_that_stands_behind_the_end_as_well_is_damage() {
    let log = Lagging::new();
    let mut bytes = log.bytes.clone();
    bytes.copy_within(4 * BLOCK..5 * BLOCK, 18 * BLOCK);
    log.write(&bytes);
    let verified = verify(&log.options, Position(0), Position(0)).expect("readable");
    let [damage] = &*verified.damages else { panic!("{:?}", verified.damages) };
    assert_eq!((damage.kind, damage.from), (DamageKind::Misplaced, Position(6)));
}

#[test]
fn a_file_in_the_place_of_another_is_not_taken_for_it() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    append(&mut log, b"one");
    log.writer.finish_file().expect("begun");
    append(&mut log, b"two");
    drop(log);
    let path = |number| names::file(&options.folder, number);
    std::fs::copy(path(2), path(1)).expect("copied");
    let verified = verify(&options, Position(0), Position(0)).expect("readable");
    let [damage] = &*verified.damages else { panic!("{:?}", verified.damages) };
    let (file, kind, lost) = (damage.file, damage.kind, (damage.from, damage.to));
    assert_eq!((file, kind), (1, DamageKind::Header));
    assert_eq!(lost, (Position(1), Some(Position(1))));
}

#[test]
fn a_lost_header_loses_nothing() {
    let log = Lagging::new();
    for at in [0, log.bytes.len() - BLOCK] {
        let mut bytes = log.bytes.clone();
        bytes[at..at + BLOCK].fill(0);
        let other = log.bytes.len() - BLOCK - at;
        bytes[other + 40] ^= 1;
        log.write(&bytes);
        let verified = verify(&log.options, Position(0), Position(0)).expect("readable");
        assert_eq!((verified.frames, verified.damages), (FRAMES as u64, vec![]));
    }
}

#[test]
fn a_file_that_was_cut_off_is_damage_wherever_it_was() {
    let log = Lagging::new();
    for len in (0..log.bytes.len()).step_by(101) {
        log.write(&log.bytes[..len]);
        let verified = verify(&log.options, Position(0), Position(0)).expect("readable");
        let [damage] = &*verified.damages else { panic!("{len}: {:?}", verified.damages) };
        let whole = ((len / BLOCK).saturating_sub(1) / FRAME_BLOCKS).min(FRAMES) as u64;
        assert_eq!((damage.from, damage.to), (Position(whole + 1), None), "{len} bytes");
    }
}

#[test]
fn blocks_in_each_others_place_are_damage() {
    let log = Lagging::new();
    for (_, _, one) in Lagging::blocks() {
        for (_, _, other) in Lagging::blocks().filter(|(_, _, other)| *other != one) {
            let mut bytes = log.bytes.clone();
            bytes.copy_within(one..one + BLOCK, other);
            log.write(&bytes);
            let verified = verify(&log.options, Position(0), Position(0)).expect("readable");
            assert_ne!(verified.damages, [], "{one} at {other}");
        }
    }
}

#[test]
fn a_repair_that_made_a_block_worse_is_noticed() {
    // The sum does not notice if these four bits change: if three of them do, the fourth seems to be the wrong one.
    let four = [182, 322, 973, 3_188];
    let log = Lagging::new();
    let mut bytes = log.bytes.clone();
    four[..3].iter().for_each(|bit| bytes[2 * BLOCK + bit / 8] ^= 1 << (bit % 8));
    log.write(&bytes);
    let opened = reopen_damaged(&log.options, 0);
    opened.assert_honest(&log.appended);
    assert_eq!(opened.damages[0].kind, DamageKind::Frame);
}

#[test]
fn a_file_that_was_lost_right_after_it_was_begun_is_missed() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    append(&mut log, b"one");
    log.writer.finish_file().expect("begun");
    let note = std::fs::read(options.folder.join("acked")).expect("a note");
    append(&mut log, b"two");
    drop(log);
    std::fs::write(options.folder.join("acked"), note).expect("written");
    std::fs::remove_file(names::file(&options.folder, 2)).expect("removed");
    let verified = verify(&options, Position(0), Position(0)).expect("readable");
    let [damage] = &*verified.damages else { panic!("{:?}", verified.damages) };
    assert_eq!((damage.kind, damage.file), (DamageKind::FileMissing, 2));
    assert_eq!((damage.from, damage.to), (Position(2), None));
    drop(reopen_damaged(&options, 0));
    assert_eq!(names::list(&options.folder).expect("a folder").files, [1, 3], "2 was used");
}

#[test]
fn a_log_that_was_closed_is_known_to_have_nothing_behind() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    for number in 0..5_u8 {
        append(&mut log, &[number; 4_500]);
    }
    log.writer.close().expect("closed");
    let lost = |from: u64| {
        let verified = verify(&options, Position(from), Position(0)).expect("readable");
        verified.damages.iter().map(|damage| (damage.from, damage.to)).collect::<Vec<_>>()
    };
    let last = names::file(&options.folder, 2);
    let bytes = std::fs::read(&last).expect("a file");
    std::fs::write(&last, &bytes[..bytes.len() - 600]).expect("written");
    assert_eq!(lost(0), [], "what was cut off was not used");
    std::fs::remove_file(&last).expect("removed");
    assert_eq!(lost(0), [(Position(4), Some(Position(5)))]);
    assert_eq!(lost(4), [(Position(5), Some(Position(5)))]);
    assert_eq!(lost(5), []);
    assert_eq!(lost(6), [(Position(7), None)], "then the note is older than what is known");
}

#[test]
fn a_log_that_went_on_after_it_was_closed_is_not_taken_for_closed() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    append(&mut log, b"one");
    log.writer.close().expect("closed");
    let mut log = reopen(&options, 1).log;
    append(&mut log, b"two");
    drop(log);
    std::fs::remove_file(names::file(&options.folder, 2)).expect("removed");
    let verified = verify(&options, Position(1), Position(0)).expect("readable");
    assert_eq!((verified.damages[0].from, verified.damages[0].to), (Position(2), None));
}

#[test]
fn an_older_copy_of_everything_is_noticed_by_what_the_caller_knows() {
    let folder = folder();
    let options = options(folder.path());
    let mut log = new(&options);
    append(&mut log, b"one");
    log.writer.close().expect("closed");
    // The caller had three frames.
    let verified = verify(&options, Position(3), Position(0)).expect("readable");
    assert_eq!((verified.damages[0].from, verified.damages[0].to), (Position(4), None));
}

#[test]
fn numbers_of_lost_frames_are_not_given_out_again() {
    let log = Lagging::new();
    let mut bytes = log.bytes.clone();
    // The first block of the fourth frame, and the rest of it and the fifth without its first one.
    bytes[10 * BLOCK..11 * BLOCK].fill(0xff);
    bytes[13 * BLOCK..14 * BLOCK].fill(0);
    log.write(&bytes);
    let mut opened = reopen_damaged(&log.options, 0);
    assert!(opened.log.last >= Position(5));
    let next = append(&mut opened.log, b"next");
    drop(opened);
    let again = reopen_damaged(&log.options, 5);
    assert_eq!(again.frames, [(next, b"next".to_vec())]);
}
