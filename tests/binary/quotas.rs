//! Quotas of the binary: the settings take effect, and what a store may hold survives restarts.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use eventlog_server::model::Entry;
use rustix::process::Signal;
use tempfile::tempdir;

use super::logged::{ADMIN, Logged};
use super::process::{Serve, data};
use crate::support::http;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

/// An entry whose record has a hundred bytes.
fn hundred() -> Entry {
    let one = entry("E", "k", &[7; 79]);
    assert_eq!(batch(std::slice::from_ref(&one)).bytes(), 100);
    one
}

/// How many of `count` such entries are accepted, one at a time, on a connection that does not wait for answers.
async fn taken(serve: &Serve, count: u64) -> usize {
    let mut client = Socket::connect(&serve.url).await;
    for id in 0..count {
        client.write(&key("alice"), id, &batch(&[hundred()])).await;
    }
    let mut taken = 0;
    for _ in 0..count {
        match client.next_answer().await {
            Ok(_) => taken += 1,
            Err(refusal) => assert!(refusal.message.starts_with("quota: "), "{}", refusal.message),
        }
    }
    taken
}

#[tokio::test]
async fn without_a_quota_it_is_said_that_nothing_is_counted() {
    let server = Logged::start(&format!(
        "admin.token = {ADMIN:?}\nauth.mode = \"allow-all\"\n\
         [[assign]]\npublic_key = \"alice\"\nstore_id = \"team\""
    ));
    assert_eq!(taken(server.serve(), 1).await, 1);
    let said = server.keys(&["usage", "alice"]).ok();
    assert_eq!(said, "alice  0 bytes; nothing is counted now: no quota has `bytes_stored`\n");
    let json = server.keys(&["usage", "alice", "--json"]).ok();
    assert!(json.contains("\"counted\":false"), "{json}");
}

/// Exact to the entry, whether the server ends in order or is killed with everything in the commit log.
#[tokio::test]
async fn what_a_store_may_hold_is_exact_after_restarts() {
    for signal in [Signal::TERM, Signal::KILL] {
        let directory = tempdir().expect("a directory");
        let config = directory.path().join("eventlog.toml");
        std::fs::write(&config, "quota.per_store.bytes_stored = 3_050").expect("written");
        let store = directory.path().join("data");
        let arguments = ["--dev", "--config", data(&config), "--data-dir", data(&store)];
        let start = || Serve::start(&arguments, None);
        let serve = start();
        assert_eq!(taken(&serve, 12).await, 12);
        serve.end(signal);
        let serve = start();
        assert_eq!(taken(&serve, 50).await, 18);
        serve.end(signal);
        let serve = start();
        assert_eq!(taken(&serve, 3).await, 0);
    }
}

/// What a key has written is saved at an orderly end, and every five seconds.
#[tokio::test]
async fn what_a_key_has_written_is_known_after_restarts_and_quotas_are_read_again() {
    let quota = |bytes: u32| {
        format!(
            "admin.token = {ADMIN:?}\nauth.mode = \"allow-all\"\nquota.per_key.bytes_stored = {bytes}\n\
                 [[assign]]\npublic_key = \"alice\"\nstore_id = \"team\""
        )
    };
    let mut server = Logged::start(&quota(1_050));
    assert_eq!(taken(server.serve(), 4).await, 4);
    server.restart();
    assert_eq!(taken(server.serve(), 20).await, 7);
    let deadline = Instant::now() + Duration::from_secs(60);
    let usage = |server: &Logged| server.keys(&["usage", "alice"]).ok();
    assert_eq!(usage(&server).trim(), "alice  1100 bytes");
    // A kill loses what was not saved yet, and no more than that.
    loop {
        tokio::time::sleep(Duration::from_secs(6)).await;
        server.kill();
        if usage(&server).trim() == "alice  1100 bytes" {
            break;
        }
        assert!(Instant::now() < deadline, "{}", usage(&server));
    }
    assert_eq!(taken(server.serve(), 1).await, 0);
    server.configure(&quota(1_250));
    let to: SocketAddr = server.serve().address().parse().expect("an address");
    let header = format!("authorization: Bearer {ADMIN}\r\n");
    let reloaded = http::request(to, "POST /admin/reload", &header, "").await;
    assert!(reloaded.contains(r#""applied":["quota.per_key.bytes_stored"]"#), "{reloaded}");
    assert_eq!(taken(server.serve(), 9).await, 2);
    assert_eq!(server.keys(&["usage", "alice", "--reset"]).ok().trim(), "alice  1300 bytes");
    assert_eq!(taken(server.serve(), 1).await, 1);
    let audit = server.audit();
    let reset =
        audit.iter().any(|line| line.starts_with("action=reset_usage key=\"alice\" bytes=1300 "));
    assert!(reset, "{audit:?}");
}
