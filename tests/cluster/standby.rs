//! A synchronous standby that is missing, while appends wait for it.

use std::time::{Duration, Instant};

use super::{ADMIN, Cluster, Node};
use crate::support::http::get;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

const PATIENCE: Duration = Duration::from_secs(120);
const WAITS: &str = "appends wait for a synchronous standby for ";

async fn page(node: &Node, path: &str) -> String {
    get(node.address().parse().expect("an address"), path).await
}

async fn until(node: &Node, path: &str, part: &str) -> String {
    let begun = Instant::now();
    loop {
        let told = page(node, path).await;
        if told.contains(part) {
            return told;
        }
        assert!(begun.elapsed() < PATIENCE, "no {part:?} in {told}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

const WAITING: &str = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

/// Makes commits wait for this standby, once it returns.
fn wait_for(cluster: &Cluster, standby: &str) {
    cluster.sql("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = {standby}"));
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    let mut waits = standby == "''";
    while !waits {
        // A commit of no consequence, which shows whether the setting is in force.
        std::thread::scope(|scope| {
            let commit = || cluster.sql("postgres", "SELECT pg_logical_emit_message(true, '', '')");
            let commit = scope.spawn(commit);
            while !commit.is_finished() {
                let cancel = format!("SELECT count(pg_cancel_backend(pid)) > 0 {WAITING}");
                waits = cluster.sql("postgres", &cancel) == "t" || waits;
            }
        });
    }
}

/// Asks for an entry to be stored, which waits.
async fn write(node: &Node) -> Socket {
    let mut socket = Socket::connect(&node.url()).await;
    socket.write(&key("alice"), 1, &batch(&[entry("Noted", "a", b"\xa1a")])).await;
    socket
}

#[tokio::test]
async fn everybody_who_looks_is_told_that_appends_wait_and_for_what() {
    let Some(cluster) = Cluster::own() else { return };
    let node = Node::dev(&cluster.database());
    let mut socket = write(&node).await;
    socket.next_ack().await;
    wait_for(&cluster, "'nobody'");
    socket.write(&key("alice"), 2, &batch(&[entry("Noted", "b", b"\xa1a")])).await;
    let told = until(&node, "/readyz", WAITS).await;
    assert!(told.starts_with("HTTP/1.1 200"), "clients can read: {told}");
    let why = "synchronous_standby_names is 'nobody', and no connected standby matches (none is connected)";
    assert!(told.contains(why), "{told}");
    let metrics = page(&node, "/metrics").await;
    assert!(!metrics.contains("\neventlog_storage_standby_wait_seconds 0\n"), "{metrics}");
    // Longer than a lock or a statement may wait, which a wait for a standby does not count as.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(page(&node, "/readyz").await.contains(why));
    // A node that starts meanwhile says so as well.
    let late = Node::dev(&node.database);
    let told = until(&late, "/readyz", WAITS).await;
    assert!(told.contains(why), "{told}");
    drop(late);
    wait_for(&cluster, "''");
    assert_eq!(socket.next_ack().await, (2, vec![2]));
    until(&node, "/metrics", "\neventlog_storage_standby_wait_seconds 0\n").await;
    assert!(page(&node, "/readyz").await.ends_with("\r\n\r\nready\n"));
    let log = node.log();
    assert_eq!(log.matches(WAITS).count(), 1, "a line in a minute: {log}");
    assert_eq!(log.matches("wait for no synchronous standby any more").count(), 1, "{log}");
    assert!(!log.contains("cannot be used"), "{log}");
}

#[tokio::test]
async fn a_role_that_may_not_see_standbys_is_told_which_right_it_lacks() {
    let Some(cluster) = Cluster::own() else { return };
    let database = cluster.database();
    let _standby = cluster.standby(None);
    let name = database.rsplit('/').next().expect("a name");
    cluster.sql("postgres", "CREATE ROLE plain LOGIN");
    cluster.sql("postgres", &format!("ALTER DATABASE {name} OWNER TO plain"));
    cluster.sql(&database, "GRANT ALL ON SCHEMA public TO plain");
    let node = Node::dev(&database.replace("eventlog@", "plain@"));
    wait_for(&cluster, "'nobody'");
    let _socket = write(&node).await;
    let told = until(&node, "/readyz", WAITS).await;
    assert!(told.contains("GRANT pg_read_all_stats TO plain"), "{told}");
    // This would wait as well.
    let grant = "SET synchronous_commit = local; GRANT pg_read_all_stats TO plain";
    cluster.sql("postgres", grant);
    let told = until(&node, "/readyz", "no connected standby matches (walreceiver)").await;
    assert!(told.contains("'nobody'"), "{told}");
    wait_for(&cluster, "''");
}

/// Runs a command that waits for a standby, and ends this wait in the database. Returns what the command says when it fails.
async fn undecided(cluster: &Cluster, node: &Node, arguments: &[&str]) -> String {
    let command = node.process.client(arguments);
    let running = tokio::task::spawn_blocking(move || { command }.output());
    let begun = Instant::now();
    while !running.is_finished() {
        cluster.sql("postgres", &format!("SELECT count(pg_cancel_backend(pid)) {WAITING}"));
        assert!(begun.elapsed() < PATIENCE, "{arguments:?} does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let done = running.await.expect("it ran").expect("it runs");
    let told = [done.stdout, done.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(!done.status.success(), "{arguments:?} is said to have happened: {told}");
    told
}

#[tokio::test]
async fn nothing_is_said_to_have_happened_if_somebody_ended_its_wait_for_a_standby() {
    let Some(cluster) = Cluster::own() else { return };
    let token = ("EVENTLOG_ADMIN_TOKEN", ADMIN.to_owned());
    let allow = ("EVENTLOG_AUTH_MODE", "allow-all".to_owned());
    let node = Node::start(&cluster.database(), vec![allow, token]);
    node.run(&["keys", "--token", ADMIN, "assign", "alice", "team"]);
    write(&node).await.next_ack().await;
    let signing_key = "0f".repeat(32);
    let commands: [&[&str]; 6] = [
        &["keys", "--token", ADMIN, "assign", "bob", "team"],
        &["keys", "--token", ADMIN, "pin", "alice", &signing_key],
        &["keys", "--token", ADMIN, "unpin", "alice"],
        &["revoke", "--token", ADMIN, "--key", "mallory"],
        &["trim", "--token", ADMIN, "--store", "team", "--before", "2", "--yes"],
        &["keys", "--token", ADMIN, "remove", "bob"],
    ];
    wait_for(&cluster, "'nobody'");
    for command in commands {
        let told = undecided(&cluster, &node, command).await;
        assert!(told.contains("ended its wait for a standby"), "{command:?}: {told}");
    }
    wait_for(&cluster, "''");
    // It is there, and this node applies it like what another node has done.
    let begun = Instant::now();
    loop {
        let shown = node.run(&["revocations", "--token", ADMIN]);
        if shown.contains("mallory") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{shown}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
