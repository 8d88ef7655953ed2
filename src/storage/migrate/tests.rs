//! A server is moved from sled to PostgreSQL and back, and keeps everything.

use std::path::Path;
use std::sync::atomic::Ordering;

use super::{MigrateError, Moved, Source, Told, to_directory, to_postgres};
use crate::model::{EntryId, Segment, Sequence};
use crate::storage::postgres::{Postgres, PostgresOptions, PostgresStorage};
use crate::storage::sled::{
    Backups, Database, DatabaseOptions, Keyspace, OpenError, Ops, SledStorage,
};
use crate::storage::{SnapshotFile, Storage};
use crate::testing::cluster::cluster;
use crate::testing::on_postgres::{database, is_there, open};
use crate::testing::storage::{append, ids, read_all, segments};
use crate::testing::{store, wait};

fn options() -> DatabaseOptions {
    DatabaseOptions { ballast_bytes: 0, checkpoint_bytes: 200_000, ..DatabaseOptions::default() }
}

fn at(n: u64) -> Sequence {
    Sequence::ZERO.plus(n)
}

const STORES: [&str; 3] = ["a", "b\u{0}\u{1}c", "trimmed"];

/// What a test has written, and the directory with it.
struct Ground {
    directory: tempfile::TempDir,
    ids: Vec<EntryId>,
}

impl Ground {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut ground = Self { directory, ids: Vec::new() };
        let database = ground.open();
        let storage = SledStorage::new(database.clone());
        ground.write(&storage);
        let mut pairs: Vec<(Keyspace, &[u8], &[u8])> = vec![
            (Keyspace::Registry, b"alice", b"b\0\x01c"),
            (Keyspace::Registry, b"\0\x01", b"a"),
            (Keyspace::UsedKeys, b"alice", b"a"),
            (Keyspace::Identities, b"alice", &[7; 32]),
            (Keyspace::Records, b"revocation/key:x", b"{}"),
            (Keyspace::Journal, &[4, 0, 255], &[0; 49]),
            (Keyspace::Quarantine, &[0], &[0, 0, 0, 0, 0, 0, 0, 5]),
            (Keyspace::Quarantine, &[1, 0, 0, 0, 0, 0, 0, 0, 5], b"{\"n\":5}"),
        ];
        let part = [&[2][..], &5_u64.to_be_bytes(), &1_u32.to_be_bytes()].concat();
        pairs.push((Keyspace::Quarantine, &part, &[1, 2, 3]));
        let numbers: Vec<[u8; 8]> = (0..2_500_u64).map(u64::to_be_bytes).collect();
        pairs.extend(numbers.iter().map(|n| (Keyspace::Journal, &n[..], &n[..])));
        for (table, key, value) in pairs {
            let mut ops = Ops::default();
            ops.insert(key, value);
            drop(database.commit(table, ops));
        }
        database.close().expect("closed");
        ground
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn open(&self) -> Database {
        Database::open(self.path(), options()).expect("it opens")
    }

    fn write(&mut self, storage: &dyn Storage) {
        let all = ids(3_000);
        for name in STORES {
            let log = storage.open(&store(name)).expect("open");
            for part in all.chunks(170) {
                append(&*log, part, 60);
            }
            let first = log.head().next();
            wait(log.append(Segment::gaps(first, first.plus(4)))).expect("a gap");
        }
        let log = storage.open(&store("a")).expect("open");
        let own = ids(2);
        let server = crate::model::Origin::Server { run_handlers: false };
        wait(log.append(segments(log.head().next(), &own, 5_000, &server))).expect("appended");
        self.ids = all;
    }

    /// Removes some of it before or after the copy was made.
    fn take_away(&self, storage: &dyn Storage, from: u64) {
        let log = storage.open(&store("a")).expect("open");
        let gone = |n: u64| (at(n), self.ids[n as usize - 1]);
        let erased: Vec<_> = [from, from + 1, from + 700].map(gone).into();
        wait(log.erase(&erased)).expect("erased");
        let log = storage.open(&store("trimmed")).expect("open");
        wait(log.trim(at(from + 900))).expect("trimmed");
    }
}

/// What readers see of a store, whatever its segments are, and what it answers about ids.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    head: Sequence,
    trimmed: Sequence,
    entries: u64,
    shown: Vec<(Sequence, Vec<u8>, String)>,
    erased: Vec<Sequence>,
    known: Vec<Option<Sequence>>,
}

fn seen(storage: &dyn Storage, ids: &[EntryId]) -> Vec<Seen> {
    let of = |name: &str| {
        let log = storage.open(&store(name)).expect("open");
        let size = storage.size(&store(name)).expect("a size");
        let read = read_all(&*log, 100_000);
        let each = read.iter().flat_map(|segment| segment.iter().zip(segment.origin_of_each()));
        let shown = each.map(|((at, entry), origin)| {
            let record = [entry.id.as_bytes(), entry.payload].concat();
            (at, record, format!("{} {} {origin:?}", entry.event, entry.primary_key))
        });
        let gaps = read.iter().filter(|segment| segment.is_erased());
        let erased = gaps.flat_map(|gap| (0..gap.span()).map(|n| gap.first().plus(n)));
        Seen {
            head: log.head(),
            trimmed: log.trimmed(),
            entries: size.entries,
            shown: shown.collect(),
            erased: erased.collect(),
            known: log.lookup(ids).expect("a look"),
        }
    };
    STORES.map(of).into()
}

/// Keys and values of the tables.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn of_directory(path: &Path, ids: &[EntryId]) -> (Vec<Seen>, String, Pairs) {
    let database = Database::open(path, options()).expect("it opens");
    let tables = Keyspace::TABLES.into_iter().flat_map(|table| {
        let tree = database.tree(table).expect("a table");
        let all = (std::ops::Bound::<Vec<u8>>::Unbounded, std::ops::Bound::Unbounded);
        let pairs: Vec<_> = tree.range(all).map(|pair| pair.expect("a pair")).collect();
        pairs.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec()))
    });
    let tables = tables.collect();
    let remote = database.remote_id().to_string();
    let storage = SledStorage::new(database.clone());
    let seen = seen(&storage, ids);
    drop(storage);
    database.close().expect("closed");
    (seen, remote, tables)
}

fn of_database(url: &str, ids: &[EntryId]) -> (Vec<Seen>, String) {
    let storage = PostgresStorage::new(open(url));
    (seen(&storage, ids), storage.remote_id().to_string())
}

fn hashes(storage: &dyn Storage) -> Vec<String> {
    let of = |name| storage.hash(&store(name)).expect("a hash").expect("it is noted").1;
    STORES.map(of).into()
}

fn up(path: &Path, url: &str) -> Result<Moved, MigrateError> {
    let to = PostgresOptions::new(url);
    to_postgres(Source::Directory(path), &options(), &to, false, &Told::default())
}

#[test]
fn a_server_goes_to_postgres_and_back_with_all_that_it_has() {
    if !is_there() {
        return;
    }
    let mut ground = Ground::new();
    let storage = SledStorage::new(ground.open());
    ground.take_away(&storage, 10);
    let noted = hashes(&storage);
    drop(storage);
    let url = database();
    let (before, remote, tables) = of_directory(ground.path(), &ground.ids);
    let moved = up(ground.path(), &url).expect("moved");
    assert!(moved.is_finished && moved.stores == 3 && moved.copied == 9_002, "{moved:?}");
    assert_eq!((moved.compared, moved.pairs), (9_002, tables.len() as u64));
    let (after, same) = of_database(&url, &ground.ids);
    assert_eq!((&after, &same), (&before, &remote));
    assert_eq!(hashes(&PostgresStorage::new(open(&url))), noted);
    let verified = Postgres::verify(&PostgresOptions::new(&*url)).expect("checked");
    assert_eq!((verified.stores, verified.faults), (3, Vec::new()));
    assert_eq!(hashes(&PostgresStorage::new(open(&url))), noted, "it goes on from there");
    // The old one cannot be used any more, and a second move changes nothing.
    let refused = Database::open(ground.path(), options()).err().expect("it was moved");
    assert!(
        matches!(&refused, OpenError::Moved { to, .. } if to.contains("127.0.0.1")),
        "{refused}"
    );
    assert!(up(ground.path(), &url).expect("nothing to do").was_finished);
    // Without its mark it may have been served, and have more than the database.
    let mark = ground.path().join("moved");
    let (kept, said) = (mark.with_extension("kept"), |error: MigrateError| error.to_string());
    let rename = |from: &Path, to: &Path| {
        #[expect(clippy::disallowed_methods, reason = "the test does what an operator may do")]
        std::fs::rename(from, to).expect("renamed");
    };
    rename(&mark, &kept);
    let refused = up(ground.path(), &url).map_err(said).expect_err("it may have more");
    assert!(refused.contains("has no file `moved` any more"), "{refused}");
    rename(&kept, &mark);
    // The server continues there, and moves back.
    let storage = PostgresStorage::new(open(&url));
    ground.write(&storage);
    drop(storage);
    let (before, _) = of_database(&url, &ground.ids);
    let directory = tempfile::tempdir().expect("a directory");
    let back = directory.path().join("data");
    let from = PostgresOptions::new(&*url);
    let told = Told::default();
    let moved = to_directory(&from, &back, &options(), &told).expect("moved");
    assert_eq!((moved.copied, moved.compared), (18_004, 18_004));
    assert!(Postgres::open(&from).expect_err("it was moved").to_string().contains("moved from it"));
    let verified = Database::verify(&back, &options()).expect("read");
    assert_eq!(verified.faults, []);
    let (after, same, tables_after) = of_directory(&back, &ground.ids);
    assert_eq!((&after, &same), (&before, &remote));
    assert_eq!(tables_after, tables);
    let refused = to_directory(&from, &directory.path().join("again"), &options(), &told);
    assert!(matches!(refused, Err(MigrateError::Refused(_))), "{refused:?}");
    // And it moves to the first database, which has an older state of it.
    let storage = SledStorage::new(Database::open(&back, options()).expect("it opens"));
    wait(storage.open(&store("trimmed")).expect("open").trim(at(4_000))).expect("trimmed");
    append(&*storage.open(&store("a")).expect("open"), &ids(5), 10);
    drop(storage);
    let (before, ..) = of_directory(&back, &ground.ids);
    let moved = up(&back, &url).expect("moved");
    assert_eq!((moved.copied, moved.compared), (5, 18_009));
    assert_eq!(of_database(&url, &ground.ids).0, before);
}

fn back_up(database: &Database, to: &Backups) {
    let snapshot = database.snapshot().expect("a snapshot");
    to.write(&snapshot, SnapshotFile::open).expect("a backup");
}

#[test]
fn most_of_a_server_goes_while_it_runs_and_the_rest_with_a_short_switch() {
    if !is_there() {
        return;
    }
    let mut ground = Ground::new();
    let folder = tempfile::tempdir().expect("a folder");
    let backups = Backups::new(folder.path());
    let (url, told) = (database(), Told::default());
    let to = PostgresOptions::new(&*url);
    let database = ground.open();
    let storage = SledStorage::new(database.clone());
    ground.take_away(&storage, 10);
    back_up(&database, &backups);
    let scratch = tempfile::tempdir().expect("a folder");
    let from = Source::Backup { backups: &backups, scratch: scratch.path() };
    let moved = to_postgres(from, &options(), &to, false, &told).expect("copied");
    assert!(!moved.is_finished && moved.copied == 9_002 && moved.compared == 9_002, "{moved:?}");
    let refused = Postgres::open(&to).expect_err("not all is there").to_string();
    assert!(refused.contains("has not come to its end"), "{refused}");
    // Meanwhile the server continues.
    ground.take_away(&storage, 1_000);
    let first = ground.ids.clone();
    ground.write(&storage);
    let mut ops = Ops::default();
    ops.insert("bob", "a");
    ops.remove("alice");
    wait(database.commit(Keyspace::Registry, ops)).expect("committed");
    drop((storage, database));
    let expected = of_directory(ground.path(), &first);
    let moved = up(ground.path(), &url).expect("moved");
    assert!(moved.is_finished && moved.copied == 9_002 && moved.compared == 9_002, "{moved:?}");
    assert_eq!(of_database(&url, &first), (expected.0, expected.1));
    let keys = cluster()
        .expect("a cluster")
        .sql(&url, "SELECT public_key FROM effect_events_keys ORDER BY 1");
    assert_eq!(keys, "\u{1}\u{1}\u{1}\u{2}\nbob");
    assert_eq!(told.copied.load(Ordering::Relaxed), 9_002);
}

#[test]
fn a_database_with_the_data_of_another_server_is_left_alone() {
    if !is_there() {
        return;
    }
    let ground = Ground::new();
    let url = database();
    let other = PostgresStorage::new(open(&url));
    append(&*other.open(&store("a")).expect("open"), &ids(3), 10);
    let refused = up(ground.path(), &url).expect_err("a node is there");
    assert!(refused.to_string().contains("stop all"), "{refused}");
    drop(other);
    let refused = up(ground.path(), &url).expect_err("it is another one's");
    assert!(refused.to_string().contains("another server"), "{refused}");
    assert_eq!(of_database(&url, &ground.ids).0[0].head, at(3));
    assert!(Database::open(ground.path(), options()).is_ok(), "it was not moved");
}

#[test]
fn times_of_commits_go_along() {
    if !is_there() {
        return;
    }
    let ground = Ground::new();
    let storage = SledStorage::new(ground.open());
    let times = storage.times(&store("a"), at(1), 100).expect("times").expect("it says so");
    drop(storage);
    let url = database();
    up(ground.path(), &url).expect("moved");
    let asked = "SELECT last || ' ' || (extract(epoch FROM committed_at) * 1000)::bigint FROM effect_events_appends \
        WHERE store_id = 'a' ORDER BY last DESC LIMIT 1";
    let (last, millis) = times.last().expect("a time");
    let told = cluster().expect("a cluster").sql(&url, asked);
    assert_eq!(told, format!("{last} {millis}"));
    let directory = tempfile::tempdir().expect("a directory");
    let back = directory.path().join("data");
    let from = PostgresOptions::new(&*url);
    to_directory(&from, &back, &options(), &Told::default()).expect("moved");
    let storage = SledStorage::new(Database::open(&back, options()).expect("it opens"));
    let after = storage.times(&store("a"), at(1), 100).expect("times").expect("it says so");
    // Times within ten minutes of each other count as one.
    assert_eq!(after.last(), times.last());
}

#[test]
fn what_is_not_the_same_is_found_and_cannot_be_served() {
    if !is_there() {
        return;
    }
    let ground = Ground::new();
    let (url, folder) = (database(), tempfile::tempdir().expect("a folder"));
    let backups = Backups::new(folder.path());
    let open = ground.open();
    back_up(&open, &backups);
    drop(open);
    let to = PostgresOptions::new(&*url);
    let scratch = tempfile::tempdir().expect("a folder");
    let from = Source::Backup { backups: &backups, scratch: scratch.path() };
    to_postgres(from, &options(), &to, false, &Told::default()).expect("copied");
    let changed = "UPDATE effect_events SET payload = payload || '\\x00' WHERE store_id = 'a' AND sequence = 77";
    cluster().expect("a cluster").sql(&url, changed);
    let from = Source::Directory(ground.path());
    let refused = to_postgres(from, &options(), &to, true, &Told::default()).expect_err("changed");
    assert!(
        matches!(&refused, MigrateError::Differs(told) if told.contains("store a")),
        "{refused}"
    );
    assert!(Postgres::open(&to).is_err() && Database::open(ground.path(), options()).is_ok());
}
