//! Keys come and go while clients are connected.

use eventlog_server::protocol::msgpack::ErrorCode;

use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key, store};

#[tokio::test]
async fn removing_a_key_ends_its_live_subscription_and_its_writes() {
    let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
    let mut alice = Socket::connect(&server.url()).await;
    alice.subscribe(&key("alice"), 0).await;
    alice.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(alice.next_ack().await, (1, vec![1]));
    assert_eq!(server.server.remove(key("alice")).await.expect("removed"), store("team"));
    let refusal = alice.next_refusal().await;
    assert_eq!(refusal.request_tag, "RequestChanges");
    assert_eq!(
        (refusal.code, refusal.public_key.as_deref()),
        (ErrorCode::InvalidRequest, Some("alice"))
    );
    alice.write(&key("alice"), 2, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(alice.next_refusal().await.code, ErrorCode::InvalidRequest);
    let mut bob = Socket::connect(&server.url()).await;
    bob.write(&key("bob"), 3, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(bob.next_ack().await, (3, vec![2]));
    alice.nothing_comes().await;
}

#[tokio::test]
async fn a_moved_key_writes_to_its_new_store() {
    let server = TestServer::with_keys(&[("alice", "old")]).await;
    let mut alice = Socket::connect(&server.url()).await;
    let one = entry("E", "", b"");
    for id in [1, 2] {
        alice.write(&key("alice"), id, &batch(&[entry("E", "", b"")])).await;
        assert_eq!(alice.next_ack().await, (id, vec![id]));
    }
    server.server.remove(key("alice")).await.expect("removed");
    server.server.assign(key("alice"), store("new")).await.expect("assigned");
    alice.write(&key("alice"), 3, &batch(std::slice::from_ref(&one))).await;
    assert_eq!(alice.next_ack().await, (3, vec![1]), "the new store begins at 1");
}
