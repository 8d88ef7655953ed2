//! What a reload of the configuration must not do, against the binary.

use super::logged::{ADMIN, Logged};
use crate::support::http;
use crate::support::jwt::SECRET;
use crate::support::socket::Socket;

async fn reload(server: &Logged) -> String {
    let to = server.serve().address().parse().expect("an address");
    let header = format!("authorization: Bearer {ADMIN}\r\n");
    http::request(to, "POST /admin/reload", &header, "").await
}

/// The running server still takes cookies, because that takes a restart to change.
#[tokio::test]
async fn a_reload_opens_no_server_that_takes_cookies_to_every_page() {
    let asks = |rest: &str| {
        format!(
            "[auth]\nmode = \"http\"\n[auth.http]\nurl = \"http://127.0.0.1:1/\"\n\
             secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n{rest}"
        )
    };
    let tokens =
        |rest: &str| format!("[auth]\nmode = \"jwt\"\n[auth.jwt]\nsecret = \"{SECRET}\"\n{rest}");
    let cases = [
        (asks("headers = [\"cookie\"]"), asks("")),
        (tokens("tokens = [\"cookie:session\"]"), tokens("")),
        (tokens("tokens = [\"cookie:session\"]"), "auth.mode = \"allow-all\"".to_owned()),
    ];
    for (before, after) in cases {
        let file = |origins: &str, auth: &str| {
            format!("origins = [{origins}]\nadmin.token = \"{ADMIN}\"\n{auth}")
        };
        let server = Logged::start(&file("\"https://app.example\"", &before));
        server.configure(&file("\"*\"", &after));
        let reloaded = reload(&server).await;
        assert!(reloaded.contains("\"applied\":[]"), "{reloaded}");
        assert!(reloaded.contains("\"origins\"]"), "{reloaded}");
        let page = [("Origin", "https://evil.example")];
        assert_eq!(Socket::refused_status(server.url(), &page).await, 403, "{after}");
        // Other pages can still be added.
        server.configure(&file("\"https://app.example\", \"https://new.example\"", &before));
        let reloaded = reload(&server).await;
        assert!(reloaded.contains("\"applied\":[\"origins\"]"), "{reloaded}");
    }
}

/// Among them are settings that need a restart: it would not come back.
#[tokio::test]
async fn a_file_that_the_server_could_not_start_with_changes_nothing() {
    let file = |origin: &str, rest: &str| {
        format!(
            "origins = [\"https://{origin}.example\"]\nadmin.token = \"{ADMIN}\"\n[auth]\nmode = \"jwt\"\n\
             [auth.jwt]\nsecret = \"{SECRET}\"\n{rest}"
        )
    };
    let server = Logged::start(&file("old", ""));
    for (wrong, says) in [
        ("jwks_url = \"http://login.example/keys\"", "https"),
        ("algorithms = [\"HS256\", \"ES256\"]", "ES256"),
        ("tokens = []", "`tokens`"),
        ("issuer = \"\"", "issuer"),
    ] {
        server.configure(&file("new", wrong));
        let refused = reload(&server).await;
        assert!(refused.contains("400 ") && refused.contains(says), "{wrong}: {refused}");
        let page = [("Origin", "https://new.example")];
        assert_eq!(Socket::refused_status(server.url(), &page).await, 403, "{wrong}");
    }
    server.configure(&file("new", ""));
    assert!(reload(&server).await.contains("\"applied\":[\"origins\"]"));
}
