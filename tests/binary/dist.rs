//! What `dist/` says about the server holds for the binary.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::tempdir;
use yaml_rust2::{Yaml, YamlLoader};

use crate::support::certificates::Authority;
use crate::support::http::{get, request_tls};
use crate::support::process::{Process, binary};

fn dist(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dist").join(name)
}

/// Metrics that only a node on PostgreSQL has, with their kinds.
pub const ON_POSTGRES: [(&str, &str); 13] = [
    ("storage_stores_refused", "gauge"),
    ("storage_other_nodes", "gauge"),
    ("storage_standby_wait_seconds", "gauge"),
    ("storage_pool_connections_max", "gauge"),
    ("storage_pool_connections_idle", "gauge"),
    ("storage_pool_connections", "gauge"),
    ("storage_pool_waiting", "gauge"),
    ("storage_pool_wait_seconds", "histogram"),
    ("storage_statements_total", "counter"),
    ("storage_overtaken_total", "counter"),
    ("storage_known_total", "counter"),
    ("storage_locked_total", "counter"),
    ("storage_caught_up_total", "counter"),
];

/// The metrics that a text names.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("eventlog_")).collect()
}

#[tokio::test]
async fn every_metric_of_the_alerts_and_the_dashboard_is_served() {
    let data = tempdir().expect("a directory");
    // Includes a group of handlers and a certificate, because some metrics are about them.
    let config = data.path().join("eventlog.toml");
    let authority = Authority::new();
    let [certificate, key] = authority.sign().write(data.path());
    let tls = format!("[tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}\n");
    let webhook = "[[webhook]]\nname = \"nobody\"\nurl = \"http://127.0.0.1:9/\"\nfrom = \"now\"\n\
                   secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"";
    std::fs::write(&config, tls + webhook).expect("written");
    let mut command = binary();
    command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
    let server = Process::start({
        command.arg("--data-dir").arg(data.path().join("data"));
        command
    });
    let address = server.url.trim_start_matches("wss://").trim_end_matches("/eventlog");
    let trusted = authority.trusted(None);
    let served = request_tls(address, &trusted, "GET /metrics", "", "").await;
    let served = metrics_in(&served);
    // With another storage alone: `cluster::one` looks for them.
    let elsewhere = |name: &str| {
        let name = name.trim_start_matches("eventlog_");
        ON_POSTGRES.iter().any(|(elsewhere, _)| *elsewhere == name)
    };
    // Those of a histogram, and counters with a label that were not counted yet.
    let is_served = |name: &&str| {
        let of = ["_bucket", "_sum", "_count", "_total"];
        let base = of.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        served.contains(*name) || served.contains(base) || elsewhere(name)
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

/// Every document of a file.
fn documents(name: &str) -> Vec<Yaml> {
    let text = std::fs::read_to_string(dist(name)).expect("a file");
    YamlLoader::load_from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_manifests_are_kubernetes_objects_whose_labels_and_settings_fit() {
    for name in ["kubernetes/eventlog-server.yaml", "kubernetes/several-nodes.yaml"] {
        let objects = documents(name);
        let kinds: Vec<_> = objects.iter().filter_map(|it| it["kind"].as_str()).collect();
        assert_eq!(kinds.len(), objects.len(), "{name}");
        for object in &objects {
            assert!(object["apiVersion"].as_str().is_some(), "{object:?}");
            assert!(object["metadata"]["name"].as_str().is_some(), "{object:?}");
            let labels = &object["spec"]["template"]["metadata"]["labels"];
            if !labels.is_badvalue() {
                assert_eq!(labels, &object["spec"]["selector"]["matchLabels"], "{name}");
                let container = &object["spec"]["template"]["spec"]["containers"][0];
                let args = container["args"].as_vec().expect("arguments");
                assert_eq!(args[0].as_str(), Some("serve"));
            }
        }
    }
}

#[test]
fn the_composition_has_three_nodes_behind_the_balancer() {
    let all = documents("docker-compose.yml");
    let services = all[0]["services"].as_hash().expect("services");
    let nodes: Vec<_> = services
        .iter()
        .filter(|(_, service)| service["image"].as_str() == Some("eventlog-server:latest"))
        .filter_map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(nodes, ["one", "two", "three"]);
    let balancer = std::fs::read_to_string(dist("haproxy.cfg")).expect("a file");
    for node in nodes {
        assert!(balancer.contains(&format!("server {node} {node}:7420")), "{node}");
    }
    let Ok(checked) = Command::new("haproxy").args(["-c", "-f"]).arg(dist("haproxy.cfg")).output()
    else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has to have haproxy");
        let _ = writeln!(std::io::stderr(), "not run: there is no haproxy to check its file");
        return;
    };
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// What `config check` says about these settings.
#[cfg(feature = "postgres")]
fn check(settings: &[(String, String)]) {
    let mut command = binary();
    command.args(["config", "check"]).env("EVENTLOG_AUTH_MODE", "allow-all");
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    let checked = command.output().expect("it runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[cfg(feature = "postgres")]
#[test]
fn the_settings_of_several_nodes_are_taken() {
    let text = |value: &Yaml| {
        let text =
            value.as_str().unwrap_or("postgres://eventlog@db.example/eventlog?sslmode=verify-full");
        text.replace("${POSTGRES_PASSWORD:?}", "a-password")
            .replace("${EVENTLOG_ADMIN_TOKEN:?}", "a-token-that-nobody-guesses")
    };
    let composition = documents("docker-compose.yml").remove(0);
    let settings = composition["services"]["one"]["environment"].as_hash().expect("settings");
    let of_composition: Vec<_> =
        settings.iter().map(|(name, value)| (text(name), text(value))).collect();
    assert!(of_composition.len() > 3);
    check(&of_composition);
    let objects = documents("kubernetes/several-nodes.yaml");
    let deployment = objects.last().expect("a deployment");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let settings = container["env"].as_vec().expect("settings");
    check(
        &settings.iter().map(|one| (text(&one["name"]), text(&one["value"]))).collect::<Vec<_>>(),
    );
}
