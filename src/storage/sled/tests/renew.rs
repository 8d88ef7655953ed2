//! Directories that continue as another server: their contents are there, and every store is far above where it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::checkpoints::{copy_into, copy_of_running};
use crate::model::{EntryId, Segment, Sequence};
use crate::storage::Storage;
use crate::storage::sled::files::Files;
use crate::storage::sled::{Database, DatabaseOptions, SledStorage, renew};
use crate::testing::storage::{all_ids, append, ids};
use crate::testing::store;

const JUMP: u64 = 1_000_000_000;

fn options() -> DatabaseOptions {
    DatabaseOptions { ballast_bytes: 1 << 20, ..DatabaseOptions::default() }
}

fn open(directory: &Path) -> SledStorage {
    SledStorage::new(Database::open(directory, options()).expect("open"))
}

fn close(storage: &SledStorage) {
    storage.database.close().expect("closed");
}

/// The ids of each store.
type Ground = BTreeMap<String, Vec<EntryId>>;

/// Some stores, whose last entries are only in the log if it is copied while it is open.
fn directory(ground: &mut Ground) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let storage = open(directory.path());
    write(&storage, ground);
    close(&storage);
    let storage = open(directory.path());
    write(&storage, ground);
    let copy = copy_of_running(directory.path());
    drop(storage);
    copy
}

fn write(storage: &SledStorage, ground: &mut Ground) {
    for (name, count) in [("a", 3), ("b", 9_000), ("c", 1)] {
        let log = storage.open(&store(name)).expect("open");
        let written = ids(count);
        append(&*log, &written, 10);
        ground.entry(name.into()).or_default().extend(written);
    }
}

/// Everything is there, and each store continues above `jumps` jumps.
fn check(storage: &SledStorage, ground: &Ground, jumps: u64) {
    for (name, expected) in ground {
        let log = storage.open(&store(name)).expect("open");
        assert_eq!(all_ids(&*log), *expected, "store {name}");
        assert_eq!(log.head().get(), expected.len() as u64 + jumps * JUMP, "store {name}");
        let size = storage.size(&store(name)).expect("a size");
        assert_eq!(size.entries, expected.len() as u64);
        let again = log.lookup(expected).expect("a lookup");
        assert!(again.iter().all(Option::is_some), "store {name} has forgotten an id");
    }
    let unheard_of = storage.open(&store("unheard of")).expect("open");
    assert_eq!(unheard_of.head().get(), jumps * JUMP);
    let read = unheard_of.read(Sequence::FIRST, 1).expect("a read");
    assert!(read.iter().all(Segment::is_gap) && read.is_empty() == (jumps == 0));
}

fn whole(directory: &Path) {
    let verified = Database::verify(directory, &options()).expect("read");
    assert_eq!(verified.faults, []);
}

/// Only archive and log are left: the database comes back from them.
fn rebuilt(directory: &Path) -> SledStorage {
    std::fs::remove_file(directory.join("sled/db")).expect("removed");
    open(directory)
}

#[test]
fn every_store_goes_on_far_above_and_keeps_its_entries_however_often() {
    let mut ground = Ground::new();
    let directory = directory(&mut ground);
    let path = directory.path();
    let mut remote_ids = Vec::new();
    for jumps in 1..=5 {
        Database::heal(path, &options()).expect("healed");
        whole(path);
        let storage = open(path);
        check(&storage, &ground, jumps);
        assert!(!remote_ids.contains(&storage.remote_id()));
        remote_ids.push(storage.remote_id());
        if jumps == 3 {
            // No entries in between.
            close(&storage);
            continue;
        }
        write(&storage, &mut ground);
        // A new store begins as high as one that may have existed.
        let name = format!("new {jumps}");
        let log = storage.open(&store(&name)).expect("open");
        let first = append(&*log, &ids(2), 10);
        assert_eq!(first[0].first().get(), jumps * JUMP + 1);
        ground.insert(name, first.iter().flat_map(Segment::ids).map(|(_, id)| id).collect());
        check(&storage, &ground, jumps);
        close(&storage);
        whole(path);
        let storage = rebuilt(path);
        check(&storage, &ground, jumps);
        close(&storage);
    }
}

#[test]
fn a_loss_that_is_accepted_jumps_as_well() {
    let mut ground = Ground::new();
    let directory = directory(&mut ground);
    let path = directory.path();
    // What only the log has is lost with it.
    for entry in std::fs::read_dir(path.join("log")).expect("a folder") {
        std::fs::remove_file(entry.expect("a file").path()).expect("removed");
    }
    assert!(Database::open(path, options()).is_err());
    let refused = Database::heal(path, &options());
    assert!(refused.is_err(), "{refused:?}");
    Database::accept_loss(path, &options()).expect("accepted");
    ground.values_mut().for_each(|ids| ids.truncate(ids.len() / 2));
    let storage = open(path);
    check(&storage, &ground, 1);
    write(&storage, &mut ground);
    check(&storage, &ground, 1);
}

/// Changes all frames of the log that have this entry, in more than one bit.
fn damage(directory: &Path, id: EntryId) {
    let mut found = 0;
    for entry in std::fs::read_dir(directory.join("log")).expect("a folder") {
        let path = entry.expect("a file").path();
        let mut bytes = std::fs::read(&path).expect("a file");
        let at = bytes.windows(16).position(|window| window == id.as_bytes());
        for byte in at.into_iter().flat_map(|at| at..at + 16) {
            bytes[byte] ^= 0x5a;
            found += 1;
        }
        std::fs::write(&path, bytes).expect("written");
    }
    assert_eq!(found, 16);
}

/// Everything that came behind it in its store was given up.
#[test]
fn a_damaged_frame_costs_what_it_had_and_nothing_behind_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let storage = open(directory.path());
    let written: Vec<Vec<EntryId>> = (0..6).map(|_| ids(3)).collect();
    let (a, b) = (storage.open(&store("a")).expect("open"), storage.open(&store("b")));
    let b = b.expect("open");
    for ids in &written {
        append(&*a, ids, 10);
    }
    let others = ids(2);
    append(&*b, &others, 10);
    let copy = copy_of_running(directory.path());
    drop((a, b, storage));
    let path = copy.path();
    damage(path, written[1][1]);
    damage(path, written[4][0]);
    assert!(Database::open(path, options()).is_err());
    let lost = Database::accept_loss(path, &options()).expect("accepted").lost;
    assert!(lost.last().is_some_and(|lost| lost.contains("\"a\" has lost")), "{lost:?}");
    assert!(!lost.iter().any(|lost| lost.contains("\"b\"")), "{lost:?}");
    let at = |batch: u64, n: u64| Some(Sequence::FIRST.plus(batch * 3 + n));
    let check = |storage: &SledStorage, again: &[EntryId]| {
        let a = storage.open(&store("a")).expect("open");
        let kept = [0, 2, 3, 5].into_iter().flat_map(|n| written[n].clone());
        let kept: Vec<EntryId> = kept.chain(again.iter().copied()).collect();
        assert_eq!(all_ids(&*a), kept);
        assert_eq!(a.head(), Sequence::ZERO.plus(18 + JUMP + again.len() as u64));
        for batch in [0, 2, 3, 5] {
            let found = a.lookup(&written[batch]).expect("a lookup");
            assert_eq!(found, [0, 1, 2].map(|n| at(batch as u64, n)));
        }
        let found = a.lookup(&written[1]).expect("a lookup");
        let new = again.iter().zip(1..).map(|(_, n)| Some(Sequence::ZERO.plus(18 + JUMP + n)));
        assert_eq!(found, if again.is_empty() { vec![None; 3] } else { new.collect() });
        assert_eq!(all_ids(&*storage.open(&store("b")).expect("open")), others);
    };
    whole(path);
    let storage = open(path);
    check(&storage, &[]);
    // A client that has them sends them again.
    append(&*storage.open(&store("a")).expect("open"), &written[1], 10);
    check(&storage, &written[1]);
    close(&storage);
    whole(path);
    let storage = rebuilt(path);
    check(&storage, &written[1]);
    close(&storage);
}

/// The frame that is lost may be the one that says which store has which number.
#[test]
fn without_its_name_a_store_is_given_up_and_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let storage = open(directory.path());
    let (first, second, other) = (ids(2), ids(2), ids(2));
    let (a, b) = (storage.open(&store("a")).expect("open"), storage.open(&store("b")));
    let b = b.expect("open");
    append(&*a, &first, 10);
    append(&*a, &second, 10);
    append(&*b, &other, 10);
    let copy = copy_of_running(directory.path());
    drop((a, b, storage));
    damage(copy.path(), first[0]);
    let lost = Database::accept_loss(copy.path(), &options()).expect("accepted").lost;
    assert!(lost.iter().any(|lost| lost.contains("2 entries are lost of store")), "{lost:?}");
    let storage = open(copy.path());
    assert_eq!(all_ids(&*storage.open(&store("b")).expect("open")), other);
    assert_eq!(all_ids(&*storage.open(&store("a")).expect("open")), []);
    close(&storage);
    whole(copy.path());
}

/// The state after a crash between any two of the steps in which the new one replaces the old one.
#[test]
fn a_crash_in_between_leaves_the_old_one_or_the_new_one() {
    let mut ground = Ground::new();
    let directory = directory(&mut ground);
    let (files, _) = Files::open(directory.path(), 0).expect("open");
    renew::prepare_heal(&files, &options()).expect("prepared");
    drop(files);
    let complete = directory.path().join("renewing/complete");
    let text = std::fs::read_to_string(&complete).expect("it is complete");
    // Where the archive is, in each copy of its own.
    let at = |path: &Path| {
        let copy = tempfile::tempdir().expect("a directory");
        copy_into(path, copy.path());
        let archive = copy.path().join("archive");
        let text = format!("{}\n{}", text.lines().next().expect("a line"), archive.display());
        std::fs::write(copy.path().join("renewing/complete"), text).expect("written");
        copy
    };
    let begun = at(directory.path());
    std::fs::remove_file(begun.path().join("renewing/complete")).expect("removed");
    check(&open(begun.path()), &ground, 0);
    let aside = |name: &str| (PathBuf::from(name), PathBuf::from(format!("{name}.before-heal-1")));
    let into = |name: &str| (Path::new("renewing").join(name), PathBuf::from(name));
    let names = ["witness.a", "witness.b", "heads.a", "heads.b", "log", "sled"];
    let moved = names.into_iter().flat_map(|name| [aside(name), into(name)]);
    let steps: Vec<_> = [aside("archive")].into_iter().chain(moved).collect();
    for done in 0..=steps.len() {
        let crashed = at(directory.path());
        for (from, to) in &steps[..done] {
            std::fs::rename(crashed.path().join(from), crashed.path().join(to)).expect("moved");
        }
        let storage = open(crashed.path());
        check(&storage, &ground, 1);
        close(&storage);
        whole(crashed.path());
    }
}
