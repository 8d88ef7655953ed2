//! What the README promises for the first five minutes, and what follows from it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::tempdir;

use super::process::{Running, Serve, command, data, run, wait};

const NOTE: [&str; 8] =
    ["write", "--key", "bob", "--event", "Note", "--primary-key", "n1", "--payload"];

fn note<'a>(json: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&NOTE, &[json][..], more].concat()
}

#[test]
fn two_people_share_a_store_and_find_everything_after_a_restart() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    let tail = Running::start(&server, &["tail", "--key", "alice"]);
    assert_eq!(server.run(&note(r#"{"text":"hi"}"#, &[])).ok(), "1\n");
    let line = tail.line();
    assert!(
        line.starts_with("     1  ") && line.ends_with(r#"  Note  n1  {"text":"hi"}"#),
        "{line}"
    );

    let address = server.address().to_owned();
    assert_eq!(server.end(Signal::INT), Some(0));
    let again = ["--dev", "--data-dir", data(directory.path())];
    let server = Serve::start(&again, Some(&address));
    let shown = server.run(&["tail", "--key", "carol", "--from", "0", "--count", "1"]).ok();
    assert_eq!(shown.trim_end(), line);
    // The one that was there all along continues where it was.
    assert_eq!(server.run(&note("2", &[])).ok(), "2\n");
    assert!(tail.line().starts_with("     2  "));
}

#[test]
fn an_event_that_is_written_again_keeps_its_sequence() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    let id = "018bcfe5-6800-70e1-8101-010101010101";
    assert_eq!(server.run(&note("1", &["--id", id])).ok(), "1\n");
    assert_eq!(server.run(&note("2", &[])).ok(), "2\n");
    assert_eq!(server.run(&note("1", &["--id", id])).ok(), "1\n");
    let shown = server.run(&["tail", "--key", "bob", "--count", "2", "--json"]).ok();
    let first: Value = serde_json::from_str(shown.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["id"], &first["payload"]), (&json!(id), &json!(1)));
}

#[test]
fn what_tail_prints_write_reads() {
    let directories = [(); 2].map(|()| tempdir().expect("a directory"));
    let [from, to] = directories.each_ref().map(|directory| Serve::dev(directory.path()));
    let lines = [
        r#"{"event":"Note","primaryKey":"n\n1","payload":{"text":"ü","at":1700000000000,"n":1.5}}"#,
        r#"{"event":"Raw","payloadHex":"00ff"}"#,
        "",
        // msgpack with a byte string and JavaScript's undefined.
        r#"{"event":"Both","payloadHex":"82a161c401ffa162d40000"}"#,
        r#"{"event":"Empty","payloadHex":""}"#,
    ];
    let written = from.command(&["write", "--key", "alice"], &lines.join("\n")).ok();
    assert_eq!(written, "1\n2\n3\n4\n");
    let tail = ["tail", "--key", "alice", "--json", "--count", "4"];
    let original = from.run(&tail).ok();
    assert_eq!(to.command(&["write", "--key", "alice"], &original).ok(), "1\n2\n3\n4\n");
    assert_eq!(to.run(&tail).ok(), original);
    let both: Value = serde_json::from_str(original.lines().nth(2).expect("a line")).expect("JSON");
    assert_eq!(both["payload"], json!({ "a": "0xff", "b": null }));
}

#[test]
fn lines_before_a_wrong_one_are_written() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    let input = "{\"event\":\"E\",\"payload\":1}\n{\"evnt\":\"E\",\"payload\":2}\n{\"event\":\"E\",\"payload\":3}\n";
    let ended = server.command(&["write", "--key", "alice"], input);
    assert_eq!((ended.code, &*ended.out), (Some(1), "1\n"), "{}", ended.err);
    assert!(ended.err.contains("line 2") && ended.err.contains("evnt"), "{}", ended.err);
    assert_eq!(server.run(&note("2", &[])).ok(), "2\n");
}

#[test]
fn keys_are_mapped_and_removed_while_the_server_runs() {
    let directory = tempdir().expect("a directory");
    let config = directory.path().join("eventlog.toml");
    let text = "auth.mode = \"allow-all\"\nadmin.token = \"s3cret\"\n\
                [[assign]]\npublic_key = \"alice\"\nstore_id = \"team\"\n";
    std::fs::write(&config, text).expect("written");
    let path = directory.path().join("data");
    let server = Serve::start(&["--config", data(&config), "--data-dir", data(&path)], None);
    let keys =
        |arguments: &[&str]| server.run(&[&["keys", "--token", "s3cret"], arguments].concat());

    // Any text is a key.
    let odd = "a/../b c?d#e%ü";
    assert!(server.run(&["tail", "--key", odd]).failed(1).contains("InvalidRequest"));
    assert_eq!(keys(&["assign", odd, "team"]).ok(), format!("{odd}  team\n"));
    assert!(keys(&["assign", odd, "other"]).failed(1).contains("team"));
    assert_eq!(keys(&["list"]).ok(), format!("{odd}  team\nalice  team\n"));

    let mut tail = Running::start(&server, &["tail", "--key", odd]);
    assert_eq!(
        server.run(&["write", "--key", "alice", "--event", "E", "--payload", "1"]).ok(),
        "1\n"
    );
    assert!(tail.line().contains("  E  "));
    assert_eq!(keys(&["remove", odd]).ok(), format!("{odd}  team\n"));
    let (code, complaint) = tail.end();
    assert!(code == Some(1) && complaint.contains("removed"), "{code:?}: {complaint}");
    assert!(keys(&["remove", odd]).failed(1).contains("not mapped"));
    // It was used with its store, and that is remembered until somebody says that no client has data of it left.
    assert!(keys(&["assign", odd, "other"]).failed(1).contains("does not move"));
    assert_eq!(keys(&["release", odd]).ok(), format!("{odd}  team\n"));
    assert!(keys(&["release", odd]).failed(1).contains("was not used"));
    assert_eq!(keys(&["assign", odd, "other"]).ok(), format!("{odd}  other\n"));

    let wrong = server.run(&["keys", "--token", "guess", "list"]).failed(1);
    assert!(wrong.contains("EVENTLOG_ADMIN_TOKEN"), "{wrong}");
    assert!(server.run(&["keys", "list"]).failed(1).contains("EVENTLOG_ADMIN_TOKEN"));
}

#[test]
fn more_keys_than_a_page_has_are_listed_once_each() {
    let directory = tempdir().expect("a directory");
    let config = directory.path().join("eventlog.toml");
    let assign = |n| format!("[[assign]]\npublic_key = \"key {n:04}\"\nstore_id = \"team\"\n");
    let text: String = (0..1_001).map(assign).collect();
    std::fs::write(&config, format!("admin.token = \"s3cret\"\n{text}")).expect("written");
    let path = directory.path().join("data");
    let arguments = ["--dev", "--config", data(&config), "--data-dir", data(&path)];
    let server = Serve::start(&arguments, None);
    let listed = server.run(&["keys", "--token", "s3cret", "list", "--json"]).ok();
    let keys = listed.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    assert!(
        keys.eq(
            (0..1_001).map(|n| json!({ "publicKey": format!("key {n:04}"), "storeId": "team" }))
        )
    );
}

#[test]
fn a_mapping_that_would_move_a_key_keeps_the_server_from_starting() {
    let directory = tempdir().expect("a directory");
    let (config, path) = (directory.path().join("eventlog.toml"), directory.path().join("data"));
    let arguments = ["--dev", "--config", data(&config), "--data-dir", data(&path)];
    let assign = |store: &str| {
        let text = format!("[[assign]]\npublic_key = \"alice\"\nstore_id = \"{store}\"\n");
        std::fs::write(&config, text).expect("written");
    };
    assign("team");
    for _ in 0..2 {
        let server = Serve::start(&arguments, None);
        assert_eq!(server.end(Signal::TERM), Some(0));
    }
    assign("other");
    let complaint =
        run(&[&["serve", "--listen", "127.0.0.1:0"], &arguments[..]].concat()).failed(1);
    assert!(["alice", "team", "other"].iter().all(|name| complaint.contains(name)), "{complaint}");
}

#[test]
fn a_directory_is_inspected_when_its_server_has_stopped() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    for payload in ["1", "2", "3"] {
        server.run(&note(payload, &[])).ok();
    }
    let inspect = ["inspect", "--data-dir", data(directory.path())];
    assert!(run(&inspect).failed(1).contains("in use"));
    assert_eq!(server.end(Signal::TERM), Some(0));
    assert!(run(&inspect).ok().starts_with("default  3 entries  "));
    let store: Value =
        serde_json::from_str(&run(&[&inspect[..], &["--json"]].concat()).ok()).expect("JSON");
    assert_eq!((&store["storeId"], &store["head"]), (&json!("default"), &json!(3)));
    let entries = ["--store", "default", "--from", "2", "--json"];
    let entries = run(&[&inspect[..], &entries].concat()).ok();
    assert_eq!(entries.lines().count(), 2);

    let nowhere = directory.path().join("nowhere");
    let missing = run(&["inspect", "--data-dir", data(&nowhere)]).failed(1);
    assert!(missing.contains("nowhere") && !nowhere.exists(), "{missing}");
}

#[test]
fn a_tail_that_nobody_reads_any_more_ends() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    server.run(&note("1", &[])).ok();
    let mut tail = command(&["tail", "--key", "alice"]);
    let mut tail =
        tail.env("EVENTLOG_URL", &server.url).stderr(Stdio::inherit()).spawn().expect("it starts");
    let mut first = String::new();
    let mut output = BufReader::new(tail.stdout.take().expect("a pipe"));
    output.read_line(&mut first).expect("a line");
    drop(output);
    // Nothing else is printed, so the next line cannot tell.
    assert_eq!(wait(&mut tail), Some(0));
}
