//! All nodes share one quarantine, and its bounds.

use std::time::{Duration, Instant};

use eventlog_server::model::Entry;

use super::{ADMIN, Node, cluster};
use crate::support::rpc::{Refused, RpcSocket, framed_entry};

const PATIENCE: Duration = Duration::from_secs(60);

fn node(database: &str) -> Node {
    let settings = [
        ("EVENTLOG_AUTH_MODE", "allow-all"),
        ("EVENTLOG_ADMIN_TOKEN", ADMIN),
        ("EVENTLOG_LIMITS_ENTRY_BYTES_MAX", "100000"),
        ("EVENTLOG_LIMITS_QUARANTINE_KEY_BYTES_MAX", "400KiB"),
    ];
    Node::start(database, settings.map(|(name, value)| (name, value.to_owned())).to_vec())
}

async fn write(node: &Node, entry: &Entry) -> Result<(), Refused> {
    let url = node.url().replace("/eventlog", "/rpc");
    let mut socket = RpcSocket::authenticated(&url, &["alice"]).await;
    let acked = socket.write("alice", std::slice::from_ref(entry)).await;
    acked.map(|acked| assert!(acked.is_empty(), "it is not stored"))
}

fn listed(node: &Node) -> usize {
    node.run(&["quarantine", "list", "--token", ADMIN]).lines().count()
}

#[tokio::test]
async fn what_one_node_puts_aside_counts_and_is_known_at_the_others() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let (here, there) = (node(&url), node(&url));
    here.run(&["keys", "--token", ADMIN, "assign", "alice", "team"]);
    let large = |n: u8| framed_entry("Large", &n.to_string(), &vec![n; 150_000]);
    let first = large(1);
    write(&here, &first).await.expect("put aside");
    assert_eq!(listed(&there), 1);
    // Sent again to the other node, it is put aside once.
    write(&there, &first).await.expect("it is there");
    assert_eq!(cluster.sql(&url, "SELECT count(*) FROM effect_events_quarantine"), "1");
    write(&there, &large(2)).await.expect("put aside");
    // There is no more room for this key, wherever it asks.
    for node in [&here, &there] {
        let refused = write(node, &large(3)).await.expect_err("no room");
        assert!(refused.message.contains("quarantine_key_bytes_max"), "{}", refused.message);
    }
    here.run(&["quarantine", "remove", "1", "--token", ADMIN]);
    let begun = Instant::now();
    while let Err(refused) = write(&there, &large(3)).await {
        assert!(begun.elapsed() < PATIENCE, "{}", refused.message);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let numbers = "SELECT string_agg(entry::json->>'primaryKey', ' ' ORDER BY number) FROM effect_events_quarantine";
    assert_eq!(cluster.sql(&url, numbers), "2 3");
}
