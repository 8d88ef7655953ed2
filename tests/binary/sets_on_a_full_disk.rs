//! Large writes that wait on a disk without enough space for them, on the binary.
//!
//! The disk is a tmpfs of a few MiB, in a mount namespace of the server's own. Where that is not possible, the test
//! says so.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use eventlog_server::model::Entry;
use eventlog_server::model::limits::CHUNK_BYTES;
use eventlog_server::protocol::rpc::{Call, ErrorCode, Part, RequestId, encode_write_entries};
use tempfile::tempdir;

use crate::support::process::{Process, binary};
use crate::support::rpc::{DEFAULT, RpcSocket, acks, framed_entry};
use crate::support::{batch, http};

/// The size of the disk on which sets wait.
const DISK: &str = "12m";

/// A server with a disk of its own at `data_dir/spill`; its log is in a file.
fn start(directory: &Path) -> Option<Process> {
    let can = Command::new("unshare").args(["-m", "true"]).output();
    if !can.is_ok_and(|ended| ended.status.success()) {
        eprintln!("skipped: no mount namespace can be had here");
        return None;
    }
    let (server, data_dir) = (binary(), directory.join("data"));
    let mut command = Command::new("unshare");
    command.arg("-m").arg(server.get_program());
    command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data_dir);
    for (name, value) in [
        // What exceeds this goes to disk.
        ("EVENTLOG_LIMITS_MESSAGE_BYTES_MAX", "600000"),
        ("EVENTLOG_SPILL_BYTES_MAX", "8MiB"),
        ("EVENTLOG_LIMITS_CHUNK_SET_AGE_MAX", "5s"),
    ] {
        command.env(name, value);
    }
    command.stderr(File::create(directory.join("log")).expect("a log"));
    let server = Process::start(command);
    let mut mount = Command::new("nsenter");
    mount.args(["-t", &server.id().to_string(), "-m", "mount", "-t", "tmpfs", "-o"]);
    mount.arg(format!("size={DISK}")).arg("none").arg(data_dir.join("spill"));
    assert!(mount.status().expect("nsenter").success(), "the disk is mounted");
    Some(server)
}

/// Uses up this many bytes of a disk, or all free ones.
fn fill(file: &Path, bytes: usize) {
    let mut filler = File::create(file).expect("a file");
    let some = vec![1; 64 * 1_024];
    for _ in 0..bytes.div_ceil(some.len()) {
        if filler.write_all(&some).is_err() {
            return;
        }
    }
}

fn files(spill: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(spill).expect("a directory");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

async fn reserved(server: &Process) -> String {
    let address = server.url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    let text = http::get(address.parse().expect("an address"), "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix("eventlog_spill_reserved_bytes "));
    line.expect("a metric").to_owned()
}

async fn send(client: &mut RpcSocket, (set, index): (i64, usize), data: &[u8]) -> RequestId {
    let total = data.len().div_ceil(CHUNK_BYTES) as u64;
    let part = data.chunks(CHUNK_BYTES).nth(index).expect("a part");
    let part = Part { id: set, index: index as u64, total, data: part };
    client.call(&Call::WriteChunked(part)).await
}

#[tokio::test]
async fn a_disk_that_fills_up_has_the_set_refused_for_now_and_nothing_is_left_of_it() {
    let directory = tempdir().expect("a directory");
    let Some(server) = start(directory.path()) else { return };
    let spill = server.inside(&directory.path().join("data/spill"));
    let filler = spill.join("of-others");
    let url = server.url.replace("/eventlog", "/rpc");
    let mut client = RpcSocket::authenticated(&url, &["alice"]).await;
    let entries: Vec<Entry> =
        (0..5).map(|n| framed_entry("E", &n.to_string(), &vec![7; 500_000])).collect();
    let data = encode_write_entries("alice", DEFAULT, &batch(&entries));
    let first = send(&mut client, (0, 0), &data).await;
    assert_eq!(client.acked(&first).await, Ok(vec![]));
    fill(&filler, usize::MAX);
    let second = send(&mut client, (0, 1), &data).await;
    let refused = client.refused(&second).await;
    assert_eq!(refused.code, ErrorCode::InternalServerError);
    assert!(refused.message.starts_with("busy: "), "{}", refused.message);
    let log = std::fs::read_to_string(directory.path().join("log")).expect("a log");
    assert!(log.contains("cannot be kept: No space left on device"), "{log}");
    // The connection continues, and so do writes that need no space.
    let small = [framed_entry("E", "small", b"")];
    assert_eq!(client.write("alice", &small).await, Ok(acks(&small, &[1])));
    while files(&spill) != [filler.clone()] || reserved(&server).await != "0" {
        tokio::task::yield_now().await;
    }

    // The next one finds no space, and waits until there is some.
    let first = send(&mut client, (1, 0), &data).await;
    client.nothing_comes().await;
    std::fs::remove_file(&filler).expect("removed");
    assert_eq!(client.acked(&first).await, Ok(vec![]));
    let last = data.len().div_ceil(CHUNK_BYTES) - 1;
    for index in 1..last {
        let part = send(&mut client, (1, index), &data).await;
        assert_eq!(client.acked(&part).await, Ok(vec![]));
    }
    let last = send(&mut client, (1, last), &data).await;
    assert_eq!(client.acked(&last).await, Ok(acks(&entries, &[2, 3, 4, 5, 6])));
    while !files(&spill).is_empty() {
        tokio::task::yield_now().await;
    }
}
