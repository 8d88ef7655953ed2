//! Handlers on what the clients of Effect's own event log write.

use eventlog_server::processing::SchemaBinary;

use super::*;
use crate::support::rpc::{DEFAULT, RpcSocket, framed_entry};
use crate::support::server::in_memory;

/// In a stock client: `Schema.Struct({ key: Schema.String, stars: Schema.optional(Schema.Int) })`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NoteSet {
    key: String,
    stars: Option<i64>,
}

impl Event for NoteSet {
    const TAG: &'static str = "NoteSet";
    fn primary_key(&self) -> String {
        self.key.clone()
    }
}

struct Notes;

impl EventGroup for Notes {
    type Events = (NoteSet,);
    type Codec = SchemaBinary;
}

fn set(key: &str, stars: Option<i64>) -> Entry {
    let payload = SchemaBinary::encode(&NoteSet { key: key.to_owned(), stars });
    let payload = payload.expect("encodes").into();
    let id = EntryId::now();
    Entry { id, event: NoteSet::TAG.to_owned(), primary_key: key.to_owned(), payload }
}

/// A server with a group of each codec.
async fn start() -> (TestServer, Handled) {
    let handled = Handled::default();
    let notes =
        Notes::handlers(Arc::clone(&handled)).on(async |handled, note: Committed<NoteSet>| {
            handled.lock().push(format!("{} {} {:?}", note.sequence(), note.key, note.stars));
        });
    let todos =
        Todos::handlers(Arc::clone(&handled)).on(async |handled, todo: Committed<TodoAdded>| {
            handled.lock().push(format!("{} {}", todo.sequence(), todo.title));
        });
    let builder = Processor::builder(Arc::new(MemoryJournal::new())).group(notes).group(todos);
    let processor = builder.build().expect("one type per tag");
    let keys = [("alice", "team"), ("bob", "team")];
    (TestServer::start(in_memory().processor(processor), &keys).await, handled)
}

/// Two groups are independent of each other.
fn sorted(handled: &Handled) -> Vec<String> {
    let mut lines = handled.lock().clone();
    lines.sort();
    lines
}

/// Each codec skips what it cannot decode, including the other's payloads, and the next entry is handled.
#[tokio::test]
async fn groups_of_both_codecs_handle_what_they_can_decode() {
    let (server, handled) = start().await;
    let mut stock = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let entries = [
        set("n1", Some(3)),
        // A todo of a client that writes it in the other codec, and a note with another schema.
        framed_entry("TodoAdded", "t1", b"abc"),
        framed_entry("NoteSet", "n2", b"abc"),
        framed_entry("Unheard", "u", b""),
        set("n3", None),
    ];
    stock.write("alice", &entries).await.expect("acked");
    let mut old = Socket::connect(&server.url()).await;
    let bob = crate::support::key("bob");
    let mixed = [added("t2", "call"), Entry { event: "NoteSet".to_owned(), ..added("n4", "lost") }];
    assert_eq!(write(&mut old, &bob, &mixed).await, [6, 7]);
    processed(&server.server, "team", 7).await;
    assert_eq!(sorted(&handled), ["1 n1 Some(3)", "5 n3 None", "6 call"]);
}

/// Stock clients are sent what the server writes in such a group; what it writes in others is withheld from them.
#[tokio::test]
async fn events_of_the_server_reach_stock_clients() {
    let (server, handled) = start().await;
    let mut stock = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let feed = stock.subscribe("alice", DEFAULT, 0).await;
    stock.nothing_comes().await;
    let entries = vec![added("t1", "call"), set("n1", Some(-1))];
    server.server.write_to_store(store("team"), entries.clone(), true).await.expect("a write");
    assert_eq!(stock.next_entries(&feed, 1).await, [(2, entries[1].clone())]);
    stock.nothing_comes().await;
    processed(&server.server, "team", 2).await;
    assert_eq!(sorted(&handled), ["1 call", "2 n1 Some(-1)"]);
}
