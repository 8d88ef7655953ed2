//! What strangers can cause the server to store for good is bounded, and nothing that exists is given up for it.

use std::path::Path;

use eventlog_server::protocol::msgpack::ErrorCode;
use eventlog_server::protocol::rpc;
use rustix::process::Signal;
use tempfile::tempdir;

use super::process::{Serve, data, logged};
use crate::support::http;
use crate::support::rpc::{RpcSocket, framed_entry, identity, identity_with};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

const ADMIN: &str = "only-for-this-test";

/// A server with these limits, open to everybody unless `auth` says otherwise.
fn serve(directory: &Path, auth: &str, limits: &str) -> Serve {
    let config = directory.join("eventlog.toml");
    let file = format!("admin.token = \"{ADMIN}\"\n{auth}\n[limits]\n{limits}\n");
    std::fs::write(&config, file).expect("written");
    let store = directory.join("data");
    let arguments = ["--config", data(&config), "--data-dir", data(&store)];
    let dev: &[&str] = if auth.is_empty() { &["--dev"] } else { &[] };
    Serve::start(&[dev, &arguments].concat(), None)
}

async fn metric(serve: &Serve, name: &str) -> f64 {
    let text = http::get(serve.address().parse().expect("an address"), "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
}

/// Whether a client with this key may write; `Err` with the message if not.
async fn use_key(client: &mut Socket, name: &str) -> Result<(), String> {
    client.write(&key(name), 1, &batch(&[entry("E", "", b"")])).await;
    client.next_answer().await.map(drop).map_err(|refusal| {
        assert_eq!(refusal.code, ErrorCode::InternalServerError);
        assert!(refusal.message.starts_with("quota: "), "{}", refusal.message);
        refusal.message
    })
}

/// Whether a client with this name can get its signing key bound, or has it bound.
async fn bind(client: &mut RpcSocket, name: &str) -> Result<(), String> {
    client.authenticate(&identity(name)).await.map_err(|refused| {
        assert_eq!(refused.code, rpc::ErrorCode::InternalServerError);
        assert!(refused.message.starts_with("quota: "), "{}", refused.message);
        refused.message
    })
}

fn rpc_url(serve: &Serve) -> String {
    format!("ws://{}/rpc", serve.address())
}

/// A client used a new key for each write, and the registry grew by all of them, for good.
#[tokio::test]
async fn a_stranger_with_ever_new_keys_comes_to_a_bound_that_outlives_restarts() {
    let directory = tempdir().expect("a directory");
    let limits = "keys_max = 30";
    let server = serve(directory.path(), "", limits);
    let mut client = Socket::connect(&server.url).await;
    let mut taken = Vec::new();
    for n in 0..60 {
        let name = format!("stranger {n}");
        match use_key(&mut client, &name).await {
            Ok(()) => taken.push(name),
            Err(message) => assert!(message.contains("no further public keys"), "{message}"),
        }
    }
    assert_eq!(taken.len(), 30);
    let (used, refused) = ("eventlog_keys_used", "eventlog_keys_refused_total");
    assert!((metric(&server, used).await - 30.0).abs() < 0.5);
    assert!((metric(&server, refused).await - 30.0).abs() < 0.5);
    let listed = server.run(&["keys", "--token", ADMIN, "list"]).ok();
    assert_eq!(listed.lines().count(), 30, "what is refused leaves nothing behind");
    server.end(Signal::KILL);
    for signal in [Signal::TERM, Signal::KILL] {
        let server = serve(directory.path(), "", limits);
        let mut client = Socket::connect(&server.url).await;
        let new = if signal == Signal::TERM { "dora" } else { "emil" };
        use_key(&mut client, new).await.expect_err("as before");
        for name in &taken {
            use_key(&mut client, name).await.expect("it was there");
        }
        // A client with a store from an administrator is not a stranger.
        server.run(&["keys", "--token", ADMIN, "assign", new, "team"]).ok();
        use_key(&mut client, new).await.expect("assigned");
        server.end(signal);
    }
}

/// The same with signing keys, from several connections at once, for keys without a store.
#[tokio::test]
async fn a_stranger_with_ever_new_identities_comes_to_a_bound_that_outlives_restarts() {
    let directory = tempdir().expect("a directory");
    let (auth, limits) = ("auth.mode = \"allow-all\"", "identities_max = 12");
    let server = serve(directory.path(), auth, limits);
    let (url, per_client) = (rpc_url(&server), 10);
    let attacks = (0..4).map(|number| {
        let url = url.clone();
        tokio::spawn(async move {
            let mut client = RpcSocket::connect(&url).await;
            let mut bound = Vec::new();
            for n in 0..per_client {
                let name = format!("stranger {number} {n}");
                if bind(&mut client, &name).await.is_ok() {
                    bound.push(name);
                }
            }
            bound
        })
    });
    let mut bound = Vec::new();
    for attack in attacks.collect::<Vec<_>>() {
        bound.extend(attack.await.expect("it ends"));
    }
    assert_eq!(bound.len(), 12);
    assert!((metric(&server, "eventlog_identities_bound").await - 12.0).abs() < 0.5);
    assert!((metric(&server, "eventlog_identities_refused_total").await - 28.0).abs() < 0.5);
    server.end(Signal::KILL);
    let server = serve(directory.path(), auth, limits);
    let mut client = RpcSocket::connect(&rpc_url(&server)).await;
    for name in &bound {
        client.authenticate(&identity(name)).await.expect("it is bound");
        let other = client.authenticate(&identity_with(name, 9)).await.expect_err("not his");
        assert_eq!(other.code, rpc::ErrorCode::Forbidden);
    }
    let message = bind(&mut client, "alice").await.expect_err("as before");
    assert!(message.contains("no further signing keys"), "{message}");
    // A key that an administrator gave a store may have its signing key.
    server.run(&["keys", "--token", ADMIN, "assign", "alice", "team"]).ok();
    bind(&mut client, "alice").await.expect("bound");
    client.write("alice", &[framed_entry("E", "", b"")]).await.expect("written");
    // Removing one makes space for another, at most a minute later, and at the next start.
    server.run(&["keys", "--token", ADMIN, "unpin", &bound[0]]).ok();
    server.run(&["keys", "--token", ADMIN, "unpin", &bound[1]]).ok();
    server.end(Signal::TERM);
    let server = serve(directory.path(), auth, limits);
    let mut client = RpcSocket::connect(&rpc_url(&server)).await;
    bind(&mut client, "bob").await.expect("there is room");
    bind(&mut client, "carol").await.expect_err("no more");
}

/// An operator learns from the log which limit it is, and what else there is to do.
#[tokio::test]
async fn the_log_names_the_limit_that_newcomers_have_reached() {
    let directory = tempdir().expect("a directory");
    let (config, log) = (directory.path().join("c.toml"), directory.path().join("log"));
    std::fs::write(&config, "[limits]\nkeys_max = 1\nidentities_max = 1\n").expect("written");
    let store = directory.path().join("data");
    let arguments = ["--dev", "--config", data(&config), "--data-dir", data(&store)];
    let server = Serve::logged(&arguments, &log);
    let mut client = Socket::connect(&server.url).await;
    use_key(&mut client, "first").await.expect("there is room");
    let mut other = RpcSocket::connect(&rpc_url(&server)).await;
    bind(&mut other, "one").await.expect("there is room");
    for n in 0..5 {
        use_key(&mut client, &format!("stranger {n}")).await.expect_err("too many");
        bind(&mut other, &format!("stranger {n}")).await.expect_err("too many");
    }
    for (what, setting) in [("public keys", "keys_max"), ("signing keys", "identities_max")] {
        let line = logged(&log, &format!("new {what} are above [limits] {setting}"), 1).remove(0);
        assert!(line.contains("keys that exist go on"), "{line}");
        assert!(line.contains("eventlog-server keys assign"), "{line}");
    }
    use_key(&mut client, "first").await.expect("it was there");
}

#[tokio::test]
async fn new_keys_come_at_a_rate_and_known_ones_whenever_they_like() {
    let directory = tempdir().expect("a directory");
    let server = serve(directory.path(), "", "newcomers_per_minute = 20");
    let mut client = Socket::connect(&server.url).await;
    let mut taken = 0;
    let mut last = Ok(());
    for n in 0..60 {
        last = use_key(&mut client, &format!("stranger {n}")).await;
        taken += usize::from(last.is_ok());
    }
    // Some more if this took a while.
    assert!((20..60).contains(&taken), "{taken}");
    let message = last.expect_err("too many");
    let (_, seconds) = message.rsplit_once("; try again in ").expect("when to come back");
    let seconds: u64 = seconds.trim_end_matches(" s").parse().expect("a number");
    assert!((1..=3).contains(&seconds), "{message}");
    use_key(&mut client, "stranger 0").await.expect("known");
    server.run(&["keys", "--token", ADMIN, "assign", "alice", "team"]).ok();
    use_key(&mut client, "alice").await.expect("assigned");
    tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
    use_key(&mut client, "stranger 59").await.expect("as it was told");
}

/// Both found the key without a signing key, and both counted: with two users of two devices each, one was refused for
/// a minute.
#[tokio::test]
async fn the_devices_of_a_user_who_come_at_once_are_one_newcomer() {
    let directory = tempdir().expect("a directory");
    let server = serve(directory.path(), "", "identities_max = 20\nkeys_max = 20");
    let devices = (0..8).map(|_| {
        let url = rpc_url(&server);
        tokio::spawn(async move {
            let mut client = RpcSocket::connect(&url).await;
            for n in 0..20 {
                let name = format!("user {n}");
                bind(&mut client, &name).await.expect("one of twenty");
                client.write(&name, &[framed_entry("E", "", b"")]).await.expect("written");
            }
        })
    });
    for device in devices.collect::<Vec<_>>() {
        device.await.expect("it ends");
    }
    for name in ["eventlog_identities_bound", "eventlog_keys_used"] {
        assert!((metric(&server, name).await - 20.0).abs() < 0.5, "{name}");
    }
}
