//! Handlers are told about erased entries, and the journal keeps nothing of these entries.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use eventlog_server::model::{Sequence, StoreId};
use eventlog_server::processing::{ErasedEntry, Failure, GroupOptions};
use eventlog_server::server::{Before, Erase, Erased};
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::Storage;
use eventlog_server::storage::memory::MemoryStorage;
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};

use super::*;

#[derive(Default)]
struct Book {
    lines: Handled,
    deaf: AtomicBool,
}

async fn note(book: Arc<Book>, todo: Committed<TodoAdded>) -> Result<(), Failure> {
    if todo.title == "broken" {
        return Err(Failure::failed("the book does not take broken things"));
    }
    let conflicts = todo.conflicts().len();
    book.lines.lock().push(format!("{} {} {conflicts}", todo.sequence(), todo.title));
    Ok(())
}

async fn start(
    journal: &Arc<MemoryJournal>,
    storage: &Arc<impl Storage>,
) -> (TestServer, Arc<Book>) {
    let book = Arc::<Book>::default();
    let hear = async |book: Arc<Book>, store: StoreId, entries: Vec<ErasedEntry>| {
        if book.deaf.load(SeqCst) {
            return Err("the book does not hear");
        }
        let sequences: Vec<String> = entries.iter().map(|one| one.sequence.to_string()).collect();
        book.lines.lock().push(format!("{store} {}", sequences.join("+")));
        Ok(())
    };
    let group = Todos::handlers(Arc::clone(&book)).on(note).on_erased(hear);
    let group = group.options(GroupOptions::named("the book").dead_letters(10));
    let processor = Processor::builder(journal.clone()).group(group).build();
    let registry = Arc::new(MemoryRegistry::new());
    let builder = Server::builder(storage.clone(), registry, Arc::new(AllowAll));
    let builder = builder.processor(processor.expect("one group"));
    (TestServer::start(builder, &[("alice", "team")]).await, book)
}

async fn erase(server: &TestServer, key: &str) -> Erased {
    let what = Erase::PrimaryKey(key.to_owned());
    server.server.erase(&store("team"), what).await.expect("erased")
}

#[tokio::test]
async fn handlers_hear_of_it_and_the_journal_forgets() {
    let journal = Arc::new(MemoryJournal::new());
    let storage = Arc::new(MemoryStorage::new());
    let (server, book) = start(&journal, &storage).await;
    let write = async |entries: Vec<_>, head| {
        server.server.write_to_store(store("team"), entries, true).await.expect("written");
        processed(&server.server, "team", head).await;
    };
    // By their ids, the late entries were written before the others. So each conflicts with the entries of its key.
    let late: Vec<_> = ["key", "other"].map(|key| added(key, "late")).into();
    write(vec![added("key", "a"), added("other", "b"), added("key", "broken")], 3).await;
    write(vec![added("wakes", "rows")], 4).await;
    let letters = async || {
        let groups = server.server.groups().expect("groups");
        groups.dead_letters("the book", None, 9).await.expect("letters").len()
    };
    assert_eq!(letters().await, 1);
    assert_eq!(erase(&server, "key").await, Erased { entries: 2, ..Erased::default() });
    assert_eq!(book.lines.lock().last().expect("heard"), "team 1+3");
    assert_eq!(letters().await, 0, "its error may say what was in it");
    write(late, 6).await;
    let lines = std::mem::take(&mut *book.lines.lock());
    assert_eq!(lines[lines.len() - 2..], ["5 late 0", "6 late 1"]);
    // A group that could not be told is told again.
    book.deaf.store(true, SeqCst);
    let told = server.server.erase(&store("team"), Erase::PrimaryKey("other".to_owned())).await;
    assert!(told.expect_err("not told").to_string().contains("group the book was not told"));
    book.deaf.store(false, SeqCst);
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    while book.lines.lock().last().is_none_or(|line| line != "team 2+6") {
        assert!(tokio::time::Instant::now() < patience, "{:?}", book.lines.lock());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The entry that the group processed last is gone. The group continues behind it after a restart.
    drop(server);
    let (server, book) = start(&journal, &storage).await;
    server.server.write_to_store(store("team"), vec![added("key", "on")], true).await.expect("on");
    processed(&server.server, "team", 7).await;
    assert_eq!(*book.lines.lock(), ["7 on 0"]);
}

#[tokio::test]
async fn a_whole_store_takes_along_what_is_left_of_its_trimmed_entries() {
    let journal = Arc::new(MemoryJournal::new());
    let storage = Arc::new(MemoryStorage::new());
    let (server, _) = start(&journal, &storage).await;
    for store_id in ["team", "other"] {
        let entries = vec![added("key", "broken"), added("key", "a")];
        server.server.write_to_store(store(store_id), entries, true).await.expect("written");
        processed(&server.server, store_id, 2).await;
    }
    let first = Before::Sequence(Sequence::FIRST.next());
    server.server.trim(&store("team"), first, false).await.expect("trimmed");
    let letters = async || {
        let groups = server.server.groups().expect("groups");
        let letters = groups.dead_letters("the book", None, 9).await.expect("letters");
        letters.into_iter().map(|letter| letter.store.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(letters().await.len(), 2, "a trim leaves them");
    // A signed claim assigned this key, and the registry does not know it.
    let claimed = crate::support::key("claimed");
    storage.used_keys().note(&claimed, &store("team")).await.expect("noted");
    let erased = server.server.erase(&store("team"), Erase::Store).await.expect("erased");
    assert_eq!((erased.entries, erased.keys), (1, 2));
    assert_eq!(letters().await, ["other"]);
    assert_eq!(storage.used_keys().get(&claimed).await.expect("read"), None);
    let groups = server.server.groups().expect("groups");
    let shown = groups.list().await.expect("groups");
    assert_eq!(shown.iter().map(|group| group.dead_letters).sum::<usize>(), 1, "they are counted");
}

#[tokio::test]
async fn handlers_hear_after_the_start_what_a_command_erased() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = || Database::open(directory.path(), DatabaseOptions::default()).expect("open");
    let journal = Arc::new(MemoryJournal::new());
    let database = open();
    let (server, _) = start(&journal, &Arc::new(SledStorage::new(database.clone()))).await;
    let entries = vec![added("key", "a"), added("key", "broken")];
    let ids: Vec<EntryId> = entries.iter().map(|entry| entry.id).collect();
    server.server.write_to_store(store("team"), entries, true).await.expect("written");
    processed(&server.server, "team", 2).await;
    drop(server);
    database.close().expect("closed");
    drop(database);
    let database = open();
    database.tell_handlers_later();
    let storage = SledStorage::new(database.clone());
    let log = storage.open(&store("team")).expect("open");
    let second = Sequence::FIRST.next();
    log.erase(&[(Sequence::FIRST, ids[0]), (second, ids[1])]).await.expect("erased");
    drop((log, storage));
    database.close().expect("closed");
    drop(database);
    let (server, book) = start(&journal, &Arc::new(SledStorage::new(open()))).await;
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    while book.lines.lock().is_empty() {
        assert!(tokio::time::Instant::now() < patience, "nobody is told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(*book.lines.lock(), ["team 1+2"]);
    let groups = server.server.groups().expect("groups");
    assert_eq!(groups.dead_letters("the book", None, 9).await.expect("letters"), []);
}

/// Copies a directory.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("copied");
        }
    }
}

#[tokio::test]
async fn dead_letters_of_an_erased_store_that_are_restored_go_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let (data, older) = (directory.path().join("data"), directory.path().join("older"));
    let run = async |path: &Path, journal: &Arc<MemoryJournal>| {
        // The server before it may still be stopping.
        let patience = tokio::time::Instant::now() + Duration::from_secs(60);
        let database = loop {
            match Database::open(path, DatabaseOptions::default()) {
                Ok(database) => break database,
                Err(error) => assert!(tokio::time::Instant::now() < patience, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let (server, _) = start(journal, &Arc::new(SledStorage::new(database.clone()))).await;
        (database, server)
    };
    let letters = async |server: &TestServer| {
        let groups = server.server.groups().expect("groups");
        groups.dead_letters("the book", None, 9).await.expect("letters").len()
    };
    let journal = Arc::new(MemoryJournal::new());
    let (database, server) = run(&data, &journal).await;
    let entries = vec![added("key", "broken"), added("key", "a")];
    server.server.write_to_store(store("team"), entries, true).await.expect("written");
    processed(&server.server, "team", 2).await;
    // The letter stays, and its entry is not among those that are erased later.
    let second = Before::Sequence(Sequence::FIRST.next());
    server.server.trim(&store("team"), second, false).await.expect("trimmed");
    assert_eq!(letters(&server).await, 1);
    drop(server);
    database.close().expect("closed");
    drop(database);
    copy(&data, &older);
    let (database, server) = run(&data, &Arc::new(MemoryJournal::new())).await;
    server.server.erase(&store("team"), Erase::Store).await.expect("erased");
    drop(server);
    database.close().expect("closed");
    drop(database);
    for name in ["erased.a", "erased.b"] {
        std::fs::copy(data.join(name), older.join(name)).expect("copied");
    }
    let (_database, server) = run(&older, &journal).await;
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    while letters(&server).await > 0 {
        assert!(tokio::time::Instant::now() < patience, "the letter stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits with an entry until it is let go.
#[derive(Default)]
struct Slow {
    lines: Handled,
    begun: tokio::sync::Notify,
    go: tokio::sync::Notify,
}

async fn slowly(slow: Arc<Slow>, todo: Committed<TodoAdded>) -> Result<(), Failure> {
    if todo.title == "slow" {
        slow.begun.notify_one();
        slow.go.notified().await;
    }
    slow.lines.lock().push(format!("{} {}", todo.sequence(), todo.title));
    Ok(())
}

#[tokio::test]
async fn what_waits_for_its_handler_is_not_handled_once_it_is_erased() {
    let slow = Arc::<Slow>::default();
    let hear = async |slow: Arc<Slow>, _: StoreId, entries: Vec<ErasedEntry>| {
        let sequences: Vec<String> = entries.iter().map(|one| one.sequence.to_string()).collect();
        slow.lines.lock().push(format!("erased {}", sequences.join("+")));
        Ok::<_, Failure>(())
    };
    let group = Todos::handlers(Arc::clone(&slow)).on(slowly).on_erased(hear);
    let group = group.options(GroupOptions::named("slow"));
    let processor = Processor::builder(Arc::new(MemoryJournal::new())).group(group).build();
    let (storage, registry) = (MemoryStorage::new(), MemoryRegistry::new());
    let builder = Server::builder(Arc::new(storage), Arc::new(registry), Arc::new(AllowAll));
    let builder = builder.processor(processor.expect("one group"));
    let server = TestServer::start(builder, &[("alice", "team")]).await;
    let entries = [("a", "slow"), ("b", "secret"), ("c", "later"), ("d", "secret")];
    let entries = entries.map(|(key, title)| added(key, title)).into();
    server.server.write_to_store(store("team"), entries, true).await.expect("written");
    slow.begun.notified().await;
    // The others were read with it, and wait. Nobody has to wait for the handler.
    for key in ["b", "a", "d"] {
        assert_eq!(erase(&server, key).await.entries, 1);
    }
    slow.go.notify_one();
    processed(&server.server, "team", 4).await;
    let lines = slow.lines.lock().join(", ");
    assert_eq!(lines, "erased 2, erased 1, erased 4, 1 slow, erased 1, 3 later");
}
