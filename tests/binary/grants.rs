//! Grants that change while the binary runs: when its configuration is read again, and through its admin API.

use std::net::SocketAddr;

use eventlog_server::protocol::msgpack::ErrorCode;
use rustix::process::Signal;

use super::logged::{ADMIN, Logged};
use super::process::Ended;
use crate::support::socket::Socket;
use crate::support::{batch, entry, http, key};

const ASSIGNED: [&str; 4] = ["alice", "bob", "phone-1", "phone-2"];

fn configuration(rest: &str, grants: &[&str]) -> String {
    let assigned = ASSIGNED
        .map(|name| format!("[[assign]]\npublic_key = \"{name}\"\nstore_id = \"team\"\n"))
        .concat();
    let grants: Vec<_> = grants.iter().map(|grant| format!("[[auth.grant]]\n{grant}\n")).collect();
    let grants = grants.concat();
    format!(
        "admin.token = \"{ADMIN}\"\n{rest}\n[auth]\nmode = \"grants\"\nkeep_proof = false\n{assigned}{grants}"
    )
}

const ALICE: &str = "public_key = \"alice\"\nread = true\nwrite = true";
const BOB: &str = "public_key = \"bob\"\nread = true\nwrite = true";

impl Logged {
    fn grants(&self, arguments: &[&str]) -> Ended {
        self.serve().run(&[&["grants", "--token", ADMIN], arguments].concat())
    }

    async fn reload(&self) -> String {
        let to: SocketAddr = self.serve().address().parse().expect("an address");
        let header = format!("authorization: Bearer {ADMIN}\r\n");
        http::request(to, "POST /admin/reload", &header, "").await
    }

    /// Whether one entry of this event may be written with the key.
    async fn writes(&self, name: &str, event: &str) -> Result<(), String> {
        let mut client = Socket::connect(self.url()).await;
        client.write(&key(name), 1, &batch(&[entry(event, "", b"")])).await;
        client.next_answer().await.map(drop).map_err(|refusal| refusal.message)
    }

    async fn subscribed(&self, name: &str) -> Socket {
        let mut client = Socket::connect(self.url()).await;
        client.subscribe(&key(name), 1_000).await;
        client.nothing_comes().await;
        client
    }
}

async fn ended(client: &mut Socket) {
    let refusal = client.next_refusal().await;
    assert_eq!(refusal.code, ErrorCode::Unauthorized, "{}", refusal.message);
}

#[tokio::test]
async fn at_a_sighup_the_grants_of_the_file_count_and_live_subscriptions_end() {
    let server = Logged::start(&configuration("", &[ALICE]));
    let mut alice = server.subscribed("alice").await;
    assert!(server.writes("bob", "E").await.is_err());
    server.configure(&configuration("", &[BOB]));
    server.serve().signal(Signal::HUP);
    ended(&mut alice).await;
    assert_eq!(server.writes("bob", "E").await, Ok(()));
    let bob = server.subscribed("bob").await;
    // What the server could not be started with changes nothing.
    server.configure(&configuration("", &[ALICE, ALICE]));
    server.serve().signal(Signal::HUP);
    let refused = server.reload().await;
    assert!(refused.contains("400 ") && refused.contains("has two grants"), "{refused}");
    assert_eq!(server.writes("bob", "E").await, Ok(()));
    server.comes_to_log("SIGHUP: nothing has changed: ");
    drop(bob);
    let expected = "action=reload applied=\"auth.grant\" needs_restart=\"\" by=process";
    assert_eq!(server.audit().last().map(String::as_str), Some(expected));
}

#[tokio::test]
async fn a_reload_says_what_counts_and_what_needs_a_restart() {
    let server = Logged::start(&configuration("", &[ALICE]));
    let changed = "origins = [\"https://app.example\"]\nlimits.keep_alive = \"7s\"";
    server.configure(&configuration(changed, &[ALICE]));
    let page = [("Origin", "https://app.example")];
    assert_eq!(Socket::refused_status(server.url(), &page).await, 403);
    let answer = server.reload().await;
    let said = r#"{"applied":["origins"],"needsRestart":["limits.keep_alive"]}"#;
    assert!(answer.ends_with(said), "{answer}");
    Socket::connect_with(server.url(), &page).await;
    let answer = server.reload().await;
    let said = r#"{"applied":[],"needsRestart":["limits.keep_alive"]}"#;
    assert!(answer.ends_with(said), "{answer}");
}

#[tokio::test]
async fn what_is_set_while_it_runs_is_durable_and_counts_before_the_file() {
    let mut server = Logged::start(&configuration("", &[ALICE]));
    let set = server.grants(&["set", "phone-*", "--read", "--write", "--events", "Todo*"]).ok();
    assert_eq!(set, "phone-*  read, write Todo*  (api)\n");
    server.grants(&["set", "phone-2"]).ok();
    server.grants(&["set", "bob", "--read"]).ok();
    let bob = server.subscribed("bob").await;
    for round in 0..2 {
        assert_eq!(server.writes("phone-1", "TodoAdded").await, Ok(()), "{round}");
        let refused = server.writes("phone-1", "Note").await.expect_err("refused");
        assert!(refused.starts_with("forbidden: entry 0 ("), "{refused}");
        assert!(server.writes("phone-2", "TodoAdded").await.is_err(), "{round}");
        assert!(server.writes("bob", "TodoAdded").await.is_err(), "{round}");
        assert_eq!(server.writes("alice", "Note").await, Ok(()), "{round}");
        server.kill();
    }
    drop(bob);
    let mut alice = server.subscribed("alice").await;
    server.grants(&["set", "alice", "--write"]).ok();
    ended(&mut alice).await;
    let listed = server.grants(&["list"]).ok();
    let expected = "alice  write  (api)\nalice  read, write  (configuration, does not count)\n\
                    bob  read  (api)\nphone-*  read, write Todo*  (api)\nphone-2  nothing  (api)\n";
    assert_eq!(listed, expected);
    // Only the file's set is replaced.
    server.configure(&configuration("", &[ALICE, BOB]));
    assert!(server.reload().await.contains("200 OK"));
    assert!(server.writes("bob", "E").await.is_err());
    let mut bob = server.subscribed("bob").await;
    server.grants(&["remove", "bob"]).ok();
    assert_eq!(server.writes("bob", "E").await, Ok(()));
    bob.nothing_comes().await;
    assert!(server.grants(&["remove", "bob"]).failed(1).contains("there is no grant for"));
    let by = "by=admin address=127.0.0.1 token=\"admin\"";
    let audit = server.audit();
    let grants: Vec<_> = audit.iter().filter(|line| line.contains("grant key")).collect();
    assert_eq!(
        grants[0],
        &format!(r#"action=grant key="phone-*" read=true write=true events=["Todo*"] {by}"#)
    );
    assert_eq!(grants[4], &format!("action=ungrant key=\"bob\" {by}"));
}

/// An application that adds users while the server runs: a grant for everyone, and an assignment at sign-up.
#[tokio::test]
async fn with_a_grant_for_everyone_a_key_is_as_good_as_its_assignment() {
    let everyone = "public_key = \"*\"\nread = true\nwrite = true";
    let server = Logged::start(&configuration("", &[everyone]));
    assert!(server.writes("carol", "E").await.expect_err("refused").contains("carol"));
    server.keys(&["assign", "carol", "team"]).ok();
    assert_eq!(server.writes("carol", "E").await, Ok(()));
}

#[test]
fn without_grants_there_are_none_to_set() {
    let server = Logged::start(&format!("admin.token = \"{ADMIN}\"\nauth.mode = \"allow-all\""));
    let refused = server.grants(&["set", "alice", "--read"]).failed(1);
    assert!(refused.contains("this server uses no grants"), "{refused}");
}
