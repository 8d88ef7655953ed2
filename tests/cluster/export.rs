//! Export and import with nodes: what one node exports, a node of another database imports, and nothing twice.

use super::{ADMIN, Node, cluster};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

fn node(database: &str) -> Node {
    let token = ("EVENTLOG_ADMIN_TOKEN", ADMIN.to_owned());
    Node::start(database, vec![("EVENTLOG_AUTH_MODE", "allow-all".to_owned()), token])
}

/// The exported entries, without what differs between servers.
fn entries(lines: &str) -> Vec<serde_json::Value> {
    let lines = lines.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let mut entries: Vec<serde_json::Value> = lines.collect();
    entries.retain(|line| line.get("id").is_some());
    for entry in &mut entries {
        let entry = entry.as_object_mut().expect("an object");
        entry.retain(|name, _| {
            ["sequence", "id", "event", "primaryKey", "payloadBase64"].contains(&&**name)
        });
    }
    entries
}

#[tokio::test]
async fn what_a_node_exports_a_node_of_another_database_imports_once() {
    let Some(cluster) = cluster() else { return };
    let [from, to] = [(); 2].map(|()| cluster.database());
    let (one, other) = (node(&from), node(&from));
    one.run(&["keys", "--token", ADMIN, "assign", "alice", "team"]);
    let mut socket = Socket::connect(&one.url()).await;
    let written: Vec<_> = (0..2_500).map(|n| entry("Noted", &n.to_string(), &[7; 100])).collect();
    for (id, part) in (0..).zip(written.chunks(1_000)) {
        socket.write(&key("alice"), id, &batch(part)).await;
        socket.next_ack().await;
    }
    one.run(&["erase", "--token", ADMIN, "--store", "team", "--yes", "--primary-key", "3"]);
    let exported = other.run(&["export", "--token", ADMIN]);
    let lines = entries(&exported);
    assert_eq!(lines.len(), 2_499);
    assert!(lines[2]["sequence"] == 3 && lines[3]["sequence"] == 5, "the erased one is left out");
    let file = other.directory.path().join("all.jsonl");
    std::fs::write(&file, &exported).expect("written");
    let (there, beside) = (node(&to), node(&to));
    let import = ["import", "--token", ADMIN, file.to_str().expect("text")];
    assert_eq!(there.run(&import), "team  2499 entries: 2499 new, 0 were there already\n");
    assert_eq!(beside.run(&import), "team  2499 entries: 0 new, 2499 were there already\n");
    let mut imported = entries(&beside.run(&["export", "--token", ADMIN]));
    assert_eq!(imported.len(), 2_499);
    for (at, (line, before)) in imported.iter_mut().zip(&lines).enumerate() {
        assert_eq!(line["sequence"], at as u64 + 1);
        line["sequence"] = before["sequence"].clone();
    }
    assert_eq!(imported, lines);
}
