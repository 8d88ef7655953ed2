//! The database is backed up under load, lost, and restored; clients come back, and nothing is lost that one of them still has.

use super::{Cluster, Node, cluster};
use crate::binary::backup::{Device, JUMP, feed};
use crate::support::history::History;
use crate::support::key;
use crate::support::process::binary;
use crate::support::socket::Socket;

/// The nodes were killed.
fn heal(database: &str) {
    let mut heal = binary();
    let done = heal.args(["heal", "--yes", "--nodes-are-dead", "--database", database]).output();
    let done = done.expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

async fn connect(node: &Node) -> Socket {
    Socket::connect(&node.url()).await
}

/// How the database is backed up.
enum Backup {
    /// With `pg_dump`.
    Dump(&'static Cluster, Vec<u8>),
    /// With a base backup and the WAL from there to a position.
    Base(Cluster, String),
}

impl Backup {
    fn cluster(&self) -> &Cluster {
        match self {
            Self::Dump(cluster, _) => cluster,
            Self::Base(cluster, _) => cluster,
        }
    }

    /// What is stored when this begins is in the backup.
    fn take(&mut self, url: &str) {
        match self {
            Self::Dump(cluster, dump) => *dump = cluster.dump(url),
            Self::Base(cluster, until) => {
                cluster.base_backup();
                *until = cluster.archived_up_to_now();
            }
        }
    }

    /// Loses the database, and restores what is in the backup.
    fn restore(&mut self, url: &str) {
        match self {
            Self::Dump(cluster, dump) => cluster.restore(url, dump),
            Self::Base(cluster, until) => cluster.recover(until),
        }
    }
}

#[tokio::test]
async fn what_any_client_still_has_is_there_after_a_dump_is_restored() {
    let Some(cluster) = cluster() else { return };
    Box::pin(drill(Backup::Dump(cluster, Vec::new()))).await;
}

#[tokio::test]
async fn what_any_client_still_has_is_there_after_recovery_to_a_point_in_time() {
    let Some(mut cluster) = Cluster::own() else { return };
    cluster.archive();
    Box::pin(drill(Backup::Base(cluster, String::new()))).await;
}

async fn drill(mut backup: Backup) {
    let url = backup.cluster().database();
    let mut history = History::default();
    let mut devices = [Device::new("alice"), Device::new("bob")];
    let mut nodes = [Node::dev(&url), Node::dev(&url)];
    let given = std::env::var("EVENTLOG_TEST_DRILLS").ok();
    let rounds = given.map_or(2, |text| text.parse().expect("a number of rounds"));
    for round in 1..=rounds {
        let mut sockets = [connect(&nodes[0]).await, connect(&nodes[1]).await];
        for _ in 0..2 {
            // The nodes are under load.
            let of = url.clone();
            let under_way = tokio::task::spawn_blocking(move || {
                backup.take(&of);
                backup
            });
            for (device, socket) in devices.iter_mut().zip(&mut sockets) {
                device.write(socket, 60, &mut history).await;
            }
            backup = under_way.await.expect("a backup");
        }
        // These are behind the last backup. They are lost, and so are the nodes.
        for (device, socket) in devices.iter_mut().zip(&mut sockets) {
            device.write(socket, 40, &mut history).await;
        }
        let end = feed(&nodes[1].process, devices.iter().map(Device::count).sum()).await;
        let cursor = end.last().expect("some").0 + 1;
        history.check_feed(&end);
        nodes.iter_mut().for_each(|node| node.end("KILL"));
        backup.restore(&url);
        heal(&url);
        nodes.iter_mut().for_each(Node::start_again);

        let kept = backup.cluster().sql(&url, "SELECT count(*) FROM effect_events");
        let kept = feed(&nodes[0].process, kept.parse().expect("a number")).await;
        assert!(history.restored(&kept) >= 80, "something was lost");
        // A client that kept running. Its cursor is in the lost part.
        let mut running = connect(&nodes[1]).await;
        running.subscribe(&key("running"), cursor).await;
        for (device, node) in devices.iter_mut().zip(&nodes) {
            device.send_all(&mut connect(node).await, &mut history).await;
        }
        history.check_nothing_is_lost();
        let now = feed(&nodes[0].process, devices.iter().map(Device::count).sum()).await;
        history.check_feed(&now);
        let new = now[kept.len()..].to_vec();
        assert!(
            new[0].0 > kept.last().map_or(0, |last| last.0) + JUMP / 2 && new[0].0 > round * JUMP
        );
        let seen = running.next_joined_entries(new.len()).await;
        let seen = seen.into_iter().map(|(sequence, entry)| (sequence, entry.primary_key));
        assert!(seen.eq(new), "a client that kept running misses nothing that is new");
        running.nothing_comes().await;
    }
    let whole = "SELECT count(*) = count(DISTINCT entry_id) FROM effect_events";
    assert_eq!(backup.cluster().sql(&url, whole), "t");
}
