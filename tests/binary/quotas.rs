//! Quotas of the binary: what is set is in force, and what a store may hold survives its restarts.

use eventlog_server::model::Entry;
use rustix::process::Signal;
use tempfile::tempdir;

use super::process::{Serve, data};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

/// An entry whose record has a hundred bytes.
fn hundred() -> Entry {
    let one = entry("E", "k", &[7; 79]);
    assert_eq!(batch(std::slice::from_ref(&one)).bytes(), 100);
    one
}

/// How many of `count` such entries are taken, each by itself, on a connection that does not wait for answers.
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

/// To the entry, whether the server ends in order or is killed with all of it in the commit log.
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
