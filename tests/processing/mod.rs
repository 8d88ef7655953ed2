//! Handlers, journal and reactivity of a whole server.

mod crash;
mod ending;
mod erase;
mod erase_killed;
mod exactly_once;
mod groups;
mod handlers;
mod ingest;
mod metrics;
mod reactivity;
mod schema_binary;
mod todo;
mod trim;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::{Entry, EntryId, PublicKey};
use eventlog_server::processing::{Committed, Event, EventGroup, Msgpack, PayloadCodec, Processor};
use eventlog_server::server::{Builder, Server};
use eventlog_server::services::journal::MemoryJournal;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, store};

#[derive(Debug, Serialize, Deserialize)]
pub struct TodoAdded {
    pub id: String,
    pub title: String,
}

impl Event for TodoAdded {
    const TAG: &'static str = "TodoAdded";
    fn primary_key(&self) -> String {
        self.id.clone()
    }
}

pub struct Todos;

impl EventGroup for Todos {
    type Events = (TodoAdded,);
    type Codec = Msgpack;
}

/// What handlers ran on, one line each: store, sequence, title.
pub type Handled = Arc<Mutex<Vec<String>>>;

/// Records in `handled` what arrives, and invalidates `todos`.
pub fn processor(handled: &Handled) -> Processor {
    let group = Todos::handlers(Arc::clone(handled))
        .on(async |handled, todo: Committed<TodoAdded>| {
            handled.lock().push(format!("{} {} {}", todo.store(), todo.sequence(), todo.title));
        })
        .invalidates(["todos"]);
    let builder = Processor::builder(Arc::new(MemoryJournal::new()));
    builder.group(group).build().expect("one type per tag")
}

pub async fn start(builder: Builder, keys: &[(&str, &str)]) -> (TestServer, Handled) {
    let handled = Handled::default();
    let server = TestServer::start(builder.processor(processor(&handled)), keys).await;
    (server, handled)
}

pub fn added(id: &str, title: &str) -> Entry {
    let payload = Msgpack::encode(&TodoAdded { id: id.to_owned(), title: title.to_owned() });
    Entry {
        id: EntryId::now(),
        event: TodoAdded::TAG.to_owned(),
        primary_key: id.to_owned(),
        payload: payload.expect("encodes").into(),
    }
}

pub async fn write(socket: &mut Socket, key: &PublicKey, entries: &[Entry]) -> Vec<u64> {
    socket.write(key, 1, &batch(entries)).await;
    socket.next_ack().await.1
}

/// Waits until the processing of a store has reached `sequence`.
pub async fn processed(server: &Server, store_id: &str, sequence: u64) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let status = server.replay_status(&store(store_id)).await.expect("read");
        if status.expect("handlers").position.get() >= sequence {
            return;
        }
        assert!(tokio::time::Instant::now() < patience, "not processed: {status:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
