//! A disk that is almost full.

use std::path::Path;

use tempfile::tempdir;

use super::process::{Serve, command, data, logged};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

fn serve(directory: &Path, full_bytes: &str) -> Serve {
    let mut serve = command(&["serve", "--dev", "--listen", "127.0.0.1:0"]);
    serve.args(["--data-dir", data(&directory.join("data"))]);
    serve.env("EVENTLOG_DISK_FULL_BYTES", full_bytes).env("EVENTLOG_ADMIN_TOKEN", "token");
    serve.stderr(std::fs::File::create(directory.join("log")).expect("a file"));
    Serve::of(serve)
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_no_entries_and_everything_else_goes_on() {
    let directory = tempdir().expect("a directory");
    let one = entry("Note", "1", b"1");
    let server = serve(directory.path(), "0");
    let mut client = Socket::connect(&server.url).await;
    client.write(&key("alice"), 1, &batch(std::slice::from_ref(&one))).await;
    assert_eq!(client.next_ack().await, (1, vec![1]));
    drop((client, server));

    // No disk has so much space.
    let server = serve(directory.path(), "8000000000000000KiB");
    logged(&directory.path().join("log"), "entries are refused until", 1);
    let mut client = Socket::connect(&server.url).await;
    client.write(&key("alice"), 1, &batch(&[entry("Note", "2", b"2")])).await;
    let refusal = client.next_refusal().await;
    assert!(refusal.message.contains("not stored"), "{refusal:?}");
    assert!(refusal.message.contains("nearly full"), "{refusal:?}");
    client.subscribe(&key("bob"), 0).await;
    assert_eq!(client.next_entries(1).await, [(1, one)]);
    let keys = server.run(&["keys", "--token", "token", "assign", "carol", "team"]);
    assert_eq!(keys.ok(), "carol  team\n");
    drop((client, server));

    let server = serve(directory.path(), "1KiB");
    let mut client = Socket::connect(&server.url).await;
    client.write(&key("alice"), 1, &batch(&[entry("Note", "2", b"2")])).await;
    assert_eq!(client.next_ack().await, (1, vec![2]));
}
