//! Subscriptions: everything once, in order, as fast as the client permits.

use eventlog_server::protocol::rpc::{Call, ErrorCode};

use crate::support::rpc::{DEFAULT, Heard, RpcSocket, acks, framed_entry};
use crate::support::server::TestServer;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key, store};

const TEAM: [(&str, &str); 2] = [("alice", "team"), ("bob", "team")];

#[tokio::test]
async fn own_entries_come_as_acknowledgements_alone() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice", "bob"]).await;
    let before = [framed_entry("E", "before", b"")];
    client.write("alice", &before).await.expect("acked");
    let alice = client.subscribe("alice", DEFAULT, 0).await;
    // What existed before the subscription comes, whoever wrote it.
    assert_eq!(client.next_entries(&alice, 1).await, [(1, before[0].clone())]);
    let mine = [framed_entry("E", "mine", b"")];
    assert_eq!(client.write("alice", &mine).await, Ok(acks(&mine, &[2])));
    client.nothing_comes().await;
    // Another identity of the same connection gets it, and this one gets what that one writes.
    let bob = client.subscribe("bob", DEFAULT, 2).await;
    assert_eq!(client.next_entries(&bob, 1).await, [(2, mine[0].clone())]);
    let his = framed_entry("E", "his", b"");
    let write = client.send_write("bob", DEFAULT, &batch(std::slice::from_ref(&his))).await;
    assert_eq!(client.next_entries(&alice, 1).await, [(3, his.clone())]);
    assert_eq!(client.acked(&write).await, Ok(acks(&[his], &[3])));
    // A repeated write is not delivered again.
    assert_eq!(client.write("bob", &mine).await, Ok(acks(&mine, &[2])));
    client.nothing_comes().await;
}

/// Backlog and live entries, from before the first to beyond the last.
#[tokio::test]
async fn a_feed_begins_where_it_is_asked_to() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut writer = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let entries: Vec<_> = (1..=6).map(|n| (n, framed_entry("E", &n.to_string(), b""))).collect();
    let write = |range: std::ops::Range<usize>| {
        entries[range].iter().map(|(_, entry)| entry.clone()).collect::<Vec<_>>()
    };
    writer.write("alice", &write(0..3)).await.expect("acked");
    let mut readers = Vec::new();
    for start in [0, 1, 3, 4, 6] {
        let mut reader = RpcSocket::authenticated(&server.rpc_url(), &["bob"]).await;
        let feed = reader.subscribe("bob", DEFAULT, start).await;
        reader.ping().await;
        readers.push((reader, feed, start.max(1)));
    }
    writer.write("alice", &write(3..6)).await.expect("acked");
    for (mut reader, feed, start) in readers {
        let mut found = Vec::new();
        while found.len() < (7 - start) as usize {
            match reader.next().await {
                Heard::Pong => {}
                Heard::Changes(id, entries) if id == feed => {
                    found.extend(entries);
                    reader.ack(&feed).await;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(found, entries[start as usize - 1..]);
    }
}

/// A client that does not acknowledge costs a cursor: eight messages, then nothing, and each acknowledgement permits
/// one more.
#[tokio::test]
async fn no_more_than_eight_messages_are_on_their_way_unacknowledged() {
    let server = TestServer::with_keys(&TEAM).await;
    let entries: Vec<_> =
        (0..40).map(|n| framed_entry("E", &n.to_string(), &vec![n; 60_000])).collect();
    server.server.write_to_store(store("team"), entries, true).await.expect("a write");
    let mut reader = RpcSocket::authenticated(&server.rpc_url(), &["alice", "bob"]).await;
    let feed = reader.subscribe("alice", DEFAULT, 0).await;
    let mut next = 1;
    let mut in_order = |entries: Vec<(u64, _)>| {
        assert!(!entries.is_empty());
        for (sequence, _) in entries {
            assert_eq!(sequence, next);
            next += 1;
        }
    };
    for _ in 0..8 {
        in_order(reader.next_changes(&feed).await);
    }
    reader.nothing_comes().await;
    // Its own write is acknowledged after everything that was there before, so not now.
    let own = batch(&[framed_entry("E", "own", b"")]);
    reader.send_write("alice", DEFAULT, &own).await;
    reader.nothing_comes().await;
    for _ in 0..2 {
        reader.ack(&feed).await;
        in_order(reader.next_changes(&feed).await);
        reader.nothing_comes().await;
    }
    // Another subscription of the connection is not held up by it.
    let other = reader.subscribe("bob", DEFAULT, 40).await;
    assert_eq!(reader.next_changes(&other).await[0].0, 40);
}

#[tokio::test]
async fn an_interrupt_ends_a_subscription_without_an_answer_and_spares_the_others() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice", "bob"]).await;
    let alice = client.subscribe("alice", DEFAULT, 0).await;
    let bob = client.subscribe("bob", DEFAULT, 0).await;
    client.interrupt(&alice).await;
    client.interrupt(&alice).await;
    client.nothing_comes().await;
    server.comes_to("eventlog_subscriptions_open", 1).await;
    let one = framed_entry("E", "1", b"");
    let entries = vec![one.clone()];
    server.server.write_to_store(store("team"), entries, true).await.expect("a write");
    assert_eq!(client.next_entries(&bob, 1).await, [(1, one.clone())]);
    client.nothing_comes().await;
    // It may subscribe again.
    let alice = client.subscribe("alice", DEFAULT, 0).await;
    assert_eq!(client.next_entries(&alice, 1).await, [(1, one)]);
}

#[tokio::test]
async fn a_second_subscription_of_a_key_replaces_the_first() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let first = client.subscribe("alice", DEFAULT, 0).await;
    let second = client.subscribe("alice", DEFAULT, 0).await;
    assert_eq!(client.refused(&first).await.code, ErrorCode::InvalidRequest);
    // Its id is free again, and its interrupt does not affect the second one.
    client.interrupt(&first).await;
    let one = framed_entry("E", "1", b"");
    let entries = vec![one.clone()];
    server.server.write_to_store(store("team"), entries, true).await.expect("a write");
    assert_eq!(client.next_entries(&second, 1).await, [(1, one)]);
}

#[tokio::test]
async fn a_request_with_the_id_of_an_open_subscription_ends_the_connection() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let feed = client.subscribe("alice", DEFAULT, 0).await;
    client.send(&Call::Hello.encode(&feed)).await;
    assert_eq!(client.socket.close_code().await, Some(1002));
}

/// One entry that such a client cannot decode would stop it for good.
#[tokio::test]
async fn entries_of_the_other_protocol_come_through_if_their_payload_is_a_frame() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut reader = RpcSocket::authenticated(&server.rpc_url(), &["bob"]).await;
    let feed_of_reader = reader.subscribe("bob", DEFAULT, 0).await;
    reader.nothing_comes().await;
    let mut writer = Socket::connect(&server.url()).await;
    let (good, bad) = (framed_entry("E", "good", b"abc"), entry("E", "bad", b"\xc3"));
    let entries = [bad.clone(), good.clone(), bad];
    writer.write(&key("alice"), 1, &batch(&entries)).await;
    assert_eq!(writer.next_ack().await, (1, vec![1, 2, 1]));
    let bad = [entry("E", "bad", b"")];
    writer.write(&key("alice"), 2, &batch(&bad)).await;
    assert_eq!(writer.next_ack().await, (2, vec![3]));
    assert_eq!(reader.next_entries(&feed_of_reader, 1).await, [(2, good.clone())]);
    reader.nothing_comes().await;
    // From disk or memory, now or later; and what comes after them is not held up.
    let mut late = RpcSocket::authenticated(&server.rpc_url(), &["bob"]).await;
    let feed = late.subscribe("bob", DEFAULT, 0).await;
    assert_eq!(late.next_entries(&feed, 1).await, [(2, good)]);
    let mine = [framed_entry("E", "mine", b"")];
    assert_eq!(late.write("bob", &mine).await, Ok(acks(&mine, &[4])));
    assert_eq!(reader.next_changes(&feed_of_reader).await, [(4, mine[0].clone())]);
}

#[tokio::test]
async fn both_protocols_read_what_this_one_writes() {
    let server = TestServer::with_keys(&TEAM).await;
    let mut old = Socket::connect(&server.url()).await;
    old.subscribe(&key("bob"), 0).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let one = [framed_entry("E", "1", b"abc")];
    client.write("alice", &one).await.expect("acked");
    assert_eq!(old.next_entries(1).await, [(1, one[0].clone())]);
}

/// As in the other protocol: what was received is acknowledged, then the connection ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_acknowledges_first_and_closes_with_1001() {
    let mut server = TestServer::with_keys(&TEAM).await;
    let mut client = RpcSocket::authenticated(&server.rpc_url(), &["alice"]).await;
    let entries = [framed_entry("E", "1", b"")];
    let write = client.send_write("alice", DEFAULT, &batch(&entries)).await;
    assert_eq!(client.acked(&write).await, Ok(acks(&entries, &[1])));
    let stopping = tokio::task::spawn_blocking(move || server.stop());
    assert_eq!(client.socket.close_code().await, Some(1001));
    stopping.await.expect("stopped");
}
