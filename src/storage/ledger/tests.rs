use std::path::Path;

use super::*;
use crate::model::{EntryId, Sequence};

fn store(name: &str) -> StoreId {
    StoreId::new(name).expect("a name")
}

fn ids(count: usize) -> Vec<EntryId> {
    (0..count).map(|_| EntryId::now()).collect()
}

fn open(folder: &Path) -> Ledger {
    Ledger::open(folder, Some(&folder.join("archive"))).expect("open")
}

fn all(folder: &Path) -> Vec<Erasure> {
    let mut reader = Reader::open(&paths(folder, Some(&folder.join("archive")))).expect("there");
    let mut all = Vec::new();
    while let Some(erasure) = reader.next().expect("read") {
        all.push(erasure);
    }
    all
}

/// A folder with a ledger of three records, and its content.
fn three() -> (tempfile::TempDir, Vec<Erasure>) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("archive")).expect("a folder");
    let mut ledger = open(folder.path());
    let first = (Sequence::FIRST, EntryId::now());
    let last = Sequence::new(17).expect("a sequence");
    for what in [Erased::Entries(ids(3)), Erased::Store { last, first }, Erased::Entries(ids(1))] {
        ledger.add(&store("team"), &what, 1_234).expect("written");
    }
    let there = all(folder.path());
    assert_eq!(there.len(), 3);
    (folder, there)
}

fn change(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

/// The ids of all erased entries of a store, according to the ledger at these [`paths`].
fn erased_in(paths: &[PathBuf], store: &StoreId) -> io::Result<HashSet<EntryId>> {
    let (mut reader, mut erased) = (Reader::open(paths)?, HashSet::new());
    while let Some(erasure) = reader.next()? {
        if erasure.store == *store
            && let Erased::Entries(ids) = erasure.what
        {
            erased.extend(ids);
        }
    }
    Ok(erased)
}

#[test]
fn what_was_added_is_read_again_from_any_copy() {
    let (folder, there) = three();
    let names = ["erased.a", "erased.b", "archive/erased"];
    for kept in names {
        let copy = std::fs::read(folder.path().join(kept)).expect("a copy");
        for lost in names.iter().filter(|name| **name != kept) {
            std::fs::remove_file(folder.path().join(lost)).expect("removed");
        }
        assert_eq!(all(folder.path()), there, "from {kept}");
        assert_eq!(open(folder.path()).end().number, 3);
        for name in names {
            assert_eq!(std::fs::read(folder.path().join(name)).expect("mended"), copy, "{name}");
        }
    }
    let team = erased_in(&paths(folder.path(), None), &store("team")).expect("read");
    assert_eq!(team.len(), 4);
    assert!(erased_in(&paths(folder.path(), None), &store("other")).expect("read").is_empty());
}

#[test]
fn any_one_changed_byte_of_each_copy_loses_nothing_where_another_copy_has_it() {
    let (folder, there) = three();
    let len = std::fs::read(folder.path().join("erased.a")).expect("a file").len();
    std::fs::remove_file(folder.path().join("archive/erased")).expect("removed");
    for at in 0..len {
        // In the other copy, another record is damaged.
        change(&folder.path().join("erased.a"), at);
        change(&folder.path().join("erased.b"), (at + len / 2) % len);
        let found = all(folder.path());
        let ledger = open(folder.path());
        if ledger.lost().is_empty() && ledger.end().number == 3 {
            assert_eq!(found, there, "byte {at}");
        } else {
            // The second record extends into both halves.
            let (a, b) = (at, (at + len / 2) % len);
            let lens = [31 + 4 + 48 + 16, 31 + 4 + 32 + 16, 31 + 4 + 16 + 16];
            let of =
                |at: usize| if at < lens[0] { 0 } else { usize::from(at >= lens[0] + lens[1]) + 1 };
            assert_eq!(of(a), of(b), "bytes {a} and {b}");
            return;
        }
    }
}

#[test]
fn a_record_that_is_damaged_everywhere_is_told_and_the_others_are_read() {
    let (folder, there) = three();
    std::fs::remove_file(folder.path().join("archive/erased")).expect("removed");
    for name in ["erased.a", "erased.b"] {
        change(&folder.path().join(name), 110);
    }
    assert_eq!(all(folder.path()), [there[0].clone(), there[2].clone()]);
    let mut ledger = open(folder.path());
    assert_eq!(ledger.lost(), ["records 2 to 2 are damaged in every copy"]);
    assert_eq!(ledger.end().number, 3);
    ledger.add(&store("team"), &Erased::Entries(ids(2)), 5).expect("written");
    assert_eq!(all(folder.path()).len(), 3);
    assert_eq!(open(folder.path()).end().number, 4);
}

#[test]
fn a_torn_end_is_cut_off_and_one_that_a_copy_has_whole_is_kept() {
    let (folder, there) = three();
    let path = |name: &str| folder.path().join(name);
    let whole = std::fs::read(path("erased.a")).expect("a file");
    for cut in 1..60 {
        for name in ["erased.a", "erased.b", "archive/erased"] {
            std::fs::write(path(name), &whole[..whole.len() - cut]).expect("written");
        }
        let mut ledger = open(folder.path());
        assert!(ledger.lost().is_empty());
        assert_eq!(ledger.end().number, 2);
        assert_eq!(std::fs::read(path("erased.b")).expect("a file").len() as u64, ledger.bytes());
        let again = there[2].what.clone();
        ledger.add(&store("team"), &again, 1_234).expect("written");
        assert_eq!(std::fs::read(path("erased.b")).expect("a file"), whole);
        std::fs::write(path("erased.a"), &whole[..whole.len() - cut]).expect("written");
        assert_eq!(open(folder.path()).end().number, 3);
        assert_eq!(std::fs::read(path("erased.a")).expect("a file"), whole);
    }
}

#[test]
fn an_archive_that_cannot_be_written_to_does_not_stop_it_and_catches_up() {
    let (folder, _) = three();
    let archive = folder.path().join("archive");
    let aside = folder.path().join("aside");
    let mut ledger = open(folder.path());
    std::fs::rename(&archive, &aside).expect("moved");
    drop(ledger);
    ledger = open(folder.path());
    ledger.add(&store("team"), &Erased::Entries(ids(2)), 5).expect("written");
    std::fs::rename(&aside, &archive).expect("moved");
    ledger.add(&store("team"), &Erased::Entries(ids(2)), 5).expect("written");
    let of = |name: &str| std::fs::read(folder.path().join(name)).expect("a file");
    assert_eq!(of("archive/erased"), of("erased.a"));
    assert_eq!(all(folder.path()).len(), 5);
}

#[test]
fn bytes_do_not_change() {
    let before = Chain::default();
    let id = EntryId::from_bytes([7; 16]);
    let (record, chain) =
        record::encode((1, before), &store("team"), &Erased::Entries(vec![id]), 258);
    let head = b"erls\x00\x00\x00\x43\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01\x02\x01\x00\x04team";
    assert_eq!(record[4..35], head[..]);
    assert_eq!(record[35..51], [7; 16]);
    assert_eq!(record[51..], chain.0);
    let mark = Mark { number: 1, chain };
    assert_eq!(record::check(&record, Mark::default()), Some(mark));
}

#[test]
fn a_record_of_a_later_version_is_told_and_what_follows_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = Erased::Entries(ids(1));
    let (first, mark) = record::encode((1, Chain::default()), &store("team"), &one, 1);
    let (mut later, _) = record::encode((2, mark), &store("team"), &one, 2);
    later[28] = 9;
    let chain_at = later.len() - record::CHAIN;
    let chain = record::chain_of(mark, &later[12..chain_at]);
    later[chain_at..].copy_from_slice(&chain.0);
    let crc = crate::storage::slot::sum(0, &later);
    later[..4].copy_from_slice(&crc.to_be_bytes());
    let (third, _) = record::encode((3, chain), &store("team"), &one, 3);
    for name in NAMES {
        std::fs::write(folder.path().join(name), [&first[..], &later, &third].concat())
            .expect("written");
    }
    let mut reader = Reader::open(&paths(folder.path(), None)).expect("there");
    let mut numbers = Vec::new();
    while let Some(erasure) = reader.next().expect("read") {
        numbers.push(erasure.number);
    }
    assert_eq!(numbers, [1, 3]);
    assert_eq!(reader.lost(), ["a later version wrote record 2"]);
    assert_eq!(open(folder.path()).end().number, 3);
}
