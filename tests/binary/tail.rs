//! `tail`, `write` and `keys` under difficult conditions: connections that end, proxies with TLS and headers of their
//! own, hostile texts; and which part of a feed is shown.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Child;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tempfile::tempdir;

use super::process::{Ended, Running, Serve, command, data, logged, run, wait};
use crate::client::tls::{CERTIFICATE, terminator};

/// The sequences that a `tail` printed.
fn sequences(ended: Ended) -> Vec<u64> {
    let numbers = ended.ok();
    numbers
        .lines()
        .map(|line| line.split_whitespace().next().expect("a number").parse().expect("one"))
        .collect()
}

#[test]
fn a_part_of_a_feed_is_shown_by_its_end_its_events_and_its_keys() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    let line = |n: usize| {
        format!(
            "{{\"event\":\"{}\",\"primaryKey\":\"n{}\",\"payload\":1}}\n",
            ["Note", "Todo"][n % 2],
            n % 3
        )
    };
    let lines = (1..=6).map(line).collect::<Vec<_>>().concat();
    server.command(&["write", "--key", "bob"], &lines).ok();
    let tail = |more: &[&str]| sequences(server.run(&[&["tail", "--key", "alice"], more].concat()));
    assert_eq!(tail(&["--last", "2", "--count", "2"]), [5, 6]);
    assert_eq!(tail(&["--last", "100", "--count", "6"]), [1, 2, 3, 4, 5, 6]);
    assert_eq!(tail(&["--event", "Note", "--count", "3"]), [2, 4, 6]);
    assert_eq!(
        tail(&["--event", "N*", "--event", "nothing", "--primary-key", "n1", "--count", "1"]),
        [4]
    );
    assert_eq!(tail(&["--last", "3", "--event", "T*", "--count", "1"]), [5]);

    let live = Running::start(&server, &["tail", "--key", "alice", "--from", "end"]);
    // It may not have asked yet how far the store is: then one more is still to come.
    let mut seen = Vec::new();
    for sequence in 7..1_000 {
        server.run(&["write", "--key", "bob", "--event", "E", "--payload", "1"]).ok();
        if let Some(line) = live.line_now() {
            seen.push((sequence, line));
            break;
        }
    }
    let [(_, line)] = &seen[..] else { panic!("nothing is shown") };
    let first: u64 = line.split_whitespace().next().expect("a number").parse().expect("one");
    assert!(first > 6, "{line}");

    let refused =
        server.run(&["tail", "--key", "x", "--protocol", "rpc", "--identity", "x", "--last", "1"]);
    assert!(refused.failed(2).contains("need the msgpack protocol"));
}

/// A `tail` whose error output is in a file.
fn complaining(server: &Serve, log: &std::path::Path, arguments: &[&str]) -> Child {
    let mut command = command(arguments);
    command.env("EVENTLOG_URL", &server.url).stderr(std::fs::File::create(log).expect("a file"));
    command.spawn().expect("it starts")
}

#[test]
fn tail_says_when_it_lost_the_connection_and_when_it_is_back() {
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let kept = directory.path().join("data");
    let server = Serve::dev(&kept);
    let address = server.address().to_owned();
    server.run(&["write", "--key", "bob", "--event", "E", "--payload", "1"]).ok();
    let mut tail = complaining(&server, &log, &["tail", "--key", "alice", "--count", "2"]);
    let mut shown = BufReader::new(tail.stdout.take().expect("a pipe"));
    let mut line = String::new();
    shown.read_line(&mut line).expect("a line");
    drop(server);
    logged(&log, "lost the connection: ", 1);
    logged(&log, "still no connection: ", 1);
    let server = Serve::start(&["--dev", "--data-dir", data(&kept)], Some(&address));
    logged(&log, "connected again", 1);
    server.run(&["write", "--key", "bob", "--event", "E", "--payload", "1"]).ok();
    assert_eq!(wait(&mut tail), Some(0));
    let text = std::fs::read_to_string(&log).expect("UTF-8");
    assert_eq!(
        text.lines().filter(|line| line.contains("lost the connection")).count(),
        1,
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_an_authority_of_its_own_is_trusted_when_told_so() {
    let directory = tempdir().expect("a directory");
    let ca = directory.path().join("ca.pem");
    let pem = BASE64.encode(CERTIFICATE);
    let pem: Vec<&str> =
        pem.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    let text = format!(
        "# ours\n-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        pem.join("\n")
    );
    std::fs::write(&ca, text).expect("a file");
    let der = directory.path().join("ca.der");
    std::fs::write(&der, CERTIFICATE).expect("a file");
    let mut serve = command(&["serve", "--dev", "--listen", "127.0.0.1:0"]);
    serve
        .args(["--data-dir", data(&directory.path().join("data"))])
        .env("EVENTLOG_ADMIN_TOKEN", "secret");
    let server = Serve::of(serve);
    let port = terminator(server.address().parse().expect("an address")).await.port();
    let url = format!("wss://localhost:{port}");
    let commands = tokio::task::spawn_blocking(move || {
        let write = ["write", "--url", &url, "--key", "bob", "--event", "E", "--payload", "1"];
        let untrusted = run(&write).failed(1);
        assert!(untrusted.contains("--ca"), "{untrusted}");
        for (count, file) in [(1, &ca), (2, &der)] {
            let written = run(&[&write[..], &["--ca", data(file)]].concat()).ok();
            assert_eq!(written, format!("{count}\n"));
        }
        // As if the system trusted it.
        let mut system =
            command(&["tail", "--url", &url, "--key", "bob", "--last", "1", "--count", "1"]);
        let output = system.env("SSL_CERT_FILE", &ca).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let keys = ["keys", "list", "--url", &url, "--token", "secret"];
        assert!(run(&keys).failed(1).contains("certificate"));
        assert_eq!(run(&[&keys[..], &["--ca", data(&ca)]].concat()).ok(), "bob  default\n");
        let wrong = directory.path().join("data").join("format");
        let refused = run(&[&write[..], &["--ca", data(&wrong)]].concat()).failed(1);
        assert!(refused.contains("no certificate"), "{refused}");
    });
    commands.await.expect("they run");
}

#[test]
fn headers_and_a_token_are_sent_and_what_a_proxy_says_is_shown() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}/eventlog", listener.local_addr().expect("an address"));
    let proxy = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a client");
        let lines =
            BufReader::new(socket.try_clone().expect("a handle")).lines().map_while(Result::ok);
        let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let body = "log in again\u{1b}[2J\u{202e}";
        let head = format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\n\r\n", body.len());
        socket.write_all(format!("{head}{body}").as_bytes()).expect("sent");
        request.join("\n").to_ascii_lowercase()
    });
    let tail =
        ["tail", "--url", &url, "--key", "alice", "--header", "X-Team: Blue", "--header", "x-b: c"];
    let refused = run(&[&tail[..], &["--token", "t0ken"]].concat()).failed(1);
    let request = proxy.join().expect("a request");
    for line in ["x-team: blue", "x-b: c", "authorization: bearer t0ken"] {
        assert!(request.lines().any(|sent| sent == line), "{line} in\n{request}");
    }
    assert!(
        refused.contains("401") && refused.contains("it says: log in again\\u{1b}[2J\\u{202e}"),
        "{refused}"
    );
}

#[test]
fn hostile_texts_are_shown_and_do_nothing() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    let text = "\u{1b}]0;x\u{7}\u{202e}txt.exe\u{9b}2J\u{2066}\u{7f}";
    let line = serde_json::json!({ "event": text, "primaryKey": text, "payload": { text: text } });
    server.command(&["write", "--key", "bob"], &format!("{line}\n")).ok();
    let is_acted_on = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{2066}".contains(c));
    let people = server.run(&["tail", "--key", "alice", "--count", "1"]).ok();
    assert!(!people.chars().any(is_acted_on) && people.contains("txt.exe"), "{people:?}");
    let json = server.run(&["tail", "--key", "alice", "--count", "1", "--json"]).ok();
    assert!(!json.chars().any(is_acted_on), "{json:?}");
    let shown: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&shown["event"], &shown["payload"]), (&line["event"], &line["payload"]));
}
