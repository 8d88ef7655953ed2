//! Removing erased content from the files of directories: no file has it afterwards, and everything else is still there.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::frame;
use super::gone::Gone;
use super::kept;
use crate::model::{
    Batch, EntryId, EntryRef, Origin, PublicKey, Segment, SegmentBuilder, Sequence,
};
use crate::storage::archive::Kind;
use crate::storage::commit_log::Position;
use crate::storage::sled::key::Ordinal;
use crate::storage::sled::keyspace::Keyspace;
use crate::storage::sled::record::{Record, RecordWriter, records};
use crate::storage::sled::tests::soon;
use crate::storage::sled::{Database, DatabaseOptions, ScrubOptions, SledStorage};
use crate::storage::witness::{FrameSalt, StoreHash};
use crate::storage::{Storage, StoreLog};
use crate::testing::storage::{ids, read_all};
use crate::testing::{store, wait};

const SECRET: &str = "the secret of somebody";

fn segment(first: Sequence, entries: &[(EntryId, String, String)]) -> Segment {
    let mut builder = SegmentBuilder::new(first);
    for (id, key, payload) in entries {
        let payload = payload.as_bytes();
        let entry = EntryRef { id: *id, event: "E", primary_key: key, payload };
        let origin = Origin::Client(PublicKey::new(key.clone()).expect("a key"));
        builder.push(Batch::from_entries([entry]).record(0).expect("a slot"), &origin);
    }
    builder.finish().remove(0)
}

/// The hash of a store with the content of these frames.
fn hash(frames: &[Vec<u8>], of: Ordinal) -> StoreHash {
    let (mut hash, mut salt, mut digested) = (StoreHash::default(), FrameSalt::default(), None);
    for record in frames.iter().flat_map(|frame| records(frame)) {
        match record.expect("a record") {
            Record::Salt(of_frame) => salt = of_frame,
            Record::Digests { digests, .. } => digested = Some(digests),
            Record::Entries { ordinal, segment } => {
                let digests = digested.take();
                if ordinal == of && !segment.is_gap() {
                    hash = match digests {
                        Some(digests) => hash.with_digests(&segment, &digests),
                        None => hash.with_append(&segment, salt.append(ordinal, segment.first())),
                    }
                    .expect("whole");
                }
            }
            _ => {}
        }
    }
    hash
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

proptest! {
    /// This is done twice, since entries of a frame may be erased at different times.
    #[test]
    fn a_frame_loses_what_is_erased_and_nothing_else(
        sizes in proptest::collection::vec((0..3_u32, 1..6_usize), 1..8),
        first_gone in proptest::collection::btree_set((0..3_u32, 0..12_u64), 0..12),
        then_gone in proptest::collection::btree_set((0..3_u32, 0..12_u64), 0..12),
        is_base: bool,
    ) {
        let kind = if is_base { Kind::Base } else { Kind::Log };
        let mut next = [Sequence::FIRST; 3];
        let mut all = Vec::new();
        let (mut body, mut writer) = (Vec::new(), RecordWriter::default());
        let mut out = |part: &[u8]| body.extend_from_slice(part);
        writer.store(1, &store("b"), &mut out);
        writer.salt(&FrameSalt::random(), &mut out);
        for (ordinal, count) in sizes {
            let at = &mut next[ordinal as usize];
            let entries: Vec<_> = ids(count).into_iter().zip(0_u64..).map(|(id, n)| {
                let name = format!("{ordinal}-{}", at.plus(n));
                (id, format!("key of {name};"), format!("payload of {name};"))
            }).collect();
            let segment = segment(*at, &entries);
            all.extend(segment.iter().map(|(at, entry)| (ordinal, at, entry.id)));
            *at = segment.last().next();
            writer.entries(ordinal, &segment, &mut out);
        }
        writer.change(Keyspace::Registry, b"k", Some(b"v"), &mut out);
        let mut frames = vec![body];
        let mut gone = Gone::default();
        let mut erased = BTreeSet::new();
        for part in [first_gone, then_gone] {
            for (ordinal, n) in part {
                gone.erase(ordinal, Sequence::FIRST.plus(n));
                erased.insert((ordinal, Sequence::FIRST.plus(n)));
            }
            gone.sort();
            let before = frames[0].clone();
            let written = frame::without(&gone, (kind, Position(7)), &before).expect("records");
            let body = written.unwrap_or(before);
            let again = frame::without(&gone, (kind, Position(7)), &body).expect("records");
            prop_assert_eq!(again, None, "nothing more is to be done");
            if kind == Kind::Log {
                for ordinal in 0..3 {
                    let hashes = [&frames, &vec![body.clone()]].map(|frames| hash(frames, ordinal));
                    prop_assert_eq!(hashes[0], hashes[1]);
                }
            }
            frames = vec![body];
        }
        let mut left = Vec::new();
        for record in records(&frames[0]) {
            if let Record::Entries { ordinal, segment } = record.expect("a record") {
                left.extend(segment.ids().map(|(at, id)| (ordinal, at, id)));
            }
        }
        prop_assert_eq!(&left, &all, "ids and sequences stay");
        for (ordinal, at, _) in all {
            let is_gone = erased.contains(&(ordinal, at));
            for text in [format!("key of {ordinal}-{at};"), format!("payload of {ordinal}-{at};")] {
                prop_assert_eq!(has(&frames[0], &text), !is_gone, "{}", text);
            }
        }
        prop_assert!(has(&frames[0], "key of") || !has(&frames[0], "payload of"));
        let is_salted = records(&frames[0]).any(|it| matches!(it, Ok(Record::Salt(_))));
        let lost = left.iter().any(|(ordinal, at, _)| erased.contains(&(*ordinal, *at)));
        prop_assert_eq!(is_salted, is_base || !lost, "with the salt it could be guessed");
    }
}

#[test]
fn what_was_taken_out_of_quarantine_goes_and_what_is_in_it_stays() {
    let change = |key: &[u8], value: Option<&[u8]>| {
        let (mut body, mut writer) = (Vec::new(), RecordWriter::default());
        writer.change(Keyspace::Quarantine, key, value, |part| body.extend_from_slice(part));
        body
    };
    let (kept, removed, again) = (b"\x02kept", b"\x02removed", b"\x02again");
    let frames = [
        change(kept, Some(b"1")),
        change(removed, Some(SECRET.as_bytes())),
        change(again, Some(b"3")),
        change(removed, None),
        change(again, None),
        change(again, Some(b"6")),
    ];
    let mut gone = Gone::default();
    for (position, body) in (1..).map(Position).zip(&frames) {
        gone.note(position, body).expect("records");
    }
    gone.sort();
    let changed = |kind, position| {
        frame::without(&gone, (kind, Position(position)), &frames[position as usize - 1])
            .expect("records")
    };
    let expected = [None, Some(vec![]), Some(vec![]), None, None, None];
    assert_eq!([1, 2, 3, 4, 5, 6].map(|position| changed(Kind::Log, position)), expected);
    // A base that includes frame 5 was written after that.
    let in_base = |body| frame::without(&gone, (Kind::Base, Position(5)), body).expect("records");
    assert_eq!(in_base(&frames[2]), None);
}

fn options() -> DatabaseOptions {
    DatabaseOptions {
        ballast_bytes: 0,
        log_file_bytes: 64 << 10,
        checkpoint_bytes: 40_000,
        checkpoint_every: Duration::from_secs(600),
        scrub: ScrubOptions { after: Duration::ZERO, kept_aside: Duration::from_secs(600) },
        ..Default::default()
    }
}

fn open(directory: &Path, options: &DatabaseOptions) -> SledStorage {
    SledStorage::new(Database::open(directory, options.clone()).expect("open"))
}

fn write(log: &dyn StoreLog, count: usize, what: &str) -> Vec<(Sequence, EntryId)> {
    let mut written = Vec::new();
    for part in ids(count).chunks(50) {
        let entries = |n: usize| format!("{what} {n} {}", "x".repeat(n % 40));
        let entries: Vec<_> = part
            .iter()
            .enumerate()
            .map(|(n, id)| (*id, format!("key-{what}"), entries(n)))
            .collect();
        let segment = segment(log.head().next(), &entries);
        written.extend(segment.ids());
        wait(log.append(vec![segment])).expect("appended");
    }
    written
}

/// The files with this text. Archives are decompressed, and the blocks of the log are joined.
fn files_with(directory: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
            continue;
        }
        // The server may have removed it meanwhile.
        let Ok(mut bytes) = std::fs::read(&path) else { continue };
        let name = path.display().to_string();
        if name.strip_suffix(".zst").is_some() {
            bytes = zstd::decode_all(&bytes[..]).expect("zstd");
        } else if name.contains("/log/") {
            bytes =
                bytes.chunks(512).flat_map(|block| block[20.min(block.len())..].to_vec()).collect();
        }
        if has(&bytes, text) {
            found.push(name);
        }
    }
    found
}

fn clean(storage: &SledStorage) {
    let scrub = &storage.database.shared().scrub;
    soon(|| {
        let note = scrub.standing().note.expect("something was erased");
        note.clean_millis.map(drop)
    });
}

#[test]
fn no_file_has_what_was_erased_and_everything_can_be_built_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let storage = open(path, &options());
    let log = storage.open(&store("a")).expect("open");
    write(&*log, 2_000, "common");
    let secret = write(&*log, 3, SECRET);
    write(&*log, 2_000, "common");
    // This makes some of it be in the archive and in sled, and files are reused.
    storage.snapshot().expect("archived");
    let late = write(&*log, 2, SECRET);
    assert!(!files_with(path, SECRET).is_empty());
    let hash = storage.hash(&store("a")).expect("a hash");
    wait(log.erase(&secret)).expect("erased");
    clean(&storage);
    let erased: Vec<_> = late.iter().copied().chain(secret).collect();
    wait(log.erase(&late)).expect("erased");
    clean(&storage);
    assert_eq!(files_with(path, SECRET), Vec::<String>::new());
    assert_eq!(storage.hash(&store("a")).expect("a hash"), hash);
    let entries = |storage: &SledStorage| {
        let log = storage.open(&store("a")).expect("open");
        let read = read_all(&*log, 1 << 20);
        let known =
            log.lookup(&erased.iter().map(|(_, id)| *id).collect::<Vec<_>>()).expect("read");
        assert!(known.into_iter().eq(erased.iter().map(|(at, _)| Some(*at))));
        read.iter().flat_map(Segment::ids).collect::<Vec<_>>()
    };
    let all = entries(&storage);
    assert_eq!(all.len(), 4_000);
    drop(log);
    storage.database.close().expect("closed");
    drop(storage);
    assert_eq!(Database::verify(path, &options()).expect("read").faults, []);
    std::fs::remove_file(path.join("sled/db")).expect("removed");
    let storage = open(path, &options());
    assert_eq!(entries(&storage), all);
    assert_eq!(storage.hash(&store("a")).expect("a hash"), hash);
    assert_eq!(files_with(path, SECRET), Vec::<String>::new());
}

#[test]
fn what_is_stopped_in_the_middle_goes_on_with_the_next_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let late = DatabaseOptions {
        scrub: ScrubOptions { after: Duration::from_secs(3_600), ..options().scrub },
        ..options()
    };
    let storage = open(path, &late);
    let log = storage.open(&store("a")).expect("open");
    let secret = write(&*log, 3, SECRET);
    storage.snapshot().expect("archived");
    wait(log.erase(&secret)).expect("erased");
    drop(log);
    storage.database.close().expect("closed");
    drop(storage);
    assert!(!files_with(path, SECRET).is_empty());
    // A crash between the new version of a file and the removal of the previous one.
    let file = path.join("archive/00000001.log.zst");
    let old = std::fs::read(&file).expect("archived");
    let storage = open(path, &options());
    clean(&storage);
    storage.database.close().expect("closed");
    drop(storage);
    assert_eq!(files_with(path, SECRET), Vec::<String>::new());
    assert!(!file.exists() && path.join("archive/00000001.2.log.zst").is_file());
    std::fs::write(&file, old).expect("written");
    let storage = open(path, &options());
    assert_eq!(files_with(path, SECRET), Vec::<String>::new());
    storage.database.close().expect("closed");
}

#[test]
fn what_was_kept_aside_before_goes_in_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let storage = open(path, &options());
    let log = storage.open(&store("a")).expect("open");
    let secret = write(&*log, 3, SECRET);
    let aside = path.join("sled.damaged-1");
    std::fs::create_dir(&aside).expect("made");
    std::fs::write(aside.join("db"), SECRET).expect("written");
    wait(log.erase(&secret)).expect("erased");
    clean(&storage);
    drop(log);
    storage.database.close().expect("closed");
    drop(storage);
    assert_eq!(files_with(path, SECRET), [aside.join("db").display().to_string()]);
    let soon_gone = DatabaseOptions {
        scrub: ScrubOptions { kept_aside: Duration::ZERO, ..options().scrub },
        ..options()
    };
    let storage = open(path, &soon_gone);
    let log = storage.open(&store("a")).expect("open");
    std::thread::sleep(Duration::from_millis(20));
    wait(log.erase(&write(&*log, 1, "more"))).expect("erased");
    soon(|| (!aside.exists()).then_some(()));
    // What is kept aside after that has none of it.
    clean(&storage);
    std::thread::sleep(Duration::from_millis(20));
    let later = path.join("sled.damaged-2");
    std::fs::create_dir(&later).expect("made");
    let clean = storage.database.shared().scrub.standing().note.and_then(|note| note.clean_millis);
    let folders = [path.to_owned()];
    assert_eq!(kept::before(&folders, clean.expect("clean")).expect("read"), []);
    assert_eq!(kept::list(&folders).expect("read").len(), 1);
}

#[test]
fn what_was_trimmed_before_its_store_was_erased_goes_as_well() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let storage = open(path, &options());
    let log = storage.open(&store("a")).expect("open");
    write(&*log, 200, SECRET);
    storage.snapshot().expect("archived");
    let last = log.head();
    wait(log.trim(last)).expect("trimmed");
    let later = write(&*log, 1, "later");
    let other = storage.open(&store("b")).expect("open");
    let names = ids(1);
    let entries = [(names[0], "key".to_owned(), "of another store".to_owned())];
    wait(other.append(vec![segment(other.head().next(), &entries)])).expect("appended");
    storage.snapshot().expect("archived");
    assert!(!files_with(&path.join("archive"), SECRET).is_empty());
    let first = log.first_known().expect("read").expect("an id");
    assert_eq!(first.0, Sequence::FIRST);
    log.note_erased(last, first).expect("noted");
    storage.content_is_erased().expect("noted");
    clean(&storage);
    assert_eq!(files_with(path, SECRET), Vec::<String>::new());
    assert!(!files_with(path, "of another store").is_empty());
    assert_eq!(read_all(&*log, 1 << 20).iter().flat_map(Segment::ids).collect::<Vec<_>>(), later);
    let known = log.lookup(&[first.1]).expect("read");
    assert_eq!(known, [Some(Sequence::FIRST)], "it stays known");
    drop((log, other));
    storage.database.close().expect("closed");
    drop(storage);
    assert_eq!(Database::verify(path, &options()).expect("read").faults, []);
    let report = Database::verify_erased(path, &options(), Some(SECRET)).expect("read");
    assert!(report.is_clean() && report.entries >= 200, "{report:?}");
}

#[test]
fn half_made_files_that_nobody_goes_on_with_do_not_keep_it_waiting_and_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let storage = open(path, &options());
    let log = storage.open(&store("a")).expect("open");
    let secret = write(&*log, 3, SECRET);
    storage.snapshot().expect("archived");
    drop(log);
    storage.database.close().expect("closed");
    drop(storage);
    let mut without = options();
    without.archive.enabled = false;
    let some = zstd::encode_all(SECRET.as_bytes(), 1).expect("zstd");
    for name in ["archive/00000009.base.zst.new", "archive/00000009.log.zst.new"] {
        std::fs::write(path.join(name), &some).expect("written");
    }
    for name in ["shipping/1.log.zst", "spill/1", "rebuilding/db", "renewing/log"] {
        let path = path.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, SECRET).expect("written");
    }
    let storage = open(path, &without);
    let log = storage.open(&store("a")).expect("open");
    wait(log.erase(&secret)).expect("erased");
    clean(&storage);
    assert_eq!(files_with(path, SECRET), Vec::<String>::new());
    for name in ["archive/00000009.base.zst.new", "shipping", "rebuilding", "renewing"] {
        assert!(!path.join(name).exists(), "{name}");
    }
    // One that is left although the archive is on: whoever wrote it has failed.
    drop(log);
    storage.database.close().expect("closed");
    drop(storage);
    let storage = open(path, &options());
    std::fs::write(path.join("archive/00000009.base.zst.new"), &some).expect("written");
    let log = storage.open(&store("a")).expect("open");
    wait(log.erase(&write(&*log, 1, "more"))).expect("erased");
    clean(&storage);
    assert!(!path.join("archive/00000009.base.zst.new").exists());
    drop(log);
    storage.database.close().expect("closed");
}

#[test]
fn the_check_knows_from_the_ledger_what_is_erased() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let mut without = options();
    without.archive.enabled = false;
    let storage = open(path, &without);
    let log = storage.open(&store("a")).expect("open");
    let secret = write(&*log, 3, SECRET);
    wait(log.erase(&secret)).expect("erased");
    clean(&storage);
    let known = |running: bool, names: &[&str]| {
        let report = Database::verify_erased(path, &without, None).expect("read");
        assert_eq!(report.ids.len(), 3, "running: {running}, without {names:?}");
        assert!(report.is_clean() && report.unread.is_empty());
        assert!(secret.iter().all(|(_, id)| report.ids.contains(id)));
    };
    known(true, &[]);
    drop(log);
    storage.database.close().expect("closed");
    drop(storage);
    known(false, &[]);
    // A damaged copy changes nothing.
    let damaged = std::fs::read(path.join("erased.a")).expect("a ledger");
    std::fs::write(path.join("erased.a"), vec![0; damaged.len()]).expect("written");
    known(false, &["erased.a"]);
    std::fs::write(path.join("erased.b"), [vec![0; 60], damaged[60..].to_vec()].concat())
        .expect("written");
    let report = Database::verify_erased(path, &without, None).expect("read");
    assert_eq!(report.unread, ["it ends with record 0, and had 1"]);
}
