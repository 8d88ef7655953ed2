//! Stores in the order of a figure, over all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eventlog_server::model::{Origin, SegmentBuilder, Sequence};
use eventlog_server::processing::{Committed, EventGroup, Processor};
use eventlog_server::services::StoreRegistry;
use eventlog_server::services::journal::MemoryJournal;
use eventlog_server::storage::Storage;
use serde_json::{Value, json};

use super::admin::{get, server};
use crate::processing::{TodoAdded, Todos, added};
use crate::support::server::{TestServer, in_memory};
use crate::support::socket::Socket;
use crate::support::watched::WatchedStorage;
use crate::support::{batch, entry, key, store};

const STORES: usize = 2_400;

/// A payload's length that is another one for each store, and the longest beyond the first 2,000 names.
const fn length_of(number: usize) -> usize {
    (number * 7 + 699) % STORES
}

/// Stores that are not open, each with its own size.
async fn many_stores() -> Arc<WatchedStorage> {
    let storage = Arc::new(WatchedStorage::default());
    for number in 0..STORES {
        let log = storage.open(&store(&format!("s{number:04}"))).expect("it opens");
        let payload = vec![0; length_of(number)];
        let entries = match number {
            2_100 => vec![entry("E", "", b""), entry("E", "", b"")],
            _ => vec![entry("E", "", &payload)],
        };
        let written = batch(&entries);
        let mut builder = SegmentBuilder::new(Sequence::FIRST);
        for slot in 0..entries.len() {
            let record = written.record(slot).expect("a slot");
            builder.push(record, &Origin::Server { run_handlers: false });
        }
        log.append(builder.finish()).await.expect("appended");
    }
    storage
}

fn names(page: &Value) -> String {
    let stores = page["stores"].as_array().expect("a list").iter();
    stores.map(|one| one["storeId"].as_str().expect("a name")).collect::<Vec<_>>().join(",")
}

/// The names of the stores in these orders, and whether there are more.
async fn found(server: &TestServer, asked: &str) -> (String, bool) {
    let (status, page) = get(server, &format!("/stores?{asked}")).await;
    assert_eq!((status, page.get("next"), page.get("lookedAt")), (200, None, None), "{page}");
    (names(&page), page["more"] == json!(true))
}

#[tokio::test]
async fn stores_are_sorted_over_all_of_them_and_none_is_opened_for_it() {
    let storage = many_stores().await;
    let (server, _) = server(storage.clone()).await;
    let opened = storage.opened();
    let mut by_size: Vec<usize> = (0..STORES).filter(|number| *number != 2_100).collect();
    by_size.sort_by_key(|number| length_of(*number));
    let expected = |numbers: &mut dyn Iterator<Item = &usize>| {
        numbers.take(3).map(|number| format!("s{number:04}")).collect::<Vec<_>>().join(",")
    };
    let largest = expected(&mut by_size.iter().rev());
    assert!(largest.starts_with("s2300"), "{largest}: beyond the first 2,000 names");
    assert_eq!(found(&server, "sort=size&limit=3&search=s").await.0, largest);
    let smallest = expected(&mut by_size.iter());
    assert_eq!(found(&server, "sort=size&ascending=true&limit=3").await, (smallest, true));
    for (asked, names, has_more) in [
        ("sort=entries&limit=2", "s2100,s0000", true),
        ("sort=name&limit=2", "s2399,s2398", true),
        ("sort=name&ascending=true&limit=2&search=S239", "s2390,s2391", true),
        ("sort=entries&search=2100", "s2100", false),
        ("sort=rate&limit=2", "s0000,s0001", true),
        ("sort=lag&search=S2399", "s2399", false),
        ("sort=rate&search=nowhere", "", false),
    ] {
        assert_eq!(found(&server, asked).await, (names.to_owned(), has_more), "{asked}");
    }
    assert_eq!(storage.opened(), opened);
    for wrong in ["sort=colour", "sort=size&after=a", "sort=size&open=true"] {
        assert_eq!(get(&server, &format!("/stores?{wrong}")).await.0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn what_only_open_stores_have_comes_first() {
    let (server, registry) = server(many_stores().await).await;
    let mut clients = Vec::new();
    for (number, store_id) in ["s2300", "s2350", "s2350"].iter().enumerate() {
        let name = format!("client {number}");
        registry.assign(&key(&name), &store(store_id)).await.expect("assigned");
        let mut client = Socket::connect(&server.url()).await;
        client.subscribe(&key(&name), 0).await;
        clients.push(client);
    }
    server.comes_to("eventlog_subscriptions_open", 3).await;
    assert_eq!(
        found(&server, "sort=subscribers&limit=3").await,
        ("s2350,s2300,s0000".to_owned(), true)
    );
    assert_eq!(found(&server, "sort=subscribers&search=23&limit=1").await.0, "s2350");
    let ascending = "sort=subscribers&ascending=true&search=s23&limit=100";
    let (fewest, has_more) = found(&server, ascending).await;
    assert!(fewest.ends_with("s2399,s2300,s2350") && !has_more, "{fewest}");
}

#[tokio::test]
async fn the_store_that_is_written_to_most_comes_first() {
    let (server, _) = server(many_stores().await).await;
    let (is_done, writing) = (Arc::new(AtomicBool::new(false)), server.server.clone());
    let done = is_done.clone();
    let writes = tokio::spawn(async move {
        while !done.load(Ordering::Relaxed) {
            for (name, count) in [("s2398", 40), ("s2399", 2)] {
                let entries = (0..count).map(|_| entry("E", "", b"")).collect();
                writing.write_to_store(store(name), entries, false).await.expect("written");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let (_, page) = get(&server, "/stores?sort=rate&limit=3").await;
        let rate = |at: usize| page["stores"][at]["entriesPerSecond"].as_f64().unwrap_or(0.0);
        if names(&page) == "s2398,s2399,s0000" && rate(0) > rate(1) && rate(1) > 0.0 {
            assert_eq!(page["stores"][2].get("entriesPerSecond"), None, "it is not open");
            break;
        }
        assert!(tokio::time::Instant::now() < patience, "{page}");
    }
    is_done.store(true, Ordering::Relaxed);
    writes.await.expect("no panic");
}

#[tokio::test]
async fn the_store_whose_handlers_are_behind_most_comes_first() {
    let group =
        Todos::handlers(Arc::new(())).named("todos").on(async |_, _: Committed<TodoAdded>| ());
    let processor = Processor::builder(Arc::new(MemoryJournal::new())).group(group).build();
    let builder = in_memory().admin_token("s3cret").processor(processor.expect("one group"));
    let server = TestServer::start(builder, &[]).await;
    server.server.groups().expect("groups").pause("todos").await.expect("paused");
    for (name, count) in [("a", 1), ("b", 3), ("c", 2)] {
        let entries = (0..count).map(|number| added(&number.to_string(), "t")).collect();
        server.server.write_to_store(store(name), entries, true).await.expect("written");
    }
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let behind = found(&server, "sort=lag").await;
        if behind == ("b,c,a".to_owned(), false) {
            return;
        }
        assert!(tokio::time::Instant::now() < patience, "{behind:?}");
    }
}
