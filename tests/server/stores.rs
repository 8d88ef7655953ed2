//! Stores open and close as they are needed, and share the server's threads.

use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::Limits;
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::watched::WatchedStorage;
use crate::support::{batch, entry, key, store};

const STORES: usize = 40;
const THREADS: usize = 4;

async fn server(idle: Duration, threads: usize) -> (TestServer, Arc<WatchedStorage>) {
    let storage = Arc::new(WatchedStorage::default());
    let registry = Arc::new(MemoryRegistry::new());
    let limits = Limits { store_idle_timeout: idle, ..Limits::default() };
    let builder = Server::builder(storage.clone(), registry, Arc::new(AllowAll));
    let builder = builder.limits(limits).store_threads(threads);
    (TestServer::start(builder, &[("alice", "team")]).await, storage)
}

/// Writes an entry to each of the first `count` stores, all at once.
async fn write_to_all(server: &TestServer, count: usize) {
    let writes = (0..count).map(|number| {
        let entries = vec![entry("E", "", b"")];
        server.server.write_to_store(store(&format!("store {number}")), entries, true)
    });
    for written in join_all(writes).await {
        written.expect("written");
    }
}

#[tokio::test]
async fn stores_that_open_together_are_spread_over_the_threads_and_so_are_those_that_open_again() {
    let (server, storage) = server(Duration::from_millis(100), THREADS).await;
    for round in 0..2 {
        write_to_all(&server, STORES).await;
        assert_eq!(storage.appends_by_thread(), [STORES / THREADS; THREADS], "round {round}");
        server.comes_to("eventlog_stores_open", 0).await;
    }
}

#[tokio::test]
async fn nothing_of_a_store_that_was_closed_for_idleness_stays_in_memory() {
    let (server, storage) = server(Duration::from_millis(100), THREADS).await;
    write_to_all(&server, STORES).await;
    // Two in one turn of the session, which remembers the store of such writes.
    let mut client = Socket::connect(&server.url()).await;
    for id in [1, 2] {
        client.write(&key("alice"), id, &batch(&[entry("E", "", b"")])).await;
    }
    assert_eq!(client.next_ack().await, (1, vec![1]));
    assert_eq!(client.next_ack().await, (2, vec![2]));
    assert_eq!(storage.opened(), STORES + 1);
    let gone = async {
        while storage.logs() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let gone = timeout(Duration::from_secs(5), gone).await;
    assert!(gone.is_ok(), "{} logs are held", storage.logs());
}

#[tokio::test]
async fn a_store_that_keeps_its_thread_busy_delays_no_registry() {
    let (server, storage) = server(Duration::from_secs(60), 1).await;
    storage.keep_busy(true);
    let (entries, writing) = (vec![entry("E", "", b"")], server.server.clone());
    let write = tokio::spawn(async move {
        writing.write_to_store(store("busy"), entries, true).await.expect("written");
    });
    while storage.opened() == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    // Its append is in progress, or about to be.
    sleep(Duration::from_millis(50)).await;
    let assigned = server.server.assign(key("bob"), store("team"));
    let assigned = timeout(Duration::from_secs(5), assigned).await;
    storage.keep_busy(false);
    assigned.expect("nobody waits").expect("assigned");
    write.await.expect("no panic");
}
