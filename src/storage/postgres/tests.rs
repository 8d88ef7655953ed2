//! Two nodes on one database, and the effects of changes that somebody else makes to its tables.

mod changes;
mod lost;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use super::{Postgres, PostgresStorage};
use crate::model::{EntryId, Origin, Segment, Sequence};
use crate::storage::{AppendError, Heard, Storage, StorageError, StoreLog, StoreSize};
use crate::testing::cluster::cluster;
use crate::testing::on_postgres::{database, is_there, open, revoke};
use crate::testing::storage::{all_ids, append, client, ids, read_all, segments};
use crate::testing::{store, wait};

struct Nodes {
    url: String,
    storages: Vec<(PostgresStorage, Postgres)>,
}

impl Nodes {
    fn start(count: usize) -> Option<Self> {
        if !is_there() {
            return None;
        }
        let url = database();
        let node = |_| {
            let postgres = open(&url);
            (PostgresStorage::new(postgres.clone()), postgres)
        };
        let storages = (0..count).map(node).collect();
        Some(Self { url, storages })
    }

    fn log(&self, node: usize, name: &str) -> Arc<dyn StoreLog> {
        self.storages[node].0.open(&store(name)).expect("open")
    }

    fn heard(&self, node: usize) -> Heard {
        self.storages[node].0.heard().expect("others")
    }

    fn sql(&self, sql: &str) -> String {
        cluster().expect("a cluster").sql(&self.url, sql)
    }
}

fn at(n: u64) -> Sequence {
    Sequence::new(n).expect("a sequence")
}

fn try_append(log: &dyn StoreLog, first: u64, ids: &[EntryId]) -> Result<(), AppendError> {
    wait(log.append(segments(at(first), ids, 10, &client("alice"))))
}

#[test]
fn the_database_judges_who_appends_and_who_was_overtaken_goes_on_under_the_lock() {
    let Some(nodes) = Nodes::start(2) else { return };
    assert_eq!(nodes.storages[0].0.remote_id(), nodes.storages[1].0.remote_id());
    let (one, other) = (nodes.log(0, "s"), nodes.log(1, "s"));
    let first = ids(3);
    append(&*one, &first, 10);
    let second = ids(2);
    assert!(matches!(try_append(&*other, 1, &second), Err(AppendError::Overtaken)));
    assert!(
        matches!(try_append(&*other, 3, &ids(1)), Err(AppendError::Overtaken)),
        "and what is behind it"
    );
    assert_eq!(
        (other.head(), other.probe(&second).complete()),
        (at(0), Some(vec![None; 2])),
        "nothing of it is known"
    );
    let locked = wait(other.lock(at(0), vec![first[1], second[0]])).expect("locked");
    assert_eq!(locked.caught_up.head, at(3));
    let read: Vec<_> =
        locked.caught_up.between.iter().flat_map(Segment::ids).map(|(_, id)| id).collect();
    assert_eq!((read, locked.known), (first.clone(), vec![Some(at(2)), None]));
    let more = segments(at(4), &second, 10, &client("bob"));
    wait((locked.append)(more, nodes.heard(1))).expect("appended");
    assert_eq!(other.head(), at(5));
    // This works without the lock again.
    append(&*other, &ids(1), 10);
    assert!(matches!(try_append(&*one, 4, &ids(1)), Err(AppendError::Overtaken)));
    let caught_up = wait(one.catch_up(at(3))).expect("caught up");
    assert_eq!((caught_up.head, one.head()), (at(6), at(6)));
    append(&*one, &ids(1), 10);
    assert_eq!(all_ids(&*one).len(), 7);
    assert_eq!(nodes.sql("SELECT next_sequence FROM effect_events_stores"), "8");
}

#[test]
fn an_id_that_another_node_has_appended_costs_no_other_store_anything() {
    let Some(nodes) = Nodes::start(2) else { return };
    let stores = ["a", "b", "c"];
    let logs = stores.map(|name| nodes.log(1, name));
    let taken = ids(1);
    append(&*nodes.log(0, "b"), &taken, 10);
    // The position of the head is known, and the id is not.
    let b = nodes.log(1, "b");
    let [a, _, c] = logs;
    let pending = [
        a.append(segments(at(1), &ids(1), 10, &client("alice"))),
        b.append(segments(at(2), &taken, 10, &client("alice"))),
        c.append(segments(at(1), &ids(1), 10, &client("alice"))),
    ];
    let results = pending.map(wait);
    assert!(matches!(results, [Ok(()), Err(AppendError::Overtaken), Ok(())]), "{results:?}");
    let locked = wait(b.lock(at(1), taken)).expect("locked");
    assert_eq!(locked.known, [Some(at(1))]);
}

#[test]
fn stores_that_somebody_keeps_locked_hold_up_no_other() {
    let Some(nodes) = Nodes::start(2) else { return };
    let names = ["a", "b", "c", "d"];
    let logs = names.map(|name| nodes.log(0, name));
    logs.iter().for_each(|log| drop(append(&**log, &ids(1), 10)));
    let locked =
        ["a", "b"].map(|name| wait(nodes.log(1, name).lock(at(1), ids(1))).expect("locked"));
    let pending =
        logs.each_ref().map(|log| log.append(segments(at(2), &ids(1), 10, &client("bob"))));
    let answers = pending.map(wait);
    let [Err(AppendError::Overtaken), Err(AppendError::Overtaken), Ok(()), Ok(())] = answers else {
        panic!("{answers:?}")
    };
    // Neither does a change wait for them.
    revoke(&nodes.storages[1].1, "alice");
    drop(locked);
    let locked = wait(logs[0].lock(at(1), ids(1))).expect("locked");
    assert_eq!(locked.caught_up.head, at(1));
}

#[test]
fn a_lock_that_nobody_uses_ends() {
    let Some(nodes) = Nodes::start(2) else { return };
    let (one, other) = (nodes.log(0, "s"), nodes.log(1, "s"));
    drop(wait(one.lock(at(0), ids(1))).expect("locked"));
    append(&*other, &ids(1), 10);
    assert_eq!(other.head(), at(1));
}

#[test]
fn a_store_hears_of_what_another_node_appends() {
    let Some(nodes) = Nodes::start(2) else { return };
    let (one, other) = (nodes.log(0, "s"), nodes.log(1, "s"));
    let mut heard = other.follow().expect("others");
    append(&*one, &ids(2), 10);
    let heard = async {
        let head = heard.wait_for(|head| *head == at(2));
        tokio::time::timeout(Duration::from_secs(30), head).await.expect("heard").map(|head| *head)
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    assert_eq!(runtime.block_on(heard).expect("it is open"), at(2));
}

/// An insert as Effect's server makes it: without a note of who wrote, and with the head in the same transaction.
const FOREIGN: &str = "INSERT INTO effect_events_stores VALUES ('s', 4); \
    INSERT INTO effect_events SELECT 's', n, decode(lpad(to_hex(n), 32, '0'), 'hex'), 'Noted', E'\\x01\\x01' || n, '\\x0102' \
    FROM generate_series(1, 3) AS n";

#[test]
fn what_effects_server_wrote_is_read_and_goes_on() {
    let Some(nodes) = Nodes::start(1) else { return };
    nodes.sql(FOREIGN);
    let log = nodes.log(0, "s");
    assert_eq!(log.head(), at(3));
    let read = read_all(&*log, 1 << 20);
    let keys: Vec<_> = read
        .iter()
        .flat_map(Segment::iter)
        .map(|(_, entry)| entry.primary_key.to_owned())
        .collect();
    assert_eq!(keys, ["\u{1}\u{1}1", "\u{1}\u{1}2", "\u{1}\u{1}3"], "as they stand there");
    assert!(read[0].origin_of_each().all(|origin| matches!(origin, Origin::Server { .. })));
    append(&*log, &ids(1), 10);
    let log = nodes.log(0, "s");
    let size = StoreSize { head: at(4), trimmed: at(0), entries: 4, bytes: log.bytes() };
    assert_eq!(nodes.storages[0].0.size(&store("s")).expect("a size"), size);
    assert_eq!(all_ids(&*log).len(), 4);
    // The time at which a node first saw it.
    let noted = "SELECT first, last, facts IS NULL FROM effect_events_appends ORDER BY first";
    assert_eq!(nodes.sql(noted), "1|3|t\n4|4|f");
}

#[test]
fn a_database_that_went_back_is_refused() {
    let Some(nodes) = Nodes::start(1) else { return };
    let log = nodes.log(0, "s");
    append(&*log, &ids(3), 10);
    nodes.log(0, "s");
    nodes.sql("DELETE FROM effect_events WHERE sequence > 1; UPDATE effect_events_stores SET next_sequence = 2");
    let Err(StorageError::Corrupt(told)) = nodes.storages[0].0.open(&store("s")).map(drop) else {
        panic!("it opens")
    };
    assert!(told.contains("up to 3"), "{told}");
}

#[test]
fn entries_of_any_size_are_read_in_parts_that_are_about_as_large_as_asked() {
    const LARGE: usize = 200_000;
    let Some(nodes) = Nodes::start(1) else { return };
    let log = nodes.log(0, "s");
    let mut all = Vec::new();
    // The mean is far from all of them: some pages are limited by rows, others by bytes.
    for (count, bytes) in [(3_000, 10), (30, LARGE), (700, 10), (2, LARGE), (2_100, 100)] {
        let new = ids(count);
        append(&*log, &new, bytes);
        let gap = Segment::gaps(log.head().next(), log.head().plus(5_000));
        wait(log.append(gap)).expect("a gap");
        all.extend(new);
    }
    for bytes_max in [1, 40_000, 256 << 10, 2 << 20] {
        let (mut next, mut read) = (Sequence::FIRST, Vec::new());
        while next <= log.head() {
            let part = log.read(next, bytes_max).expect("a read");
            next = part.last().expect("not at the head").last().next();
            let bytes: usize = part.iter().map(|segment| segment.records().len()).sum();
            assert!(bytes < bytes_max + LARGE + (64 << 10), "{bytes} instead of {bytes_max}");
            read.extend(part.iter().flat_map(Segment::ids).map(|(_, id)| id));
        }
        assert!(read == all, "with {bytes_max}: {} of {}", read.len(), all.len());
    }
}

#[test]
fn a_row_that_is_gone_is_told() {
    let Some(nodes) = Nodes::start(1) else { return };
    let log = nodes.log(0, "s");
    append(&*log, &ids(5), 10);
    nodes.sql("DELETE FROM effect_events WHERE sequence = 3");
    let Err(StorageError::Corrupt(told)) = log.read(at(1), 1 << 20).map(drop) else {
        panic!("it is read")
    };
    assert!(told.contains("no entry at 3"), "{told}");
}

#[test]
fn text_that_a_table_cannot_hold_comes_back() {
    let Some(nodes) = Nodes::start(1) else { return };
    let log = nodes.log(0, "\0s\u{1}");
    let mut builder = crate::model::SegmentBuilder::new(at(1));
    let entry = crate::model::EntryRef {
        id: EntryId::now(),
        event: "E\0",
        primary_key: "\u{1}\0k",
        payload: b"\0",
    };
    let batch = crate::model::Batch::from_entries([entry]);
    builder.push(batch.record(0).expect("a slot"), &client("\0a"));
    wait(log.append(builder.finish())).expect("appended");
    let read = read_all(&*nodes.log(0, "\0s\u{1}"), 1 << 20);
    assert_eq!(read[0].iter().map(|(_, read)| read).collect::<Vec<_>>(), [entry]);
    assert_eq!(read[0].origins()[0].origin, client("\0a"));
    let listed = nodes.storages[0].0.stores(None, 9).expect("stores");
    assert_eq!(listed[0].0, store("\0s\u{1}"));
}

#[test]
fn nothing_is_appended_that_was_allowed_before_a_change_at_another_node() {
    let Some(nodes) = Nodes::start(2) else { return };
    let mut changes = nodes.storages[1].0.changes().expect("others");
    let log = nodes.log(1, "s");
    append(&*log, &ids(1), 10);
    revoke(&nodes.storages[0].1, "alice");
    // This holds until the change is applied here.
    for _ in 0..3 {
        let log = nodes.log(1, "s");
        let refused = try_append(&*log, 2, &ids(1));
        assert!(
            matches!(&refused, Err(AppendError::Definite(told)) if told.contains("changed")),
            "{refused:?}"
        );
    }
    let locked = wait(nodes.log(1, "s").lock(at(1), ids(1))).expect("locked");
    let more = segments(at(2), &ids(1), 10, &client("alice"));
    let refused = wait((locked.append)(more, nodes.heard(1)));
    assert!(matches!(refused, Err(AppendError::Definite(_))), "{refused:?}");
    // Nobody follows the other node: it applies its own change at once.
    until("it appends", || try_append(&*nodes.log(0, "t"), 1, &ids(1)).is_ok());
    let changed = wait(async { changes.recv().await }).expect("a change");
    assert_eq!(changed.keys, Some(Vec::new()));
    drop(changed);
    append(&*nodes.log(1, "s"), &ids(1), 10);
}

/// Waits for something that happens after an answer.
fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("waited in vain: {what}");
}

#[test]
fn what_one_node_trims_no_node_reads_and_the_rest_of_a_killed_one_is_emptied_later() {
    let Some(nodes) = Nodes::start(2) else { return };
    let (one, other) = (nodes.log(0, "s"), nodes.log(1, "s"));
    let written = ids(6);
    append(&*one, &written, 10);
    wait(other.catch_up(at(0))).expect("caught up");
    wait(one.trim(at(4))).expect("trimmed");
    let emptied =
        "SELECT count(*) FROM effect_events WHERE event = '' AND octet_length(payload) = 0";
    until("rows are emptied", || nodes.sql(emptied) == "4");
    until("it is noted", || nodes.sql("SELECT emptied FROM effect_events_trims") == "4");
    // It was not told, and finds out by itself.
    let read = other.read(at(1), 1 << 20).expect("a read");
    assert!(read[0].is_gap() && read[0].last() == at(4), "{:?}", read[0]);
    let kept: Vec<_> = read.iter().flat_map(Segment::ids).map(|(_, id)| id).collect();
    assert_eq!((kept, other.trimmed()), (written[4..].to_vec(), at(4)));
    assert_eq!(other.lookup(&written[..1]).expect("a look"), [Some(at(1))]);
    // The state after a node was killed before it emptied anything.
    nodes.sql("UPDATE effect_events SET event = 'Noted' WHERE sequence = 2; UPDATE effect_events_trims SET emptied = 0");
    nodes.log(1, "s");
    until("rows are emptied", || nodes.sql(emptied) == "4");
    assert_eq!(nodes.sql("SELECT next_sequence FROM effect_events_stores"), "7");
}

/// The keys of an erased store are gone, so no client makes a node open it.
#[test]
fn what_a_killed_node_had_trimmed_is_emptied_though_nobody_opens_its_store() {
    let Some(nodes) = Nodes::start(1) else { return };
    for name in ["a", "b"] {
        let log = nodes.log(0, name);
        append(&*log, &ids(3), 10);
        wait(log.trim(at(2))).expect("trimmed");
    }
    until("it is noted", || nodes.sql("SELECT sum(emptied) FROM effect_events_trims") == "4");
    nodes.sql(
        "UPDATE effect_events SET event = 'Noted'; UPDATE effect_events_trims SET emptied = 0",
    );
    let _started = PostgresStorage::new(open(&nodes.url));
    let emptied = "SELECT count(*) FROM effect_events WHERE event = ''";
    until("rows are emptied", || nodes.sql(emptied) == "4");
}

#[test]
fn an_open_store_hears_that_another_node_has_trimmed_it() {
    let Some(nodes) = Nodes::start(2) else { return };
    let (one, other) = (nodes.log(0, "s"), nodes.log(1, "s"));
    append(&*one, &ids(3), 10);
    wait(one.trim(at(2))).expect("trimmed");
    until("it is heard of", || other.trimmed() == at(2));
}

#[test]
fn tables_of_an_earlier_version_are_brought_up_to_date() {
    let Some(nodes) = Nodes::start(1) else { return };
    append(&*nodes.log(0, "s"), &ids(2), 10);
    nodes.sql("DROP TABLE effect_events_trims; UPDATE effect_events_meta SET version = 1");
    let storage = PostgresStorage::new(open(&nodes.url));
    let log = storage.open(&store("s")).expect("open");
    assert_eq!((log.head(), log.trimmed()), (at(2), at(0)));
    assert_eq!(nodes.sql("SELECT version FROM effect_events_meta"), "5");
}

#[test]
fn tables_of_the_version_before_erasures_are_brought_up_to_date() {
    let Some(nodes) = Nodes::start(1) else { return };
    append(&*nodes.log(0, "s"), &ids(2), 10);
    nodes.sql(
        "DROP TABLE effect_events_erased, effect_events_hashes; ALTER TABLE effect_events_trims DROP COLUMN erasures;
         ALTER TABLE effect_events_meta DROP COLUMN erasures, DROP COLUMN lineage; UPDATE effect_events_meta SET version = 4",
    );
    let storage = PostgresStorage::new(open(&nodes.url));
    let log = storage.open(&store("s")).expect("open");
    let read = log.read(at(1), 1 << 20).expect("a read");
    let first = read[0].ids().next().expect("an entry");
    wait(log.erase(&[first])).expect("erased");
    assert_eq!(log.read(at(1), 1).expect("a read")[0].last(), at(1));
}

#[test]
fn an_open_store_hears_that_another_node_has_erased_something() {
    let Some(nodes) = Nodes::start(2) else { return };
    let (one, other) = (nodes.log(0, "s"), nodes.log(1, "s"));
    let written = ids(3);
    append(&*one, &written, 10);
    wait(other.catch_up(at(0))).expect("caught up");
    let mut heard = other.follow().expect("others");
    heard.mark_unchanged();
    wait(one.erase(&[(at(2), written[1])])).expect("erased");
    until("it is heard of", || other.erasures() == one.erasures());
    assert!(heard.has_changed().expect("it is open"), "whoever follows is woken");
    let count = "SELECT count(*) FROM effect_events_erased";
    assert_eq!((one.erasures(), nodes.sql(count)), (1, "1".to_owned()));
    wait(other.erase(&[(at(2), written[1])])).expect("erased before");
    assert_eq!(nodes.sql(count), "1", "nothing is left to erase");
}

#[test]
fn trimming_counts_the_bytes_that_an_erased_entry_had() {
    let Some(nodes) = Nodes::start(1) else { return };
    let written = ids(6);
    let log = nodes.log(0, "s");
    written.chunks(2).for_each(|some| drop(append(&*log, some, 1_000)));
    let size = || nodes.storages[0].0.size(&store("s")).expect("a size").bytes;
    let whole = size();
    wait(log.erase(&[(at(1), written[0])])).expect("erased");
    assert_eq!(size(), whole);
    wait(log.trim(at(4))).expect("trimmed");
    assert_eq!(size(), whole / 3);
}

#[cfg(feature = "sled")]
#[test]
fn a_check_notes_what_is_new_and_finds_what_is_not_as_it_was() {
    let Some(nodes) = Nodes::start(1) else { return };
    let check = || {
        let found = Postgres::verify(&super::PostgresOptions::new(&*nodes.url)).expect("checked");
        (found.compared, found.noted, found.faults)
    };
    let (written, log) = (ids(5), nodes.log(0, "s"));
    append(&*log, &written[..3], 100);
    assert_eq!(check(), (0, 3, Vec::new()));
    append(&*log, &written[3..], 100);
    let hash = || nodes.storages[0].0.hash(&store("s")).expect("a hash");
    assert_eq!(hash(), None, "it is not of all of it");
    assert_eq!(check(), (3, 2, Vec::new()));
    let noted = hash().expect("a hash");
    assert_eq!((noted.0, noted.1.len()), (at(5), 32));
    assert_eq!(check(), (5, 0, Vec::new()));
    // What somebody changes is found, whatever it is.
    for changed in [
        "payload = payload || '!'::bytea",
        "primary_key = 'other'",
        "entry_id = decode(repeat('ab', 16), 'hex')",
    ] {
        nodes.sql(&format!(
            "CREATE TABLE before AS SELECT * FROM effect_events WHERE sequence = 2; UPDATE effect_events SET {changed} WHERE sequence = 2"
        ));
        let (compared, _, faults) = check();
        assert_eq!((compared, faults.len()), (2, 1), "{changed}");
        assert!(faults[0].1.contains("1 to 3"), "{faults:?}");
        nodes.sql(
            "DELETE FROM effect_events WHERE sequence = 2; INSERT INTO effect_events SELECT * FROM before; DROP TABLE before",
        );
    }
    nodes.sql("CREATE TABLE before AS SELECT * FROM effect_events WHERE sequence = 4; DELETE FROM effect_events WHERE sequence = 4");
    let (_, _, faults) = check();
    assert!(faults[0].1.contains("no entry at 4"), "{faults:?}");
    nodes.sql("INSERT INTO effect_events SELECT * FROM before; DROP TABLE before");
    // Erasing and trimming leave the hash, and take what could say what was there.
    wait(log.erase(&[(at(2), written[1])])).expect("erased");
    assert_eq!(nodes.sql("SELECT count(*) FROM effect_events_hashes WHERE salt IS NULL"), "1");
    assert_eq!(check(), (2, 3, Vec::new()));
    wait(log.trim(at(4))).expect("trimmed");
    assert_eq!(check(), (0, 2, Vec::new()), "the page in which the rest begins");
    assert_eq!(check(), (2, 0, Vec::new()));
    assert_eq!(hash(), Some(noted));
    nodes.sql("UPDATE effect_events_stores SET next_sequence = 5");
    let (_, _, faults) = check();
    assert!(faults[0].1.contains("behind the head"), "{faults:?}");
}
