//! A server killed between ack and replay, again and again.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::journal::SledJournal;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};

use super::*;
use crate::support::key;

const KILLS: usize = 12;
const STORES: [(&str, &str); 2] = [("alice", "a"), ("bob", "b")];

/// Names the server's directory; if it is set, this process acts as a server.
const DIRECTORY: &str = "EVENTLOG_TEST_CRASH_DIRECTORY";
/// How many milliseconds its handlers take for an entry.
const PACE: &str = "EVENTLOG_TEST_CRASH_PACE";
/// How many entries a crash may repeat.
const REPEATS: &str = "EVENTLOG_TEST_CRASH_REPEATS";
const THIS_TEST: &str = "processing::crash::kill_9_misses_no_entry_and_repeats_no_more_than_it_may";

#[tokio::test]
async fn kill_9_misses_no_entry_and_repeats_no_more_than_it_may() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        serve_until_killed(Path::new(&directory)).await;
    }
    for repeats_max in [1, 4] {
        check_kills(repeats_max).await;
    }
}

async fn check_kills(repeats_max: usize) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut acked: Vec<Entry> = Vec::new();
    let mut killed_behind = 0;
    for kill in 0..KILLS {
        let server = Killable::start(directory.path(), 20, repeats_max).await;
        let mut sockets = Vec::new();
        for (public_key, _) in STORES {
            sockets.push((key(public_key), Socket::connect(&server.url).await));
        }
        // Handlers lag behind by now, because each takes longer than a write, even on a busy machine.
        for round in 0..=kill % 5 {
            for (public_key, socket) in &mut sockets {
                let todos = (0..5).map(|n| added("todo", &format!("{kill}-{round}-{n}")));
                let todos: Vec<Entry> = todos.collect();
                write(socket, public_key, &todos).await;
                acked.extend(todos);
            }
        }
        tokio::time::sleep(Duration::from_millis(kill as u64 % 7)).await;
        drop(server);
        let handled = STORES.map(|(_, store_id)| distinct(&notes(directory.path(), store_id)));
        killed_behind += usize::from(handled.iter().sum::<usize>() < acked.len());
    }
    assert!(killed_behind > KILLS / 2, "only {killed_behind} kills hit unhandled entries");
    let server = Killable::start(directory.path(), 0, repeats_max).await;
    for (public_key, store_id) in STORES {
        let mut socket = Socket::connect(&server.url).await;
        let head = write(&mut socket, &key(public_key), &[added("todo", "last")]).await[0];
        socket.subscribe(&key(public_key), 0).await;
        let feed = socket.next_entries(usize::try_from(head).expect("few")).await;
        acked.retain(|entry| feed.iter().all(|(_, committed)| committed.id != entry.id));
        let handled = handled_to(directory.path(), store_id, head).await;
        let committed: Vec<String> = feed.iter().map(|(_, entry)| entry.id.to_string()).collect();
        check(&handled, &committed, repeats_max as u64);
    }
    assert!(acked.is_empty(), "acknowledged, and not in the feed: {acked:?}");
}

/// What a handler recorded: in which life of the server, at which sequence, of which id.
#[derive(Debug)]
struct Note {
    life: u32,
    sequence: u64,
    id: String,
}

/// Every committed entry, in order; some are repeated at the beginning of a life.
fn check(handled: &[Note], committed: &[String], repeats_max: u64) {
    let mut last: Option<&Note> = None;
    for note in handled {
        let (before, new_life) = last.map_or((0, true), |l| (l.sequence, l.life != note.life));
        let repeats = before + 1 - note.sequence.min(before + 1);
        let repeated = new_life && repeats <= repeats_max;
        assert!(repeated || note.sequence == before + 1, "{note:?} after {last:?}");
        let at = usize::try_from(note.sequence).expect("few") - 1;
        assert_eq!(note.id, committed[at], "at sequence {}", note.sequence);
        last = Some(note);
    }
    assert_eq!(last.map(|note| note.sequence), Some(committed.len() as u64));
}

/// The notes on a store, once they have reached `head`.
async fn handled_to(directory: &Path, store_id: &str, head: u64) -> Vec<Note> {
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let notes = notes(directory, store_id);
        if notes.last().is_some_and(|note| note.sequence >= head) {
            return notes;
        }
        assert!(tokio::time::Instant::now() < patience, "handled: {:?} of {head}", notes.last());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn notes(directory: &Path, store_id: &str) -> Vec<Note> {
    let text = std::fs::read_to_string(directory.join("handled")).expect("notes");
    let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let of_store = lines.filter(|fields| fields[1] == store_id);
    let note = |fields: Vec<&str>| Note {
        life: fields[0].parse().expect("a number"),
        sequence: fields[2].parse().expect("a number"),
        id: fields[3].to_owned(),
    };
    of_store.map(note).collect()
}

/// How many entries the notes are about.
fn distinct(notes: &[Note]) -> usize {
    notes.iter().map(|note| note.sequence).collect::<std::collections::HashSet<_>>().len()
}

/// A server in a process of its own, killed when it is dropped.
struct Killable {
    process: Child,
    url: String,
}

impl Killable {
    async fn start(directory: &Path, pace_millis: u64, repeats_max: usize) -> Self {
        let address = directory.join("address");
        // Absent before the first start.
        let _ = std::fs::remove_file(&address);
        let process = Command::new(std::env::current_exe().expect("this test"))
            .args([THIS_TEST, "--exact", "--nocapture"])
            .env(DIRECTORY, directory)
            .env(PACE, pace_millis.to_string())
            .env(REPEATS, repeats_max.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let mut process = process.expect("a process");
        let patience = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(url) = std::fs::read_to_string(&address) {
                return Self { process, url };
            }
            let ended = process.try_wait().expect("a state");
            assert!(ended.is_none(), "the server ended: {ended:?}");
            assert!(tokio::time::Instant::now() < patience, "the server does not start");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        // SIGKILL; fails only if it ended by itself, which the next start would show.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A file that handlers append to; one write per line, which a kill cannot split.
struct Notes {
    life: u32,
    pace: Duration,
    file: File,
}

async fn serve_until_killed(directory: &Path) -> ! {
    std::thread::spawn(|| {
        // Ends with the process that started it.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let path = directory.join("handled");
    let file = OpenOptions::new().create(true).append(true).open(&path).expect("a file");
    let pace = std::env::var(PACE).expect("a pace").parse().expect("milliseconds");
    let pace = Duration::from_millis(pace);
    let notes = Arc::new(Notes { life: std::process::id(), pace, file });
    let group = Todos::handlers(notes).on(async |notes, todo: Committed<TodoAdded>| {
        let (store, id) = (todo.store(), todo.entry().id);
        let line = format!("{} {store} {} {id}\n", notes.life, todo.sequence());
        let written = (&notes.file).write_all(line.as_bytes());
        tokio::time::sleep(notes.pace).await;
        written
    });
    let database = Database::open(&directory.join("data"), DatabaseOptions::default());
    let database = database.expect("the data directory opens");
    let journal = Arc::new(SledJournal::new(database.clone()));
    let repeats_max = std::env::var(REPEATS).expect("a number").parse().expect("a number");
    let processor = Processor::builder(journal).group(group).repeats_max(repeats_max).build();
    let processor = processor.expect("one type per tag");
    let (storage, registry) = (SledStorage::new(database), MemoryRegistry::new());
    let builder = Server::builder(Arc::new(storage), Arc::new(registry), Arc::new(AllowAll));
    let server = TestServer::start(builder.processor(processor), &STORES).await;
    let written: PathBuf = directory.join("address.part");
    std::fs::write(&written, server.url()).expect("written");
    std::fs::rename(&written, directory.join("address")).expect("renamed");
    std::future::pending().await
}
