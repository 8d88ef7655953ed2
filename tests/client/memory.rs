//! What a client holds while its program is slow.

use std::process::Command;
use std::time::Duration;

use eventlog_server::client::{EventLogRemote, Options};
use eventlog_server::model::Sequence;

use super::{connect, take};
use crate::support::server::TestServer;
use crate::support::{entry, key};

const ENTRIES: u64 = 100_000;
/// So that all entries together would not fit.
const PAYLOAD_BYTES: usize = 1_024;
const RESIDENT_KIB_MAX: u64 = 64 * 1_024;
const URL: &str = "EVENTLOG_TEST_SLOW_CONSUMER_URL";

/// The most memory that the operating system has seen this process hold, in KiB.
fn peak_resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The client has a process of its own, whose memory the operating system counts; the child is this test binary,
/// running the test below.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_slow_consumer_of_100_000_entries_stays_under_64_mib() {
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    let (writer, alice) = (connect(&server.url()).await, key("alice"));
    for _ in 0..ENTRIES / 1_000 {
        let entries: Vec<_> = (0..1_000).map(|_| entry("E", "k", &[1; PAYLOAD_BYTES])).collect();
        writer.write(&alice, entries).await.expect("an ack");
    }
    let url = server.url();
    let child = tokio::task::spawn_blocking(move || {
        Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "client::memory::consume_slowly", "--nocapture"])
            .env(URL, url)
            .output()
            .expect("a child process")
    });
    let output = child.await.expect("a child process");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let peak = text.lines().find_map(|line| line.split_once("peak KiB: "));
    let peak: u64 = peak.expect("a peak").1.trim().parse().expect("a number");
    println!("the client's peak: {peak} KiB");
    assert!(peak < RESIDENT_KIB_MAX, "{peak} KiB");
}

/// The child process of the test above; on its own it does nothing.
#[tokio::test]
async fn consume_slowly() {
    let Ok(url) = std::env::var(URL) else { return };
    let remote = EventLogRemote::connect(&url, Options::default()).await.expect("a connection");
    let mut changes = remote.changes(&key("alice"), Sequence::ZERO);
    for hundred in 0..ENTRIES / 100 {
        let entries = take(&mut changes, 100).await;
        assert_eq!(entries[0].0, hundred * 100 + 1);
        assert_eq!(entries[99].0, hundred * 100 + 100);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!("\npeak KiB: {}", peak_resident_kib());
}
