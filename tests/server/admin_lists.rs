//! Lists of the admin API, in pages and by name.

use std::sync::Arc;

use eventlog_server::services::StoreRegistry;
use serde_json::{Value, json};

use super::admin::{get, server};
use crate::support::server::{TestServer, in_memory};
use crate::support::socket::Socket;
use crate::support::watched::WatchedStorage;
use crate::support::{entry, key, store};

/// The names of the items on a page.
fn names(page: &Value, list: &str, name: &str) -> Vec<String> {
    let items = page[list].as_array().expect("a list").iter();
    items.map(|item| item[name].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn keys_that_match_are_found_beyond_the_keys_that_one_request_looks_at() {
    let (server, registry) = server(Arc::new(WatchedStorage::default())).await;
    for number in 0..10_000 {
        let name = format!("key {number:05}");
        registry.assign(&key(&name), &store("many")).await.expect("assigned");
    }
    registry.assign(&key("last Äpfel"), &store("Rare")).await.expect("assigned");
    registry.assign(&key("last of all"), &store("many")).await.expect("assigned");
    let names = |page: &Value| names(page, "keys", "publicKey");
    for asked in ["storeId=Rare", "search=rare", "search=%C3%A4PFEL", "storeId=Rare&search=last"] {
        let (_, page) = get(&server, &format!("/keys?{asked}")).await;
        // The keys before are as many as one request looks at, with `alice`.
        assert_eq!(names(&page), [""; 0], "{asked}");
        let after = page["next"].as_str().expect("a next page").replace(' ', "%20");
        let (_, page) = get(&server, &format!("/keys?{asked}&after={after}")).await;
        assert_eq!(
            (names(&page), page.get("next")),
            (vec!["last Äpfel".to_owned()], None),
            "{asked}"
        );
    }
    let (_, page) = get(&server, "/keys?storeId=many&limit=2").await;
    assert_eq!(
        (names(&page), &page["next"]),
        (vec!["key 00000".to_owned(), "key 00001".to_owned()], &json!("key 00001"))
    );
    assert_eq!(names(&get(&server, "/keys?storeId=Rare&search=alice&after=l").await.1), [""; 0]);
}

#[tokio::test]
async fn stores_are_found_by_name_however_many_come_before() {
    let (server, _) = server(Arc::new(WatchedStorage::default())).await;
    let write = async |name: &str| {
        let entries = vec![entry("E", "", b"")];
        server.server.write_to_store(store(name), entries, false).await.expect("written");
    };
    for number in 0..1_100 {
        write(&format!("many {number:04}")).await;
    }
    write("zuletzt Äpfel").await;
    let found = async |asked: &str| {
        let (status, page) = get(&server, &format!("/stores?{asked}")).await;
        assert_eq!(status, 200, "{page}");
        let next = page["next"].as_str().map(str::to_owned);
        (names(&page, "stores", "storeId").join(","), next)
    };
    let last = ("zuletzt Äpfel".to_owned(), None);
    assert_eq!(found("search=%C3%A4PFEL").await, last);
    assert_eq!(found("search=%C3%A4PFEL&open=true").await, last);
    let next = |name: &str| Some(name.to_owned());
    assert_eq!(
        found("search=MANY&limit=2").await,
        ("many 0000,many 0001".to_owned(), next("many 0001"))
    );
    assert_eq!(
        found("search=99&limit=1&after=many%200099").await,
        ("many 0199".to_owned(), next("many 0199"))
    );
    assert_eq!(
        found("limit=1&after=many%201098").await,
        ("many 1099".to_owned(), next("many 1099"))
    );
    assert_eq!(found("limit=1&after=many%201099").await, last);
    assert_eq!(found("search=nowhere").await, (String::new(), None));
}

#[tokio::test]
async fn sessions_are_found_by_who_they_are_and_by_what_they_follow() {
    let keys = [("alice", "Äpfel"), ("bob", "pears")];
    let server = TestServer::start(in_memory().admin_token("s3cret"), &keys).await;
    let mut clients = Vec::new();
    for (name, _) in keys {
        let mut client = Socket::connect(&server.url()).await;
        client.subscribe(&key(name), 0).await;
        clients.push(client);
    }
    server.comes_to("eventlog_subscriptions_open", 2).await;
    for (search, expected) in [
        ("ALI", "alice"),
        ("%C3%A4pfel", "alice"),
        ("PEARS", "bob"),
        ("/event", "alice,bob"),
        ("nobody", ""),
    ] {
        let (_, page) = get(&server, &format!("/sessions?search={search}")).await;
        let sessions = page["sessions"].as_array().expect("a list").iter();
        let followed: Vec<_> =
            sessions.flat_map(|one| names(one, "subscriptions", "publicKey")).collect();
        assert_eq!((followed.join(","), page.get("next")), (expected.to_owned(), None), "{search}");
    }
    let (_, page) = get(&server, "/sessions?limit=1").await;
    let (_, rest) = get(
        &server,
        &format!("/sessions?limit=1&after={}", page["next"].as_str().expect("a next page")),
    )
    .await;
    assert_eq!((rest["sessions"].as_array().map(Vec::len), rest.get("next")), (Some(1), None));
}
