//! Who changed what is in the log, and whoever guesses the admin token is slowed down.

use std::net::SocketAddr;

use super::logged::{ADMIN, Logged};
use crate::support::http;

const SIGNING_KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

fn start() -> Logged {
    Logged::start(&format!(
        "trusted_proxies = \"127.0.0.1\"\nadmin.token = {ADMIN:?}\nauth.mode = \"allow-all\"\n\
         [[assign]]\npublic_key = \"ann\"\nstore_id = \"den\"\nsigning_key = {SIGNING_KEY:?}"
    ))
}

/// A request with this token, for which a proxy says that it comes from `address`.
async fn request(server: &Logged, what: &str, token: &str, address: &str, body: &str) -> String {
    let to: SocketAddr = server.serve().address().parse().expect("an address");
    let headers = format!("authorization: Bearer {token}\r\nx-forwarded-for: {address}\r\n");
    http::request(to, what, &headers, body).await
}

#[tokio::test]
async fn each_change_is_one_line_that_says_who_made_it() {
    let mut server = start();
    let assigned = "action=assign key=\"ann\" store=\"den\" by=process".to_owned();
    let pinned = format!("action=pin key=\"ann\" signing_key={SIGNING_KEY} before=none by=process");
    assert_eq!(server.audit(), [assigned, pinned]);
    server.restart();
    assert_eq!(server.audit().len(), 2, "what the configuration says again is no change");
    for arguments in [
        &["assign", "al\nice\" by=process", "team"][..],
        &["pin", "bob", SIGNING_KEY],
        &["unpin", "bob"],
        &["unpin", "bob"],
        &["remove", "ann"],
        &["remove", "ann"],
        &["release", "ann"],
    ] {
        server.keys(arguments);
    }
    let entries = r#"{"entries":[{"event":"E","primaryKey":"SECRET","payload":"U0VDUkVU"}]}"#;
    let answer =
        request(&server, "POST /admin/stores/team/entries", ADMIN, "198.51.100.7", entries).await;
    assert!(answer.contains("200 OK"), "{answer}");
    let by = "by=admin address=127.0.0.1";
    let expected = [
        format!(r#"action=assign key="al\nice\" by=process" store="team" {by}"#),
        format!("action=pin key=\"bob\" signing_key={SIGNING_KEY} before=none {by}"),
        format!("action=unpin key=\"bob\" before={SIGNING_KEY} {by}"),
        format!("action=remove key=\"ann\" store=\"den\" {by}"),
        format!("action=release key=\"ann\" store=\"den\" {by}"),
        "action=write store=\"team\" entries=1 last=1 by=admin address=198.51.100.7".to_owned(),
    ];
    assert_eq!(server.audit()[2..], expected);
}

#[tokio::test]
async fn whoever_guesses_the_admin_token_is_slowed_down_alone() {
    let server = start();
    let guess = async |token: &str, address: &str| {
        let answer = request(&server, "GET /admin/keys", token, address, "").await;
        let status: u16 = answer.split(' ').nth(1).expect("a status").parse().expect("a number");
        (status, answer.contains("retry-after: "))
    };
    let mallory = "203.0.113.9";
    assert_eq!(guess(ADMIN, mallory).await, (200, false));
    let mut answers = Vec::new();
    for number in 0..20 {
        answers.push(guess(&format!("CANARY-{number}"), mallory).await);
    }
    let wrong = answers.iter().take_while(|answer| **answer == (401, false)).count();
    // A slow machine forgives one or two meanwhile.
    assert!((10..15).contains(&wrong), "{answers:?}");
    assert!(answers.contains(&(429, true)), "{answers:?}");
    // What is right is not told there either; elsewhere it is served.
    assert_eq!(guess(ADMIN, mallory).await.0, 429);
    assert_eq!(guess(ADMIN, "203.0.113.10").await, (200, false));
    let to: SocketAddr = server.serve().address().parse().expect("an address");
    let metrics = http::get(to, "/metrics").await;
    assert!(metrics.contains("eventlog_admin_tokens_refused_total 21"), "{metrics}");
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains("a wrong admin token")).count();
    assert!((1..10).contains(&lines), "{lines}");
    assert!(log.contains("a wrong admin token came from 203.0.113.9") && !log.contains("CANARY"));
}
