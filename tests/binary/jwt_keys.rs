//! The keys that tokens are signed with: how they change, where they come from, and which cannot work.

use std::path::Path;
use std::time::Duration;

use tempfile::tempdir;

use super::jwt::{Jwt, alice, write};
use super::process::{data, run};
use crate::support::jwt::{Answer, KeyServer, RSA_PUBLIC, SECRET, jwks, signed};
use crate::support::socket::Socket;

#[tokio::test]
async fn keys_are_changed_without_cutting_anybody_off() {
    let login = KeyServer::start(jwks(&["rsa"])).await;
    let server = Jwt::start(&format!("jwks_url = {:?}", login.url));
    let mut live = server.connect(&signed("RS256", Some("rsa"), &alice())).await;
    assert_eq!(write(&mut live, "alice", "E").await, Ok(1));
    // It signs with another key now, and has withdrawn the first one.
    login.answers(Answer::Body(200, jwks(&["p256"])));
    let mut next = server.connect(&signed("ES256", Some("p256"), &alice())).await;
    assert_eq!(write(&mut next, "alice", "E").await, Ok(2));
    assert_eq!(write(&mut live, "alice", "E").await, Ok(3));
    let said = server.refusal(&signed("RS256", Some("rsa"), &alice())).await;
    assert!(said.contains("no key"), "{said}");
    assert_eq!(login.asked(), 2);
}

#[tokio::test]
async fn keys_that_are_not_known_are_fetched_once_for_all_callers() {
    let login = KeyServer::start(jwks(&["rsa"])).await;
    let server = Jwt::start(&format!("jwks_url = {:?}", login.url));
    server.connect(&signed("RS256", Some("rsa"), &alice())).await;
    let tokens: Vec<String> = (0..20)
        .map(|number| signed("EdDSA", Some(&format!("made up {number}")), &alice()))
        .collect();
    let refused = tokens.iter().map(|token| server.refusal(token));
    futures_util::future::join_all(refused).await;
    assert_eq!(login.asked(), 2, "at the start, and for the first of them");
    // A forged token that names a known key is no reason to fetch keys.
    server.refusal(&format!("{}A", signed("RS256", Some("rsa"), &alice()))).await;
    assert_eq!(login.asked(), 2);
}

#[tokio::test]
async fn the_last_keys_count_while_there_are_no_others() {
    for answer in [
        Answer::Body(500, String::new()),
        Answer::Body(200, "<html>".to_owned()),
        Answer::Body(200, format!("{}{}", jwks(&["ed25519"]), " ".repeat(300 * 1_024))),
        Answer::Body(302, jwks(&["ed25519"])),
        Answer::Body(200, jwks(&[])),
        Answer::Hang,
    ] {
        let login = KeyServer::start(jwks(&["rsa"])).await;
        let server = Jwt::start(&format!("jwks_url = \"{}?key=CANARY-URL\"", login.url));
        server.connect(&signed("RS256", Some("rsa"), &alice())).await;
        login.answers(answer);
        server.refusal(&signed("EdDSA", Some("ed25519"), &alice())).await;
        assert!(login.asked() >= 2);
        server.connect(&signed("RS256", Some("rsa"), &alice())).await;
        let log = server.log();
        assert!(log.contains("/jwks.json: ") && log.contains("the known keys stay"), "{log}");
        assert!(!log.contains("CANARY"), "{log}");
    }
}

#[tokio::test]
async fn a_login_server_that_is_not_there_yet_is_asked_again() {
    let login = KeyServer::start(String::new()).await;
    login.answers(Answer::Body(503, String::new()));
    let server = Jwt::start(&format!("jwks_url = {:?}", login.url));
    let token = signed("RS256", Some("rsa"), &alice());
    server.refusal(&token).await;
    login.answers(Answer::Body(200, jwks(&["rsa"])));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while Socket::try_connect(&server.with_token(&token)).await.is_none() {
        assert!(tokio::time::Instant::now() < deadline, "it never asks again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn keys_that_cannot_work_are_a_wrong_configuration() {
    let directory = tempdir().expect("a directory");
    let config = directory.path().join("eventlog.toml");
    let files = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        data(&path).to_owned()
    };
    let no_key = files("no-key.pem", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n");
    let no_set = files("no-set.json", "{}");
    let rsa = files("rsa.pem", RSA_PUBLIC);
    for (settings, word) in [
        (String::new(), "no key"),
        ("secret = \"short\"".to_owned(), "32 bytes"),
        (format!("secret = [\"{SECRET}\", \"short\"]"), "32 bytes"),
        (format!("secret = \"{SECRET}\"\nalgorithms = [\"HS256\", \"ES256\"]"), "ES256"),
        (format!("secret = \"{SECRET}\"\nalgorithms = \"none\""), "none"),
        (
            format!("secret = \"{SECRET}\"\npublic_key_file = {rsa:?}\nalgorithms = \"RS256\""),
            "HS256",
        ),
        (format!("public_key_file = {no_key:?}"), "BEGIN PUBLIC KEY"),
        ("public_key_file = \"/no/such/file\"".to_owned(), "/no/such/file"),
        (format!("jwks_file = {no_set:?}"), "JSON Web Key Set"),
        ("jwks_url = \"http://login.example/keys\"".to_owned(), "https"),
        (format!("secret = \"{SECRET}\"\ntokens = []"), "token"),
    ] {
        let file = format!("[auth]\nmode = \"jwt\"\n[auth.jwt]\n{settings}");
        std::fs::write(&config, file).expect("written");
        let store = directory.path().join("data");
        let arguments = ["serve", "--config", data(&config), "--data-dir", data(&store)];
        let complaint = run(&arguments).failed(1);
        assert!(complaint.contains(word) && !complaint.contains(SECRET), "{settings}: {complaint}");
        assert!(!Path::exists(&store), "nothing is left behind");
        let checked = run(&["config", "check", "--config", data(&config)]);
        assert_eq!((checked.code, checked.err.contains(word)), (Some(1), true), "{settings}");
    }
}
