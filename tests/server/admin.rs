//! The admin API: looking at things does not change them.

use std::sync::Arc;
use std::time::Duration;

use eventlog_server::protocol::rpc::payload::json::infer;
use eventlog_server::server::{AdminRight, AdminToken, Server};
use eventlog_server::services::StoreRegistry;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::{DevRegistry, MemoryRegistry};
use eventlog_server::storage::Storage;
use eventlog_server::testing::fault::{Faults, FaultyStorage};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

use crate::support::server::{TestServer, in_memory};
use crate::support::watched::WatchedStorage;
use crate::support::{entry, http, key, store};

/// As with `--dev`: a key without a store gets one when it is resolved.
pub(super) async fn server(storage: Arc<dyn Storage>) -> (TestServer, Arc<MemoryRegistry>) {
    let registry = Arc::new(MemoryRegistry::new());
    let dev = Arc::new(DevRegistry::new(registry.clone(), store("default")));
    let builder = Server::builder(storage, dev, Arc::new(AllowAll)).admin_token("s3cret");
    (TestServer::start(builder, &[("alice", "team")]).await, registry)
}

/// Status and body of the answer to a GET.
pub(super) async fn get(server: &TestServer, path: &str) -> (u16, Value) {
    parse(&http::get_with_token(server.addr, &format!("/admin{path}"), "s3cret").await)
}

fn parse(answer: &str) -> (u16, Value) {
    let status = answer.split(' ').nth(1).expect("a status").parse().expect("a number");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    (status, serde_json::from_str(body).expect("JSON"))
}

/// The answer to any request with this token.
async fn ask(server: &TestServer, line: &str, token: &str) -> String {
    let header = format!("authorization: Bearer {token}\r\n");
    http::request(server.addr, line, &header, "").await
}

/// One token for each right, named after that right.
async fn with_rights() -> TestServer {
    let rights = [AdminRight::Read, AdminRight::Write, AdminRight::Admin];
    let token = |right: AdminRight| {
        AdminToken::new(right.as_str(), [right], right.as_str()).expect("a token")
    };
    TestServer::start(in_memory().admin_tokens(rights.map(token).to_vec()), &[]).await
}

#[tokio::test]
async fn what_the_document_describes_is_there_and_wants_the_right_that_it_names() {
    let server = with_rights().await;
    let (status, document) = parse(&ask(&server, "GET /admin/openapi.json", "read").await);
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let methods = methods.as_object().expect("methods");
        let path = path.replace(['{', '}'], "");
        // Anything else that the path accepted would be unknown to the document.
        let other = ask(&server, &format!("PATCH {path}"), "admin").await;
        let allowed = other.split("allow: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let mut allowed: Vec<_> =
            allowed.expect(&path).to_lowercase().split(", ").map(str::to_owned).collect();
        allowed.retain(|method| method != "head");
        allowed.sort();
        let mut described: Vec<_> = methods.keys().cloned().collect();
        described.sort();
        assert_eq!(allowed, described, "{path}");
        for (method, operation) in methods {
            let line = format!("{} {path}", method.to_uppercase());
            let needed = operation["x-right"].as_str().expect("a right");
            for token in ["read", "write", "admin"] {
                let answer = ask(&server, &line, token).await;
                let has = token == needed || token == "admin";
                assert_eq!(answer.contains("\"no-right\""), !has, "{line} {token}: {answer}");
                let missing = answer.contains("nothing-here") || answer.contains(" 405 ");
                assert!(!missing, "{line}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn what_goes_wrong_is_told_as_a_problem() {
    let server = with_rights().await;
    for (line, token, status, reason) in [
        ("GET /admin/keys/nobody", "read", 404, "no-such-key"),
        ("GET /admin/keys/nobody", "wrong", 401, "wrong-token"),
        ("DELETE /admin/keys/nobody", "read", 403, "no-right"),
        ("GET /admin/nothing", "read", 404, "nothing-here"),
        ("POST /admin/keys", "read", 405, "method"),
        ("PUT /admin/keys/ann", "write", 400, "invalid"),
        ("GET /admin/keys?count=1", "read", 400, "invalid"),
        ("POST /admin/backup", "admin", 404, "no-backup"),
    ] {
        let answer = ask(&server, line, token).await;
        assert!(answer.contains("content-type: application/problem+json\r\n"), "{answer}");
        let (found, problem) = parse(&answer);
        assert_eq!((found, &problem["reason"]), (status, &json!(reason)), "{line}");
        assert_eq!(problem["status"], status);
        let is_text = |name: &str| problem[name].as_str().is_some_and(|text| !text.is_empty());
        assert!(is_text("title") && is_text("detail") && is_text("type"), "{problem}");
    }
}

#[tokio::test]
async fn a_token_that_takes_the_place_of_another_counts_at_once() {
    let server = with_rights().await;
    let token = AdminToken::new("next", [AdminRight::Read], "next").expect("a token");
    server.server.set_admin_tokens(vec![token]);
    assert!(ask(&server, "GET /admin/keys", "next").await.contains(" 200 "));
    assert!(ask(&server, "GET /admin/keys", "admin").await.contains(" 401 "));
}

#[tokio::test]
async fn showing_a_key_neither_assigns_it_nor_opens_its_store() {
    let storage = Arc::new(WatchedStorage::default());
    let (server, registry) = server(storage.clone()).await;
    assert_eq!(get(&server, "/keys/alice").await, (200, json!({ "storeId": "team" })));
    assert_eq!(get(&server, "/keys/nobody").await.0, 404);
    let mapped = registry.list(None, 9).await.expect("a page");
    assert_eq!(mapped, [(key("alice"), store("team"))]);
    assert_eq!(storage.opened(), 0);
}

#[tokio::test]
async fn a_key_is_shown_while_the_storage_is_down() {
    let storage = FaultyStorage::new(Arc::new(WatchedStorage::default()));
    let (server, _) = server(Arc::new(storage.clone())).await;
    storage.set(Faults { opening: true, ..Faults::default() });
    assert_eq!(get(&server, "/keys/alice").await, (200, json!({ "storeId": "team" })));
}

#[tokio::test]
async fn stores_are_listed_and_shown_without_being_opened() {
    let storage = Arc::new(WatchedStorage::default());
    {
        // Another server, which leaves stores behind that nobody has open.
        let (server, _) = server(storage.clone()).await;
        for name in ["a", "b", "c"] {
            let entries = vec![entry("E", "", b"")];
            server.server.write_to_store(store(name), entries, true).await.expect("written");
        }
    }
    let (server, _) = server(storage.clone()).await;
    let opened = storage.opened();
    let names = |page: Value| -> Vec<String> {
        let stores = page["stores"].as_array().expect("a list").clone();
        let name = |status: &Value| status["storeId"].as_str().expect("a name").to_owned();
        stores.iter().map(name).collect()
    };
    assert_eq!(names(get(&server, "/stores").await.1), ["a", "b", "c"]);
    assert_eq!(names(get(&server, "/stores?limit=2").await.1), ["a", "b"]);
    assert_eq!(names(get(&server, "/stores?after=a&limit=1").await.1), ["b"]);
    assert!(names(get(&server, "/stores?after=c").await.1).is_empty());
    assert_eq!(get(&server, "/stores?limit=2").await.1["next"], "b");
    assert_eq!(get(&server, "/stores?after=b&limit=1").await.1.get("next"), None, "it is the last");
    let (status, shown) = get(&server, "/stores/b").await;
    assert_eq!(status, 200);
    assert_eq!(
        (&shown["head"], &shown["entries"], &shown["subscribers"]),
        (&json!(1), &json!(1), &json!(0))
    );
    assert!(shown["bytes"].as_u64() > Some(16), "{shown}");
    assert_eq!(get(&server, "/stores/nobody").await.0, 404);
    assert_eq!(storage.opened(), opened);
}

/// Appends `titles`, one a batch.
async fn append(server: &TestServer, titles: std::ops::Range<u8>) {
    for title in titles {
        // msgpack of {"n": title}.
        let entries = vec![entry("Note", &format!("n{title}"), &[0x81, 0xa1, b'n', title])];
        server.server.write_to_store(store("team"), entries, true).await.expect("written");
    }
}

#[tokio::test]
async fn entries_are_read_by_sequence_id_event_and_key_and_payloads_are_decoded() {
    let (server, _) = server(Arc::new(WatchedStorage::default())).await;
    append(&server, 0..5).await;
    let sequences = |page: &Value| -> Vec<u64> {
        let entries = page["entries"].as_array().expect("a list").iter();
        entries.map(|entry| entry["sequence"].as_u64().expect("a number")).collect()
    };
    let (status, page) = get(&server, "/stores/team/entries?from=2&limit=2").await;
    assert_eq!(
        (status, sequences(&page), &page["next"], &page["head"]),
        (200, vec![2, 3], &json!(4), &json!(5))
    );
    let second = &page["entries"][0];
    assert_eq!(
        (&second["payload"], &second["origin"]),
        (&json!({ "n": 1 }), &json!({ "runHandlers": true }))
    );
    let last = get(&server, "/stores/team/entries?from=4&limit=2").await.1;
    assert_eq!((sequences(&last), last.get("next")), (vec![4, 5], None));
    assert_eq!(sequences(&get(&server, "/stores/team/entries?from=6").await.1), [0; 0]);
    let id = second["id"].as_str().expect("an id");
    assert_eq!(sequences(&get(&server, &format!("/stores/team/entries?id={id}")).await.1), [2]);
    assert_eq!(
        sequences(&get(&server, "/stores/team/entries?primaryKey=n3&event=N*").await.1),
        [4]
    );
    assert_eq!(sequences(&get(&server, "/stores/team/entries?event=Other").await.1), [0; 0]);
    for (path, status, reason) in [
        ("/stores/team/entries?id=018bcfe5-6800-70e1-8101-010101010101", 404, "no-such-entry"),
        ("/stores/team/entries?id=7", 400, "invalid"),
        ("/stores/team/entries?form=7", 400, "invalid"),
        ("/stores/none/entries", 404, "no-such-store"),
    ] {
        let (found, problem) = get(&server, path).await;
        assert_eq!((found, &problem["reason"]), (status, &json!(reason)), "{path}");
    }
}

/// Reads server-sent events.
struct Events(tokio::io::BufReader<tokio::net::TcpStream>);

impl Events {
    async fn open(server: &TestServer, query: &str, last: Option<u64>) -> Self {
        let mut stream = tokio::net::TcpStream::connect(server.addr).await.expect("a connection");
        let last = last.map_or_else(String::new, |last| format!("last-event-id: {last}\r\n"));
        let request = format!(
            "GET /admin/stores/team/entries{query} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer s3cret\r\n\
             accept: text/event-stream\r\n{last}\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        Self(tokio::io::BufReader::new(stream))
    }

    /// The data of the next event.
    async fn data(&mut self) -> Value {
        let mut line = String::new();
        loop {
            line.clear();
            let read = tokio::time::timeout(Duration::from_secs(60), self.0.read_line(&mut line));
            assert!(read.await.expect("in time").expect("read") > 0, "it ended");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).expect("JSON");
            }
        }
    }

    /// The sequences of the next events, each of which is the entry that it claims to be.
    async fn next(&mut self, count: usize) -> Vec<u64> {
        let (mut found, mut line, mut whole) = (Vec::new(), String::new(), 0);
        while whole < count {
            line.clear();
            let read = tokio::time::timeout(Duration::from_secs(60), self.0.read_line(&mut line));
            assert!(read.await.expect("in time").expect("read") > 0, "it ended");
            if let Some(id) = line.strip_prefix("id: ") {
                found.push(id.trim().parse().expect("a sequence"));
            } else if let Some(data) = line.strip_prefix("data: ") {
                let entry: Value = serde_json::from_str(data).expect("JSON");
                assert_eq!(entry["sequence"].as_u64(), found.last().copied());
                whole += 1;
            }
        }
        found
    }
}

#[tokio::test]
async fn a_stream_has_what_was_there_and_what_comes_and_goes_on_where_it_was() {
    let (server, _) = server(Arc::new(WatchedStorage::default())).await;
    append(&server, 0..3).await;
    let mut all = Events::open(&server, "?from=2", None).await;
    assert_eq!(all.next(2).await, [2, 3]);
    // Written while they are read: no gap between existing and new entries.
    let mut racing = Events::open(&server, "", None).await;
    let (seen, ()) = tokio::join!(racing.next(63), append(&server, 0..60));
    assert_eq!(seen, (1..=63).collect::<Vec<_>>());
    assert_eq!(all.next(60).await, (4..=63).collect::<Vec<_>>());
    drop(all);
    let mut again = Events::open(&server, "?from=1", Some(61)).await;
    assert_eq!(again.next(2).await, [62, 63]);
    // Whoever has more than there is says that the data directory may be an older copy.
    let ahead = "eventlog_subscriptions_ahead_total ";
    let metrics = async || http::request(server.addr, "GET /metrics", "", "").await;
    assert!(metrics().await.contains(&format!("{ahead}0\n")));
    let _has_more = Events::open(&server, "", Some(65)).await;
    while !metrics().await.contains(&format!("{ahead}1\n")) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut some = Events::open(&server, "?primaryKey=n59", None).await;
    append(&server, 59..60).await;
    assert_eq!((some.next(2).await, again.next(1).await), (vec![63, 64], vec![64]));
}

/// The payloads of Effect's clients can only be read whole: who asks for their beginning gets that of what they mean.
#[tokio::test]
async fn of_a_long_payload_the_beginning_of_its_meaning_is_shown() {
    let (server, _) = server(Arc::new(WatchedStorage::default())).await;
    let payload =
        |letters: usize| infer(&json!({ "text": "é".repeat(letters) })).expect("a payload");
    let sizes = [9, 500, 40_000, 600_000];
    let entries = sizes.map(|letters| entry("E", "", &payload(letters))).to_vec();
    server.server.write_to_store(store("team"), entries, false).await.expect("written");
    let (_, page) = get(&server, "/stores/team/entries?payloadMax=101").await;
    assert_eq!(page["entries"][0]["codec"], "schema-binary");
    let start = format!("{{\"#bde64e3e\":\"{}", "é".repeat(43));
    let [cut, long] = [1, 2].map(|at| page["entries"][at].clone());
    assert_eq!((cut["payloadStart"].as_str(), cut.get("codec")), (Some(start.as_str()), None));
    assert_eq!(long["payloadStart"], json!(start), "however long it is");
    let (_, page) = get(&server, "/stores/team/entries?payloadMax=0").await;
    assert_eq!(page["entries"][1].get("payloadStart"), None);
    // All of it is there, and more than anybody reads.
    let (_, page) = get(&server, "/stores/team/entries?from=4&payloadMax=2000000").await;
    let longest = page["entries"][0]["payloadStart"].as_str().expect("a beginning");
    assert!(longest.starts_with("{\"#bde64e3e\":\"éé") && longest.len() > 1_000_000);
}

/// A watcher is shown the newest entries, and told how many were skipped.
#[tokio::test]
async fn the_newest_entries_are_shown_in_short_and_as_they_come() {
    let (server, _) = server(Arc::new(WatchedStorage::default())).await;
    append(&server, 0..5).await;
    let (_, page) = get(&server, "/stores/team/entries?newest=2&payloadMax=1").await;
    let entries = page["entries"].as_array().expect("a list");
    assert_eq!((entries.len(), &entries[0]["sequence"]), (2, &json!(4)));
    let cut = (&entries[0]["payloadBytes"], &entries[0]["payloadBase64"], entries[0].get("codec"));
    assert_eq!(cut, (&json!(4), &json!("gQ=="), None));
    let whole = get(&server, "/stores/team/entries?newest=1").await.1["entries"][0].clone();
    assert_eq!((&whole["codec"], &whole["payload"]), (&json!("msgpack"), &json!({ "n": 4 })));
    let mut watching = Events::open(&server, "?newest=3&event=Note&payloadMax=0", None).await;
    let first = watching.data().await;
    assert_eq!((&first["head"], &first["passedOver"]), (&json!(5), &json!(0)));
    assert_eq!(first["entries"][0]["sequence"], 3);
    append(&server, 5..65).await;
    let (mut seen, mut passed_over) = (5, 0);
    while seen < 65 {
        let next = watching.data().await;
        let entries = next["entries"].as_array().expect("a list");
        assert!((1..=3).contains(&entries.len()), "{next}");
        passed_over += next["passedOver"].as_u64().expect("a number");
        seen = entries.last().expect("one")["sequence"].as_u64().expect("a number");
    }
    assert!(passed_over > 0, "none was passed over");
    let header = "authorization: Bearer s3cret\r\naccept: text/html,*/*;q=0.8\r\n";
    let asked = "GET /admin/stores/team/entries?as=lines";
    let lines = http::request(server.addr, asked, header, "").await;
    assert!(lines.contains(r#"{"end":"team","entries":65}"#), "{lines}");
    assert_eq!(get(&server, "/stores/team/entries?as=text").await.0, 400);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_back_nobody_and_loses_nothing() {
    let (server, _) = server(Arc::new(WatchedStorage::default())).await;
    append(&server, 0..1).await;
    let mut slow = Events::open(&server, "", None).await;
    for _ in 0..64 {
        let entries = vec![entry("Large", "", &[0xc0; 200_000])];
        server.server.write_to_store(store("team"), entries, true).await.expect("written");
    }
    assert_eq!(slow.next(65).await, (1..=65).collect::<Vec<_>>());
}
