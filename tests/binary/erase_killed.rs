//! A server that is killed during an erasure: what was noted is erased before anybody reads again.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::tempdir;

use crate::support::process::{Process, binary};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

const TOKEN: &str = "only-for-this-test";
const ENTRIES: usize = 6_000;

fn serve(data: &Path) -> Process {
    let mut command = binary();
    command.env("EVENTLOG_ADMIN_TOKEN", TOKEN);
    command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
    Process::start(command)
}

fn erase(server: &Process) -> Child {
    let mut command: Command = binary();
    command.args(["erase", "--store", "default", "--primary-key", "0", "--yes"]);
    command.args(["--url", &server.url]).env("EVENTLOG_ADMIN_TOKEN", TOKEN);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs")
}

/// The number of ids in the complete records of the ledger, see `docs/FORMAT.md`.
fn noted(data: &Path) -> usize {
    let bytes = std::fs::read(data.join("erased.a")).unwrap_or_default();
    let (mut rest, mut ids) = (&bytes[..], 0);
    while let Some(len) = rest.get(8..12) {
        let len = u32::from_be_bytes(len.try_into().expect("four bytes")) as usize;
        if len == 0 || rest.len() < len {
            break;
        }
        ids += (len - 31 - "default".len() - 16) / 16;
        rest = &rest[len..];
    }
    ids
}

async fn shown(server: &Process, at_most: usize) -> usize {
    let mut socket = Socket::connect(&server.url).await;
    socket.subscribe(&key("bob"), 0).await;
    // All entries of the other key are there, including the last one.
    let mut shown = 0;
    loop {
        let changes = socket.next_changes().await;
        shown += changes.iter().filter(|(_, entry)| entry.primary_key == "0").count();
        if changes.last().is_some_and(|(at, _)| *at as usize == ENTRIES) {
            assert!(shown <= at_most, "{shown} are shown, {at_most} may be");
            return shown;
        }
    }
}

#[tokio::test]
async fn a_kill_anywhere_in_an_erasure_brings_nothing_back() {
    // The server is killed when the first ones are noted, a moment later, and in the middle.
    for (round, wait_for) in [1, 1_000, 2_500].into_iter().enumerate() {
        let directory = tempdir().expect("a directory");
        let data = directory.path().join("data");
        let server = serve(&data);
        let entries: Vec<_> = (0..ENTRIES)
            .map(|n| entry("Note", if n % 3 < 2 { "0" } else { "1" }, &[1; 100]))
            .collect();
        let mut socket = Socket::connect(&server.url).await;
        for (n, part) in entries.chunks(1_000).enumerate() {
            socket.write(&key("alice"), n as u64, &batch(part)).await;
            socket.next_ack().await;
        }
        let mut erasing = erase(&server);
        let deadline = Instant::now() + Duration::from_secs(120);
        while noted(&data) < wait_for {
            assert!(Instant::now() < deadline, "nothing is noted");
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_millis(round as u64));
        drop(server);
        erasing.wait().expect("it ends");
        let gone = noted(&data);
        assert!(gone >= wait_for);

        let server = serve(&data);
        let of_key = ENTRIES / 3 * 2;
        shown(&server, of_key - gone.min(of_key)).await;
        // An entry that is sent again gets its old sequence, and the rest can be erased.
        let mut socket = Socket::connect(&server.url).await;
        for (n, part) in entries.chunks(1_000).enumerate() {
            socket.write(&key("alice"), n as u64, &batch(part)).await;
            let first = n as u64 * 1_000 + 1;
            assert!(socket.next_ack().await.1.into_iter().eq(first..first + 1_000));
        }
        assert!(erase(&server).wait().expect("it ends").success());
        assert_eq!(shown(&server, 0).await, 0);
        drop(server);
        let mut verify = binary();
        verify.args(["verify", "--data-dir"]).arg(&data);
        assert!(verify.output().expect("it runs").status.success());
    }
}
