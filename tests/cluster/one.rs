//! One node on a database.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use super::{Cluster, Node, cluster};
use crate::binary::dist::ON_POSTGRES;
use crate::support::http;
use crate::support::process::{Process, binary};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

fn database() -> Option<(&'static Cluster, String)> {
    let cluster = cluster()?;
    Some((cluster, cluster.database()))
}

#[tokio::test]
async fn what_was_written_is_in_the_database_and_there_after_a_kill() {
    let Some((cluster, url)) = database() else { return };
    let mut node = Node::dev(&url);
    let mut socket = Socket::connect(&node.url()).await;
    let entries: Vec<_> = (0..10).map(|n| entry("Noted", &n.to_string(), b"\x02\x20a")).collect();
    socket.write(&key("alice"), 1, &batch(&entries)).await;
    assert_eq!(socket.next_ack().await, (1, (1..=10).collect()));
    let rows = cluster.sql(
        &url,
        "SELECT store_id, sequence, event, primary_key FROM effect_events WHERE sequence = 3",
    );
    assert_eq!(rows, "default|3|Noted|2");
    assert_eq!(cluster.sql(&url, "SELECT * FROM effect_events_stores"), "default|11");
    assert_eq!(
        cluster.sql(&url, "SELECT public_key, store_id FROM effect_events_keys"),
        "alice|default"
    );
    node.kill();
    let mut socket = Socket::connect(&node.url()).await;
    socket.write(&key("alice"), 2, &batch(&entries[4..6])).await;
    assert_eq!(socket.next_ack().await, (2, vec![5, 6]));
    socket.subscribe(&key("alice"), 0).await;
    let feed = socket.next_entries(10).await;
    assert!(feed.into_iter().map(|(_, entry)| entry).eq(entries));
}

#[test]
fn the_start_says_that_the_database_has_what_is_acknowledged() {
    let Some((_, url)) = database() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = binary();
    command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.path());
    command.env("EVENTLOG_STORAGE_KIND", "postgres").env("EVENTLOG_STORAGE_URL", url);
    let mut node = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let lines = BufReader::new(node.stdout.take().expect("a pipe")).lines();
    let line = lines.map(|line| line.expect("UTF-8")).find(|line| line.contains("acknowledged"));
    node.kill().expect("it runs");
    node.wait().expect("it ends");
    let line = line.expect("it says so");
    assert!(line.contains("in the PostgreSQL database"), "{line}");
}

pub fn refused(url: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = binary();
    command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.path());
    command.env("EVENTLOG_STORAGE_KIND", "postgres").env("EVENTLOG_STORAGE_URL", url);
    let done = command.output().expect("it runs");
    assert!(!done.status.success(), "it starts");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[test]
fn a_database_that_does_not_promise_what_is_needed_is_refused_in_words() {
    let Some((cluster, url)) = database() else { return };
    let told = refused("postgres://nobody:hunter2@db.invalid/x");
    assert!(told.contains("sslmode") && !told.contains("hunter2"), "{told}");
    let told = refused("postgres://eventlog:hunter2@127.0.0.1:1/x");
    assert!(told.contains("the database cannot be used") && !told.contains("hunter2"), "{told}");
    let name = url.rsplit('/').next().expect("a name");
    cluster
        .sql("postgres", &format!("ALTER DATABASE {name} SET default_transaction_read_only = on"));
    assert!(refused(&url).contains("the database cannot be used"));
    cluster.sql("postgres", &format!("ALTER DATABASE {name} RESET default_transaction_read_only"));
    cluster.sql(
        "postgres",
        "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0",
    );
    let told = refused(&url.replace(name, "ascii"));
    assert!(told.contains("SQL_ASCII") && told.contains("UTF8"), "{told}");
    // A setting that is lax for this role is overridden.
    cluster.sql("postgres", &format!("ALTER DATABASE {name} SET synchronous_commit = off"));
    let node = Node::dev(&url);
    let on = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'eventlog-server'";
    assert_eq!(cluster.sql(&url, on), "t");
    drop(node);
    cluster.sql(&url, "UPDATE effect_events_meta SET version = 1000");
    assert!(refused(&url).contains("later version"));
}

#[tokio::test]
async fn a_server_stops_in_order_and_takes_over_what_another_one_made() {
    let Some((cluster, url)) = database() else { return };
    cluster.sql(
        &url,
        "CREATE TABLE effect_remote_id (singleton INT PRIMARY KEY, remote_id BYTEA NOT NULL);
         INSERT INTO effect_remote_id VALUES (1, decode('00112233445566778899aabbccddeeff', 'hex'))",
    );
    let mut node = Node::dev(&url);
    let found = cluster.sql(&url, "SELECT encode(remote_id, 'hex') FROM effect_remote_id");
    assert_eq!(found, "00112233445566778899aabbccddeeff");
    node.process.signal("TERM");
    assert_eq!(node.process.wait(), Some(0));
    let _: &Process = &node.process;
}

#[tokio::test]
async fn a_node_counts_its_statements_and_connections_under_names_that_the_documentation_has() {
    let Some((_, url)) = database() else { return };
    let node = Node::dev(&url);
    let mut socket = Socket::connect(&node.url()).await;
    socket.write(&key("alice"), 1, &batch(&[entry("Noted", "1", b"\x02\x20a")])).await;
    assert_eq!(socket.next_ack().await, (1, vec![1]));
    let served = http::get(node.address().parse().expect("an address"), "/metrics").await;
    let value = |name: &str| {
        let line = served.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse::<f64>().ok())
    };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md");
    let page = std::fs::read_to_string(page).expect("a page");
    for (name, kind) in ON_POSTGRES {
        let base = name.trim_end_matches("_total");
        let declared = format!("# TYPE eventlog_{base} {kind}\n");
        assert!(served.contains(&declared), "{declared} is not served");
        let mut rows = page.lines().filter(|line| line.starts_with('|'));
        let row = rows.find(|line| line.contains(&format!("`{base}`"))).expect(base);
        assert!(row.contains(&format!("| {kind} |")), "{row}");
    }
    assert!(value("eventlog_storage_statements_total").expect("statements") >= 1.0);
    assert_eq!(value("eventlog_storage_pool_connections_max"), Some(8.0));
    let connections = value("eventlog_storage_pool_connections").expect("connections");
    assert!((1.0..=8.0).contains(&connections), "{connections}");
    assert!(value("eventlog_storage_pool_wait_seconds_count").expect("a count") >= 1.0);
}

/// A node removes unfinished writes from its directory when it starts, so two of them cannot share one.
#[test]
fn a_second_node_in_the_same_directory_is_refused() {
    let Some((_, url)) = database() else { return };
    let mut node = Node::dev(&url);
    let mut second = binary();
    second.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]);
    second.arg(node.directory.path());
    second.env("EVENTLOG_STORAGE_KIND", "postgres").env("EVENTLOG_STORAGE_URL", &url);
    let refused = second.output().expect("it ends");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("needs a data_dir of its own"), "{told}");
    // It is free once the first one has ended, in whatever way.
    node.kill();
}
