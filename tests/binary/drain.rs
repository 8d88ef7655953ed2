//! How the binary ends: load balancers are told first, and a client that does not read cannot hold up the end.

use std::time::Duration;

use rustix::process::Signal;
use tempfile::tempdir;

use super::process::{Serve, command, data, logged};
use crate::support::http::get_with;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

async fn status(server: &Serve, path: &str) -> String {
    let answer = get_with(server.address(), path, "host: x\r\n").await;
    answer.split(' ').nth(1).expect("a status").to_owned()
}

#[tokio::test]
async fn those_who_send_clients_hear_of_the_end_before_it_comes() {
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let mut serve = command(&["serve", "--dev", "--listen", "127.0.0.1:0"]);
    serve.args(["--data-dir", data(&directory.path().join("d"))]).env("EVENTLOG_DRAIN_PAUSE", "1h");
    serve.stderr(std::fs::File::create(&log).expect("a file"));
    let mut server = Serve::of(serve);
    assert_eq!(status(&server, "/readyz").await, "200");
    let mut before = Socket::connect(&server.url).await;
    server.signal(Signal::TERM);
    logged(&log, "/readyz is 503 from now on", 1);
    assert_eq!(status(&server, "/readyz").await, "503");
    assert_eq!(status(&server, "/healthz").await, "200");
    let mut during = Socket::connect(&server.url).await;
    for (id, client) in [&mut before, &mut during].into_iter().enumerate() {
        client.write(&key("alice"), id as u64, &batch(&[entry("E", "", b"")])).await;
        assert_eq!(client.next_ack().await.1, [id as u64 + 1]);
    }
    // A second signal ends the pause.
    server.signal(Signal::TERM);
    assert_eq!(before.close_code().await, Some(1001));
    assert_eq!(during.close_code().await, Some(1001));
    assert_eq!(server.wait(), Some(0));
}

/// Three clients take nothing of ten megabytes, and one reads all of it while it writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_do_not_hold_up_the_end() {
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let mut serve = command(&["serve", "--dev", "--listen", "127.0.0.1:0"]);
    serve.args(["--data-dir", data(&directory.path().join("d"))]);
    serve.env("EVENTLOG_SHUTDOWN_TIMEOUT", "20s").env("EVENTLOG_LIMITS_STALL_TIMEOUT", "1h");
    serve.stderr(std::fs::File::create(&log).expect("a file"));
    let mut server = Serve::of(serve);
    let mut writer = Socket::connect(&server.url).await;
    let large = vec![0; 900_000];
    let entries: Vec<_> = (0..12).map(|_| entry("Large", "", &large)).collect();
    for (id, entry) in entries.into_iter().enumerate() {
        writer.write_in_chunks(&key("alice"), id as u64, &batch(&[entry])).await;
        writer.next_ack().await;
    }
    let mut stalled = Vec::new();
    for _ in 0..3 {
        let mut client = Socket::connect(&server.url).await;
        client.subscribe(&key("alice"), 0).await;
        stalled.push(client);
    }
    // Until their sockets are full.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let writing = tokio::spawn(async move {
        let mut id = 100;
        let one = batch(&[entry("E", "", b"")]);
        loop {
            writer.write(&key("alice"), id, &one).await;
            match writer.next_message().await {
                Some(message) if !message.is_close() => id += 1,
                _ => return id,
            }
        }
    });
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    assert!(writing.await.expect("it writes") >= 100);
    let text = std::fs::read_to_string(&log).expect("UTF-8");
    assert!(text.contains("stopped") && !text.contains("cut off at shutdown"), "{text}");
}
