//! The log says who changed what, and whoever guesses the admin token is slowed down.

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

/// A request with this token; a proxy says that it comes from `address`.
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
    let by = "by=admin address=127.0.0.1 token=\"admin\"";
    let expected = [
        format!(r#"action=assign key="al\nice\" by=process" store="team" {by}"#),
        format!("action=pin key=\"bob\" signing_key={SIGNING_KEY} before=none {by}"),
        format!("action=unpin key=\"bob\" before={SIGNING_KEY} {by}"),
        format!("action=remove key=\"ann\" store=\"den\" {by}"),
        format!("action=release key=\"ann\" store=\"den\" {by}"),
        "action=write store=\"team\" entries=1 last=1 by=admin address=198.51.100.7 token=\"admin\""
            .to_owned(),
    ];
    assert_eq!(server.audit()[2..], expected);
}

#[tokio::test]
async fn what_is_done_to_groups_and_that_a_backup_was_begun_is_told() {
    let server = Logged::start(&format!(
        "auth.mode = \"allow-all\"\n[[admin.tokens]]\nname = \"ops\"\nrights = \"admin\"\n\
         token = [\"another\", {ADMIN:?}]\n\
         [[webhook]]\nfrom = \"start\"\nname = \"mail\"\nurl = \"http://127.0.0.1:9/\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\""
    ));
    let ask = async |what: &str, body: &str| {
        let answer = request(&server, what, ADMIN, "127.0.0.1", body).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
    };
    ask("POST /admin/groups/mail/pause", "").await;
    ask(
        "POST /admin/stores/team/entries",
        r#"{"entries":[{"event":"E","primaryKey":"","payload":""}]}"#,
    )
    .await;
    ask("POST /admin/rewind", r#"{"group":"mail","storeId":"team","from":1}"#).await;
    ask("POST /admin/rewind", r#"{"from":1}"#).await;
    ask("DELETE /admin/groups/mail/dead-letters?all=true", "").await;
    ask("POST /admin/groups/mail/resume", "").await;
    ask("POST /admin/backup", "").await;
    let audit = server.audit();
    let by = "by=admin address=127.0.0.1 token=\"ops\"";
    for (line, what) in audit.iter().zip([
        "action=pause group=\"mail\" ",
        "action=write ",
        "action=rewind group=\"mail\" store=\"team\" from=1 ",
        "action=rewind group=all store=all from=1 ",
        "action=dismiss group=\"mail\" letters=0 ",
        "action=resume group=\"mail\" ",
        "action=backup position=",
    ]) {
        assert!(line.starts_with(what) && line.ends_with(by), "{line}");
    }
    assert_eq!(audit.len(), 7, "{audit:?}");
}

#[tokio::test]
async fn an_admin_token_is_changed_without_a_restart() {
    let tokens = |token: &str| {
        format!(
            "auth.mode = \"allow-all\"\n[[admin.tokens]]\nname = \"a\"\nrights = \"admin\"\ntoken = {token}"
        )
    };
    let server = Logged::start(&tokens("\"CANARY-old\""));
    let status = async |what: &str, token: &str| {
        let answer = request(&server, what, token, "127.0.0.1", "").await;
        answer.split(' ').nth(1).expect("a status").parse::<u16>().expect("a number")
    };
    // printf %s CANARY-new | sha256sum
    let new = "sha256:81d76b1286ee1550e9cdbe44a00dbded1e6d872d4abd9823885874c817126f52";
    server.configure(&tokens(&format!("[{new:?}, \"CANARY-old\"]")));
    assert_eq!(status("POST /admin/reload", "CANARY-old").await, 200);
    assert_eq!(status("GET /admin/keys", "CANARY-new").await, 200);
    server.configure(&tokens(&format!("{new:?}")));
    assert_eq!(status("POST /admin/reload", "CANARY-new").await, 200);
    assert_eq!(status("GET /admin/keys", "CANARY-old").await, 401);
    server.configure(&tokens("[]"));
    assert_eq!(status("POST /admin/reload", "CANARY-new").await, 400);
    assert_eq!(status("GET /admin/keys", "CANARY-new").await, 200);
    assert!(!server.log().contains("CANARY"), "{}", server.log());
}

#[tokio::test]
async fn the_admin_api_has_an_address_of_its_own() {
    let server = Logged::start(&format!(
        "auth.mode = \"allow-all\"\n[admin]\ntoken = {ADMIN:?}\nlisten = \"127.0.0.1:0\""
    ));
    let log = server.log();
    let admin =
        log.split("the admin API is at http://").nth(1).and_then(|rest| rest.split('/').next());
    let admin: SocketAddr = admin.expect("it says where").parse().expect("an address");
    let public: SocketAddr = server.serve().address().parse().expect("an address");
    let status = async |to: SocketAddr, path: &str| {
        let answer = http::get_with_token(to, path, ADMIN).await;
        answer.split(' ').nth(1).expect("a status").parse::<u16>().expect("a number")
    };
    assert_eq!(
        (status(admin, "/admin/keys").await, status(public, "/admin/keys").await),
        (200, 404)
    );
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!((status(admin, path).await, status(public, path).await), (404, 200), "{path}");
    }
    // Without a connected WebSocket.
    assert_eq!((status(admin, "/rpc").await, status(public, "/rpc").await), (404, 426));
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
    // The right token is not confirmed to that address either; elsewhere it works.
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
