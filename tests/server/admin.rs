//! The admin API: what is looked at stays as it is.

use std::sync::Arc;

use eventlog_server::server::Server;
use eventlog_server::services::StoreRegistry;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::{DevRegistry, MemoryRegistry};
use eventlog_server::storage::Storage;
use eventlog_server::testing::fault::{Faults, FaultyStorage};
use serde_json::{Value, json};

use crate::support::server::TestServer;
use crate::support::watched::WatchedStorage;
use crate::support::{entry, http, key, store};

/// As with `--dev`: a key without a store gets one when it is resolved.
async fn server(storage: Arc<dyn Storage>) -> (TestServer, Arc<MemoryRegistry>) {
    let registry = Arc::new(MemoryRegistry::new());
    let dev = Arc::new(DevRegistry::new(registry.clone(), store("default")));
    let builder = Server::builder(storage, dev, Arc::new(AllowAll)).admin_token("s3cret");
    (TestServer::start(builder, &[("alice", "team")]).await, registry)
}

/// Status and body of the answer to a GET.
async fn get(server: &TestServer, path: &str) -> (u16, Value) {
    let answer = http::get_with_token(server.addr, &format!("/admin{path}"), "s3cret").await;
    let status = answer.split(' ').nth(1).expect("a status").parse().expect("a number");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    (status, serde_json::from_str(body).expect("JSON"))
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
        // Another server, to leave stores behind that nobody has open.
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
    assert_eq!(names(get(&server, "/stores?count=2").await.1), ["a", "b"]);
    assert_eq!(names(get(&server, "/stores?after=a&count=1").await.1), ["b"]);
    assert!(names(get(&server, "/stores?after=c").await.1).is_empty());
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
