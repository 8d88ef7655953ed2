//! A server ends in time, whatever its handlers do.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use eventlog_server::processing::{Committed, EventGroup, Processor};
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::journal::MemoryJournal;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::memory::MemoryStorage;
use parking_lot::Mutex;

use super::{TodoAdded, Todos, added, processed};
use crate::support::store;

/// Longer than anything takes that is going to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a handler blocks its thread, or somebody else's.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Keeps {
    ItsThread,
    ABlockingTask,
}

/// What handlers share with the test.
struct Stuck {
    keeps: Keeps,
    /// What was handled, recorded when it began.
    began: Mutex<Vec<String>>,
    /// Lets the handler of the title `stuck` continue.
    released: Mutex<Option<Receiver<()>>>,
    /// Signalled when it does.
    ended: Sender<()>,
}

async fn handle(stuck: Arc<Stuck>, todo: Committed<TodoAdded>) {
    stuck.began.lock().push(todo.title.clone());
    let released = if todo.title == "stuck" { stuck.released.lock().take() } else { None };
    let Some(released) = released else { return };
    let ended = stuck.ended.clone();
    let wait = move || {
        released.recv_timeout(PATIENCE).expect("the test goes on meanwhile");
        ended.send(()).expect("the test waits");
    };
    match stuck.keeps {
        Keeps::ItsThread => wait(),
        Keeps::ABlockingTask => tokio::task::spawn_blocking(wait).await.expect("no panic"),
    }
}

async fn ends_in_time(keeps: Keeps) {
    let (release, released) = channel();
    let (ended, end) = channel();
    let (began, released) = (Mutex::default(), Mutex::new(Some(released)));
    let stuck = Arc::new(Stuck { keeps, began, released, ended });
    let (storage, journal) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryJournal::new()));
    let start = || {
        let group = Todos::handlers(stuck.clone()).on(handle);
        let processor = Processor::builder(journal.clone()).repeats_max(1).group(group).build();
        let registry = Arc::new(MemoryRegistry::new());
        let builder = Server::builder(storage.clone(), registry, Arc::new(AllowAll));
        builder.processor(processor.expect("one type per tag")).start().expect("it starts")
    };
    let server = start();
    for title in ["first", "stuck"] {
        let entries = vec![added("k", title)];
        server.write_to_store(store("team"), entries, true).await.expect("written");
    }
    let both = async {
        while stuck.began.lock().len() < 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, both).await.expect("handled");
    // The handler continues once this has returned, and not before.
    let shutdown = server.shutdown(Duration::from_millis(300));
    tokio::time::timeout(PATIENCE, shutdown).await.expect("it does not wait for the handler");
    release.send(()).expect("the handler waits");
    end.recv_timeout(PATIENCE).expect("it goes on");
    drop(server);
    // Its thread is gone once nobody else holds the journal.
    let gone = async {
        while Arc::strong_count(&journal) > 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the thread ends");
    // It moved no position: its entry is handled again, and the one before it is not.
    let server = start();
    processed(&server, "team", 2).await;
    assert_eq!(*stuck.began.lock(), ["first", "stuck", "stuck"], "{keeps:?}");
    server.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn a_handler_that_blocks_its_thread_holds_up_no_shutdown_and_moves_no_position_after_it() {
    ends_in_time(Keeps::ItsThread).await;
}

#[tokio::test]
async fn a_handler_that_waits_for_a_blocking_task_does_not_either() {
    ends_in_time(Keeps::ABlockingTask).await;
}
