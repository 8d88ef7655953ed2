//! Secrets appear in no line of the log, at any level.

use std::net::SocketAddr;

use serde_json::json;

use super::logged::Logged;
use crate::support::jwt::{claims, token, token_by, with};
use crate::support::receiver::{Receiver, Reply};
use crate::support::rpc::{RpcSocket, identity};
use crate::support::socket::Socket;
use crate::support::{batch, entry, http, key};

/// Connects in all the ways that are refused, and some that are not, with a secret in each place that can have one.
async fn visit(server: &Logged, token: &str) {
    let url = server.url();
    let to: SocketAddr = server.serve().address().parse().expect("an address");
    let cookie = format!("session={token}; other=CANARY-cookie");
    let bearer = format!("Bearer {token}");
    let offered = format!("eventlog, bearer.{token}, CANARY-subprotocol");
    let queried = format!("{url}?access_token={token}&CANARY-query");
    let header = ("X-Api-Key", "CANARY-header");
    for (url, with) in [
        (url, ("Cookie", &*cookie)),
        (url, ("Authorization", &*bearer)),
        (url, ("Sec-WebSocket-Protocol", &*offered)),
        (&*queried, ("Accept", "CANARY-accept")),
    ] {
        if let Some(mut client) = Socket::try_connect_with(url, &[header, with]).await {
            client.next().await;
            client.write(&key("alice"), 1, &batch(&[entry("E", "", b"CANARY-payload")])).await;
            let _ = client.next_answer().await;
            client.subscribe(&key("bob"), 0).await;
            client.send_text("CANARY-text").await;
        }
        let origin = ("Origin", "https://elsewhere.example");
        assert_eq!(Socket::refused_status(url, &[header, with, origin]).await, 403);
    }
    let rpc = format!("ws://{to}/rpc?access_token={token}");
    if let Some(socket) = Socket::try_connect_with(&rpc, &[header, ("Cookie", &cookie)]).await {
        let mut client = RpcSocket::of(socket);
        let _ = client.authenticate(&identity("alice")).await;
        client.send(b"CANARY-message").await;
    }
    let secrets =
        format!("authorization: {bearer}\r\ncookie: {cookie}\r\nx-key: CANARY-header\r\n");
    for line in ["GET /?CANARY-query", "POST /rpc?CANARY-query", "GET /metrics", "GET /admin/keys"]
    {
        http::request(to, line, &secrets, "CANARY-body").await;
    }
    let admin = format!("authorization: Bearer {ADMIN}\r\n");
    let entries = r#"{"entries":[{"event":"E","primaryKey":"k","payload":"CANARY-payload!"}]}"#;
    http::request(to, "POST /admin/stores/team/entries", &admin, entries).await;
    let listed = http::request(to, "GET /admin/keys?CANARY-query", &admin, "").await;
    assert!(listed.contains("HTTP/1.1 400"), "{listed}");
    let wrong = "authorization: Bearer CANARY-guess\r\n";
    http::request(to, "GET /admin/keys", wrong, "").await;
    // Not HTTP, as far as that goes.
    http::request(to, "GET /rpc", "CANARY-line without a colon\r\n", "").await;
    let long = format!("cookie: CANARY-{}\r\n", "x".repeat(60_000));
    http::request(to, "GET /rpc", &long, "").await;
}

const ADMIN: &str = "CANARY-admin-token";
const JWT: &str = "CANARY-secret-that-signs-the-tokens-of-this-test";
const HTTP: &str = "whsec_CANARYwebhooksecretAAAAAAAAAAAAAAAAAAAAA";

/// None of these may be in the log, which must not be empty.
fn look(server: &Logged, secrets: &[&str]) {
    let log = server.log();
    assert!(log.contains("TRACE") && log.contains("wrong admin token"), "{log}");
    let parts = secrets.iter().flat_map(|secret| secret.split('.')).filter(|part| part.len() > 20);
    for secret in ["CANARY", &HTTP["whsec_".len()..]].into_iter().chain(parts) {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[tokio::test]
async fn nothing_of_tokens_and_handshakes_is_logged() {
    let server = Logged::start(&format!(
        "admin.token = {ADMIN:?}\nauth.mode = \"jwt\"\n[auth.jwt]\nsecret = {JWT:?}\n\
         tokens = [\"authorization\", \"cookie:session\", \"query\", \"subprotocol\"]"
    ));
    let claims = with(claims(&["alice"]), "store_id", json!("team"));
    let claims = with(claims, "custom", json!("CANARY-claim"));
    let good = token_by("HS256", None, &claims, JWT.as_bytes());
    let forged = token(&claims);
    let expired = with(claims.clone(), "exp", json!(1));
    let expired = token_by("HS256", None, &expired, JWT.as_bytes());
    let moved = with(claims.clone(), "store_id", json!("den"));
    let moved = token_by("HS256", None, &moved, JWT.as_bytes());
    let all = [&good, &forged, &expired, &moved];
    for token in all {
        Box::pin(visit(&server, token)).await;
    }
    Box::pin(visit(&server, "CANARY-token")).await;
    look(&server, &all.map(String::as_str));
}

#[tokio::test]
async fn nothing_of_what_the_application_is_asked_is_logged() {
    for answer in [r#"{"allow":true,"storeId":"team"}"#, r#"{"allow":false}"#, "<CANARY-answer>"] {
        let application = Receiver::start(|_| Reply::Body(answer.to_owned())).await;
        let server = Logged::start(&format!(
            "admin.token = {ADMIN:?}\nauth.mode = \"http\"\n[auth.http]\nsecret = {HTTP:?}\n\
             url = \"{}?CANARY-url\"\nheaders = [\"cookie\", \"authorization\", \"x-api-key\"]",
            application.url()
        ));
        Box::pin(visit(&server, "CANARY-token")).await;
        look(&server, &[]);
    }
}
