//! Who may use a key that can be proved: which paths are served, what needs a proof, and who binds a signing key.

use std::path::Path;

use eventlog_server::protocol::msgpack::ErrorCode;
use eventlog_server::protocol::rpc::{self, Identity};
use eventlog_server::services::identities::signing_key_to_hex;
use tempfile::{TempDir, tempdir};

use super::logged::Logged;
use super::process::{Ended, Serve, data, run};
use crate::support::rpc::{RpcSocket, framed_entry, identity, identity_with};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

const ADMIN: &str = "only-for-this-test";

const GRANT: &str = "[[auth.grant]]\npublic_key = \"alice\"\nwrite = true\nread = true\n";
const ASSIGN: &str = "[[assign]]\npublic_key = \"alice\"\nstore_id = \"team\"\n";

/// A server with alice in the store `team`, and these additional settings.
fn serve(top: &str, auth: &str, rest: &str) -> (Serve, TempDir) {
    let directory = tempdir().expect("a directory");
    let config = directory.path().join("eventlog.toml");
    let file = format!("{top}\nadmin.token = \"{ADMIN}\"\n[auth]\n{auth}\n{ASSIGN}{rest}");
    std::fs::write(&config, file).expect("written");
    let store = directory.path().join("data");
    let serve = Serve::start(&["--config", data(&config), "--data-dir", data(&store)], None);
    (serve, directory)
}

fn keys(serve: &Serve, arguments: &[&str]) -> Ended {
    serve.run(&[&["keys", "--token", ADMIN], arguments].concat())
}

fn rpc_url(serve: &Serve) -> String {
    format!("ws://{}/rpc", serve.address())
}

fn signing_key(identity: &Identity) -> String {
    signing_key_to_hex(identity.signing_public_key())
}

async fn write(client: &mut RpcSocket) -> Result<(), rpc::ErrorCode> {
    let written = client.write("alice", &[framed_entry("E", "", b"")]).await;
    written.map(drop).map_err(|refused| refused.code)
}

async fn msgpack_write(client: &mut Socket) -> Result<(), (ErrorCode, String)> {
    client.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
    client.next_answer().await.map(drop).map_err(|refusal| (refusal.code, refusal.message))
}

#[tokio::test]
async fn a_signing_key_that_is_not_pinned_is_logged_once_with_the_command_that_pins_it() {
    let server = Logged::start(&format!("[auth]\nmode = \"grants\"\n{ASSIGN}{GRANT}"));
    let alice = identity("alice");
    for _ in 0..3 {
        let mut client = RpcSocket::connect(&server.url().replace("/eventlog", "/rpc")).await;
        client.authenticate(&alice).await.expect_err("refused");
    }
    let command = format!("eventlog-server keys pin alice {}", signing_key(&alice));
    let log = server.log();
    assert_eq!(
        log.lines().filter(|line| line.contains(" WARN ") && line.contains(&command)).count(),
        1,
        "{log}"
    );
}

/// A stranger said Hello and authenticated as alice before she did: his key was bound, he had her grant, and she was
/// Forbidden for good.
#[tokio::test]
async fn with_grants_a_stranger_takes_no_key_and_an_administrator_frees_one() {
    let (serve, _directory) = serve("", "mode = \"grants\"", GRANT);
    let (alice, stranger) = (identity("alice"), identity_with("alice", 9));
    let mut client = RpcSocket::connect(&rpc_url(&serve)).await;
    for identity in [&stranger, &alice] {
        let refused = client.authenticate(identity).await.expect_err("refused");
        assert_eq!(refused.code, rpc::ErrorCode::Unauthorized);
        assert!(refused.message.starts_with("pinned: "), "{}", refused.message);
        assert!(refused.message.contains(&signing_key(identity)), "{}", refused.message);
    }
    assert!(keys(&serve, &["show", "alice"]).failed(1).contains("no signing key"));
    // The wrong one is pinned by mistake: its use ends when that is corrected.
    keys(&serve, &["pin", "alice", &signing_key(&stranger)]).ok();
    client.authenticate(&stranger).await.expect("authenticated");
    assert_eq!(write(&mut client).await, Ok(()));
    let pinned = keys(&serve, &["pin", "alice", &signing_key(&alice)]).ok();
    assert_eq!(pinned, format!("alice  {}\n", signing_key(&alice)));
    assert_eq!(write(&mut client).await, Err(rpc::ErrorCode::Forbidden));
    let mut hers = RpcSocket::connect(&rpc_url(&serve)).await;
    let refused = hers.authenticate(&stranger).await.expect_err("refused");
    assert_eq!(refused.code, rpc::ErrorCode::Forbidden);
    hers.authenticate(&alice).await.expect("authenticated");
    assert_eq!(write(&mut hers).await, Ok(()));
    assert_eq!(keys(&serve, &["show", "alice"]).ok(), pinned);
    keys(&serve, &["unpin", "alice"]).ok();
    assert_eq!(write(&mut hers).await, Err(rpc::ErrorCode::Forbidden));
    assert!(keys(&serve, &["pin", "alice", "0f"]).failed(1).contains("64 hexadecimal"));
}

#[tokio::test]
async fn a_grant_or_an_assignment_carries_the_signing_key() {
    let hex = signing_key(&identity("alice"));
    let pinned = format!("{GRANT}signing_key = \"{hex}\"\n");
    let (serve, _directory) = serve("", "mode = \"grants\"", &pinned);
    let mut client = RpcSocket::connect(&rpc_url(&serve)).await;
    let stranger = client.authenticate(&identity_with("alice", 9)).await.expect_err("refused");
    assert_eq!(stranger.code, rpc::ErrorCode::Forbidden);
    client.authenticate(&identity("alice")).await.expect("authenticated");
    assert_eq!(write(&mut client).await, Ok(()));
}

#[tokio::test]
async fn first_use_is_there_for_who_asks_for_it() {
    let (serve, _directory) = serve("", "mode = \"grants\"\nbind = \"first-use\"", GRANT);
    let mut client = RpcSocket::connect(&rpc_url(&serve)).await;
    client.authenticate(&identity("alice")).await.expect("authenticated");
    assert_eq!(write(&mut client).await, Ok(()));
}

#[tokio::test]
async fn a_key_that_was_proved_needs_its_proof_everywhere_unless_configured_otherwise() {
    for keep_proof in [true, false] {
        let auth = format!("mode = \"allow-all\"\nkeep_proof = {keep_proof}");
        let (serve, _directory) = serve("", &auth, "");
        let mut before = Socket::connect(&serve.url).await;
        assert_eq!(msgpack_write(&mut before).await, Ok(()));
        before.subscribe(&key("alice"), 0).await;
        before.next_entries(1).await;
        let mut client = RpcSocket::connect(&rpc_url(&serve)).await;
        client.authenticate(&identity("alice")).await.expect("authenticated");
        let mut after = Socket::connect(&serve.url).await;
        if !keep_proof {
            assert_eq!(msgpack_write(&mut after).await, Ok(()));
            continue;
        }
        // What was subscribed without a proof ends too.
        assert_eq!(before.next_refusal().await.request_tag, "RequestChanges");
        for unproved in [&mut before, &mut after] {
            let (code, message) = msgpack_write(unproved).await.expect_err("refused");
            assert_eq!((code, message.starts_with("proof: ")), (ErrorCode::Unauthorized, true));
            unproved.subscribe(&key("alice"), 0).await;
            assert_eq!(unproved.next_refusal().await.code, ErrorCode::Unauthorized);
        }
        assert_eq!(write(&mut client).await, Ok(()));
    }
}

#[tokio::test]
async fn only_the_paths_of_the_configuration_are_served() {
    let (serve, _directory) = serve("paths = [\"/rpc\"]", "mode = \"allow-all\"", "");
    let address = serve.url.trim_start_matches("ws://").trim_end_matches("/rpc").to_owned();
    let status = Socket::refused_status(&format!("ws://{address}/eventlog"), &[]).await;
    assert_eq!(status, 404);
    let mut client = RpcSocket::connect(&format!("ws://{address}/rpc")).await;
    client.authenticate(&identity("alice")).await.expect("authenticated");
}

#[test]
fn identity_show_prints_what_to_pin() {
    let (serve, directory) = serve("", "mode = \"grants\"", GRANT);
    let file = directory.path().join("alice.json");
    let write = ["write", "--key", "alice", "--protocol", "rpc", "--identity", data(&file)];
    let write = [&write[..], &["--event", "E", "--payload", "1"]].concat();
    assert!(serve.run(&write).failed(1).contains("pinned"));
    assert!(Path::exists(&file));
    let shown = run(&["identity", "show", data(&file)]).ok();
    let shown: Vec<&str> = shown.split_whitespace().collect();
    keys(&serve, &[&["pin"], &shown[..]].concat()).ok();
    assert_eq!(serve.run(&write).ok(), "1\n");
}
