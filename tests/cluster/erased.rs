//! Entries are erased at one node, and are gone at all; also when the database is restored from before.

use std::time::{Duration, Instant};

use super::{ADMIN, Cluster, Node, cluster, rounds};
use crate::support::process::binary;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

const PATIENCE: Duration = Duration::from_secs(60);
/// Rows with something of what was erased.
const LEFT: &str = "SELECT count(*) FROM effect_events WHERE (primary_key = 'gone' OR encode(payload, 'escape') LIKE '%SECRET%')";

fn node(database: &str) -> Node {
    let token = ("EVENTLOG_ADMIN_TOKEN", ADMIN.to_owned());
    Node::start(database, vec![("EVENTLOG_AUTH_MODE", "allow-all".to_owned()), token])
}

fn assign(node: &Node) {
    for name in ["alice", "bob", "carol"] {
        node.run(&["keys", "--token", ADMIN, "assign", name, "team"]);
    }
    node.run(&["keys", "--token", ADMIN, "assign", "dave", "old"]);
}

fn erase(node: &Node, what: &[&str]) -> String {
    let arguments = ["erase", "--token", ADMIN, "--store", "team", "--yes"];
    node.run(&[&arguments[..], what].concat())
}

/// Waits until somebody who reads the store from its beginning gets these sequences first.
async fn shows(node: &Node, expected: &[u64]) {
    let begun = Instant::now();
    loop {
        let mut late = Socket::connect(&node.url()).await;
        late.subscribe(&key("carol"), 0).await;
        let read = late.next_entries(expected.len()).await;
        let read: Vec<u64> = read.into_iter().map(|(at, _)| at).collect();
        if read == expected {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{read:?} are shown, and not {expected:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_is_erased_at_one_node_is_gone_at_all() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let (here, there) = (node(&url), node(&url));
    assign(&there);
    // As long as somebody is subscribed, the other node has the entries in memory.
    let mut reader = Socket::connect(&there.url()).await;
    reader.subscribe(&key("bob"), 0).await;
    let mut writer = Socket::connect(&there.url()).await;
    let gone: Vec<_> = (0..20).map(|_| entry("Noted", "gone", b"SECRET")).collect();
    let kept = entry("Noted", "kept", b"kept");
    writer.write(&key("alice"), 1, &batch(&gone)).await;
    assert_eq!(writer.next_ack().await, (1, (1..=20).collect()));
    writer.write(&key("alice"), 2, &batch(std::slice::from_ref(&kept))).await;
    assert_eq!(writer.next_ack().await, (2, vec![21]));
    assert_eq!(reader.next_entries(21).await.len(), 21);
    // This node has to find out first what the other one has stored.
    let told = erase(&here, &["--primary-key", "gone"]);
    assert!(told.contains("20 entries are erased"), "{told}");
    assert_eq!(cluster.sql(&url, LEFT), "0");
    for node in [&here, &there] {
        shows(node, &[21]).await;
        // Sent again, it gets the sequence that it had, and nothing is stored.
        let mut again = Socket::connect(&node.url()).await;
        again.write(&key("carol"), 7, &batch(&gone[3..5])).await;
        assert_eq!(again.next_ack().await, (7, vec![4, 5]));
    }
    assert_eq!(cluster.sql(&url, LEFT), "0");
    // The store continues at both.
    for (sequence, node) in [(22, &here), (23, &there)] {
        let mut more = Socket::connect(&node.url()).await;
        more.write(&key("carol"), 8, &batch(&[entry("Noted", "kept", b"more")])).await;
        assert_eq!(more.next_ack().await, (8, vec![sequence]));
    }
    assert_eq!(
        reader.next_entries(2).await.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
        [22, 23]
    );
    let told = erase(&here, &[]);
    assert!(told.contains("entries"), "{told}");
    for node in [&here, &there] {
        let size = node.run(&["stores", "--token", ADMIN, "--json"]);
        assert!(size.contains("\"head\":23") || size.contains("\"head\": 23"), "{size}");
    }
    let rows = "SELECT count(*) FROM effect_events WHERE event <> ''";
    wait_for(cluster, &url, rows, "0").await;
    let keys = "SELECT count(*) FROM effect_events_keys WHERE store_id = 'team'";
    assert_eq!(cluster.sql(&url, keys), "0");
}

async fn wait_for(cluster: &Cluster, url: &str, asked: &str, expected: &str) {
    let begun = Instant::now();
    while cluster.sql(url, asked) != expected {
        assert!(begun.elapsed() < PATIENCE, "{asked}: {}", cluster.sql(url, asked));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_was_erased_after_a_dump_is_gone_again_when_the_dump_is_restored() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let mut here = node(&url);
    let mut there = node(&url);
    assign(&here);
    let mut writer = Socket::connect(&here.url()).await;
    let gone: Vec<_> = (0..3).map(|_| entry("Noted", "gone", b"SECRET")).collect();
    writer.write(&key("alice"), 1, &batch(&gone)).await;
    writer.write(&key("alice"), 2, &batch(&[entry("Noted", "kept", b"kept")])).await;
    writer.next_ack().await;
    assert_eq!(writer.next_ack().await, (2, vec![4]));
    let secret: Vec<_> = (0..2).map(|_| entry("Noted", "old", b"SECRET")).collect();
    writer.write(&key("dave"), 9, &batch(&secret)).await;
    assert_eq!(writer.next_ack().await, (9, vec![1, 2]));
    let dump = cluster.dump(&url);
    // What is trimmed before its store is erased is in the dump as well.
    let admin = ["--token", ADMIN, "--store", "old", "--yes"];
    here.run(&[&["trim", "--before", "2"], &admin[..]].concat());
    here.run(&[&["erase"], &admin[..]].concat());
    let late = entry("Noted", "gone", b"SECRET");
    writer.write(&key("alice"), 3, &batch(std::slice::from_ref(&late))).await;
    assert_eq!(writer.next_ack().await, (3, vec![5]));
    erase(&here, &["--primary-key", "gone"]);
    // The other node hears of it, and knows it afterwards, although it was not asked.
    shows(&there, &[4]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(writer);
    for node in [&mut here, &mut there] {
        node.end("TERM");
    }
    cluster.restore(&url, &dump);
    assert_eq!(cluster.sql(&url, LEFT), "5");
    let of_old = "SELECT count(*) FROM effect_events_keys WHERE store_id = 'old'";
    assert_eq!(cluster.sql(&url, of_old), "1");
    // The dump has nodes that were seen a moment ago.
    let mut heal = binary();
    heal.args(["heal", "--yes", "--nodes-are-dead", "--database", &url]);
    let done = heal.output().expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    there.start_again();
    assert_eq!(cluster.sql(&url, of_old), "0", "before anybody is let in");
    shows(&there, &[4]).await;
    // Rows of trimmed entries are emptied a moment later, although nobody opens that store.
    wait_for(cluster, &url, LEFT, "0").await;
    let mut again = Socket::connect(&there.url()).await;
    // The id of the last one was not in the dump.
    again.write(&key("carol"), 7, &batch(&[gone[0].clone(), late])).await;
    let (_, sequences) = again.next_ack().await;
    assert!(sequences[0] == 1 && sequences[1] > 1_000_000_000, "{sequences:?}");
    assert_eq!(cluster.sql(&url, LEFT), "0");
    assert!(there.log().contains("lacks 3 erasures"), "it says so");
}

#[tokio::test]
async fn a_check_names_what_may_still_have_what_was_erased() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let node = node(&url);
    assign(&node);
    let mut writer = Socket::connect(&node.url()).await;
    let large = [b"SECRET".repeat(10_000), (0..=255).collect()].concat();
    writer.write(&key("alice"), 1, &batch(&[entry("Noted", "gone", &large)])).await;
    writer.next_ack().await;
    let check = |more: &[&str]| {
        let all = [&["erase", "--token", ADMIN, "--verify"], more].concat();
        let done = node.process.run(&all);
        let told = [&done.stdout[..], &done.stderr[..]].concat();
        (done.status.success(), String::from_utf8_lossy(&told).into_owned())
    };
    let (is_clean, told) = check(&[]);
    assert!(is_clean && told.starts_with("0 erased entries are known"), "{told}");
    erase(&node, &["--primary-key", "gone"]);
    let (is_clean, told) = check(&[]);
    assert!(!is_clean && told.starts_with("1 erased entry is known"), "{told}");
    assert!(told.contains("run: VACUUM effect_events\n"), "{told}");
    assert!(told.contains("WAL up to") && told.contains("dumps"), "{told}");
    let vacuum = "VACUUM effect_events";
    let others = "VACUUM effect_events_journal";
    cluster.sql(&url, vacuum);
    cluster.sql(&url, others);
    let begun = Instant::now();
    loop {
        let (is_clean, told) = check(&[]);
        if is_clean {
            assert!(told.contains("table effect_events,") && told.contains(": clean"), "{told}");
            break;
        }
        // Statistics come a moment later, and others may have had a snapshot.
        assert!(begun.elapsed() < PATIENCE, "{told}");
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster.sql(&url, vacuum);
        cluster.sql(&url, others);
    }
    // A row that somebody puts back is found, and so is a text.
    cluster.sql(&url, "UPDATE effect_events SET payload = 'SECRET' WHERE sequence = 1");
    let (is_clean, told) = check(&["--text", "SECRET"]);
    assert!(!is_clean, "{told}");
    assert!(told.contains("1 row with content of erased entries; 1 row with the text"), "{told}");
}

#[tokio::test]
async fn what_a_lost_node_has_begun_to_erase_another_one_finishes() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let node = node(&url);
    assign(&node);
    let mut writer = Socket::connect(&node.url()).await;
    let entries = [entry("Noted", "gone", b"SECRET"), entry("Noted", "kept", b"kept")];
    writer.write(&key("alice"), 1, &batch(&entries)).await;
    assert_eq!(writer.next_ack().await, (1, vec![1, 2]));
    // What a node leaves that is killed before anything else. This one does not look at once.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = format!("{{\"entries\":[[1,\"{}\"]]}}", entries[0].id);
    cluster.sql(
        &url,
        &format!(
            "INSERT INTO effect_events_records VALUES ('erase/team/1-x', '{begun}'::bytea);
             UPDATE effect_events_meta SET changes = changes + 1"
        ),
    );
    wait_for(cluster, &url, LEFT, "0").await;
    shows(&node, &[2]).await;
    let left = "SELECT count(*) FROM effect_events_records WHERE name LIKE 'erase/%'";
    wait_for(cluster, &url, left, "0").await;
}

/// The sequences in what nodes have noted, each after a comma.
fn sequences(begun: &str) -> Vec<String> {
    let entries = begun.lines().flat_map(|line| {
        let begun: serde_json::Value = serde_json::from_str(line).expect("JSON");
        begun["entries"].as_array().expect("entries").clone()
    });
    entries.map(|entry| format!(", {}", entry[0])).collect()
}

#[tokio::test]
async fn an_erasure_whose_node_is_killed_leaves_nothing_half_erased() {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let (mut here, there) = (node(&url), node(&url));
    assign(&there);
    let left = || cluster.sql(&url, LEFT).parse::<usize>().expect("a number");
    for round in 1..=rounds() as usize {
        let mut writer = Socket::connect(&there.url()).await;
        for part in 1..=3 {
            let gone: Vec<_> = (0..1_000).map(|_| entry("Noted", "gone", b"SECRET")).collect();
            writer.write(&key("alice"), part, &batch(&gone)).await;
            writer.next_ack().await;
        }
        writer.write(&key("alice"), 4, &batch(&[entry("Noted", "kept", b"kept")])).await;
        writer.next_ack().await;
        let erase_gone =
            ["erase", "--token", ADMIN, "--store", "team", "--yes", "--primary-key", "gone"];
        let mut erasing = here.process.client(&erase_gone);
        let mut erasing = erasing.stderr(std::process::Stdio::null()).spawn().expect("it starts");
        // Later each time, up to some of it being erased.
        let (begun, pause) = (Instant::now(), Duration::from_millis(40 * (round as u64 % 12)));
        while begun.elapsed() < pause || (round % 2 == 0 && left() == 3_000) {
            assert!(begun.elapsed() < PATIENCE, "nothing is erased");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        here.end("KILL");
        let begun = "SELECT string_agg(convert_from(value, 'UTF8'), E'\\n') FROM effect_events_records WHERE name LIKE 'erase/%'";
        let begun = sequences(&cluster.sql(&url, begun));
        here.start_again();
        let is_done = erasing.wait().expect("it ends").success();
        let records = "SELECT count(*) FROM effect_events_records WHERE name LIKE 'erase/%'";
        wait_for(cluster, &url, records, "0").await;
        let noted = format!("{LEFT} AND sequence IN (0{})", begun.concat());
        assert_eq!(cluster.sql(&url, &noted), "0", "what was noted is erased");
        // They are erased in parts of 1,000.
        let now = left();
        assert!(now % 1_000 == 0 && !(is_done && now > 0), "{now} are left");
        erase(&here, &["--primary-key", "gone"]);
        assert_eq!(left(), 0);
        shows(&there, &(1..=round as u64).map(|n| n * 3_001).collect::<Vec<_>>()).await;
    }
    let rows = "SELECT count(*) = max(sequence) AND count(*) FILTER (WHERE primary_key = 'kept') * 3001 = count(*) FROM effect_events";
    assert_eq!(cluster.sql(&url, rows), "t");
}
