//! `tail`, `write` and `keys` under difficult conditions: connections that end, proxies with TLS and headers of their
//! own, hostile texts; and which part of a feed is shown.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Child;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use eventlog_server::protocol::msgpack::{ErrorCode, Request, encode_error};
use tempfile::tempdir;

use super::process::{Ended, Running, Serve, command, data, logged, run, wait};
use crate::client::tls::{CERTIFICATE, terminator};
use crate::support::fake::{FakeConnection, FakeServer};
use crate::support::{entry, key};

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

/// The start of the next subscription. Pings before it are answered.
async fn subscription(connection: &mut FakeConnection) -> u64 {
    loop {
        match connection.next().await {
            Request::RequestChanges { start, .. } => return start.get(),
            Request::Ping { id } => connection.pong(id).await,
            other => panic!("expected a subscription, got {other:?}"),
        }
    }
}

/// It ended when the storage was away just as the connection came back.
#[tokio::test(flavor = "multi_thread")]
async fn tail_asks_again_if_the_server_cannot_read_for_now() {
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let server = FakeServer::bind().await;
    let mut command = command(&["tail", "--key", "alice", "--count", "2", "--url", &server.url()]);
    command.stderr(std::fs::File::create(&log).expect("a file"));
    let mut tail = command.spawn().expect("it starts");
    let alice = key("alice");
    let mut connection = server.accept().await;
    assert_eq!(subscription(&mut connection).await, 1);
    connection.changes(&alice, &[(7, entry("Note", "n", &[1]))]).await;
    drop(connection);
    let mut connection = server.accept().await;
    for _ in 0..2 {
        assert_eq!(subscription(&mut connection).await, 8);
        let why = "the storage is unavailable";
        let code = ErrorCode::InternalServerError;
        connection
            .send(|out| encode_error(out, "RequestChanges", None, Some(alice.as_str()), code, why))
            .await;
    }
    assert_eq!(subscription(&mut connection).await, 8);
    connection.changes(&alice, &[(8, entry("Note", "n", &[1]))]).await;
    let shown = tokio::task::spawn_blocking(move || {
        let mut shown = String::new();
        let mut out = tail.stdout.take().expect("a pipe");
        out.read_to_string(&mut shown).expect("UTF-8");
        assert_eq!(wait(&mut tail), Some(0));
        shown
    });
    let shown = shown.await.expect("it ends");
    let sequences = shown.lines().filter_map(|line| line.split_whitespace().next());
    assert!(sequences.eq(["7", "8"]), "{shown}");
    let said = std::fs::read_to_string(&log).expect("UTF-8");
    assert_eq!(said.matches("the storage is unavailable; trying again").count(), 1, "{said}");
    assert!(said.contains("the feed goes on"), "{said}");

    // Who never had the feed is told at once.
    let mut command = self::command(&["tail", "--key", "alice", "--url", &server.url()]);
    let tail = command.spawn().expect("it starts");
    let mut connection = server.accept().await;
    subscription(&mut connection).await;
    let code = ErrorCode::InternalServerError;
    connection
        .send(|out| encode_error(out, "RequestChanges", None, Some(alice.as_str()), code, "busy"))
        .await;
    let ended = tokio::task::spawn_blocking(move || Ended::of(tail)).await.expect("it ends");
    assert!(ended.failed(1).contains("busy"));
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
