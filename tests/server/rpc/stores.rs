//! Which store a client gets: its key's, whatever name the client uses.

use std::sync::Arc;

use eventlog_server::protocol::rpc::ErrorCode;
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::Storage;
use eventlog_server::storage::memory::MemoryStorage;

use crate::support::rpc::{DEFAULT, RpcSocket, acks, framed_entry};
use crate::support::server::TestServer;
use crate::support::{batch, key, store};

#[tokio::test]
async fn a_store_is_found_by_its_own_name_and_by_the_default_and_by_no_other() {
    let (storage, registry) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryRegistry::new()));
    let builder = Server::builder(storage.clone(), registry, Arc::new(AllowAll));
    let keys = [("alice", "team"), ("bob", "other")];
    let server = TestServer::start(builder, &keys).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice", "lost"]).await;
    let one = [framed_entry("E", "1", b"")];
    for name in [DEFAULT, "team"] {
        let write = client.send_write("alice", name, &batch(&one)).await;
        assert_eq!(client.acked(&write).await, Ok(acks(&one, &[1])));
        let feed = client.subscribe("alice", name, 0).await;
        assert_eq!(client.next_entries(&feed, 1).await, [(1, one[0].clone())]);
        client.interrupt(&feed).await;
    }
    let stores = || storage.stores(None, 9).expect("the stores");
    let before = stores();
    // Neither another key's store nor one that does not exist; and none for a key without a store.
    for (public_key, name) in
        [("alice", "other"), ("alice", "new"), ("alice", ""), ("lost", DEFAULT)]
    {
        let write = client.send_write(public_key, name, &batch(&one)).await;
        assert_eq!(client.refused(&write).await.code, ErrorCode::NotFound, "{public_key} {name}");
        let feed = client.subscribe(public_key, name, 0).await;
        assert_eq!(client.refused(&feed).await.code, ErrorCode::NotFound, "{public_key} {name}");
    }
    assert_eq!(stores(), before);
    client.nothing_comes().await;
}

#[tokio::test]
async fn a_key_that_is_removed_loses_its_feed_and_its_writes() {
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let feed = client.subscribe("alice", DEFAULT, 0).await;
    client.nothing_comes().await;
    assert_eq!(server.server.remove(key("alice")).await.expect("removed"), store("team"));
    assert_eq!(client.refused(&feed).await.code, ErrorCode::NotFound);
    let refused = client.write("alice", &[framed_entry("E", "1", b"")]).await;
    assert_eq!(refused.expect_err("refused").code, ErrorCode::NotFound);
    // The identity is still proved: what comes back is the key's store.
    server.server.assign(key("alice"), store("team")).await.expect("assigned");
    client.write("alice", &[framed_entry("E", "1", b"")]).await.expect("acked");
}
