//! `heal` and `migrate` while nodes run, and nodes whose database was healed or moved while they were cut off.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Node, cluster};
use crate::support::http;
use crate::support::process::binary;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

const PATIENCE: Duration = Duration::from_secs(60);

/// What the command says, and whether it succeeded.
fn run(arguments: &[&str]) -> (bool, String) {
    let done = binary().args(arguments).output().expect("it runs");
    let told = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&told).into_owned())
}

fn heal(database: &str, more: &[&str]) -> (bool, String) {
    run(&[&["heal", "--yes", "--database", database], more].concat())
}

fn migrate_back(database: &str, to: &Path, more: &[&str]) -> (bool, String) {
    let to = to.to_str().expect("UTF-8");
    run(&[&["migrate", "--from", database, "--to-data-dir", to], more].concat())
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn write(node: &Node, name: &str) {
    let mut socket = Socket::connect(&node.url()).await;
    socket.write(&key("alice"), 1, &batch(&[entry("Noted", name, b"\xa1a")])).await;
    socket.next_ack().await;
}

#[tokio::test]
async fn nodes_are_seen_whatever_they_call_themselves_and_named() {
    let Some(cluster) = cluster() else { return };
    let (database, directory) = (cluster.database(), tempfile::tempdir().expect("a directory"));
    let mut node = Node::dev(&format!("{database}?application_name=behind"));
    write(&node, "a").await;
    let back = directory.path().join("back");
    for (done, told) in [heal(&database, &[]), migrate_back(&database, &back, &[])] {
        assert!(!done && told.contains("behind from 127.0.0.1"), "{told}");
        assert!(told.contains("--nodes-are-dead"), "{told}");
    }
    write(&node, "b").await;
    node.end("TERM");
    let (done, told) = heal(&database, &[]);
    assert!(done, "a node that has stopped in order is forgotten: {told}");
}

#[tokio::test]
async fn a_node_that_was_just_there_is_named_unless_it_is_known_to_be_dead() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let mut node = Node::dev(&database);
    write(&node, "a").await;
    node.end("KILL");
    let name = cluster.sql(&database, "SELECT node FROM effect_events_nodes");
    let (done, told) = heal(&database, &[]);
    assert!(!done && told.contains(&name) && told.contains("--nodes-are-dead"), "{told}");
    let (done, told) = heal(&database, &["--nodes-are-dead"]);
    assert!(done, "{told}");
    assert_eq!(cluster.sql(&database, "SELECT count(*) FROM effect_events_nodes"), "0");
}

/// The node's database was taken from it: it says so once, its clients come back elsewhere, and nothing is written.
async fn is_lost(node: &Node, socket: &mut Socket, reason: &str) {
    assert_eq!(socket.close_code().await, Some(1001));
    let address = node.address().parse().expect("an address");
    let told = http::get(address, "/readyz").await;
    assert!(told.starts_with("HTTP/1.1 503") && told.contains(reason), "{told}");
    assert!(told.contains("start this node again"), "{told}");
    let (status, told) = Socket::refused(&node.url(), &[]).await;
    assert!(status == 503 && told.contains("start this node again"), "{status} {told}");
    let log = node.log();
    let lines = log.lines().filter(|line| line.contains("ERROR") && line.contains(reason));
    assert_eq!(lines.count(), 1, "{log}");
}

#[tokio::test]
async fn a_node_whose_database_was_healed_under_it_serves_nobody_until_it_is_started_again() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let mut node = Node::dev(&database);
    let mut socket = Socket::connect(&node.url()).await;
    socket.write(&key("alice"), 1, &batch(&[entry("Noted", "a", b"\xa1a")])).await;
    socket.next_ack().await;
    let (done, told) = heal(&database, &["--nodes-are-dead"]);
    assert!(done, "{told}");
    is_lost(&node, &mut socket, "remote id").await;
    node.end("TERM");
    node.start_again();
    write(&node, "b").await;
    let last = "SELECT max(sequence) > 1000000000 FROM effect_events";
    assert_eq!(cluster.sql(&database, last), "t", "it goes on in the healed database");
}

#[tokio::test]
async fn a_node_whose_database_was_moved_away_serves_nobody() {
    let Some(cluster) = cluster() else { return };
    let (database, directory) = (cluster.database(), tempfile::tempdir().expect("a directory"));
    let node = Node::dev(&database);
    let mut socket = Socket::connect(&node.url()).await;
    socket.write(&key("alice"), 1, &batch(&[entry("Noted", "a", b"\xa1a")])).await;
    socket.next_ack().await;
    let back = directory.path().join("back");
    let (done, told) = migrate_back(&database, &back, &["--nodes-are-dead"]);
    assert!(done, "{told}");
    is_lost(&node, &mut socket, "moved").await;
    assert_eq!(cluster.sql(&database, "SELECT count(*) FROM effect_events"), "1");
}

#[tokio::test]
async fn somebody_who_changes_the_remote_id_by_hand_is_noticed_within_seconds() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let node = Node::dev(&database);
    let mut socket = Socket::connect(&node.url()).await;
    socket.subscribe(&key("alice"), 0).await;
    cluster
        .sql(&database, "UPDATE effect_remote_id SET remote_id = decode(repeat('ab', 16), 'hex')");
    is_lost(&node, &mut socket, "remote id").await;
    let ends = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'eventlog-server'";
    until("all of its connections end", async || cluster.sql(&database, ends) == "0").await;
}
