//! Secrets in files: read again on request, and never shown.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;
use tempfile::tempdir;

use super::logged::Logged;
use super::process::{command, data, run};
use crate::support::http;
use crate::support::jwt::{claims, token_by, with};
use crate::support::receiver::{Receiver, Reply};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

const ADMIN: &str = "CANARY-admin-token";
const JWT: &str = "CANARY-secret-that-signs-the-tokens-of-this-test";
const OTHER_JWT: &str = "CANARY-another-secret-that-takes-the-place-of-it";
/// Decoded from base64, these contain the word as well.
const WEBHOOK: &str = "whsec_CANARYwebhooksecretAAAAAAAAAAAAAAAAAAAAA";
const HTTP: &str = "whsec_CANARYhttpsecretBBBBBBBBBBBBBBBBBBBBBBBB";

fn put(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, format!("{content}\n")).expect("written");
    data(&path).to_owned()
}

fn address(server: &Logged) -> SocketAddr {
    server.serve().address().parse().expect("an address")
}

async fn reload(server: &Logged) -> String {
    let header = format!("authorization: Bearer {ADMIN}\r\n");
    http::request(address(server), "POST /admin/reload", &header, "").await
}

fn signed_by(secret: &str) -> String {
    let claims = with(claims(&["alice"]), "store_id", json!("team"));
    token_by("HS256", None, &claims, secret.as_bytes())
}

#[tokio::test]
async fn a_secret_in_a_file_is_read_again_when_that_is_asked_for() {
    let files = tempdir().expect("a directory");
    let admin = put(files.path(), "admin", ADMIN);
    let jwt = put(files.path(), "jwt", JWT);
    let server = Logged::start(&format!(
        "admin.token_file = {admin:?}\nauth.mode = \"jwt\"\n[auth.jwt]\nsecret_file = {jwt:?}"
    ));
    let url = |secret: &str| format!("{}?access_token={}", server.url(), signed_by(secret));
    let mut before = Socket::connect(&url(JWT)).await;
    assert_eq!(Socket::refused_status(&url(OTHER_JWT), &[]).await, 401);
    // Nothing has changed, and what is not secret changes nothing.
    assert!(reload(&server).await.ends_with(r#"{"applied":[],"needsRestart":[]}"#));
    put(files.path(), "jwt", "CANARY-short");
    let refused = reload(&server).await;
    assert!(refused.contains("at least 32 bytes") && !refused.contains("CANARY"), "{refused}");
    assert!(Socket::try_connect(&url(JWT)).await.is_some());
    put(files.path(), "jwt", OTHER_JWT);
    let reloaded = reload(&server).await;
    assert!(reloaded.contains("\"auth.jwt.secret\""), "{reloaded}");
    assert_eq!(Socket::refused_status(&url(JWT), &[]).await, 401);
    assert!(Socket::try_connect(&url(OTHER_JWT)).await.is_some());
    // Connected clients stay until their token expires.
    before.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(before.next_ack().await.0, 1);
}

/// Everything that the admin API shows, and what is shown without a token.
const SHOWN: [&str; 16] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/admin/keys",
    "/admin/stores",
    "/admin/stores/team",
    "/admin/groups",
    "/admin/grants",
    "/admin/revocations",
    "/admin/nothing",
    "/admin/overview",
    "/admin/tokens",
    "/admin/sessions",
    "/admin/quarantine",
    "/admin/openapi.json",
    "/console",
];

#[tokio::test]
async fn a_secret_is_in_nothing_that_the_server_prints_or_serves() {
    let files = tempdir().expect("a directory");
    let receiver =
        Receiver::start(|_| Reply::Body(r#"{"allow":true,"storeId":"team"}"#.into())).await;
    let [url, hook] = ["may", "hook"].map(|path| format!("{}/{path}", receiver.url()));
    let secret_file = put(files.path(), "http", HTTP);
    let tokens = put(files.path(), "tokens", "CANARY-first-token\nCANARY-second-token");
    let common = format!("admin.token = {ADMIN:?}\nlimits.stall_timeout = \"31s\"\n");
    let named = format!(
        "[[admin.tokens]]\nname = \"inline\"\nrights = \"read\"\ntoken = \"CANARY-inline\"\n\
         [[admin.tokens]]\nname = \"filed\"\nrights = \"read\"\ntoken_file = {tokens:?}\n"
    );
    let webhook = |secret: &str| {
        format!(
            "[[webhook]]\nname = \"hook\"\nurl = {hook:?}\nfrom = \"start\"\nsecret = {secret:?}\n"
        )
    };
    let by_http = format!(
        "{common}[auth]\nmode = \"http\"\n[auth.http]\nurl = {url:?}\nsecret_file = {secret_file:?}\n"
    );
    let by_jwt = format!(
        "{common}[auth]\nmode = \"jwt\"\n[auth.jwt]\nsecret = [{{ kid = \"a\", secret = {JWT:?} }}]\n"
    );
    let mut said = Vec::new();
    for file in [by_http, by_jwt] {
        let file = format!("{file}{named}");
        let whole = format!("{file}{}", webhook(WEBHOOK));
        let server = Logged::start(&whole);
        let at = format!("{}?access_token={}", server.url(), signed_by(JWT));
        let mut client = Socket::connect(&at).await;
        client.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
        assert!(client.next_answer().await.is_ok());
        for path in SHOWN {
            said.push(http::get_with_token(address(&server), path, ADMIN).await);
            said.push(http::get(address(&server), path).await);
        }
        let filed = http::get_with_token(address(&server), "/admin/keys", "CANARY-second-token");
        assert!(filed.await.contains("200 OK"));
        // Other secrets, one that is invalid, and a file that is cut off in the middle of one.
        server.configure(&format!("{file}{}", webhook(&WEBHOOK.replace("AAAA", "CCCC"))));
        said.push(reload(&server).await);
        for wrong in [
            format!("{file}{}", webhook("whsec_CANARY")),
            whole.replace("31s", "CANARY").replace("[[webhook]]", "[[webhook]]\nsecrets = 1"),
            whole.trim_end().trim_end_matches('"').to_owned(),
        ] {
            let config = put(files.path(), "wrong.toml", &wrong.replace("\"CANARY\"", "\"a\""));
            let checked = run(&["config", "check", "--config", &config]);
            assert_eq!(checked.code, Some(1), "{}", checked.out);
            said.extend([checked.out, checked.err]);
            server.configure(&wrong.replace("\"CANARY\"", "\"a\""));
            said.push(reload(&server).await);
        }
        let config = put(files.path(), "right.toml", &whole);
        let checked = run(&["config", "check", "--config", &config]);
        assert!(checked.out.contains("webhook[1].secret = \"***\""), "{}", checked.out);
        said.extend([checked.out, checked.err, server.log()]);
    }
    for text in said {
        let line = text.lines().find(|line| line.contains("CANARY"));
        assert_eq!(line, None);
    }
}

/// Whatever is wrong with it, and wherever it stands.
#[test]
fn the_password_of_a_database_is_in_nothing_that_is_printed() {
    let files = tempdir().expect("a directory");
    let store = data(&files.path().join("data")).to_owned();
    for url in [
        "postgres://eventlog:CANARY-word@127.0.0.1:1/eventlog?sslmode=disable",
        "postgres://eventlog:CANARY-word@127.0.0.1:1/eventlog?sslmode=whatever",
        "postgres://eventlog:CANARY-p/a@ss:word@127.0.0.1:port/eventlog",
        "postgres://127.0.0.1:1/eventlog?user=eventlog&password=CANARY-word&sslmode=disable",
        "postgress://eventlog:CANARY-word@db.example/eventlog",
        "eventlog:CANARY-word@db.example",
    ] {
        let file = format!(
            "auth.mode = \"allow-all\"\nlog.level = \"trace\"\n[storage]\nkind = \"postgres\"\nurl = {url:?}\n"
        );
        let config = put(files.path(), "eventlog.toml", &file);
        let cut = put(files.path(), "cut.toml", file.trim_end().trim_end_matches('"'));
        let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &store, "--config", &config];
        let mut by_environment = command(&["config", "check"]);
        let by_environment = by_environment
            .env("EVENTLOG_AUTH_MODE", "allow-all")
            .env("EVENTLOG_STORAGE_KIND", "postgres")
            .env("EVENTLOG_STORAGE_URL", url)
            .output()
            .expect("it runs");
        let checked = run(&["config", "check", "--config", &config]);
        assert!(checked.out.contains("***"), "{}", checked.out);
        let served = run(&serve);
        assert_eq!(served.code, Some(1), "{}", served.err);
        let cut = run(&["config", "check", "--config", &cut]);
        let by_environment = [by_environment.stdout, by_environment.stderr].concat();
        let by_environment = String::from_utf8(by_environment).expect("UTF-8");
        let said = [checked.out, checked.err, served.err, cut.out, cut.err, by_environment];
        for text in said {
            assert_eq!(text.lines().find(|line| line.contains("CANARY")), None, "{url}");
        }
    }
}
