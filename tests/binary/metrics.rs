//! Metrics whose values are meaningful only for a real server.

use std::io::Write;
use std::process::{Command, Stdio};
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

/// Not every tool that reads metrics knows `OpenMetrics`.
#[tokio::test]
async fn promtool_takes_the_older_format_and_has_nothing_to_say() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    let mut writer = Socket::connect(&server.url).await;
    writer.write(&key("writer"), 1, &batch(&[entry("E", "", b"x")])).await;
    writer.next_ack().await;
    // A refusal, so that there is a counter with labels.
    writer.subscribe(&key("writer"), 5_000).await;
    writer.stop(&key("writer")).await;
    let get = async |accept: &str| {
        let headers = format!("host: eventlog\r\naccept: {accept}\r\n");
        let answer = http::get_with(server.address(), "/metrics", &headers).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        (head.to_ascii_lowercase(), body.to_owned())
    };
    for accept in ["*/*", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"] {
        let (head, body) = get(accept).await;
        assert!(
            head.contains("content-type: application/openmetrics-text; version=1.0.0"),
            "{head}"
        );
        assert!(body.ends_with("# EOF\n"));
    }
    let (head, body) = get("text/plain;version=0.0.4").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(
        body.contains(
            "# TYPE eventlog_writes_acked_total counter\neventlog_writes_acked_total 1\n"
        )
    );
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    promtool.stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut checking) = promtool.spawn() else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has to have promtool");
        return;
    };
    checking.stdin.take().expect("an input").write_all(body.as_bytes()).expect("written");
    let checked = checking.wait_with_output().expect("it ends");
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
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
