//! What observers are told: everything that changes, once, and first to look.

use std::sync::Arc;
use std::time::Duration;

use eventlog_server::processing::{
    Committed, Event, EventGroup, Msgpack, Observed, Observer, Processor,
};
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::journal::MemoryJournal;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::memory::MemoryStorage;
use futures_util::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};

use super::{TodoAdded, processed};
use crate::support::store;

#[derive(Debug, Serialize, Deserialize)]
struct TodoDone {
    id: String,
}

impl Event for TodoDone {
    const TAG: &'static str = "TodoDone";
    fn primary_key(&self) -> String {
        self.id.clone()
    }
}

struct Todos;

impl EventGroup for Todos {
    type Events = (TodoAdded, TodoDone);
    type Codec = Msgpack;
}

/// What `observer` was told so far.
fn told(observer: &mut Observer) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(Some(observed)) = observer.next().now_or_never() {
        told.push(match observed {
            Observed::Look => "look".to_owned(),
            Observed::Invalidated(one) => format!("{} {}", one.key, one.primary_key),
            Observed::Missed(count) => format!("missed {count}"),
        });
    }
    told
}

#[tokio::test]
async fn an_event_needs_no_handler_and_invalidates_a_key_once_however_often_it_is_given() {
    let journal = Arc::new(MemoryJournal::new());
    let storage = Arc::new(MemoryStorage::new());
    let start = || {
        let group = Todos::handlers(Arc::new(()))
            .on(async |_, _: Committed<TodoAdded>| ())
            .invalidates(["todos", "todos"])
            .invalidates_on::<TodoAdded, _>(["todos", "counts"])
            .invalidates(["todos"])
            .pass_rest();
        let processor = Processor::builder(journal.clone()).group(group).build();
        let builder =
            Server::builder(storage.clone(), Arc::new(MemoryRegistry::new()), Arc::new(AllowAll));
        builder.processor(processor.expect("one type per tag")).start().expect("it starts")
    };
    let write = async |server: &Server, id: &str| {
        let (writer, id) = (server.writer(&Todos), id.to_owned());
        let added = TodoAdded { id: id.clone(), title: String::new() };
        writer.write(&store("team"), &added).await.expect("written");
        writer.write(&store("team"), &TodoDone { id }).await.expect("written");
    };
    let server = start();
    let reactivity = server.reactivity().expect("handlers");
    let (mut todos, mut counts) = (reactivity.observe("todos"), reactivity.observe("counts"));
    write(&server, "1").await;
    processed(&server, "team", 2).await;
    assert_eq!(told(&mut todos), ["look", "todos 1", "todos 1"], "one for each event");
    assert_eq!(told(&mut counts), ["look", "counts 1"]);
    server.shutdown(Duration::from_secs(20)).await;
    assert_eq!(todos.next().await, None);

    // Nobody can tell an observer what happened since its process ended.
    let server = start();
    let mut todos = server.reactivity().expect("handlers").observe_one("todos", "2");
    assert_eq!(told(&mut todos), ["look"]);
    write(&server, "2").await;
    write(&server, "3").await;
    processed(&server, "team", 6).await;
    assert_eq!(told(&mut todos), ["todos 2", "todos 2"]);
}
