//! The log: for people or machines, with keys or without, and what an access log contains.

use serde_json::Value;
use tempfile::tempdir;

use super::logged::{ADMIN, Logged};
use super::process::{Serve, command, data};
use crate::support::http;
use crate::support::rpc::{RpcSocket, framed_entry};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

const KEY: &str = "CANARY-key";

/// Causes log lines: keys without a store, keys that get one, requests.
async fn visit(server: &Logged) {
    let mut client = Socket::connect(server.url()).await;
    client.write(&key(KEY), 1, &batch(&[entry("E", "", b"")])).await;
    client.next_refusal().await;
    server.keys(&["assign", KEY, "team"]).ok();
    client.write(&key(KEY), 2, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(client.next_ack().await.0, 2);
    client.subscribe(&key(KEY), 5_000).await;
    let to = server.serve().address().parse().expect("an address");
    http::get(to, "/healthz?CANARY-query").await;
    http::get_with_token(to, &format!("/admin/keys/{KEY}"), ADMIN).await;
    drop(client);
    server.keys(&["remove", KEY]).ok();
}

fn configuration(log: &str) -> String {
    format!("admin.token = {ADMIN:?}\nauth.mode = \"allow-all\"\n[log]\n{log}")
}

/// The log as what each line says.
fn lines(log: &str) -> Vec<Value> {
    let line = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    log.lines().map(line).collect()
}

#[tokio::test]
async fn each_line_for_machines_is_an_object_with_its_fields() {
    let mut server = Logged::start(&configuration("format = \"json\"\naccess = true"));
    visit(&server).await;
    // The end of the last connection is logged too.
    server.restart();
    let lines = lines(&server.log());
    for line in &lines {
        for field in ["time", "level", "target", "message"] {
            assert!(line[field].is_string(), "{field}: {line}");
        }
    }
    let find = |what: &str| {
        let of = |line: &&Value| line["message"].as_str().is_some_and(|said| said.contains(what));
        lines.iter().find(of).unwrap_or_else(|| panic!("nothing says {what}"))
    };
    let refused = find("has no store");
    assert_eq!((&refused["level"], &refused["key"]), (&"warn".into(), &"CANARY-key".into()));
    let ahead = find("but here it ends at");
    assert_eq!((&ahead["store"], &ahead["error"]), (&"team".into(), &"ahead".into()));
    let asked = find("GET \"/healthz\": 200");
    assert_eq!((&asked["status"], &asked["path"]), (&200.into(), &"/healthz".into()));
    assert!(asked["connection"].as_str().is_some_and(|at| at.starts_with("127.0.0.1:")), "{asked}");
    let ended = find("\"/eventlog\": ends after");
    assert!(ended["received"].as_u64() > Some(10) && ended["sent"].as_u64() > Some(10), "{ended}");
}

#[tokio::test]
async fn each_field_of_an_audit_line_is_a_field_for_machines() {
    let server = Logged::start(&configuration("format = \"json\""));
    server.keys(&["assign", "al\nice\" by=process", "team"]).ok();
    server.configure(&configuration("format = \"json\"\nkeys = \"hashed\""));
    let to = server.serve().address().parse().expect("an address");
    let entries = r#"{"entries":[{"event":"E","primaryKey":"k","payload":"U0VD"}]}"#;
    let header = format!("authorization: Bearer {ADMIN}\r\n");
    http::request(to, "POST /admin/stores/team/entries", &header, entries).await;
    http::request(to, "POST /admin/reload", &header, "").await;
    server.comes_to_log("action=reload");
    let audit: Vec<Value> =
        lines(&server.log()).into_iter().filter(|line| line["target"] == "audit").collect();
    let [assign, write, reload] = &audit[..] else { panic!("{audit:?}") };
    assert_eq!((&assign["action"], &assign["store"]), (&"assign".into(), &"team".into()));
    assert_eq!(assign["key"], "al\nice\" by=process");
    for line in &audit {
        assert_eq!((&line["by"], &line["token"]), (&"admin".into(), &"admin".into()), "{line}");
        assert_eq!((&line["address"], &line["level"]), (&"127.0.0.1".into(), &"info".into()));
    }
    assert_eq!((&write["action"], &write["entries"]), (&"write".into(), &1.into()));
    assert_eq!((&reload["action"], &reload["applied"]), (&"reload".into(), &"log.keys".into()));
    // The line itself is still there, for whoever reads it so.
    assert!(write["message"].as_str().is_some_and(|line| line.starts_with("action=write store=")));
}

#[test]
fn wrong_levels_of_another_variable_are_told_and_ignored() {
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let file = std::fs::File::create(&log).expect("a log");
    let store = directory.path().join("data");
    let mut serve =
        command(&["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", data(&store)]);
    let _server = Serve::of({
        serve.env("RUST_LOG", "noisy=loud").stderr(file);
        serve
    });
    let text = std::fs::read_to_string(&log).expect("UTF-8");
    assert!(text.contains("RUST_LOG is ignored: \"noisy=loud\" is not a level"), "{text}");
    assert!(text.contains("INFO ") && !text.contains("invalid logging spec"), "{text}");
}

#[tokio::test]
async fn hashed_keys_and_queries_are_in_no_line() {
    let mut server = Logged::start(&configuration("keys = \"hashed\"\naccess = true"));
    visit(&server).await;
    server.restart();
    let log = server.log();
    // printf CANARY-key | sha256sum
    assert!(log.matches("sha256:153d78003db21b7e").count() >= 3, "{log}");
    assert!(log.contains("/admin/keys/{key}"), "{log}");
    let ours = ["eventlog_server", " audit]", " access]"];
    let mut ours = log.lines().filter(|line| ours.iter().any(|target| line.contains(target)));
    let line = ours.find(|line| line.contains("CANARY"));
    assert_eq!(line, None);
}

/// What administrators do with a key, and what a client is refused that names it.
#[tokio::test]
async fn hashed_keys_are_in_no_line_about_grants_moves_quotas_proofs_and_quarantine() {
    let server = Logged::start(&format!(
        "admin.token = {ADMIN:?}\n[auth]\nmode = \"grants\"\nbind = \"first-use\"\n[log]\nkeys = \"hashed\"\n\
         [quota.per_key]\nbytes_stored = \"1MiB\"\n[limits]\nentry_bytes_max = 100_000"
    ));
    let run = |arguments: &[&str]| {
        let (command, rest) = arguments.split_at(1);
        server.serve().run(&[command, &["--token", ADMIN], rest].concat()).ok()
    };
    run(&["grants", "set", KEY, "--read", "--write"]);
    run(&["keys", "assign", KEY, "team"]);
    let url = server.url().replace("/eventlog", "/rpc");
    let mut client = RpcSocket::authenticated(&url, &[KEY]).await;
    let large = framed_entry("Large", "", &vec![1; 150_000]);
    client.write(KEY, &[large, framed_entry("Small", "", b"")]).await.expect("the small one");
    run(&["keys", "pin", KEY, &"0f".repeat(32)]);
    client.write(KEY, &[framed_entry("Small", "", b"")]).await.expect_err("bound to another");
    run(&["quarantine", "remove", "1"]);
    run(&["keys", "usage", KEY, "--reset"]);
    run(&["keys", "unpin", KEY]);
    run(&["keys", "remove", KEY]);
    run(&["grants", "remove", KEY]);
    let log = server.log();
    for said in
        ["action=grant", "action=ungrant", "action=reset_usage", "in quarantine as", "is bound to"]
    {
        assert!(log.contains(said), "{said} in\n{log}");
    }
    let ours =
        log.lines().filter(|line| line.contains("eventlog_server") || line.contains(" audit]"));
    let lines: Vec<_> = ours.filter(|line| line.contains("CANARY")).collect();
    assert_eq!(lines, <[&str; 0]>::default());
}

#[tokio::test]
async fn the_log_changes_when_the_file_is_read_again() {
    let server = Logged::start(&configuration("format = \"text\""));
    let to = server.serve().address().parse().expect("an address");
    server.configure(&configuration("format = \"json\""));
    let header = format!("authorization: Bearer {ADMIN}\r\n");
    let reloaded = http::request(to, "POST /admin/reload", &header, "").await;
    assert!(reloaded.contains("\"log.format\""), "{reloaded}");
    http::request(to, "POST /admin/reload", &header, "").await;
    let log = server.log();
    assert!(serde_json::from_str::<Value>(log.lines().next().expect("a line")).is_err());
    assert!(serde_json::from_str::<Value>(log.lines().last().expect("a line")).is_ok(), "{log}");
}

#[test]
fn a_flag_says_how_the_log_is_written() {
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let store = directory.path().join("data");
    let arguments =
        ["serve", "--dev", "--log-format", "json", "--listen", "127.0.0.1:0", "--data-dir"];
    let mut serve = command(&arguments);
    serve.arg(data(&store)).stderr(std::fs::File::create(&log).expect("a file"));
    let server = Serve::of(serve);
    drop(server);
    assert!(!lines(&std::fs::read_to_string(&log).expect("a log")).is_empty());
    let wrong = command(&["serve", "--dev", "--log-format", "xml"]).output().expect("it runs");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("json, for machines"));
}
