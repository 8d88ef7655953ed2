//! Webhooks of a whole server: what arrives, where, and what answers cause.

mod answers;
mod node;

use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::Entry;
use eventlog_server::processing::Processor;
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::journal::{EventJournal, MemoryJournal};
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::Storage;
use eventlog_server::storage::memory::MemoryStorage;
use eventlog_server::webhooks::{Begin, Webhook, WebhookOptions};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::support::receiver::{Received, Receiver, Reply};
use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key, store};

pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const KEYS: [(&str, &str); 2] = [("alice", "team"), ("bob", "other")];

/// A webhook from the start, with all events of all stores.
fn to(name: &str, url: &str) -> WebhookOptions {
    WebhookOptions::new(name, url, [SECRET.parse().expect("a secret")], Begin::Start)
}

/// What outlives a server.
struct Kept {
    storage: Arc<dyn Storage>,
    registry: Arc<MemoryRegistry>,
    journal: Arc<dyn EventJournal>,
}

impl Kept {
    fn new() -> Self {
        Self {
            storage: Arc::new(MemoryStorage::new()),
            registry: Arc::new(MemoryRegistry::new()),
            journal: Arc::new(MemoryJournal::new()),
        }
    }

    async fn serve(&self, webhooks: impl IntoIterator<Item = WebhookOptions>) -> TestServer {
        let mut processor = Processor::builder(self.journal.clone());
        for options in webhooks {
            let webhook = Webhook::new(options).expect("options that work");
            processor = processor.entry_group(webhook.group(), webhook);
        }
        let processor = processor.build().expect("different names");
        let (storage, registry) = (self.storage.clone(), self.registry.clone());
        let builder = Server::builder(storage, registry, Arc::new(AllowAll)).processor(processor);
        TestServer::start(builder, &KEYS).await
    }
}

async fn serve(webhooks: impl IntoIterator<Item = WebhookOptions>) -> TestServer {
    Kept::new().serve(webhooks).await
}

async fn write(server: &TestServer, name: &str, entries: &[Entry]) {
    let mut socket = Socket::connect(&server.url()).await;
    socket.write(&key(name), 1, &batch(entries)).await;
    socket.next_ack().await;
}

/// Waits until every webhook is done with the store.
async fn through(server: &TestServer, store_id: &str) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let status = server.server.replay_status(&store(store_id)).await.expect("read");
        let status = status.expect("webhooks");
        if status.position == status.head {
            return;
        }
        assert!(tokio::time::Instant::now() < patience, "not through: {status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn numbered(count: usize) -> Vec<Entry> {
    (0..count).map(|n| entry("TodoAdded", &format!("t{n}"), &[n as u8])).collect()
}

#[tokio::test]
async fn entries_arrive_as_json_with_what_their_payloads_say() {
    let receiver = Receiver::start(|_| Reply::Now("200 OK")).await;
    let todos = WebhookOptions {
        events: vec!["Todo*".to_owned()],
        stores: vec!["te*".to_owned()],
        ..to("todos", &receiver.url())
    };
    let server = serve([todos]).await;
    let written = [
        entry("TodoAdded", "t1", b"\x81\xa5title\xa4Milk"),
        entry("NoteAdded", "n1", b"\x01"),
        entry("TodoDone", "t\"1", b"no msgpack"),
    ];
    write(&server, "bob", &written).await;
    write(&server, "alice", &written).await;
    let by_server = entry("TodoAdded", "t2", b"\xc4\x01\xff");
    let unhandled = entry("TodoAdded", "t3", b"");
    server
        .server
        .write_to_store(store("team"), vec![by_server.clone()], true)
        .await
        .expect("taken");
    server.server.write_to_store(store("team"), vec![unhandled], false).await.expect("taken");
    through(&server, "team").await;
    through(&server, "other").await;
    let received = receiver.received.lock().clone();
    for one in &received {
        assert_eq!(
            (&one.json["type"], &one.json["store"]),
            (&json!("eventlog.entries"), &json!("team"))
        );
    }
    let entries: Vec<_> = received.iter().flat_map(Received::entries).cloned().collect();
    let of = |n: usize, at: u64, from: &Entry| {
        let mut it = json!({
            "sequence": at, "id": from.id.to_string(), "event": from.event,
            "primaryKey": from.primary_key, "createdAt": from.id.created_at_millis(),
        });
        let known = it.as_object_mut().expect("an object");
        if at < 4 {
            known.insert("publicKey".to_owned(), json!("alice"));
        }
        let (name, value) = [
            ("payload", json!({"title": "Milk"})),
            ("payloadBase64", json!("bm8gbXNncGFjaw==")),
            ("payloadBase64", json!("xAH/")),
        ][n]
            .clone();
        known.insert(name.to_owned(), value);
        it
    };
    assert_eq!(entries, [of(0, 1, &written[0]), of(1, 3, &written[2]), of(2, 4, &by_server)]);
}

#[tokio::test]
async fn each_store_has_one_request_under_way_in_order_and_all_together_no_more_than_allowed() {
    let room = Arc::new(Semaphore::new(0));
    let held = room.clone();
    let receiver = Receiver::start(move |_| Reply::Held("204 No Content", held.clone())).await;
    let options = WebhookOptions { entries_max: 2, requests_max: 1, ..to("all", &receiver.url()) };
    let server = serve([options]).await;
    write(&server, "alice", &numbered(3)).await;
    assert_eq!(receiver.requests(1).await, ["team 1,2"]);
    write(&server, "bob", &numbered(1)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(receiver.lines().len(), 1, "one request is allowed");
    room.add_permits(3);
    through(&server, "team").await;
    through(&server, "other").await;
    let mut lines = receiver.lines();
    lines.sort();
    assert_eq!(lines, ["other 1", "team 1,2", "team 3"]);
}

#[tokio::test]
async fn a_webhook_begins_where_it_says_and_goes_on_where_it_was() {
    let (first, late) = (
        Receiver::start(|_| Reply::Now("200 OK")).await,
        Receiver::start(|_| Reply::Now("200 OK")).await,
    );
    let kept = Kept::new();
    let server = kept.serve([to("first", &first.url())]).await;
    write(&server, "alice", &numbered(2)).await;
    through(&server, "team").await;
    drop(server);
    let from_now = WebhookOptions { from: Begin::Now, ..to("late", &late.url()) };
    let server = kept.serve([to("first", &first.url()), from_now]).await;
    write(&server, "alice", &numbered(1)).await;
    through(&server, "team").await;
    let last = |receiver: &Receiver| receiver.lines().last().cloned();
    assert_eq!(last(&first), Some("team 3".to_owned()));
    assert_eq!(late.lines(), ["team 3"]);
    let all: usize = first.received.lock().iter().map(|one| one.entries().len()).sum();
    assert_eq!(all, 3, "none came twice");
}
