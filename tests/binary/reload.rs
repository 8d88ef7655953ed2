//! What a reload of the configuration must not do, against the binary.

use eventlog_server::model::Entry;
use serde_json::json;

use super::logged::{ADMIN, Logged};
use crate::support::http;
use crate::support::jwt::SECRET;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

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

fn applied(reloaded: &str) -> serde_json::Value {
    let body = reloaded.split("\r\n\r\n").nth(1).unwrap_or_default();
    serde_json::from_str(body).unwrap_or_else(|_| panic!("{reloaded}"))
}

fn open_to_all(rest: &str) -> String {
    format!(
        "admin.token = \"{ADMIN}\"\nauth.mode = \"allow-all\"\n{rest}\n[[assign]]\npublic_key = \"alice\"\n\
         store_id = \"team\""
    )
}

#[tokio::test]
async fn limits_count_for_who_is_connected_and_for_who_comes() {
    let server = Logged::start(&open_to_all(""));
    let alice = key("alice");
    let mut before = Socket::connect(server.url()).await;
    let large = batch(&[entry("E", "", &[7; 2_000])]);
    before.write(&alice, 1, &large).await;
    before.next_ack().await;
    server.configure(&open_to_all(
        "[limits]\nentry_bytes_max = 1000\nconnections_max = 2\nsubscriptions_max = 1\n\
         keep_alive = \"7s\"\ncompaction_bytes_max = \"64MiB\"",
    ));
    let reloaded = applied(&reload(&server).await);
    assert_eq!(
        reloaded["applied"],
        json!(["limits.connections_max", "limits.entry_bytes_max", "limits.subscriptions_max"])
    );
    let later = json!(["limits.compaction_bytes_max", "limits.keep_alive"]);
    assert_eq!(reloaded["needsRestart"], later);
    // One that was there before.
    before.write(&alice, 2, &large).await;
    assert!(before.next_answer().await.is_err());
    before.write(&alice, 3, &batch(&[entry("E", "", b"small")])).await;
    assert_eq!(before.next_ack().await.0, 3);
    before.subscribe(&alice, 3).await;
    before.subscribe(&key("bob"), 0).await;
    before.next_refusal().await;
    let _second = Socket::connect(server.url()).await;
    assert_eq!(Socket::refused_status(server.url(), &[]).await, 503);
    // And back.
    server.configure(&open_to_all(""));
    let reloaded = applied(&reload(&server).await);
    assert_eq!(reloaded["applied"].as_array().map(Vec::len), Some(3), "{reloaded}");
    let mut third = Socket::connect(server.url()).await;
    third.write(&alice, 1, &large).await;
    third.next_ack().await;
}

/// Of the limits that were wrong, none may count.
#[tokio::test]
async fn a_file_with_one_wrong_limit_changes_no_limit() {
    let server = Logged::start(&open_to_all(""));
    server.configure(&open_to_all("[limits]\nconnections_max = 1\nframe_bytes_max = 1"));
    let refused = reload(&server).await;
    assert!(refused.contains("400 ") && refused.contains("frame_bytes_max"), "{refused}");
    let _one = Socket::connect(server.url()).await;
    let _two = Socket::connect(server.url()).await;
}

#[tokio::test]
async fn compaction_counts_for_who_begins_to_read_and_two_rules_for_one_event_change_nothing() {
    let server = Logged::start(&open_to_all(""));
    let alice = key("alice");
    let mut writer = Socket::connect(server.url()).await;
    let old = |n: u64, key: &str| Entry {
        id: format!("018bcfe5-6800-70e1-8101-01010101010{n}").parse().expect("a UUID"),
        ..entry("Todo", key, &[n as u8])
    };
    let entries = [old(1, "a"), old(2, "a"), old(3, "b"), old(4, "b")];
    writer.write(&alice, 1, &batch(&entries)).await;
    writer.next_ack().await;
    let read = async |count: usize| {
        let mut reader = Socket::connect(server.url()).await;
        reader.subscribe(&alice, 0).await;
        let read = reader.next_joined_entries(count).await;
        read.into_iter().map(|(sequence, _)| sequence).collect::<Vec<_>>()
    };
    assert_eq!(read(4).await, [1, 2, 3, 4]);
    let rule = |events: &str, strategy: &str| {
        format!(
            "[[compaction]]\nevents = [\"{events}\"]\nolder_than = \"30d\"\nstrategy = \"{strategy}\"\n"
        )
    };
    server.configure(&open_to_all(&rule("Todo", "keep-latest")));
    assert_eq!(applied(&reload(&server).await)["applied"], json!(["compaction"]));
    assert_eq!(read(2).await, [2, 4]);
    let twice = rule("Todo*", "drop") + &rule("Todo", "drop");
    server.configure(&open_to_all(&format!("origins = \"*\"\n{twice}")));
    let refused = reload(&server).await;
    assert!(refused.contains("400 ") && refused.contains("Todo"), "{refused}");
    assert_eq!(read(2).await, [2, 4]);
    server.configure(&open_to_all(""));
    assert_eq!(applied(&reload(&server).await)["applied"], json!(["compaction"]));
    assert_eq!(read(4).await, [1, 2, 3, 4]);
}
