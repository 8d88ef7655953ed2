//! `bench`: each scenario measures, prints its results, and notices a server that misbehaves.

use serde_json::Value;
use tempfile::tempdir;

use super::process::{Ended, run};
use crate::support::process::{Process, binary};

/// What a run printed as JSON.
fn figures(ended: Ended) -> Value {
    let figures: Value = serde_json::from_str(&ended.ok()).expect("JSON");
    assert_eq!(figures["faults"], serde_json::json!({}));
    figures
}

fn number(figures: &Value, pointer: &str) -> f64 {
    let found = figures.pointer(pointer).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no {pointer}: {figures}"))
}

#[test]
fn each_scenario_measures_a_server_of_its_own_beside_its_floors() {
    let floors = ["--json", "--floor-duration", "0.1"];
    for (scenario, told) in [
        (&["write", "--count", "300", "--stores", "3"][..], "/of_echo"),
        (&["ingest", "--count", "5000"], "/of_storage"),
        (&["write", "--count", "100", "--in-flight", "1"], "/p50_of_one_sync"),
        (&["write", "--duration", "0.3", "--warm-up", "0", "--rate", "500"], "/generator/cores"),
        (&["write", "--count", "1000", "--batch", "10", "--resend"], "/disk_growth_bytes"),
        (&["catch-up", "--count", "3000", "--rounds", "2", "--readers", "2"], "/of_storage"),
        (
            &["fan-out", "--subscribers", "9", "--connections", "3", "--duration", "0.3"],
            "/delivered/latency/p99.9",
        ),
        (&["idle", "--connections", "30", "--duration", "0.1"], "/bytes_per_connection"),
    ] {
        let figures = figures(run(&[&["bench"], scenario, &floors].concat()));
        assert!(number(&figures, told) >= 0.0);
    }
}

#[test]
fn one_is_measured_alone_and_beside_each_kind_of_others() {
    let time = ["--json", "--duration", "0.4", "--warm-up", "0.1"];
    for (beside, neighbours) in [
        ("catch-up", "3"),
        ("large-writes", "4"),
        ("ingest", "4"),
        ("fan-out", "3"),
        ("identify", "20"),
    ] {
        let others = ["--beside", beside, "--neighbours", neighbours, "--count", "3000"];
        let figures = figures(run(&[&["bench", "fair"], &others[..], &time].concat()));
        for told in ["/alone/latency/p50", "/acknowledged/latency/p99"] {
            assert!(number(&figures, told) > 0.0, "{beside}");
        }
        // It does not have to achieve anything in such a short time.
        assert!(number(&figures, "/neighbours/entries_per_second") >= 0.0, "{beside}");
    }
}

#[test]
fn a_server_that_has_a_history_is_measured_as_well() {
    let directory = tempdir().expect("a directory");
    let server = Process::serve_dev(&directory.path().join("data"));
    let bench = |scenario: &[&str]| {
        let target = ["--json", "--url", &server.url];
        figures(run(&[&["bench"], scenario, &target].concat()))
    };
    for _ in 0..2 {
        let written = bench(&["write", "--count", "500"]);
        assert!(number(&written, "/acknowledged/entries_per_second") > 0.0);
        assert_eq!(written.get("floor_sync"), None);
        bench(&["catch-up", "--count", "2000", "--rounds", "1"]);
        bench(&["fan-out", "--subscribers", "3", "--duration", "0.3", "--warm-up", "0"]);
        bench(&["fair", "--beside", "ingest", "--duration", "0.3", "--warm-up", "0"]);
    }
}

#[test]
fn each_scenario_measures_the_rpc_protocol_too() {
    let directory = tempdir().expect("a directory");
    let server = Process::serve_dev(&directory.path().join("data"));
    let url = server.url.replace("/eventlog", "/rpc");
    for (scenario, told) in [
        (&["write", "--count", "500"][..], "/acknowledged/entries_per_second"),
        // A batch above 512,000 bytes.
        (
            &["ingest", "--count", "6000", "--batch", "3000", "--payload", "200"],
            "/acknowledged/messages_per_second",
        ),
        (&["write", "--count", "200", "--resend"], "/acknowledged/entries_per_second"),
        // Arrays above 512,000 bytes.
        (
            &["catch-up", "--count", "6", "--batch", "1", "--payload", "600000"],
            "/round_1/entries_per_second",
        ),
        (&["catch-up", "--count", "3000", "--readers", "2"], "/round_1/entries_per_second"),
        (
            &["fan-out", "--subscribers", "9", "--connections", "3", "--duration", "0.3"],
            "/delivered/latency/p99.9",
        ),
        (&["idle", "--connections", "30", "--duration", "0.1"], "/open_seconds"),
    ] {
        let target = ["--json", "--url", &url];
        let figures = figures(run(&[&["bench"], scenario, &target].concat()));
        assert!(number(&figures, told) >= 0.0);
    }
}

#[test]
fn a_rate_that_cannot_be_reached_shows_in_the_latency() {
    // One write at a time cannot be answered a million times a second, so nearly all are late or never sent.
    let load = ["--connections", "1", "--in-flight", "1", "--rate", "1000000"];
    let time = ["--duration", "0.5", "--warm-up", "0", "--floors", "none", "--json"];
    let figures = figures(run(&[&["bench", "write"], &load[..], &time].concat()));
    assert!(number(&figures, "/unsent") > 100_000.0);
    assert!(number(&figures, "/acknowledged/latency/p50") > 0.1);
}

#[test]
fn a_server_that_does_something_else_fails() {
    let mut echo = binary();
    let listening = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listening.local_addr().expect("an address").to_string();
    drop(listening);
    let mut child =
        echo.args(["bench", "echo-server", "--listen", &address]).spawn().expect("it starts");
    let url = format!("ws://{address}/eventlog");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while std::net::TcpStream::connect(&address).is_err() {
        assert!(std::time::Instant::now() < deadline, "it does not listen");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let complaint = run(&["bench", "write", "--count", "10", "--url", &url]).failed(1);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert!(complaint.contains("error:"), "{complaint}");
}
