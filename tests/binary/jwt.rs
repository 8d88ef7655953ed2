//! `[auth] mode = "jwt"`: tokens, good and bad, against the binary.

use eventlog_server::protocol::msgpack::ErrorCode;
use eventlog_server::protocol::rpc::{self, Identity};
use eventlog_server::services::identities::signing_key_to_hex;
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio_tungstenite::tungstenite::Message;

use super::logged::{ADMIN, Logged};
use super::process::data;
use crate::support::jwt::{RSA_PUBLIC, SECRET, claims, in_seconds, signed, token, token_by, with};
use crate::support::rpc::{DEFAULT, RpcSocket, framed_entry, identity, identity_with};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

/// A server with this in `[auth.jwt]`.
pub(super) struct Jwt(Logged);

impl std::ops::Deref for Jwt {
    type Target = Logged;

    fn deref(&self) -> &Logged {
        &self.0
    }
}

impl Jwt {
    pub(super) fn start(settings: &str) -> Self {
        Self::with("", settings)
    }

    pub(super) fn with(rest: &str, settings: &str) -> Self {
        Self(Logged::start(&format!(
            "{rest}\nadmin.token = \"{ADMIN}\"\nauth.mode = \"jwt\"\n[auth.jwt]\nleeway = \"0s\"\n{settings}"
        )))
    }

    pub(super) fn with_token(&self, token: &str) -> String {
        format!("{}?access_token={token}", self.url())
    }

    fn rpc(&self, token: &str) -> String {
        format!("ws://{}/rpc?access_token={token}", self.serve().address())
    }

    pub(super) async fn connect(&self, token: &str) -> Socket {
        Socket::connect(&self.with_token(token)).await
    }

    /// The answer to somebody with this token who is not let in.
    pub(super) async fn refusal(&self, token: &str) -> String {
        let (status, said) = Socket::refused(&self.with_token(token), &[]).await;
        assert_eq!(status, 401, "{said}");
        assert!(!said.contains(token), "{said}");
        said
    }
}

fn with_secret() -> Jwt {
    Jwt::start(&format!("secret = \"{SECRET}\""))
}

/// The claims of somebody who is alice, in the store `team`.
pub(super) fn alice() -> Value {
    with(claims(&["alice"]), "store_id", json!("team"))
}

/// Writes one entry, and returns its sequence or why not.
pub(super) async fn write(
    client: &mut Socket,
    name: &str,
    event: &str,
) -> Result<u64, (ErrorCode, String)> {
    client.write(&key(name), 1, &batch(&[entry(event, "", b"")])).await;
    match client.next_answer().await {
        Ok((_, sequences)) => Ok(sequences[0]),
        Err(refusal) => Err((refusal.code, refusal.message)),
    }
}

#[tokio::test]
async fn a_token_travels_where_it_is_allowed_to() {
    let tokens = r#"["authorization", "cookie:session", "query", "subprotocol"]"#;
    let server = Jwt::start(&format!("secret = \"{SECRET}\"\ntokens = {tokens}"));
    let token = token(&alice());
    let bearer = format!("Bearer {token}");
    let cookie = format!("theme=dark; session={token}");
    let offered = format!("eventlog, bearer.{token}");
    let url = server.url();
    let mut sequence = 0;
    for (url, header) in [
        (url.to_owned(), Some(("Authorization", &bearer))),
        (url.to_owned(), Some(("Cookie", &cookie))),
        (server.with_token(&token), None),
        (url.to_owned(), Some(("Sec-WebSocket-Protocol", &offered))),
    ] {
        let headers = header.map(|(name, value)| (name, &**value));
        let mut client = Socket::connect_with(&url, headers.as_slice()).await;
        client.next().await;
        sequence += 1;
        assert_eq!(write(&mut client, "alice", "E").await, Ok(sequence), "{header:?}");
    }
    let by_default = with_secret();
    for (name, value) in [("Cookie", &cookie), ("Sec-WebSocket-Protocol", &offered)] {
        let (status, said) = Socket::refused(by_default.url(), &[(name, value)]).await;
        assert_eq!((status, said.starts_with("no-token: ")), (401, true), "{said}");
    }
    // Neither they, nor anything that could be used instead, appear in any line of the log.
    by_default.connect(&token).await;
    by_default.refusal(&format!("{token}x")).await;
    let secrets = token.split('.').chain([SECRET, ADMIN]);
    for secret in secrets.filter(|part| part.len() > 20 || *part == ADMIN) {
        for server in [&server, &by_default] {
            let log = server.log();
            assert!(log.contains("DEBUG") && !log.contains(secret), "{secret} in\n{log}");
        }
    }
}

#[tokio::test]
async fn tokens_that_are_no_good_get_401_and_their_reason() {
    let directory = tempdir().expect("a directory");
    let rsa = directory.path().join("rsa.pem");
    std::fs::write(&rsa, RSA_PUBLIC).expect("written");
    let server = Jwt::start(&format!(
        "secret = [{{ kid = \"one\", secret = \"{SECRET}\" }}]\npublic_key_file = {:?}\n\
         audience = \"sync\"\nissuer = \"login\"",
        data(&rsa)
    ));
    let good = with(with(alice(), "aud", json!("sync")), "iss", json!("login"));
    let secret = SECRET.as_bytes();
    server.connect(&token(&good)).await;
    server.connect(&signed("RS256", None, &good)).await;
    let forged = {
        let (signed, _) =
            token(&good).rsplit_once('.').map(|(a, b)| (a.to_owned(), b.len())).expect("a token");
        format!("{signed}.AAAA")
    };
    let unsigned =
        format!("{}.", token_by("none", None, &good, secret).rsplit_once('.').expect("a token").0);
    for (what, token, reason) in [
        ("expired", token(&with(good.clone(), "exp", json!(in_seconds(-1)))), "expired: "),
        ("never expires", token(&with(good.clone(), "exp", Value::Null)), "invalid-token: "),
        (
            "elsewhere",
            token(&with(good.clone(), "aud", json!("other"))),
            "invalid-token: the claim \"aud\"",
        ),
        (
            "of a stranger",
            token(&with(good.clone(), "iss", json!("x"))),
            "invalid-token: the claim \"iss\"",
        ),
        ("forged", forged, "invalid-token: the signature"),
        (
            "another secret",
            token_by("HS256", Some("one"), &good, &[7; 32]),
            "invalid-token: the signature",
        ),
        ("none", token_by("none", None, &good, secret), "invalid-token: the algorithm"),
        ("none, unsigned", unsigned, "invalid-token: the algorithm"),
        (
            "a public key as a secret",
            token_by("HS256", None, &good, RSA_PUBLIC.as_bytes()),
            "invalid-token: the signature",
        ),
        (
            "a key that is not known",
            token_by("HS256", Some("two"), &good, secret),
            "invalid-token: no key",
        ),
        ("another algorithm", signed("ES256", None, &good), "invalid-token: the algorithm"),
        (
            "a claim of another type",
            token(&with(good.clone(), "write", json!("yes"))),
            "invalid-token: the claim \"write\"",
        ),
        (
            "no list",
            token(&with(good.clone(), "public_keys", json!("alice"))),
            "invalid-token: the claim \"public_keys\"",
        ),
        ("nonsense", "nonsense".to_owned(), "invalid-token: "),
    ] {
        let said = server.refusal(&token).await;
        assert!(said.starts_with(reason), "{what}: {said}");
    }
    let (status, said) = Socket::refused(server.url(), &[]).await;
    assert_eq!(status, 401);
    assert!(said.starts_with("no-token: ") && said.contains("access_token"), "{said}");
    assert!(server.log().contains("is not let in"));
    assert_eq!(server.keys(&["list"]).ok(), "", "nobody was assigned anything");
}

#[tokio::test]
async fn a_token_says_what_may_be_done_with_which_keys() {
    let server = with_secret();
    let mut claims = with(claims(&["alice", "alice-*"]), "store_id", json!("team"));
    let mut client = server.connect(&token(&claims)).await;
    assert_eq!(write(&mut client, "alice", "Todo").await, Ok(1));
    assert_eq!(write(&mut client, "alice-phone", "Todo").await, Ok(2));
    let refused = write(&mut client, "bob", "Todo").await.expect_err("refused");
    assert_eq!(refused.0, ErrorCode::Unauthorized);
    client.subscribe(&key("bob"), 0).await;
    assert_eq!(client.next_refusal().await.code, ErrorCode::Unauthorized);
    claims["events"] = json!(["Todo*"]);
    let mut client = server.connect(&token(&claims)).await;
    assert_eq!(write(&mut client, "alice", "TodoAdded").await, Ok(3));
    let (code, message) = write(&mut client, "alice", "Note").await.expect_err("refused");
    assert_eq!(code, ErrorCode::Unauthorized);
    assert!(message.contains("entry 0"), "{message}");
    claims["read"] = json!(false);
    let mut client = server.connect(&token(&claims)).await;
    client.subscribe(&key("alice"), 0).await;
    assert_eq!(client.next_refusal().await.code, ErrorCode::Unauthorized);
    claims["read"] = json!(true);
    claims["write"] = json!(false);
    let mut client = server.connect(&token(&claims)).await;
    assert!(write(&mut client, "alice", "Todo").await.is_err());
    client.subscribe(&key("alice"), 0).await;
    assert_eq!(client.next_entries(3).await.len(), 3);
    let mut nobody = server.connect(&token(&with(claims, "public_keys", Value::Null))).await;
    assert!(write(&mut nobody, "alice", "Todo").await.is_err());
    assert!(server.keys(&["list"]).ok().lines().all(|line| !line.contains("bob")));
}

#[tokio::test]
async fn a_signed_claim_assigns_a_store_for_good_and_never_another() {
    let mut server = with_secret();
    let alices = token(&alice());
    let mut client = server.connect(&alices).await;
    assert_eq!(server.keys(&["list"]).ok(), "", "connecting assigns nothing");
    assert_eq!(write(&mut client, "alice", "E").await, Ok(1));
    assert!(
        server
            .log()
            .contains("action=assign key=\"alice\" store=\"team\" by=claim subject=\"user-1\"")
    );
    server.0.restart();
    assert!(server.keys(&["list"]).ok().contains("team"));
    // For a token that says nothing about a store, the registry decides.
    let mut client = server.connect(&token(&claims(&["alice"]))).await;
    assert_eq!(write(&mut client, "alice", "E").await, Ok(2));
    let mut reader = server.connect(&alices).await;
    reader.subscribe(&key("alice"), 0).await;
    assert_eq!(reader.next_entries(2).await.len(), 2);
    let other = token(&with(claims(&["alice"]), "store_id", json!("den")));
    let mut client = server.connect(&other).await;
    let (code, message) = write(&mut client, "alice", "E").await.expect_err("refused");
    assert_eq!((code, message.starts_with("moved: ")), (ErrorCode::InvalidRequest, true));
    client.subscribe(&key("alice"), 0).await;
    assert_eq!(client.next_refusal().await.code, ErrorCode::InvalidRequest);
    // However often that happens, the log says it once a second.
    for _ in 0..50 {
        client.subscribe(&key("alice"), 0).await;
        assert_eq!(client.next_refusal().await.code, ErrorCode::InvalidRequest);
    }
    let lines = server.log().matches("names another store").count();
    assert!((1..20).contains(&lines), "{lines}");
    // That token does not affect anybody with a right one.
    let mut writer = server.connect(&alices).await;
    assert_eq!(write(&mut writer, "alice", "E").await, Ok(3));
    assert_eq!(reader.next_entries(1).await.len(), 1);
    // What an administrator has taken away, a token does not restore.
    server.keys(&["remove", "alice"]).ok();
    let mut client = server.connect(&alices).await;
    let (code, message) = write(&mut client, "alice", "E").await.expect_err("refused");
    assert_eq!((code, message.contains("not mapped")), (ErrorCode::InvalidRequest, true));
    server.0.restart();
    let mut client = server.connect(&alices).await;
    assert!(write(&mut client, "alice", "E").await.is_err());
    server.keys(&["assign", "alice", "team"]).ok();
    assert_eq!(write(&mut client, "alice", "E").await, Ok(4));
}

/// Each of them found that it had no store yet, gave it one, and said so.
#[tokio::test]
async fn a_key_that_comes_from_many_devices_at_once_is_assigned_by_one_of_them() {
    let server = with_secret();
    let all = token(&with(claims(&["*"]), "store_id", json!("team")));
    let devices = (0..8).map(|_| {
        let url = server.with_token(&all);
        tokio::spawn(async move {
            let mut client = Socket::connect(&url).await;
            for n in 0..20 {
                write(&mut client, &format!("key {n}"), "E").await.expect("written");
            }
        })
    });
    for device in devices.collect::<Vec<_>>() {
        device.await.expect("it ends");
    }
    let audit = server.audit();
    let assigned = audit.iter().filter(|line| line.starts_with("action=assign ")).count();
    assert_eq!(assigned, 20, "{audit:?}");
}

/// A key that was never used is recorded at its removal too.
#[tokio::test]
async fn a_key_that_was_removed_before_its_first_use_is_not_assigned_by_a_token() {
    let server = with_secret();
    server.keys(&["assign", "alice", "team"]).ok();
    server.keys(&["remove", "alice"]).ok();
    let mut client = server.connect(&token(&alice())).await;
    assert!(write(&mut client, "alice", "E").await.is_err());
}

#[tokio::test]
async fn a_user_of_two_teams_has_a_key_in_each() {
    let server = with_secret();
    let stores = json!({ "ann-den": "den", "ann-team": "team" });
    let both = with(claims(&["ann-*"]), "store_id", stores);
    let mut client = server.connect(&token(&both)).await;
    assert_eq!(write(&mut client, "ann-den", "E").await, Ok(1));
    assert_eq!(write(&mut client, "ann-team", "E").await, Ok(1));
    let listed = server.keys(&["list", "--json"]).ok();
    assert!(listed.contains("den") && listed.contains("team"), "{listed}");
    let refused = write(&mut client, "ann-other", "E").await.expect_err("refused");
    assert!(refused.1.contains("not mapped"), "{refused:?}");
}

#[tokio::test]
async fn a_session_ends_when_its_token_does() {
    let server = with_secret();
    let short = token(&with(alice(), "exp", json!(in_seconds(5))));
    let mut client = server.connect(&short).await;
    assert_eq!(write(&mut client, "alice", "E").await, Ok(1));
    client.subscribe(&key("alice"), 0).await;
    client.next_entries(1).await;
    let mut rpc = RpcSocket::connect(&server.rpc(&short)).await;
    for socket in [&mut client, &mut rpc.socket] {
        match socket.next_message().await {
            Some(Message::Close(Some(frame))) => {
                assert_eq!(u16::from(frame.code), 1_008);
                assert!(frame.reason.starts_with("expired: "), "{}", frame.reason);
            }
            other => panic!("expected a close frame, got {other:?}"),
        }
    }
    assert!(server.refusal(&short).await.starts_with("expired: "));
    let mut client = server.connect(&token(&alice())).await;
    assert_eq!(write(&mut client, "alice", "E").await, Ok(2));
}

#[tokio::test]
async fn nobody_proves_to_be_a_key_that_is_not_in_the_token() {
    let server = with_secret();
    let mallory = token(&with(claims(&["mallory"]), "store_id", json!("team")));
    let mut client = RpcSocket::connect(&server.rpc(&mallory)).await;
    let refused = client.authenticate(&identity("alice")).await.expect_err("refused");
    assert_eq!(refused.code, rpc::ErrorCode::Unauthorized);
    client.authenticate(&identity("mallory")).await.expect("her own");
    // Alice's key is still unclaimed: she binds it with her own signing key.
    let mut client = RpcSocket::connect(&server.rpc(&token(&alice()))).await;
    client.authenticate(&identity("alice")).await.expect("authenticated");
    client.write("alice", &[framed_entry("E", "", b"")]).await.expect("acknowledged");
    client.subscribe("alice", DEFAULT, 0).await;
    client.next().await;
}

#[tokio::test]
async fn a_token_names_the_signing_key_that_may_be_bound() {
    let server = Jwt::with("auth.bind = \"token\"", &format!("secret = \"{SECRET}\""));
    let (own, stolen) = (identity("alice"), identity_with("alice", 9));
    let prove = async |claims: &Value, identity: &Identity| {
        let mut client = RpcSocket::connect(&server.rpc(&token(claims))).await;
        client.authenticate(identity).await.map_err(|refused| (refused.code, refused.message))
    };
    let hex = signing_key_to_hex(own.signing_public_key());
    let unsaid = with(claims(&["alice", "bob"]), "store_id", json!("team"));
    let said = with(unsaid.clone(), "signing_key", json!({ "alice": hex }));
    for (claims, identity) in [(&unsaid, &own), (&said, &stolen), (&said, &identity("bob"))] {
        let (code, message) = prove(claims, identity).await.expect_err("refused");
        assert_eq!(code, rpc::ErrorCode::Unauthorized);
        assert!(message.starts_with("token: "), "{message}");
    }
    prove(&said, &own).await.expect("named");
    // Now it is bound: nothing has to be named any more, and nothing else may be.
    prove(&unsaid, &own).await.expect("bound");
    assert_eq!(prove(&unsaid, &stolen).await.expect_err("refused").0, rpc::ErrorCode::Forbidden);
    let other = signing_key_to_hex(stolen.signing_public_key());
    let other = with(unsaid.clone(), "signing_key", json!(other));
    assert_eq!(prove(&other, &stolen).await.expect_err("bound").0, rpc::ErrorCode::Forbidden);
    let (code, _) = prove(&other, &own).await.expect_err("the token names another");
    assert_eq!(code, rpc::ErrorCode::Unauthorized);
    let nonsense = token(&with(unsaid, "signing_key", json!("0f")));
    let (status, said) = Socket::refused(&server.rpc(&nonsense), &[]).await;
    assert_eq!((status, said.contains("\"signing_key\"")), (401, true), "{said}");
}
