//! What `dist/` says about the server is true of the binary.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::tempdir;

use crate::support::http::get;
use crate::support::process::{Process, binary};

fn dist(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dist").join(name)
}

/// The metrics that a text names.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("eventlog_")).collect()
}

#[tokio::test]
async fn every_metric_of_the_alerts_and_the_dashboard_is_served() {
    let data = tempdir().expect("a directory");
    // With a group of handlers, which some metrics are about.
    let config = data.path().join("eventlog.toml");
    let webhook = "[[webhook]]\nname = \"nobody\"\nurl = \"http://127.0.0.1:9/\"\nfrom = \"now\"\n\
                   secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"";
    std::fs::write(&config, webhook).expect("written");
    let mut command = binary();
    command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
    let server = Process::start({
        command.arg("--data-dir").arg(data.path().join("data"));
        command
    });
    let address = server.url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    let served = get(address.parse().expect("an address"), "/metrics").await;
    let served = metrics_in(&served);
    // Those of a histogram, and counters that have a label and were not counted yet.
    let is_served = |name: &&str| {
        let of = ["_bucket", "_sum", "_count", "_total"];
        let base = of.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        served.contains(*name) || served.contains(base)
    };
    for name in ["prometheus/alerts.yaml", "grafana/eventlog-server.json"] {
        let text = std::fs::read_to_string(dist(name)).expect("a file");
        let named = metrics_in(&text);
        assert!(named.len() > 5, "{name} names {named:?}");
        let unknown: Vec<_> = named.iter().filter(|name| !is_served(name)).collect();
        assert!(unknown.is_empty(), "{name} names {unknown:?}, which are not served");
    }
}

#[tokio::test]
async fn every_metric_that_is_served_is_in_the_documentation() {
    let data = tempdir().expect("a directory");
    let server = Process::serve_dev(data.path());
    let address = server.url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    let served = get(address.parse().expect("an address"), "/metrics").await;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md");
    let page = std::fs::read_to_string(page).expect("a page");
    let (_, table) = page.split_once("| metric | kind |").expect("the table");
    let helps = served.lines().filter_map(|line| line.strip_prefix("# HELP eventlog_"));
    let names: Vec<_> = helps.filter_map(|line| line.split(' ').next()).collect();
    assert!(names.len() > 40, "{names:?}");
    let missing: Vec<_> = names
        .iter()
        .filter(|name| {
            !table.contains(&format!("`{name}`")) && !table.contains(&format!("`{name}{{"))
        })
        .collect();
    assert!(missing.is_empty(), "docs/OPERATIONS.md does not have {missing:?}");
}

#[test]
fn the_dashboard_is_json_with_a_query_in_each_panel() {
    let text = std::fs::read_to_string(dist("grafana/eventlog-server.json")).expect("a file");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for panel in dashboard["panels"].as_array().expect("panels") {
        let targets = panel["targets"].as_array().expect("targets");
        assert!(targets.iter().all(|target| target["expr"].is_string()), "{panel}");
    }
}

#[test]
fn prometheus_takes_the_alert_rules() {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "rules"]).arg(dist("prometheus/alerts.yaml"));
    let Ok(checked) = promtool.output() else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has to have promtool");
        // The test's own output is hidden when it passes.
        let _ =
            writeln!(std::io::stderr(), "not run: there is no promtool to check the alert rules");
        return;
    };
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
