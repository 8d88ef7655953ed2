//! `compact`, as operators see it: on a running server, on one that is killed meanwhile, and on the directory of a
//! stopped one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::tempdir;

use crate::support::http;
use crate::support::process::{Process, binary};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

const TOKEN: &str = "only-for-this-test";

fn serve(data: &Path) -> Process {
    let mut command = binary();
    command.env("EVENTLOG_ADMIN_TOKEN", TOKEN);
    command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
    Process::start(command)
}

async fn write(server: &Process, count: usize, last: u64) {
    let mut socket = Socket::connect(&server.url).await;
    for part in 0..count / 1_000 {
        let entries: Vec<_> = (0..1_000)
            .map(|n| entry("Note", &(part * 1_000 + n).to_string(), &[n as u8; 300]))
            .collect();
        socket.write(&key("alice"), 1, &batch(&entries)).await;
        socket.next_ack().await;
    }
    assert_eq!(head(server).await, last);
}

async fn head(server: &Process) -> u64 {
    let address = server.url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    let address = address.parse().expect("an address");
    let answer = http::get_with_token(address, "/admin/stores/default", TOKEN).await;
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    let store: serde_json::Value = serde_json::from_str(body).expect("JSON");
    store["head"].as_u64().unwrap_or(0)
}

async fn entries(server: &Process, from: u64, count: usize) {
    let mut reader = Socket::connect(&server.url).await;
    reader.subscribe(&key("bob"), 0).await;
    let read = reader.next_joined_entries(count).await;
    assert!(read.iter().map(|(sequence, _)| *sequence).eq(from..from + count as u64));
}

fn well(mut command: Command) -> String {
    let ended = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&[&ended.stdout[..], &ended.stderr].concat()).into_owned();
    assert!(ended.status.success(), "{said}");
    said
}

fn compact(server: &Process) -> Command {
    let mut command = binary();
    command.env("EVENTLOG_ADMIN_TOKEN", TOKEN).args(["compact", "--url", &server.url]);
    command
}

/// Everything is in the database then, and not in the commit log alone.
fn backup(server: &Process, to: &Path) -> Command {
    let mut command = binary();
    command.env("EVENTLOG_ADMIN_TOKEN", TOKEN).args(["backup", "--url", &server.url]);
    command.arg("--to").arg(to);
    command
}

fn database_bytes(data: &Path) -> u64 {
    std::fs::metadata(data.join("sled/db")).expect("a file").len()
}

#[tokio::test]
async fn a_running_server_gives_space_back_and_so_does_a_stopped_one() {
    let directory = tempdir().expect("a directory");
    let data = directory.path().join("data");
    let server = serve(&data);
    write(&server, 60_000, 60_000).await;
    let mut trim = binary();
    trim.env("EVENTLOG_ADMIN_TOKEN", TOKEN).args(["trim", "--url", &server.url]);
    trim.args(["--store", "default", "--before", "55001", "--yes"]);
    well(trim);
    drop(server);
    let in_directory = |command: &str| {
        let mut asked = binary();
        asked.args([command, "--data-dir"]).arg(&data);
        well(asked)
    };
    let before = database_bytes(&data);
    let said = in_directory("compact");
    assert!(said.contains("took") && database_bytes(&data) * 2 < before.max(8 << 20), "{said}");
    assert!(in_directory("verify").contains("5000 entries"));
    let server = serve(&data);
    write(&server, 40_000, 100_000).await;
    well(backup(&server, &directory.path().join("backups")));
    let said = well(compact(&server));
    assert!(said.contains("the database took"), "{said}");
    entries(&server, 55_001, 45_000).await;
    assert!(!data.join("compacting").exists());
}

#[tokio::test]
async fn a_server_says_meanwhile_how_much_is_copied() {
    let directory = tempdir().expect("a directory");
    let server = serve(&directory.path().join("data"));
    write(&server, 60_000, 60_000).await;
    well(backup(&server, &directory.path().join("backups")));
    let address = server.url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    let address = address.parse().expect("an address");
    let state = async || {
        let answer = http::get_with_token(address, "/admin/compact", TOKEN).await;
        let body = answer.split("\r\n\r\n").nth(1).expect("a body");
        serde_json::from_str::<serde_json::Value>(body).expect("JSON")
    };
    // One may be over before anybody asks.
    let deadline = Instant::now() + Duration::from_secs(120);
    'seen: loop {
        let mut under_way = compact(&server).stdout(Stdio::null()).spawn().expect("it starts");
        while under_way.try_wait().expect("it runs").is_none() {
            let state = state().await;
            let copied = state["copied"].as_u64().unwrap_or(0);
            if copied > 0 {
                assert_eq!(state["running"], true);
                assert!(copied <= state["copiedMax"].as_u64().expect("a number"), "{state}");
                assert!(under_way.wait().expect("it ends").success());
                break 'seen;
            }
        }
        assert!(Instant::now() < deadline, "nothing is shown");
    }
    let state = state().await;
    assert!(state["running"] == false && state.get("copied").is_none(), "{state}");
}

#[tokio::test]
async fn a_server_that_is_killed_meanwhile_has_all_of_it() {
    let directory = tempdir().expect("a directory");
    let data = directory.path().join("data");
    let mut server = serve(&data);
    write(&server, 40_000, 40_000).await;
    well(backup(&server, &directory.path().join("backups")));
    for round in 0..6 {
        let mut under_way = compact(&server)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        tokio::time::sleep(Duration::from_millis(50 + round * 120)).await;
        drop(server);
        let _ = under_way.wait().expect("it ends");
        server = serve(&data);
        entries(&server, 1, 40_000).await;
        assert!(!data.join("compacting").exists());
    }
    well(compact(&server));
    drop(server);
    let mut verify = binary();
    verify.args(["verify", "--data-dir"]).arg(&data);
    assert!(well(verify).contains("40000 entries"));
}

/// Sled takes megabytes for a new file: a small database got larger.
#[tokio::test]
async fn a_small_database_stays_as_it_is() {
    let directory = tempdir().expect("a directory");
    let data = directory.path().join("data");
    let server = serve(&data);
    write(&server, 1_000, 1_000).await;
    let said = well(compact(&server));
    assert!(said.contains("stays as it is"), "{said}");
    drop(server);
    let mut stopped = binary();
    stopped.args(["compact", "--data-dir"]).arg(&data);
    let said = well(stopped);
    assert!(said.contains("stays as it is"), "{said}");
}
