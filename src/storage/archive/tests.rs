//! Archives in a real folder, and what can happen to their files.

use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

use super::{
    Archive, ArchiveDamage, ArchiveDamageKind, ArchiveError, Archived, ArchivedFile, Draft, Kind,
    Plain, Press,
};
use crate::storage::commit_log::{
    self, Appended, FinishedFile, FoundFrame, Generation, Log, LogOptions, Position,
};

const GENERATION: Generation = Generation([7; 16]);

/// The last frame of the example.
const LAST: u64 = 30;

/// The result of reading.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    base: Vec<Vec<u8>>,
    frames: Vec<(u64, Vec<u8>)>,
    damages: Vec<ArchiveDamage>,
}

fn body(number: u64) -> Vec<u8> {
    // Some compress well, some do not, and some are larger than a chunk.
    let len = if number % 11 == 3 { 1_200_000 } else { number as usize * 977 % 60_000 };
    let mut state = number;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    (0..len).map(|at| if number.is_multiple_of(2) { at as u8 } else { random() }).collect()
}

fn log(folder: &TempDir) -> Log {
    let options = LogOptions {
        file_bytes: 1 << 20,
        ..LogOptions::new(folder.path().join("log"), GENERATION)
    };
    commit_log::create(options, Position(0)).expect("a log")
}

fn append(log: &mut Log, frames: std::ops::RangeInclusive<u64>) -> Vec<Appended> {
    let append = |number| {
        let body = body(number);
        let mut frame = log.writer.frame(body.len() as u64).expect("a frame");
        frame.write(&body);
        log.writer.append(frame, number * 10).expect("appended")
    };
    frames.map(append).collect()
}

/// A draft of the log file of `frames`, with all of them.
fn draft(archive: &Archive, frames: &[Appended]) -> Draft {
    let (file, first) = (frames[0].file(), frames[0].file_first);
    let mut draft = archive.draft(file, first).expect("a draft");
    let (mut press, mut plain) = (Press::new().expect("a press"), Plain::default());
    for (at, frame) in frames.iter().enumerate() {
        let bytes = frame.body_bytes() as usize;
        plain.add((frame.position, frame.time_ms), bytes, frame.body());
        if plain.is_full() || at + 1 == frames.len() {
            draft.add(&mut press, &plain, frame.next).expect("added");
            plain.clear();
        }
    }
    draft
}

fn finish(log: &mut Log) -> Vec<FinishedFile> {
    log.writer.finish_file().expect("finished");
    log.files.finished(Position(u64::MAX))
}

fn archive(folder: &TempDir) -> Archive {
    Archive::open(folder.path().join("archive"), GENERATION).expect("an archive")
}

fn read(archive: &Archive) -> Read {
    let mut read = Read::default();
    let outcome = archive.read(|found| {
        match found {
            Archived::Base(part) => read.base.push(part.to_vec()),
            Archived::Frame(frame) => {
                assert_eq!(frame.time_ms, frame.position.0 * 10);
                read.frames.push((frame.position.0, frame.body.to_vec()));
            }
            Archived::Damage(damage) => read.damages.push(damage.clone()),
        }
        Ok::<(), ArchiveError>(())
    });
    outcome.expect("readable");
    read
}

fn base(archive: &Archive, number: u64, last: u64, parts: &[&[u8]]) -> ArchivedFile {
    let parts = parts.iter().map(|part| Ok::<_, ArchiveError>(part.to_vec()));
    archive.write_base(number, Position(last), last * 10, parts).expect("written")
}

fn expected(frames: std::ops::RangeInclusive<u64>) -> Vec<(u64, Vec<u8>)> {
    frames.map(|number| (number, body(number))).collect()
}

/// A base and several log files.
static EXAMPLE: LazyLock<(TempDir, Vec<ArchivedFile>)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, archive) = (log(&folder), archive(&folder));
    base(&archive, 1, 0, &[b"one", b"two"]);
    append(&mut log, 1..=LAST);
    for file in finish(&mut log) {
        archive.write_log(&file, None).expect("written");
    }
    let listing = archive.files().expect("listed");
    assert_eq!(listing.unreadable, []);
    (folder, listing.files)
});

#[test]
fn what_was_archived_is_read_from_its_base_on() {
    let (folder, files) = &*EXAMPLE;
    let archive = archive(folder);
    let found = read(&archive);
    assert_eq!(found.base, [b"one", b"two"]);
    assert_eq!(found.frames, expected(1..=LAST));
    assert_eq!(found.damages, []);
    assert!(files.len() > 3);
    let last = files.last().expect("a file");
    assert_eq!((last.last, last.time_ms), (Position(LAST), LAST * 10));

    for from in [0, 1, 12, LAST - 1, LAST, LAST + 30] {
        let mut numbers = Vec::new();
        let last = archive.read_behind(Position(from), |found| {
            let Archived::Frame(frame) = found else { panic!("{found:?}") };
            numbers.push(frame.position.0);
            Ok::<(), ArchiveError>(())
        });
        assert_eq!(last.expect("readable"), Position(from.max(LAST)));
        assert_eq!(numbers, (from + 1..=LAST).collect::<Vec<_>>());
    }
}

#[test]
fn files_that_go_while_they_are_listed_are_no_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = archive(&folder);
    base(&archive, 1, 1, &[b"one"]);
    let writer = archive.clone();
    let bases = std::thread::spawn(move || {
        for number in 2..=150 {
            let before = writer.files().expect("listed").files;
            base(&writer, number, number, &[b"one"]);
            writer.remove(&before).expect("removed");
        }
    });
    while !bases.is_finished() {
        assert!(archive.files().expect("listed").base().is_some());
    }
    bases.join().expect("written");
}

#[test]
fn zstd_alone_can_read_a_file() {
    let (_, files) = &*EXAMPLE;
    let bytes = std::fs::read(&files[1].path).expect("a file");
    let plain = zstd::stream::decode_all(&*bytes).expect("a zstd file");
    assert_eq!(plain[..8], files[1].first.0.to_be_bytes());
}

#[test]
fn a_newer_base_stands_for_what_is_before_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, archive) = (log(&folder), archive(&folder));
    base(&archive, 1, 0, &[]);
    append(&mut log, 1..=2);
    finish(&mut log);
    append(&mut log, 3..=3);
    for file in finish(&mut log) {
        archive.write_log(&file, None).expect("written");
    }
    base(&archive, 2, 2, &[b"first two"]);
    let found = read(&archive);
    assert_eq!((found.base.len(), found.frames.len(), found.damages.len()), (1, 1, 0));
}

#[test]
fn what_is_archived_already_is_left_alone_and_what_was_spoiled_is_written_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, archive) = (log(&folder), archive(&folder));
    append(&mut log, 1..=6);
    let file = &finish(&mut log)[0];
    let written = archive.write_log(file, None).expect("written").expect("frames");
    let modified = || written.path.metadata().expect("a file").modified().expect("a time");
    let before = modified();
    assert_eq!(archive.write_log(file, None).expect("written"), Some(written.clone()));
    assert_eq!(modified(), before);
    let mut bytes = std::fs::read(&written.path).expect("a file");
    let whole = bytes.clone();
    bytes[600] ^= 0xff;
    std::fs::write(&written.path, bytes).expect("written");
    archive.write_log(file, None).expect("written");
    assert_eq!(std::fs::read(&written.path).expect("a file"), whole);
}

#[test]
fn what_is_in_a_draft_is_not_read_again_and_the_rest_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut log = log(&folder);
    // The last but one is larger than a file, and gets one of its own.
    let frames = append(&mut log, 1..=15);
    let files = finish(&mut log);
    let read_only = Archive::open(folder.path().join("read"), GENERATION).expect("an archive");
    let mut drafted = 0;
    for file in &files {
        let of_file: Vec<&Appended> =
            frames.iter().filter(|frame| frame.file() == file.number).collect();
        let first = frames.iter().position(|frame| frame.file() == file.number).expect("frames");
        let of_file = &frames[first..first + of_file.len()];
        let as_read = read_only.write_log(file, None).expect("written").expect("frames");
        let as_read = std::fs::read(as_read.path).expect("a file");
        let whole = std::fs::read(&file.path).expect("the log file");
        for count in 1..=of_file.len() {
            let folder = folder.path().join(format!("{}-{count}", file.number));
            let archive = Archive::open(folder, GENERATION).expect("an archive");
            let draft = draft(&archive, &of_file[..count]);
            // What the draft has is lost on disk.
            let mut damaged = whole.clone();
            let end = of_file[count - 1].next.block as usize * 512;
            damaged[512..end].fill(0);
            std::fs::write(&file.path, damaged).expect("written");
            let written = archive.write_log(file, Some(draft)).expect("written").expect("frames");
            assert!(written.has_all());
            if count == of_file.len() {
                assert_eq!(std::fs::read(&written.path).expect("a file"), as_read);
            }
            let mut found = Vec::new();
            let collect = |frame: FoundFrame<'_>| {
                found.push((frame.position.0, frame.body.to_vec()));
                Ok::<(), ArchiveError>(())
            };
            written.each(collect).expect("readable");
            assert!(found == expected(file.first.0..=file.last.0));
            drafted += 1;
        }
        std::fs::write(&file.path, whole).expect("written");
    }
    assert!(files.len() > 2 && drafted == 15);
}

#[test]
fn only_a_draft_of_the_same_log_file_is_used_and_none_leaves_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, archive) = (log(&folder), archive(&folder));
    let mut frames = append(&mut log, 1..=2);
    log.writer.finish_file().expect("finished");
    frames.extend(append(&mut log, 4..=5));
    let files = finish(&mut log);
    let names = || std::fs::read_dir(&archive.folder).expect("a folder").count();
    let begun = draft(&archive, &frames[..2]);
    assert_eq!(names(), 1);
    drop(begun);
    assert_eq!(names(), 0);
    let other = draft(&archive, &frames[..1]);
    archive.write_log(&files[1], Some(other)).expect("written");
    let more = draft(&archive, &frames[..2]);
    archive
        .write_log(&FinishedFile { last: Position(1), ..files[0].clone() }, Some(more))
        .expect("written");
    assert_eq!(names(), 2);
    let read = archive.files().expect("listed").files;
    assert_eq!(
        read.iter().map(|file| (file.first.0, file.frames)).collect::<Vec<_>>(),
        [(1, 1), (3, 2)]
    );
}

#[test]
fn an_archive_without_a_base_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = archive(&folder);
    let [damage] = &*read(&archive).damages else { panic!("no damage") };
    let (kind, lost) = (damage.kind, (damage.from, damage.to));
    assert_eq!((kind, lost), (ArchiveDamageKind::Missing, (Position(0), None)));
}

#[test]
fn a_file_that_is_not_read_back_as_it_was_written_gets_no_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = archive(&folder);
    let new = archive.folder.join("00000001.base.zst.new");
    let parts = (0..3).map(|part| {
        if part == 2 {
            // The chunk with the first part is in the file by now.
            let mut bytes = std::fs::read(&new).expect("a file");
            bytes[600] ^= 1;
            std::fs::write(&new, bytes).expect("written");
        }
        Ok::<_, ArchiveError>(vec![part; 1_200_000])
    });
    let outcome = archive.write_base(1, Position(0), 0, parts);
    assert!(matches!(outcome, Err(ArchiveError::ReadBack(_))), "{outcome:?}");
    assert_eq!(std::fs::read_dir(&archive.folder).expect("a folder").count(), 0);
}

#[test]
fn a_file_without_frames_is_not_archived() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut log = log(&folder);
    append(&mut log, 1..=1);
    let mut file = finish(&mut log).remove(0);
    file.last = Position(0);
    assert_eq!(archive(&folder).write_log(&file, None).expect("nothing to do"), None);
}

#[test]
fn a_log_file_with_a_gap_is_archived_and_the_gap_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, archive) = (log(&folder), archive(&folder));
    base(&archive, 1, 0, &[]);
    append(&mut log, 1..=2);
    let file = finish(&mut log).remove(0);
    let mut bytes = std::fs::read(&file.path).expect("a file");
    // The first frame has three blocks after the header.
    bytes[512..1_024].fill(0);
    std::fs::write(&file.path, bytes).expect("written");
    archive.write_log(&file, None).expect("written");
    let found = read(&archive);
    assert_eq!(found.frames.len(), 1);
    let [damage] = &*found.damages else { panic!("{:?}", found.damages) };
    assert_eq!((damage.kind, damage.from.0), (ArchiveDamageKind::Gap, 1));
    assert_eq!(damage.to, Some(Position(1)));
}

#[test]
fn a_rewritten_file_takes_the_place_of_the_old_one_also_after_a_crash() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, archive_before) = (log(&folder), archive(&folder));
    append(&mut log, 1..=2);
    let written = archive_before.write_log(&finish(&mut log)[0], None);
    let written = written.expect("written").expect("frames");
    // This simulates that the process ended before it removed the old one, and while it wrote another one.
    let rewritten = written.path.with_file_name("00000001.2.log.zst");
    std::fs::copy(&written.path, &rewritten).expect("copied");
    std::fs::write(&written.path, b"old").expect("written");
    std::fs::write(rewritten.with_extension("zst.new"), b"half").expect("written");
    let archive = archive(&folder);
    assert_eq!(read(&archive).frames, [(1, body(1)), (2, body(2))]);
    let names = std::fs::read_dir(folder.path().join("archive")).expect("a folder");
    assert_eq!(names.count(), 1);
}

#[test]
fn an_archive_of_another_directory_is_not_read() {
    let (folder, _) = &*EXAMPLE;
    let path = folder.path().join("archive");
    let foreign = Archive::to_read(path, Generation([8; 16]));
    let found = read(&foreign);
    assert_eq!((found.base.len(), found.frames.len()), (0, 0));
    assert!(found.damages.iter().all(|damage| damage.kind == ArchiveDamageKind::Foreign));
    assert!(!found.damages.is_empty());
}

/// Something that happens to one file.
#[derive(Clone, Debug)]
enum Fault {
    Truncated(Index),
    Removed,
    Bit(Index),
    Garbage(Index, Vec<u8>),
    Lost(Index, usize),
    Replaced(Index),
}

fn faults() -> impl Strategy<Value = Fault> {
    let index = any::<Index>;
    prop_oneof![
        index().prop_map(Fault::Truncated),
        Just(Fault::Removed),
        index().prop_map(Fault::Bit),
        (index(), proptest::collection::vec(any::<u8>(), 1..5_000))
            .prop_map(|(at, bytes)| Fault::Garbage(at, bytes)),
        (index(), 1..100_000_usize).prop_map(|(at, len)| Fault::Lost(at, len)),
        index().prop_map(Fault::Replaced),
    ]
}

impl Fault {
    fn happen(&self, path: &PathBuf, mut bytes: Vec<u8>) {
        match self {
            Self::Truncated(at) => bytes.truncate(at.index(bytes.len())),
            Self::Removed => return std::fs::remove_file(path).expect("removed"),
            Self::Bit(bit) => {
                let bit = bit.index(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            Self::Garbage(at, garbage) => {
                let at = at.index(bytes.len());
                let end = bytes.len().min(at + garbage.len());
                bytes[at..end].copy_from_slice(&garbage[..end - at]);
            }
            Self::Lost(at, len) => {
                let at = at.index(bytes.len());
                let end = bytes.len().min(at + len);
                bytes.drain(at..end);
            }
            Self::Replaced(by) => {
                bytes = std::fs::read(&by.get(&EXAMPLE.1).path).expect("a file");
            }
        }
        std::fs::write(path, bytes).expect("written");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_fault_in_one_file_makes_no_frame_wrong_and_lets_none_go_without_a_word(
        file: Index, fault in faults(),
    ) {
        let copy = tempfile::tempdir().expect("a folder");
        let archive = archive(&copy);
        let mut paths = Vec::new();
        for file in &EXAMPLE.1 {
            let path = archive.folder.join(file.path.file_name().expect("a name"));
            std::fs::copy(&file.path, &path).expect("copied");
            paths.push(path);
        }
        let path = file.get(&paths);
        fault.happen(path, std::fs::read(path).expect("a file"));
        let found = read(&archive);
        for (number, found) in &found.frames {
            prop_assert!(*found == body(*number), "frame {} is not what it was", number);
        }
        prop_assert!(found.frames.is_sorted_by(|left, right| left.0 < right.0));
        for part in &found.base {
            prop_assert!(part == b"one" || part == b"two");
        }
        let is_lost = |number: u64| found.damages.iter().any(|damage| {
            damage.from.0 <= number && damage.to.is_none_or(|to| number <= to.0)
        });
        // Only somebody else can know that the newest file is gone.
        let newest = !paths.last().expect("a file").exists();
        let end = if newest { EXAMPLE.1[EXAMPLE.1.len() - 2].last.0 } else { LAST };
        for number in 1..=end {
            let is_given = found.frames.iter().any(|(given, _)| *given == number);
            prop_assert!(is_given || is_lost(number), "frame {} is missing without a word", number);
        }
        prop_assert!(found.base.len() == 2 || is_lost(0));
        let is_base = path == &paths[0];
        let lost = (1..=LAST).filter(|number| is_lost(*number)).count();
        // A fault affects only the chunks that it hit, and the whole file if it hit the head.
        let file = &EXAMPLE.1[paths.iter().position(|other| other == path).expect("one of them")];
        prop_assert!(is_base || file.kind == Kind::Log && lost as u64 <= file.frames);
    }
}
