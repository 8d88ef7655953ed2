//! The real binary, its files and its exit.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::process::{Process, binary};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

/// The first thing a newcomer does, as the README tells it.
#[test]
fn two_terminals_exchange_events_and_a_restart_keeps_them() {
    let data = tempfile::tempdir().expect("a folder");
    let mut server = Process::serve_dev(data.path());
    let mut tail = binary();
    tail.args(["tail", "--url", &server.url, "--key", "alice", "--json"]).stdout(Stdio::piped());
    let mut tail = tail.spawn().expect("tail starts");
    let mut lines = BufReader::new(tail.stdout.take().expect("its output")).lines();
    let note = ["write", "--key", "bob", "--event", "Note", "--primary-key", "n1"];
    let written = server.run(&[&note[..], &["--payload", r#"{"text":"hi"}"#]].concat());
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let line = lines.next().expect("a line").expect("text");
    assert!(line.contains(r#""text":"hi""#) && line.contains(r#""Note""#), "{line}");
    tail.kill().expect("tail ends");
    tail.wait().expect("tail ended");
    server.signal("INT");
    assert_eq!(server.wait(), Some(0));
    let server = Process::serve_dev(data.path());
    let mut again = binary();
    again.args(["tail", "--url", &server.url, "--key", "carol", "--from", "0", "--json"]);
    let mut again = again.stdout(Stdio::piped()).spawn().expect("tail starts");
    let mut lines = BufReader::new(again.stdout.take().expect("its output")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), line);
    again.kill().expect("tail ends");
    again.wait().expect("tail ended");
}

/// Whatever was acknowledged is there after a kill, at the same sequences.
#[tokio::test]
async fn what_was_acknowledged_survives_kill_nine() {
    let data = tempfile::tempdir().expect("a folder");
    let mut written = Vec::new();
    for round in 0..5 {
        let mut server = Process::serve_dev(data.path());
        let mut client = Socket::connect(&server.url).await;
        for id in 0..40 {
            let one = entry("E", &format!("{round}/{id}"), b"payload");
            client.write(&key("alice"), id, &batch(std::slice::from_ref(&one))).await;
            let (_, sequences) = client.next_ack().await;
            written.push((sequences[0], one));
        }
        server.signal("KILL");
        server.wait();
    }
    assert!(written.iter().map(|(sequence, _)| *sequence).eq(1..=200));
    let server = Process::serve_dev(data.path());
    let mut reader = Socket::connect(&server.url).await;
    reader.subscribe(&key("bob"), 0).await;
    assert_eq!(reader.next_entries(200).await, written);
}

#[test]
fn without_an_auth_mode_it_refuses_to_start_and_says_what_to_write() {
    let data = tempfile::tempdir().expect("a folder");
    let mut serve = binary();
    serve.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data.path());
    let output = serve.output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("[auth]") && error.contains("allow-all"), "{error}");
}
