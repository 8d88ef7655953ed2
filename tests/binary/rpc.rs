//! `write` and `tail` in the RPC protocol.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::tempdir;

use super::process::{Running, Serve, data, logged, run};

/// A command with `key` and its identity below `directory`.
fn rpc(command: &str, key: &str, directory: &Path, more: &[&str]) -> Vec<String> {
    let identity = directory.join(format!("{key}.json"));
    let protocol = ["--protocol", "rpc", "--identity", data(&identity)];
    let all = [&[command, "--key", key][..], &protocol, more].concat();
    all.into_iter().map(str::to_owned).collect()
}

fn run_on(server: &Serve, arguments: &[String]) -> super::process::Ended {
    server.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

const NOTE: [&str; 4] = ["--event", "Note", "--primary-key", "n1"];

fn note(json: &str) -> Vec<&str> {
    [&NOTE[..], &["--payload", json]].concat()
}

#[test]
fn an_identity_is_created_once_and_proves_the_key_from_then_on() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(&directory.path().join("data"));
    let write = rpc("write", "alice", directory.path(), &note(r#"{"text":"hi","n":1}"#));
    let first = run_on(&server, &write);
    assert!(first.err.contains("created") && first.err.contains("alice.json"), "{}", first.err);
    assert_eq!(first.ok(), "1\n");
    let file = directory.path().join("alice.json");
    let mode = std::fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).expect("a file");
    let identity: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(identity["publicKey"], json!("alice"));
    assert_eq!(identity["signingKey"].as_str().map(str::len), Some(64));
    let second = run_on(&server, &write);
    assert_eq!((&*second.err, &*second.out), ("", "2\n"));

    let other = directory.path().join("other");
    std::fs::create_dir(&other).expect("a directory");
    let thief = run_on(&server, &rpc("write", "alice", &other, &note("{}"))).failed(1);
    assert!(thief.contains("Forbidden"), "{thief}");
}

#[test]
fn what_is_written_is_followed_with_the_fields_that_are_named() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(&directory.path().join("data"));
    let tail = rpc("tail", "bob", directory.path(), &["--fields", "text,points,x"]);
    let tail = Running::start(&server, &tail.iter().map(String::as_str).collect::<Vec<_>>());
    let payload = r#"{"text":"hi","points":[{"x":1},{"x":2}]}"#;
    assert_eq!(
        run_on(&server, &rpc("write", "alice", directory.path(), &note(payload))).ok(),
        "1\n"
    );
    let line = tail.line();
    let shown = r#"  Note  n1  {"text":"hi","points":[{"x":1},{"x":2}]}"#;
    assert!(line.starts_with("     1  ") && line.ends_with(shown), "{line}");
    // In the other protocol the same payload is shown the same way, here without names.
    let line = server.run(&["tail", "--key", "carol", "--count", "1"]).ok();
    assert!(line.contains(r##""#bde64e3e":"hi""##), "{line}");
}

#[test]
fn what_tail_prints_is_copied_and_bytes_that_are_no_frame_are_refused() {
    let directory = tempdir().expect("a directory");
    let [from, to] = ["from", "to"].map(|name| Serve::dev(&directory.path().join(name)));
    let lines = [
        r#"{"event":"Note","payload":{"text":"ü","at":1700000000000,"n":1.5,"no":null}}"#,
        r#"{"event":"Void","payload":null}"#,
        r#"{"event":"Bytes","payloadHex":"0320ff00"}"#,
    ];
    let arguments = rpc("write", "alice", directory.path(), &[]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert_eq!(from.command(&arguments, &lines.join("\n")).ok(), "1\n2\n3\n");
    let tail = rpc("tail", "alice", directory.path(), &["--json", "--count", "3"]);
    let original = run_on(&from, &tail).ok();
    assert_eq!(to.command(&arguments, &original).ok(), "1\n2\n3\n");
    assert_eq!(run_on(&to, &tail).ok(), original);
    let refused = to.command(&arguments, r#"{"event":"Raw","payloadHex":"81"}"#).failed(1);
    assert!(refused.contains("SchemaBinary frame"), "{refused}");
}

#[test]
fn the_address_says_the_protocol_unless_it_is_given() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(&directory.path().join("data"));
    let url = format!("http://{}/rpc", server.address());
    let identity = directory.path().join("alice.json");
    let tail = ["tail", "--key", "alice", "--count", "1", "--url", &url];
    let write = ["write", "--key", "alice", "--url", &url, "--event", "E", "--payload", "1"];
    assert_eq!(run(&[&write[..], &["--protocol", "msgpack"]].concat()).ok(), "1\n");
    let written = run(&[&write[..], &["--identity", data(&identity)]].concat());
    assert_eq!(written.ok(), "2\n");
    // The first one is not a frame, so it is withheld from clients of the RPC protocol.
    let shown = run(&[&tail[..], &["--identity", data(&identity)]].concat()).ok();
    assert!(shown.starts_with("     2  "), "{shown}");
}

/// There was a line for each page.
#[test]
fn what_rpc_clients_cannot_read_is_logged_once_for_a_key() {
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let server =
        Serve::logged(&["--dev", "--data-dir", data(&directory.path().join("data"))], &log);
    let write = ["write", "--key", "alice", "--event", "E"];
    for _ in 0..3 {
        server.run(&[&write[..], &["--payload", "1"]].concat()).ok();
    }
    for readable in 4..=5 {
        run_on(&server, &rpc("write", "alice", directory.path(), &note("1"))).ok();
        let count = (readable - 3).to_string();
        let tail = rpc("tail", "alice", directory.path(), &["--count", &count]);
        let shown = run_on(&server, &tail).ok();
        assert_eq!(shown.lines().count(), readable - 3, "{shown}");
    }
    logged(&log, "are not sent some entries", 1);
    let text = std::fs::read_to_string(&log).expect("UTF-8");
    assert_eq!(text.matches("are not sent some entries").count(), 1, "{text}");
    assert!(text.contains("public key \"alice\"") && text.contains("SchemaBinary"), "{text}");
}

#[test]
fn arguments_that_contradict_each_other_and_foreign_identities_are_named() {
    let directory = tempdir().expect("a directory");
    let identity = directory.path().join("alice.json");
    let tail = ["tail", "--key", "alice"];
    for (arguments, word) in [
        (&["--protocol", "rpc"][..], "--identity FILE"),
        (&["--identity", data(&identity)], "--protocol rpc"),
        (&["--store", "team"], "--protocol rpc"),
        (&["--protocol", "soap"], "msgpack"),
    ] {
        let complaint = run(&[&tail[..], arguments].concat()).failed(2);
        assert!(complaint.contains(word), "{arguments:?}: {complaint}");
    }
    assert!(!identity.exists(), "nothing was created");
    let server = Serve::dev(&directory.path().join("data"));
    run_on(&server, &rpc("write", "alice", directory.path(), &note("1"))).ok();
    let more = ["--protocol", "rpc", "--identity", data(&identity), "--count", "1"];
    let complaint = server.run(&[&["tail", "--key", "bob"][..], &more].concat()).failed(1);
    assert!(complaint.contains("alice") && complaint.contains("bob"), "{complaint}");
    let complaint = server.run(&[&tail[..], &more, &["--store", "den"]].concat()).failed(1);
    assert!(complaint.contains("NotFound"), "{complaint}");
}
