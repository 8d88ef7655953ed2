//! `revoke` and `revocations` against the binary, which is killed in between.

use serde_json::{Value, json};

use super::logged::{ADMIN, Logged};
use crate::support::jwt::{SECRET, claims, token, with};
use crate::support::key;
use crate::support::socket::Socket;

fn start() -> Logged {
    Logged::start(&format!(
        "admin.token = \"{ADMIN}\"\n[auth]\nmode = \"jwt\"\n[auth.jwt]\nsecret = \"{SECRET}\""
    ))
}

fn of(subject: &str, token_id: &str) -> String {
    let claims = with(claims(&["alice", "bob"]), "store_id", json!("team"));
    token(&with(with(claims, "sub", json!(subject)), "jti", json!(token_id)))
}

impl Logged {
    fn revoked(&self, arguments: &[&str]) -> String {
        self.serve().run(&[&["revoke", "--token", ADMIN], arguments].concat()).ok()
    }

    fn with_token(&self, token: &str) -> String {
        format!("{}?access_token={token}", self.url())
    }

    async fn refusal(&self, token: &str) -> String {
        let (status, said) = Socket::refused(&self.with_token(token), &[]).await;
        assert_eq!(status, 401, "{said}");
        said
    }
}

#[tokio::test]
async fn whoever_is_revoked_stays_out_after_a_crash_until_that_is_lifted() {
    let mut server = start();
    let [ann, ben, cat] = [of("ann", "1"), of("ben", "2"), of("cat", "3")];
    let mut client = Socket::connect(&server.with_token(&ann)).await;
    let printed = server.revoked(&["--subject", "ann", "--reason", "she left", "--for", "1h"]);
    assert!(printed.starts_with("subject:ann  until 20"), "{printed}");
    assert!(printed.ends_with("Z  she left\n"), "{printed}");
    assert_eq!(client.close_code().await, Some(1008));
    let until = "2033-05-18T03:33:20Z";
    let printed = server.revoked(&["--token-id", "2", "--until", until, "--json"]);
    let printed: Value = serde_json::from_str(&printed).expect("JSON");
    let expected = json!({ "id": "token-id:2", "tokenId": "2", "until": 2_000_000_000 });
    assert_eq!(printed, expected);
    assert_eq!(server.revoked(&["--key", "bob"]), "key:bob  until it is lifted\n");
    server.kill();
    assert_eq!(server.refusal(&ann).await, "revoked: this user was revoked: she left\n");
    assert_eq!(server.refusal(&ben).await, "revoked: this token was revoked\n");
    let mut client = Socket::connect(&server.with_token(&cat)).await;
    client.subscribe(&key("bob"), 0).await;
    assert_eq!(client.next_refusal().await.message, "revoked: this public key was revoked");
    let listed = server.serve().run(&["revocations", "--token", ADMIN]).ok();
    let ids: Vec<_> = listed.lines().filter_map(|line| line.split_once("  ")).collect();
    assert_eq!(ids.len(), 3, "{listed}");
    assert_eq!(ids[0], ("key:bob", "until it is lifted"));
    assert_eq!(ids[2], ("token-id:2", &*format!("until {until}")));
    assert_eq!(server.revoked(&["--lift", "subject:ann"]), "subject:ann  is lifted\n");
    server.kill();
    Socket::connect(&server.with_token(&ann)).await;
    let by = "by=admin address=127.0.0.1 token=\"admin\"";
    let audit = server.audit();
    assert!(audit[0].starts_with("action=revoke subject=\"ann\" until="), "{audit:?}");
    assert!(audit[0].ends_with(&format!(" reason=\"she left\" {by}")), "{audit:?}");
    assert_eq!(audit[2], format!("action=revoke key=\"bob\" until=none reason=\"\" {by}"));
    assert_eq!(audit[3..], [format!("action=lift subject=\"ann\" {by}")]);
}

#[test]
fn what_cannot_be_revoked_is_said() {
    let server = start();
    let run = |arguments: &[&str]| {
        server.serve().run(&[&["revoke", "--token", ADMIN], arguments].concat())
    };
    assert!(run(&[]).failed(2).contains("--subject"));
    assert!(run(&["--key", "a", "--subject", "b"]).failed(2).contains("cannot be used with"));
    assert!(run(&["--lift", "key:a", "--for", "1h"]).failed(2).contains("cannot be used with"));
    assert!(run(&["--key", "a", "--until", "soon"]).failed(2).contains("soon"));
    // Both would be printed as if somebody were shut out, and nobody would be, or for ever.
    assert!(run(&["--key", "a", "--until", "2020-01-01T00:00:00Z"]).failed(1).contains("past"));
    assert!(run(&["--key", "a", "--until", "1900000000000"]).failed(1).contains("in seconds"));
    assert!(run(&["--lift", "key:a"]).failed(1).contains("no revocation \"key:a\""));
    assert!(run(&["--subject", ""]).failed(1).contains("empty"));
    assert!(run(&["--subject", &"s".repeat(1_025)]).failed(1).contains("1,024 bytes"));
}

/// It looks like the pattern of a grant.
#[test]
fn a_star_in_a_revoked_key_is_said_to_stand_for_nothing() {
    let server = start();
    let revoked = server.serve().run(&["revoke", "--token", ADMIN, "--key", "phone-*"]);
    assert!(revoked.err.contains("no patterns"), "{}", revoked.err);
    assert_eq!(revoked.ok(), "key:phone-*  until it is lifted\n");
    let revoked = server.serve().run(&["revoke", "--token", ADMIN, "--subject", "a*"]);
    assert!(revoked.err.contains("no patterns"), "{}", revoked.err);
    let revoked = server.serve().run(&["revoke", "--token", ADMIN, "--key", "phone"]);
    assert_eq!(revoked.err, "");
}
