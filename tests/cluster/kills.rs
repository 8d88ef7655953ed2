//! Who is killed under load: backends, and the database.

use super::nodes::Load;
use super::{Cluster, Node, cluster};

#[tokio::test(flavor = "multi_thread")]
async fn backends_that_are_killed_under_load_lose_and_repeat_nothing() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let (one, two) = (Node::dev(&url), Node::dev(&url));
    let load = Load::start(&[&one, &two]).await;
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE application_name = 'eventlog-server' AND datname = current_database()";
    for _ in 0..3 {
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
    for _ in 0..3 {
        load.goes_on(100).await;
        cluster.crash();
    }
    load.goes_on(100).await;
    load.check(&[&one, &two]).await;
}
