//! Two and three nodes: what is written at one appears at the others, in one order.

use std::time::{Duration, Instant};

use super::nodes::Load;
use super::{ADMIN, Node, cluster, rounds};
use crate::support::socket::Socket;
use crate::support::{batch, entry, http, key};

/// Disconnects everybody who listens or notifies.
const CUT: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
    AND pid <> pg_backend_pid() AND (query LIKE 'LISTEN%' OR query LIKE '%pg_notify%')";

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_have_one_feed_whoever_writes_where_and_one_of_them_is_killed() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let (one, two, mut three) = (Node::dev(&url), Node::dev(&url), Node::dev(&url));
    let load = Load::start(&[&one, &two, &three]).await;
    for _ in 0..rounds() {
        load.goes_on(200).await;
        three.kill();
    }
    load.goes_on(200).await;
    let entries = load.check(&[&one, &two, &three]).await;
    assert!(entries > 300, "{entries}");
    let sql = "SELECT count(*), min(sequence), max(sequence), count(DISTINCT entry_id) FROM effect_events";
    assert_eq!(cluster.sql(&url, sql), format!("{entries}|1|{entries}|{entries}"));
}

#[tokio::test]
async fn a_subscriber_at_one_node_gets_what_is_written_at_another() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let (here, there) = (Node::dev(&url), Node::dev(&url));
    let mut reader = Socket::connect(&here.url()).await;
    reader.subscribe(&key("bob"), 0).await;
    let mut writer = Socket::connect(&there.url()).await;
    for n in 1..=50 {
        writer.write(&key("alice"), n, &batch(&[entry("Noted", "n", b"\x02\x20a")])).await;
        assert_eq!(writer.next_ack().await, (n, vec![n]));
        assert_eq!(reader.next_entries(1).await[0].0, n);
    }
    // Even if notifications are lost.
    for n in 51..=60 {
        cluster.sql(&url, CUT);
        writer.write(&key("alice"), n, &batch(&[entry("Noted", "n", b"\x02\x20a")])).await;
        assert_eq!(writer.next_ack().await, (n, vec![n]));
        assert_eq!(reader.next_entries(1).await[0].0, n);
    }
}

/// A node with an admin token.
fn with_admin(url: &str) -> Node {
    let settings = vec![
        ("EVENTLOG_AUTH_MODE", "allow-all".to_owned()),
        ("EVENTLOG_ADMIN_TOKEN", ADMIN.to_owned()),
    ];
    Node::start(url, settings)
}

/// The nodes that one of them tells of: whether each is itself, in their order.
async fn nodes_at(node: &Node) -> Vec<bool> {
    let address = ([127, 0, 0, 1], node.port).into();
    let answer = http::get_with_token(address, "/admin/overview", ADMIN).await;
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    let overview: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let nodes = overview["nodes"].as_array().expect("nodes");
    nodes.iter().map(|node| node["isThis"] == true).collect()
}

#[tokio::test]
async fn each_node_tells_which_others_it_has_heard_of_until_they_are_silent() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let here = with_admin(&url);
    assert_eq!(nodes_at(&here).await, [true]);
    let there = with_admin(&url);
    let deadline = Instant::now() + Duration::from_secs(120);
    for node in [&here, &there] {
        while nodes_at(node).await != [true, false] {
            assert!(Instant::now() < deadline, "{:?}", nodes_at(node).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    drop(there);
    while nodes_at(&here).await != [true] {
        assert!(Instant::now() < deadline, "{:?}", nodes_at(&here).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_key_removed_or_revoked_at_one_node_is_out_at_all_within_two_seconds() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let (here, there) = (with_admin(&url), with_admin(&url));
    for name in ["alice", "bob"] {
        there.run(&["keys", "--token", ADMIN, "assign", name, "team"]);
    }
    let mut alice = Socket::connect(&here.url()).await;
    alice.subscribe(&key("alice"), 0).await;
    let mut bob = Socket::connect(&here.url()).await;
    bob.subscribe(&key("bob"), 0).await;
    // Both are served here.
    alice.write(&key("alice"), 1, &batch(&[entry("Noted", "n", b"\x02\x20a")])).await;
    assert_eq!(alice.next_ack().await, (1, vec![1]));
    bob.next_entries(1).await;
    there.run(&["keys", "--token", ADMIN, "remove", "alice"]);
    let removed = Instant::now();
    let refusal = alice.next_refusal().await;
    assert_eq!(refusal.public_key.as_deref(), Some("alice"));
    assert!(removed.elapsed() < Duration::from_secs(10), "{:?}", removed.elapsed());
    alice.write(&key("alice"), 2, &batch(&[entry("Noted", "n", b"\x02\x20a")])).await;
    assert!(alice.next_answer().await.is_err());
    there.run(&["revoke", "--token", ADMIN, "--key", "bob"]);
    let refusal = bob.next_refusal().await;
    assert!(refusal.message.starts_with("revoked"), "{refusal:?}");
}

#[tokio::test]
async fn what_is_known_already_is_not_acknowledged_after_a_removal_at_another_node() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let (here, there) = (with_admin(&url), with_admin(&url));
    let names = ["alice", "bob", "carol", "dave", "erin"];
    for name in names {
        there.run(&["keys", "--token", ADMIN, "assign", name, "team"]);
    }
    for name in names {
        let mut socket = Socket::connect(&here.url()).await;
        let again = batch(&[entry("Noted", "n", b"\x02\x20a")]);
        socket.write(&key(name), 1, &again).await;
        let (_, places) = socket.next_ack().await;
        socket.write(&key(name), 2, &again).await;
        assert_eq!(socket.next_ack().await, (2, places));
        // It hears of the removal late.
        cluster.sql(&url, CUT);
        let (line, address) = (format!("DELETE /admin/keys/{name}"), [127, 0, 0, 1]);
        let headers = format!("Authorization: Bearer {ADMIN}\r\n");
        let answer = http::request((address, there.port).into(), &line, &headers, "").await;
        assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
        socket.write(&key(name), 3, &again).await;
        let answer = socket.next_answer().await;
        assert!(answer.is_err(), "{name}: {answer:?}");
    }
}
