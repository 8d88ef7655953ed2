//! Writes, acks and feeds.

use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

#[tokio::test]
async fn two_public_keys_mapped_to_the_same_store_share_transport_history() {
    let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
    let (alice, bob) = (key("alice"), key("bob"));
    let entries = [entry("Note", "n1", b"one"), entry("Note", "n2", b"two")];
    let mut writer = Socket::connect(&server.url()).await;
    writer.write(&alice, 7, &batch(&entries)).await;
    assert_eq!(writer.next_ack().await, (7, vec![1, 2]));
    let mut reader = Socket::connect(&server.url()).await;
    reader.subscribe(&bob, 0).await;
    let [one, two] = entries;
    assert_eq!(reader.next_entries(2).await, [(1, one), (2, two)]);
    let live = entry("Note", "n3", b"three");
    writer.write(&alice, 8, &batch(std::slice::from_ref(&live))).await;
    assert_eq!(writer.next_ack().await, (8, vec![3]));
    assert_eq!(reader.next_entries(1).await, [(3, live)]);
}
