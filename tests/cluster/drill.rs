//! The database is dumped under load, lost, and restored; clients come back, and nothing is lost that one of them still has.

use std::time::{Duration, Instant};

use super::{Node, cluster};
use crate::binary::backup::{Device, JUMP, feed};
use crate::support::history::History;
use crate::support::key;
use crate::support::process::binary;
use crate::support::socket::Socket;

/// Longer than the connections of a killed node last.
const PATIENCE: Duration = Duration::from_secs(60);

fn heal(database: &str) {
    let begun = Instant::now();
    loop {
        let mut heal = binary();
        let done = heal.args(["heal", "--yes", "--database", database]).output().expect("it runs");
        if done.status.success() {
            return;
        }
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(told.contains("nodes are connected") && begun.elapsed() < PATIENCE, "{told}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

async fn connect(node: &Node) -> Socket {
    Socket::connect(&node.url()).await
}

#[tokio::test]
async fn what_any_client_still_has_is_there_after_the_database_is_restored() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let mut history = History::default();
    let mut devices = [Device::new("alice"), Device::new("bob")];
    let mut nodes = [Node::dev(&url), Node::dev(&url)];
    let given = std::env::var("EVENTLOG_TEST_DRILLS").ok();
    let rounds = given.map_or(2, |text| text.parse().expect("a number of rounds"));
    for round in 1..=rounds {
        let mut sockets = [connect(&nodes[0]).await, connect(&nodes[1]).await];
        let mut dump = Vec::new();
        for _ in 0..2 {
            // The nodes are under load.
            let of = url.clone();
            let under_way = tokio::task::spawn_blocking(move || cluster.dump(&of));
            for (device, socket) in devices.iter_mut().zip(&mut sockets) {
                device.write(socket, 60, &mut history).await;
            }
            dump = under_way.await.expect("a dump");
        }
        // These are behind the last dump. They are lost, and so are the nodes.
        for (device, socket) in devices.iter_mut().zip(&mut sockets) {
            device.write(socket, 40, &mut history).await;
        }
        let end = feed(&nodes[1].process, devices.iter().map(Device::count).sum()).await;
        let cursor = end.last().expect("some").0 + 1;
        history.check_feed(&end);
        nodes.iter_mut().for_each(|node| node.end("KILL"));
        cluster.restore(&url, &dump);
        heal(&url);
        nodes.iter_mut().for_each(Node::start_again);

        let kept = cluster.sql(&url, "SELECT count(*) FROM effect_events");
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
    assert_eq!(cluster.sql(&url, whole), "t");
}
