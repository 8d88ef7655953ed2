//! Metrics whose values are meaningful only for a real server.

use std::time::Duration;

use tempfile::tempdir;
use tokio::time::{Instant, sleep};

use super::process::Serve;
use crate::support::http;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

const PATIENCE: Duration = Duration::from_secs(60);

async fn metric(server: &Serve, name: &str) -> Option<f64> {
    let text = http::get(server.address().parse().expect("an address"), "/metrics").await;
    value(&text, name)
}

fn value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok())
}

/// Waits until the metric has this value.
async fn comes_to(server: &Serve, name: &str, is_so: impl Fn(f64) -> bool) {
    let began = Instant::now();
    loop {
        let now = metric(server, name).await;
        if now.is_some_and(&is_so) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{name} is {now:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_slowest_cursor_is_how_far_behind_and_gone_with_its_client() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    let lag = "eventlog_subscriptions_lag_max";
    assert_eq!(metric(&server, lag).await, Some(0.0));
    let mut writer = Socket::connect(&server.url).await;
    let mut reads = Socket::connect(&server.url).await;
    let mut stuck = Socket::connect(&server.url).await;
    for socket in [&mut reads, &mut stuck] {
        socket.subscribe(&key("reader"), 0).await;
    }
    // More than the buffers of sockets hold.
    let large = vec![0; 1_000_000];
    for id in 1..=24 {
        writer.write(&key("writer"), id, &batch(&[entry("E", "", &large)])).await;
        assert_eq!(writer.next_ack().await.0, id);
    }
    reads.next_joined_entries(24).await;
    comes_to(&server, lag, |lag| lag > 1.0).await;
    drop(stuck);
    comes_to(&server, lag, |lag| lag == 0.0).await;
}

#[tokio::test]
async fn syncs_are_timed_apart_from_commits() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    let mut writer = Socket::connect(&server.url).await;
    for id in 1..=5 {
        writer.write(&key("writer"), id, &batch(&[entry("E", "", b"x")])).await;
        assert_eq!(writer.next_ack().await.0, id);
    }
    let text = http::get(server.address().parse().expect("an address"), "/metrics").await;
    let count = value(&text, "eventlog_storage_sync_seconds_count").expect("syncs");
    assert!(count >= 5.0, "{count}");
    let took = |name: &str| value(&text, &format!("eventlog_{name}_seconds_sum")).expect("a sum");
    assert!(took("storage_sync") > 0.0);
}
