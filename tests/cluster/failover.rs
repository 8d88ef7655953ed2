//! A primary that dies, and the standby that takes its place: one that had everything, and one that was behind.

use std::time::Duration;

use super::nodes::Load;
use super::{Cluster, Node, rounds};
use crate::support::http::get;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

const STREAMS: &str =
    "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state LIKE '%'";
const IS_SYNCHRONOUS: &str =
    "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'";

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Makes commits of `primary` wait for its standby, once it is streaming.
fn wait_for_standby(primary: &Cluster) {
    wait_for("a standby", || primary.sql("postgres", STREAMS) == "1");
    primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
    primary.sql("postgres", "SELECT pg_reload_conf()");
    wait_for("a synchronous standby", || primary.sql("postgres", IS_SYNCHRONOUS) == "1");
}

/// The URL for both databases, whichever is the primary.
fn url_of_both(one: &Cluster, other: &Cluster, database: &str) -> String {
    let name = database.rsplit('/').next().expect("a name");
    format!("postgres://eventlog@127.0.0.1:{},127.0.0.1:{}/{name}", one.port(), other.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_dies_under_load_loses_nothing_to_a_synchronous_standby() {
    let Some(mut primary) = Cluster::own() else { return };
    let database = primary.database();
    let mut standby = primary.standby(None);
    wait_for_standby(&primary);
    let url = url_of_both(&primary, &standby, &database);
    let (one, two) = (Node::dev(&url), Node::dev(&url));
    let load = Load::start(&[&one, &two]).await;
    for round in 1..=rounds() {
        load.goes_on(100).await;
        primary.stop_now();
        standby.promote();
        load.goes_on(50).await;
        let port = primary.port();
        drop(primary);
        primary = standby;
        if round == rounds() {
            break;
        }
        standby = primary.standby(Some(port));
        wait_for_standby(&primary);
    }
    load.check(&[&one, &two]).await;
}

async fn write(socket: &mut Socket, request: u64) -> Result<Vec<u64>, String> {
    let entries = batch(&[entry("Noted", "n", b"\x02\x20a")]);
    socket.write(&key("alice"), request, &entries).await;
    let answer = socket.next_answer().await;
    answer.map(|(_, sequences)| sequences).map_err(|refusal| refusal.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_was_behind_is_found_out_by_the_heads_that_were_shown_before() {
    let Some(mut primary) = Cluster::own() else { return };
    let database = primary.database();
    let mut standby = primary.standby(None);
    wait_for("a standby", || primary.sql("postgres", STREAMS) == "1");
    let url = url_of_both(&primary, &standby, &database);
    let mut node = Node::dev(&url);
    let mut socket = Socket::connect(&node.url()).await;
    assert_eq!(write(&mut socket, 1).await, Ok(vec![1]));
    let replayed =
        "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_flush_lsn()";
    wait_for("the standby has it", || primary.sql("postgres", replayed) == "1");
    standby.stop_now();
    for n in 2..=5 {
        assert_eq!(write(&mut socket, n).await, Ok(vec![n]));
    }
    // Each second it is noted which heads were shown.
    let notes = node.directory.path().join("postgres-heads");
    let has = || std::fs::read_to_string(&notes).is_ok_and(|text| text.contains("[\"default\",5]"));
    wait_for("the heads are noted", has);
    let said = |node: &Node, what: &str| node.log().matches(what).count();
    let lost = "cannot be used, writes are refused";
    primary.stop_now();
    // The database is asked each second, and a standby may take over between two questions.
    wait_for("it says that it has lost it", || said(&node, lost) >= 1);
    // It looks every five seconds whether there is something to tell handlers.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(said(&node, "handlers are not told"), 0, "{}", node.log());
    standby.start_again();
    standby.promote();
    wait_for("it says that it has it again", || said(&node, "can be used again") >= 1);
    // A busy machine may lose it twice; each loss is told once.
    assert!((1..=3).contains(&said(&node, lost)), "{}", node.log());
    let refused = "its head is 1, and this node has shown entries up to 5";
    wait_for("it is found though nobody writes", || said(&node, refused) >= 1);
    assert!(node.log().contains("run `eventlog-server heal --database URL`"), "{}", node.log());
    write(&mut socket, 6).await.expect_err("2 would be given out again");
    // Now and after a kill.
    let mut said_before = 0;
    for _ in 1..=2 {
        let mut tries = 0;
        while said(&node, refused) <= said_before {
            write(&mut socket, 6).await.expect_err("5 would be given out again");
            tokio::time::sleep(Duration::from_millis(100)).await;
            tries += 1;
            assert!(tries < 600, "{}", node.log());
        }
        let address = node.address();
        let metrics = get(address.parse().expect("an address"), "/metrics").await;
        assert!(metrics.contains("\neventlog_storage_stores_refused 1\n"), "{metrics}");
        node.kill();
        said_before = said(&node, refused);
        socket = Socket::connect(&node.url()).await;
    }
    let rows = standby.sql(&database_at(&standby, &database), "SELECT count(*) FROM effect_events");
    assert_eq!(rows, "1", "nothing was written there");
    // It is not the database that refuses: a node that has shown nothing continues.
    let fresh = Node::dev(&url);
    let mut socket = Socket::connect(&fresh.url()).await;
    assert_eq!(write(&mut socket, 1).await, Ok(vec![2]));
}

fn database_at(cluster: &Cluster, database: &str) -> String {
    let name = database.rsplit('/').next().expect("a name");
    format!("postgres://eventlog@127.0.0.1:{}/{name}", cluster.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_standby_that_somebody_ends_is_undecided_and_repeating_finds_out() {
    let Some(cluster) = Cluster::own() else { return };
    let url = cluster.database();
    let node = Node::dev(&url);
    let mut socket = Socket::connect(&node.url()).await;
    assert_eq!(write(&mut socket, 1).await, Ok(vec![1]));
    cluster.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    let entries = batch(&[entry("Noted", "n", b"\x02\x20a")]);
    socket.write(&key("alice"), 2, &entries).await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%INSERT INTO effect_events %'";
    wait_for("it waits for a standby", || cluster.sql(&url, waits) == "1");
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity \
        WHERE wait_event = 'SyncRep' AND query LIKE '%INSERT INTO effect_events %'";
    assert_eq!(cluster.sql(&url, cancel), "1");
    let refusal = socket.next_answer().await.expect_err("undecided");
    assert_eq!(cluster.sql(&url, "SELECT count(*) FROM effect_events"), "2", "it is there");
    assert!(!refusal.message.contains("nothing was"), "{refusal:?}");
    cluster.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names");
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    let mut tries = 3;
    loop {
        socket.write(&key("alice"), tries, &entries).await;
        match socket.next_answer().await {
            Ok(answer) => break assert_eq!(answer, (tries, vec![2])),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        tries += 1;
        assert!(tries < 300);
    }
}
