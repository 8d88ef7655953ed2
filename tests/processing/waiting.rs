//! Waiting for handlers, writing from them, and how far behind they are.

use eventlog_server::processing::{Handlers, NotProcessed};
use eventlog_server::server::Server as EventLogServer;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::Storage;
use eventlog_server::storage::memory::MemoryStorage;
use tokio::sync::Semaphore;

use super::*;
use crate::support::server::in_memory;

/// Handlers that wait for a permit each, and record what they did.
struct Gate {
    open: Semaphore,
    handled: Handled,
}

fn gate(permits: usize) -> Arc<Gate> {
    Arc::new(Gate { open: Semaphore::new(permits), handled: Handled::default() })
}

fn gated(gate: &Arc<Gate>) -> Handlers<Todos, Gate, ()> {
    Todos::handlers(gate.clone()).on(async |gate, todo: Committed<TodoAdded>| {
        gate.open.acquire().await.map_err(|error| error.to_string())?.forget();
        gate.handled.lock().push(todo.title.clone());
        Ok::<(), String>(())
    })
}

fn processor_of(gate: &Arc<Gate>) -> Processor {
    let builder = Processor::builder(Arc::new(MemoryJournal::new())).group(gated(gate));
    builder.build().expect("one group")
}

fn many(count: usize) -> Vec<Entry> {
    (0..count).map(|number| added(&number.to_string(), "many")).collect()
}

#[tokio::test]
async fn who_writes_and_waits_finds_that_handlers_have_run() {
    let gate = gate(3);
    let server = TestServer::start(in_memory().processor(processor_of(&gate)), &[]).await;
    let (server, team) = (&server.server, store("team"));
    let written = server.write_and_wait(&team, many(3)).await.expect("processed");
    assert_eq!(written.sequence_numbers.len(), 3);
    assert_eq!(gate.handled.lock().len(), 3);
    // What was there before is done at once; what is not written yet is waited for.
    server.processed(&team, written.sequence_numbers[0]).await.expect("processed");
    let next = written.sequence_numbers[2].next();
    let waiting = tokio::spawn({
        let (server, team) = (server.clone(), team.clone());
        async move { server.processed(&team, next).await }
    });
    server.write_to_store(team.clone(), many(1), true).await.expect("written");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished(), "its handler has not run");
    gate.open.add_permits(1);
    waiting.await.expect("no panic").expect("processed");
    // A server that stops tells those who wait.
    let stopping = server.shutdown(Duration::from_secs(5));
    let (waited, ()) = tokio::join!(server.processed(&team, next.next()), stopping);
    assert!(matches!(waited, Err(NotProcessed::Stopped)), "{waited:?}");
}

#[tokio::test]
async fn without_handlers_there_is_nothing_to_wait_for() {
    let server = TestServer::start(in_memory(), &[]).await;
    server.server.write_and_wait(&store("team"), many(1)).await.expect("written");
}

#[tokio::test]
async fn the_lag_is_right_while_a_handler_hangs() {
    let gate = gate(0);
    let server = TestServer::start(in_memory().processor(processor_of(&gate)), &[]).await;
    let team = store("team");
    server.server.write_to_store(team.clone(), many(1), true).await.expect("written");
    server.comes_to("eventlog_replay_lag", 1).await;
    server.server.write_to_store(team.clone(), many(1_000), true).await.expect("written");
    // The head moves a moment after the writer is answered.
    server.comes_to("eventlog_replay_lag_max", 1_001).await;
    let status = server.server.replay_status(&team).await.expect("read").expect("handlers");
    assert_eq!(status.lag(), 1_001);
    gate.open.add_permits(1_001);
    server.comes_to("eventlog_replay_lag", 0).await;
}

#[tokio::test]
async fn the_lag_is_right_after_a_start_of_stores_that_nobody_has_opened() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let builder = || {
        let registry = Arc::new(MemoryRegistry::new());
        EventLogServer::builder(storage.clone(), registry, Arc::new(AllowAll))
    };
    {
        let before = TestServer::start(builder(), &[]).await;
        for (name, count) in [("a", 5), ("b", 7)] {
            let written = before.server.write_to_store(store(name), many(count), true).await;
            written.expect("written");
        }
    }
    let gate = gate(0);
    let server = TestServer::start(builder().processor(processor_of(&gate)), &[]).await;
    server.comes_to("eventlog_replay_lag", 12).await;
    server.comes_to("eventlog_replay_stores_behind", 2).await;
    gate.open.add_permits(12);
    server.comes_to("eventlog_replay_lag", 0).await;
}

#[tokio::test]
async fn a_handler_writes_further_events_from_the_first_entry_on() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let handled = Handled::default();
    let group = Todos::handlers(handled.clone()).on(async |handled, todo: Committed<TodoAdded>| {
        handled.lock().push(format!("{} {}", todo.store(), todo.title));
        if todo.store().as_str() == "team" {
            let log = store("log");
            let copy = TodoAdded { id: todo.id.clone(), title: format!("copy of {}", todo.title) };
            todo.writer(&Todos).write(&log, &copy).await?;
        }
        Ok::<(), eventlog_server::processing::WriteError>(())
    });
    let registry = Arc::new(MemoryRegistry::new());
    let builder = EventLogServer::builder(storage.clone(), registry, Arc::new(AllowAll));
    {
        // It exists before the handlers do.
        let registry = Arc::new(MemoryRegistry::new());
        let before = EventLogServer::builder(storage.clone(), registry, Arc::new(AllowAll));
        let before = TestServer::start(before, &[]).await;
        let entries = vec![added("1", "one")];
        before.server.write_to_store(store("team"), entries, true).await.expect("written");
    }
    let processor = Processor::builder(Arc::new(MemoryJournal::new())).group(group).build();
    let server = TestServer::start(builder.processor(processor.expect("one group")), &[]).await;
    processed(&server.server, "log", 1).await;
    assert_eq!(*handled.lock(), ["team one", "log copy of one"]);
    server.server.shutdown(Duration::from_secs(5)).await;
}
