//! Writes that wait at a node while their key is removed, moved or revoked, there or at another node.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use super::{ADMIN, Node, cluster};
use crate::support::socket::{Refusal, Socket};
use crate::support::{batch, entry, http, key};

/// How many writes each key has on their way.
const WRITES: u64 = 60;
/// Large enough that most of them wait in the node, and not in the database.
const BYTES: usize = 40_000;

#[derive(Clone, Copy, Debug)]
enum Change {
    Remove,
    Move,
    Revoke,
}

impl Change {
    /// Carries it out for alice.
    async fn make(self, node: &Node) {
        let (line, body) = match self {
            Self::Remove => ("DELETE /admin/keys/alice", String::new()),
            Self::Move => ("POST /admin/keys/alice/move", r#"{"storeId":"third"}"#.to_owned()),
            Self::Revoke => ("POST /admin/revocations", r#"{"publicKey":"alice"}"#.to_owned()),
        };
        let headers =
            format!("Authorization: Bearer {ADMIN}\r\nContent-Type: application/json\r\n");
        let address = ([127, 0, 0, 1], node.port).into();
        let answer = http::request(address, line, &headers, &body).await;
        assert!(answer.starts_with("HTTP/1.1 2"), "{self:?}: {answer}");
    }
}

/// Keeps everybody from appending to the store, until it is dropped.
async fn hold(url: &str, store: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    let lock =
        format!("BEGIN; SELECT FROM effect_events_stores WHERE store_id = '{store}' FOR UPDATE");
    client.batch_execute(&lock).await.expect("locked");
    client
}

/// A connection with writes on their way.
struct Writer {
    socket: Socket,
    sent: u64,
    /// The number of each write, and its sequence.
    acked: Vec<(u64, u64)>,
    refused: Vec<Refusal>,
}

impl Writer {
    async fn connect(node: &Node, name: &str) -> Self {
        let mut writer = Self {
            socket: Socket::connect(&node.url()).await,
            sent: 0,
            acked: Vec::new(),
            refused: Vec::new(),
        };
        // From now on the store is open and the key is known.
        writer.send(name, 1, 1).await;
        writer.answers().await;
        writer
    }

    async fn send(&mut self, name: &str, count: u64, bytes: usize) {
        for _ in 0..count {
            self.sent += 1;
            let payload = vec![b'a'; bytes];
            let entry = entry("Noted", name, &payload);
            self.socket.write(&key(name), self.sent, &batch(&[entry])).await;
        }
    }

    async fn answers(&mut self) {
        while ((self.acked.len() + self.refused.len()) as u64) < self.sent {
            match self.socket.next_answer().await {
                Ok((write, sequences)) => self.acked.push((write, sequences[0])),
                Err(refusal) => self.refused.push(refusal),
            }
        }
    }
}

async fn queued(change: Change, elsewhere: bool) {
    let Some(cluster) = cluster() else { return };
    let url = cluster.database();
    let settings = || {
        vec![
            ("EVENTLOG_AUTH_MODE", "allow-all".to_owned()),
            ("EVENTLOG_ADMIN_TOKEN", ADMIN.to_owned()),
        ]
    };
    let (here, there) = (Node::start(&url, settings()), Node::start(&url, settings()));
    for (name, store) in [("alice", "team"), ("bob", "team"), ("carol", "other")] {
        here.run(&["keys", "--token", ADMIN, "assign", name, store]);
    }
    let mut writers = Vec::new();
    for name in ["alice", "bob", "carol"] {
        writers.push((name, Writer::connect(&here, name).await));
    }
    let held = hold(&url, "team").await;
    for (name, writer) in &mut writers {
        writer.send(name, WRITES, BYTES).await;
    }
    let waiting = || {
        let waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        cluster.sql(&url, waiting) == "t"
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !waiting() {
        assert!(Instant::now() < deadline, "nobody waits for the store");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The server reads what was sent meanwhile.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let node = if elsewhere { &there } else { &here };
    change.make(node).await;
    drop(held);
    for (_, writer) in &mut writers {
        writer.answers().await;
    }
    for (name, writer) in &writers {
        let stored = cluster.sql(
            &url,
            &format!(
                "SELECT count(*), count(DISTINCT entry_id) FROM effect_events WHERE primary_key = '{name}'"
            ),
        );
        let (acked, told) = (writer.acked.len(), format!("{change:?} {elsewhere} {name}"));
        let in_order = |two: &[(u64, u64)]| two[0].0 < two[1].0 && two[0].1 < two[1].1;
        assert_eq!(stored, format!("{acked}|{acked}"), "{told}: {:?}", writer.refused.first());
        if *name == "alice" {
            let of_team = "SELECT count(*) FROM effect_events WHERE primary_key = 'alice' AND store_id = 'team'";
            assert_eq!(cluster.sql(&url, of_team), "1", "{told}: {} writes", writer.sent);
            assert!(!writer.refused.is_empty(), "{told}");
        } else {
            assert_eq!(acked as u64, writer.sent, "{told}: {:?}", writer.refused.first());
            assert!(writer.acked.windows(2).all(in_order), "{told}: {:?}", writer.acked);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_waiting_write_of_a_key_is_stored_after_its_removal_was_answered() {
    for elsewhere in [false, true] {
        queued(Change::Remove, elsewhere).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_waiting_write_of_a_key_is_stored_in_its_store_after_its_move_was_answered() {
    for elsewhere in [false, true] {
        queued(Change::Move, elsewhere).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_waiting_write_of_a_key_is_stored_after_its_revocation_was_answered() {
    for elsewhere in [false, true] {
        queued(Change::Revoke, elsewhere).await;
    }
}
