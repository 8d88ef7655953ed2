//! What `/metrics` shows of handlers, journal and replay.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::Semaphore;

use super::*;
use crate::support::server::in_memory;

/// What the handler waits for, and how many times it was called.
struct Gate {
    open: Semaphore,
    called: AtomicUsize,
}

async fn handle(gate: Arc<Gate>, todo: Committed<TodoAdded>) -> Result<(), String> {
    gate.called.fetch_add(1, SeqCst);
    gate.open.acquire().await.map_err(|error| error.to_string())?.forget();
    assert!(todo.title != "panic", "told to panic");
    if todo.title == "fail" { Err("told to fail".to_owned()) } else { Ok(()) }
}

async fn gated() -> (TestServer, Arc<Gate>) {
    let gate = Arc::new(Gate { open: Semaphore::new(0), called: AtomicUsize::new(0) });
    let group = Todos::handlers(Arc::clone(&gate)).on(handle);
    let processor = Processor::builder(Arc::new(MemoryJournal::new())).group(group).build();
    let processor = processor.expect("one type per tag");
    (TestServer::start(in_memory().processor(processor), &[]).await, gate)
}

async fn append(server: &TestServer, entries: Vec<Entry>, run_handlers: bool) {
    let written = server.server.write_to_store(store("team"), entries, run_handlers);
    written.await.expect("written");
}

#[tokio::test]
async fn metrics_count_what_became_of_each_entry() {
    let (server, gate) = gated().await;
    gate.open.add_permits(9);
    let unknown = Entry { event: "Unknown".to_owned(), ..added("4", "") };
    let broken = Entry { payload: vec![0xc1].into(), ..added("5", "") };
    let titles = ["one", "two", "fail", "panic"].map(|title| added("1", title));
    append(&server, [titles.as_slice(), &[unknown, broken]].concat(), true).await;
    append(&server, vec![added("6", "silent")], false).await;
    processed(&server.server, "team", 7).await;
    let expected = [
        ("handled", 2),
        ("failed", 1),
        ("panicked", 1),
        ("unhandled", 1),
        ("undecodable", 1),
        ("skipped", 1),
    ];
    for (outcome, count) in expected {
        let name = format!("eventlog_entries_processed_total{{outcome=\"{outcome}\"}}");
        server.comes_to(&name, count).await;
    }
    server.comes_to("eventlog_replay_pauses_total", 0).await;
}

#[tokio::test]
async fn metrics_tell_how_far_replays_are_behind_their_feeds() {
    let (server, gate) = gated().await;
    append(&server, vec![added("1", "one"), added("2", "two"), added("3", "three")], true).await;
    let behind =
        ["eventlog_replay_stores_behind", "eventlog_replay_lag", "eventlog_replay_lag_max"];
    for (name, value) in behind.into_iter().zip([1, 3, 3]) {
        server.comes_to(name, value).await;
    }
    gate.open.add_permits(3);
    for name in behind {
        server.comes_to(name, 0).await;
    }
    assert_eq!(gate.called.load(SeqCst), 3);
}
