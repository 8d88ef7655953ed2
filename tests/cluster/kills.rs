//! Kills under load: backends, and the database.

use super::nodes::Load;
use super::{Cluster, Node, cluster, rounds};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

#[tokio::test(flavor = "multi_thread")]
async fn backends_that_are_killed_under_load_lose_and_repeat_nothing() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let (one, two) = (Node::dev(&url), Node::dev(&url));
    let load = Load::start(&[&one, &two]).await;
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE application_name = 'eventlog-server' AND datname = current_database()";
    for _ in 0..rounds() {
        load.goes_on(100).await;
        assert_ne!(cluster.sql(&url, kill), "0");
    }
    load.goes_on(100).await;
    load.check(&[&one, &two]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_killed_under_load_loses_nothing_that_was_acknowledged() {
    let Some(mut cluster) = Cluster::own() else { return };
    let url = cluster.database();
    let (one, two) = (Node::dev(&url), Node::dev(&url));
    let load = Load::start(&[&one, &two]).await;
    for _ in 0..rounds() {
        load.goes_on(100).await;
        cluster.crash();
    }
    load.goes_on(100).await;
    load.check(&[&one, &two]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish_in_the_middle_of_a_write_leave_all_of_it_or_nothing() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let (one, two) = (Node::dev(&url), Node::dev(&url));
    let load = Load::start(&[&one, &two]).await;
    for n in 0..10 * rounds() {
        let entries: Vec<_> =
            (0..20).map(|at| entry("Gone", &format!("{n}.{at}"), b"\x02\x20a")).collect();
        let written = batch(&entries);
        let mut gone = Socket::connect(&one.url()).await;
        gone.write(&key("gone"), 1, &written).await;
        drop(gone);
        // Half of them never come back.
        if n % 2 == 0 {
            let mut back = Socket::connect(&two.url()).await;
            back.write(&key("gone"), 1, &written).await;
            let (_, sequences) = back.next_ack().await;
            let is_one_run = sequences.windows(2).all(|pair| pair[1] == pair[0] + 1);
            assert!(is_one_run, "{sequences:?}");
        }
    }
    load.goes_on(100).await;
    let acked = load.stop().await;
    let whole = "SELECT count(*) FILTER (WHERE n <> 20) FROM (SELECT split_part(primary_key, '.', 1), count(*) AS n \
        FROM effect_events WHERE event = 'Gone' GROUP BY 1) AS batches";
    assert_eq!(cluster.sql(&url, whole), "0");
    let rows = "SELECT count(*) = max(sequence) AND count(DISTINCT entry_id) = count(*) FROM effect_events";
    assert_eq!(cluster.sql(&url, rows), "t");
    assert!(acked > 0);
}
