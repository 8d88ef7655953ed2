//! How an operator sees and handles entries that are too large to be stored.

use std::net::SocketAddr;
use std::process::{Output, Stdio};

use eventlog_server::model::Entry;
use eventlog_server::protocol::msgpack::ErrorCode;
use serde_json::Value;
use tempfile::tempdir;

use super::logged::{ADMIN, Logged};
use crate::support::process::binary;
use crate::support::rpc::{RpcSocket, acks, framed_entry};
use crate::support::socket::Socket;
use crate::support::{batch, http, key};

fn configuration(entry_bytes_max: usize, more: &str) -> String {
    format!(
        "admin.token = {ADMIN:?}\nauth.mode = \"allow-all\"\n{more}\n\
         [[assign]]\npublic_key = \"alice\"\nstore_id = \"team\"\n\
         [[assign]]\npublic_key = \"bob\"\nstore_id = \"team\"\n\
         [limits]\nentry_bytes_max = {entry_bytes_max}\nquarantine_key_bytes_max = \"400KiB\"\n"
    )
}

fn quarantine(server: &Logged, arguments: &[&str]) -> Output {
    let mut command = binary();
    command.env("EVENTLOG_ADMIN_TOKEN", ADMIN).env("EVENTLOG_URL", server.url());
    command.arg("quarantine").args(arguments).output().expect("it runs")
}

fn said(ended: &Output) -> String {
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

fn listed(server: &Logged) -> Vec<Value> {
    let said = said(&quarantine(server, &["list", "--json"]));
    said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

async fn client(server: &Logged, name: &str) -> RpcSocket {
    RpcSocket::authenticated(&server.url().replace("/eventlog", "/rpc"), &[name]).await
}

async fn write(server: &Logged, name: &str, entries: &[Entry], sequences: &[u64]) {
    let small: Vec<Entry> = entries.iter().filter(|one| one.event == "Small").cloned().collect();
    let acked = client(server, name).await.write(name, entries).await;
    assert_eq!(acked, Ok(acks(&small, sequences)));
}

fn lines(server: &Logged, with: &str) -> usize {
    server.log().lines().filter(|line| line.contains(with)).count()
}

#[tokio::test]
async fn what_is_put_aside_is_seen_to_from_the_command_line() {
    let mut server = Logged::start(&configuration(100_000, ""));
    let entries = [
        framed_entry("Large", "one", &vec![1; 150_000]),
        framed_entry("Small", "s", b"small"),
        framed_entry("Large\u{1b}[31m", "two", &vec![2; 100_001]),
    ];
    write(&server, "alice", &entries, &[1]).await;
    // At each of its connections, as some clients may.
    for _ in 0..3 {
        write(&server, "alice", &entries, &[1]).await;
    }
    let warned = "it is in quarantine as";
    assert_eq!(lines(&server, warned), 2, "a line for each entry");
    server.kill();
    write(&server, "alice", &entries, &[1]).await;
    assert_eq!(lines(&server, warned), 2, "it is known after a kill");

    let shown = said(&quarantine(&server, &["list"]));
    let expected = format!("1  alice  team  {}  Large  one  146.5 KiB  ", entries[0].id);
    assert!(shown.starts_with(&expected), "{shown}");
    assert!(shown.lines().count() == 2 && !shown.contains('\u{1b}'), "{shown}");
    let all = listed(&server);
    assert_eq!(all[1]["entryId"], entries[2].id.to_string());
    assert_eq!(
        said(&quarantine(&server, &["show", "2"])),
        shown.split_inclusive('\n').nth(1).expect("a line")
    );
    assert!(quarantine(&server, &["export", "1"]).stdout == entries[0].payload);
    assert_eq!(quarantine(&server, &["export", "1", "--part", "primary-key"]).stdout, b"one");
    assert_eq!(quarantine(&server, &["export", "1", "--part", "event"]).stdout, b"Large");
    let directory = tempdir().expect("a directory");
    let file = directory.path().join("payload");
    let to = ["export", "2", "--to", file.to_str().expect("UTF-8")];
    said(&quarantine(&server, &to));
    assert!(std::fs::read(&file).expect("a file") == entries[2].payload);
    assert!(!quarantine(&server, &to).status.success(), "a file that is there stays as it is");

    let refused = quarantine(&server, &["release", "1"]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("(entry_bytes_max)"), "{why}");
    server.configure(&configuration(160_000, ""));
    server.restart();
    assert_eq!(said(&quarantine(&server, &["release", "1"])), "stored as 2\n");
    assert!(said(&quarantine(&server, &["remove", "2"])).starts_with("2  alice  team  "));
    let gone = quarantine(&server, &["remove", "2"]);
    let why = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(why.contains("there is no entry 2 in quarantine"), "{why}");
    assert!(listed(&server).is_empty());
    let mut reader = client(&server, "bob").await;
    let feed = reader.subscribe("bob", "default", 2).await;
    assert_eq!(reader.next_entries(&feed, 1).await, [(2, entries[0].clone())]);
    let of = |number, entry: usize, bytes| {
        let id = entries[entry].id;
        format!("number={number} entry={id} key=\"alice\" store=\"team\" bytes={bytes}")
    };
    let by = "by=admin address=127.0.0.1 token=\"admin\"";
    let expected = [
        format!("action=release {} sequence=2 {by}", of(1, 0, 150_012)),
        format!("action=unquarantine {} {by}", of(2, 2, 100_018)),
    ];
    let audited = server.audit();
    assert_eq!(audited[audited.len() - 2..], expected);
}

/// Clients of that protocol continue after a refusal.
#[tokio::test]
async fn on_the_msgpack_wire_the_batch_is_refused_the_slot_named_and_the_connection_goes_on() {
    let server = Logged::start(&configuration(100_000, ""));
    let [first, last] = [framed_entry("Small", "a", b"a"), framed_entry("Small", "b", b"b")];
    let large = framed_entry("Large", "l", &vec![7; 100_001]);
    let mut client = Socket::connect(server.url()).await;
    client.write(&key("alice"), 7, &batch(&[first.clone(), large.clone(), last.clone()])).await;
    let refused = client.next_refusal().await;
    assert_eq!((refused.code, refused.id), (ErrorCode::InvalidRequest, Some(7)));
    let named = format!("entry 1 ({}): the entry has 100", large.id);
    let said = &refused.message;
    assert!(said.starts_with(&named) && said.ends_with("(entry_bytes_max)"), "{said}");
    assert!(listed(&server).is_empty());
    client.write(&key("alice"), 8, &batch(&[first, last])).await;
    assert_eq!(client.next_ack().await, (8, vec![1, 2]), "nothing of it was stored before");
}

/// Characters that turn the direction of what a terminal shows were printed as they are.
#[tokio::test]
async fn json_has_nothing_that_a_terminal_acts_on() {
    let server = Logged::start(&configuration(100_000, ""));
    let entries = [
        framed_entry("Large\u{202e}", "\u{9b}31m", &vec![1; 150_000]),
        framed_entry("Small", "\u{2066}s\u{7f}", b"small"),
    ];
    write(&server, "alice", &entries, &[1]).await;
    server.keys(&["assign", "k\u{202e}", "t\u{2067}"]).ok();
    let is_shown = |text: &str| text.chars().all(|c| c == '\n' || !c.is_control() && c.is_ascii());
    let shown = said(&quarantine(&server, &["show", "1", "--json"]));
    assert!(is_shown(&shown) && shown.contains(r"Large\u202e"), "{shown:?}");
    let entry: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(
        (&entry["event"], &entry["primaryKey"]),
        (&entries[0].event.as_str().into(), &entries[0].primary_key.as_str().into())
    );
    let listed = said(&quarantine(&server, &["list", "--json"]));
    let keys = server.keys(&["list", "--json"]).ok();
    let team = ["entries", "team", "--token", ADMIN, "--json"];
    let team = server.serve().run(&team).ok();
    let stores = server.serve().run(&["stores", "--token", ADMIN, "--json"]).ok();
    for (text, has) in
        [(listed, r"\u009b31m"), (keys, r"k\u202e"), (team, r"\u2066s"), (stores, r"t\u2067")]
    {
        assert!(is_shown(&text) && text.contains(has), "{text:?}");
    }
}

#[tokio::test]
async fn an_export_to_a_file_that_exists_says_what_to_do() {
    let server = Logged::start(&configuration(100_000, ""));
    write(&server, "alice", &[framed_entry("Large", "one", &vec![1; 150_000])], &[]).await;
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("there");
    std::fs::write(&path, "mine").expect("written");
    let path = path.to_str().expect("UTF-8");
    let ended = quarantine(&server, &["export", "1", "--to", path]);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("{path} exists, and is left as it is: give another name with --to")),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(path).expect("it is there"), "mine");
    let nowhere = quarantine(&server, &["export", "1", "--to", "/no/such/folder/file"]);
    let said = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(said.contains("cannot create /no/such/folder/file"), "{said}");
}

#[tokio::test]
async fn a_full_quarantine_is_said_once_and_another_key_gets_on() {
    let limits = configuration(100_000, "") + "quarantine_bytes_max = \"550KiB\"\n";
    let server = Logged::start(&limits);
    let (mine, others) = (
        framed_entry("Large", "a", &vec![1; 300_000]),
        framed_entry("Large", "b", &vec![1; 200_000]),
    );
    write(&server, "alice", &[mine], &[]).await;
    for _ in 0..3 {
        let refused =
            client(&server, "alice").await.write("alice", std::slice::from_ref(&others)).await;
        assert!(refused.is_err_and(|refused| refused.message.starts_with("quarantine: entry 0 (")));
    }
    let said = |server: &Logged| {
        let log = server.log();
        log.lines()
            .filter(|line| line.contains("WARN") && line.contains("(quarantine_key_bytes_max)"))
            .count()
    };
    assert_eq!(said(&server), 1);
    write(&server, "bob", &[others], &[]).await;
    // What all of them have together is bounded as well.
    let last = framed_entry("Large", "c", &vec![1; 100_001]);
    let refused = client(&server, "bob").await.write("bob", &[last]).await;
    let refused = refused.expect_err("there is no room").message;
    assert!(refused.contains("(quarantine_bytes_max)"), "{refused}");
    let to: SocketAddr = server.serve().address().parse().expect("an address");
    for (path, status) in [("9", 404), ("9/payload", 404), ("x", 400), ("-1/payload", 400)] {
        let answer = http::get_with_token(to, &format!("/admin/quarantine/{path}"), ADMIN).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    let answer = http::get(to, "/admin/quarantine/1/payload").await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let answer = http::get_with_token(to, "/admin/quarantine?after=1&limit=1", ADMIN).await;
    assert!(answer.contains("\"number\":2"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert_eq!(
        serde_json::from_str::<Value>(body).expect("JSON")["quarantine"].as_array().map(Vec::len),
        Some(1)
    );
}

#[tokio::test]
async fn a_backup_has_what_was_put_aside() {
    let server = Logged::start(&configuration(100_000, ""));
    let entries =
        [framed_entry("Small", "s", b"s"), framed_entry("Large", "one", &vec![1; 250_000])];
    write(&server, "alice", &entries, &[1]).await;
    let before = listed(&server);
    let directory = tempdir().expect("a directory");
    let [backups, data] = ["backups", "data"].map(|name| directory.path().join(name));
    let run = |arguments: &[&str], paths: [(&str, &std::path::Path); 2]| {
        let mut command = binary();
        command.env("EVENTLOG_ADMIN_TOKEN", ADMIN).args(arguments);
        for (name, path) in paths.into_iter().filter(|(name, _)| !name.is_empty()) {
            command.arg(name).arg(path);
        }
        said(&command.stdout(Stdio::piped()).output().expect("it runs"));
    };
    run(&["backup", "--url", server.url()], [("--to", &backups), ("", &data)]);
    run(&["restore"], [("--from", &backups), ("--data-dir", &data)]);
    let restored = Logged::over(&configuration(100_000, ""), &data);
    assert_eq!(listed(&restored), before);
    assert!(quarantine(&restored, &["export", "1"]).stdout == entries[1].payload);
    // A client that sends everything again, because it sees a different server.
    write(&restored, "alice", &entries, &[1]).await;
    assert_eq!(listed(&restored), before);
}
