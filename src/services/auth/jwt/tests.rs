//! Foreign tokens (`tests/vectors/jwt`, signed by node), and tokens that are wrong in one way each.

use std::time::UNIX_EPOCH;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde_json::{Value, json};

use super::*;
use crate::services::auth::PerKey;
use crate::testing::{key, store};

const SECRET: &str = "a secret of more than 32 bytes, for tests";
const JWKS: &[u8] = include_bytes!("../../../../tests/vectors/jwt/jwks.json");
const RSA: &str = include_str!("../../../../tests/vectors/jwt/rsa.pub.pem");
const P256: &str = include_str!("../../../../tests/vectors/jwt/p256.pub.pem");
const ED25519: &str = include_str!("../../../../tests/vectors/jwt/ed25519.pub.pem");
const SHORT_RSA: &str = include_str!("../../../../tests/vectors/jwt/rsa-short.pub.pem");

const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

/// The token that node signed with this algorithm.
fn from_node(algorithm: Algorithm) -> String {
    let tokens = include_str!("../../../../tests/vectors/jwt/tokens.json");
    let tokens: Value = serde_json::from_str(tokens).expect("JSON");
    tokens[algorithm.name()].as_str().expect("a token").to_owned()
}

fn sign(header: &Value, payload: &str, secret: &[u8]) -> String {
    let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(payload));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", BASE64.encode(signature))
}

/// A token of somebody who may be alice for a minute, with these claims added or replaced.
fn token(claims: &Value) -> String {
    let mut payload = json!({ "exp": NOW + 60, "public_keys": ["alice"] });
    for (name, value) in claims.as_object().expect("claims") {
        payload[name] = value.clone();
    }
    sign(&json!({ "alg": "HS256" }), &payload.to_string(), SECRET.as_bytes())
}

fn keys(all: &[Key]) -> KeySet {
    let mut keys = KeySet::default();
    all.iter().for_each(|key| keys.add(None, key.clone()));
    keys
}

fn secret(text: &str) -> Key {
    Key::from_secret(text).expect("it is long enough")
}

fn with_secret() -> JwtOptions {
    JwtOptions { keys: keys(&[secret(SECRET)]), ..JwtOptions::default() }
}

fn auth(options: JwtOptions) -> JwtAuth {
    JwtAuth::new(options).expect("it can work")
}

fn caller(target: &str, headers: &[(&str, &str)]) -> Caller {
    let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
    Caller::connected(None, target, headers, None)
}

fn check(auth: &JwtAuth, token: &str) -> Result<Verified, Rejected> {
    let caller = caller(&format!("/rpc?access_token={token}"), &[]);
    auth.check(&caller, now()).now_or_never().expect("nothing is fetched")
}

fn rights_of(claims: &Value) -> Rights {
    let verified = check(&auth(with_secret()), &token(claims)).expect("a good token");
    verified.rights.expect("what it allows")
}

/// The answer to a token that is refused.
fn refusal(auth: &JwtAuth, token: &str) -> String {
    let rejected = check(auth, token).expect_err("refused").to_string();
    assert!(token.is_empty() || !rejected.contains(token), "{rejected}");
    rejected
}

#[test]
fn tokens_that_others_signed_are_good_with_the_right_key_and_with_no_other() {
    let mut jwks = KeySet::default();
    jwks.add_jwks(JWKS).expect("a set");
    let pem = |text| Key::from_pem(text).expect("a key");
    let named = [
        (Algorithm::HS256, secret(SECRET)),
        (Algorithm::RS256, pem(RSA)),
        (Algorithm::ES256, pem(P256)),
        (Algorithm::EdDSA, pem(ED25519)),
    ];
    for (algorithm, key) in &named {
        assert_eq!(key.algorithm(), *algorithm);
        let alone =
            auth(JwtOptions { keys: keys(std::slice::from_ref(key)), ..JwtOptions::default() });
        let verified = check(&alone, &from_node(*algorithm)).expect("a good token");
        assert_eq!(verified.subject.as_deref(), Some("node"));
        assert_eq!(verified.claims["public_keys"], json!(["alice"]));
        for other in Algorithm::ALL.into_iter().filter(|other| other != algorithm) {
            assert!(refusal(&alone, &from_node(other)).contains("algorithm"), "{other}");
        }
    }
    let set = auth(JwtOptions { keys: jwks, ..JwtOptions::default() });
    for (algorithm, _) in &named[1..] {
        check(&set, &from_node(*algorithm)).expect("a good token");
    }
}

#[test]
fn a_public_key_is_no_secret_and_none_is_no_algorithm() {
    let rsa = Key::from_pem(RSA).expect("a key");
    let both = auth(JwtOptions { keys: keys(&[rsa, secret(SECRET)]), ..JwtOptions::default() });
    let payload = json!({ "exp": NOW + 60, "public_keys": ["*"] }).to_string();
    for confused in [RSA.as_bytes(), RSA.trim_end().as_bytes(), b""] {
        let forged = sign(&json!({ "alg": "HS256" }), &payload, confused);
        assert!(refusal(&both, &forged).contains("signature"));
    }
    for alg in ["none", "None", "NONE", "", "HS512", "RS512", "hs256"] {
        let header = json!({ "alg": alg });
        assert!(refusal(&both, &sign(&header, &payload, SECRET.as_bytes())).contains("algorithm"));
        let unsigned =
            format!("{}.{}.", BASE64.encode(header.to_string()), BASE64.encode(&payload));
        assert!(refusal(&both, &unsigned).starts_with("invalid-token: "));
    }
}

#[test]
fn a_changed_token_is_forged() {
    for algorithm in Algorithm::ALL {
        let token = from_node(algorithm);
        let mut set = keys(&[secret(SECRET)]);
        set.add_jwks(JWKS).expect("a set");
        let auth = auth(JwtOptions { keys: set, ..JwtOptions::default() });
        let (signed, signature) = token.rsplit_once('.').expect("a token");
        let (header, _) = signed.split_once('.').expect("a token");
        let other = BASE64.encode(json!({ "exp": NOW + 60, "public_keys": ["*"] }).to_string());
        assert!(refusal(&auth, &format!("{header}.{other}.{signature}")).contains("signature"));
        let zeroes = BASE64.encode(vec![0; BASE64.decode(signature).expect("base64").len()]);
        assert!(refusal(&auth, &format!("{signed}.{zeroes}")).contains("signature"));
        assert!(refusal(&auth, &format!("{signed}.")).contains("signature"));
    }
}

#[test]
fn what_is_no_token_is_refused_in_words() {
    let auth = auth(with_secret());
    for text in ["x", "..", "a.b.c", "e30.e30.e30", "....", "eyJhbGciOjF9.e30.", "é.é.é"] {
        assert!(refusal(&auth, text).contains("HEADER.PAYLOAD.SIGNATURE"), "{text}");
    }
    assert!(refusal(&auth, "").starts_with("no-token: "));
    for critical in [json!(["b64"]), json!([]), json!(null)] {
        let header = json!({ "alg": "HS256", "crit": critical, "b64": false });
        let said = refusal(&auth, &sign(&header, "{}", SECRET.as_bytes()));
        assert!(said.contains("critical"), "{critical}: {said}");
    }
    for payload in ["", "[]", "7", "{"] {
        let token = sign(&json!({ "alg": "HS256" }), payload, SECRET.as_bytes());
        assert!(refusal(&auth, &token).contains("JSON object"), "{payload}");
    }
}

#[test]
fn a_key_is_chosen_by_its_name() {
    let [one, two, third] = ["1", "2", "3"].map(|digit| digit.repeat(32));
    let mut set = KeySet::default();
    set.add(Some("one"), secret(&one));
    set.add(Some("two"), secret(&two));
    set.add(None, secret(&third));
    let auth = auth(JwtOptions { keys: set, ..JwtOptions::default() });
    let signed = |kid: Value, by: &str| {
        let header = json!({ "alg": "HS256", "kid": kid });
        check(&auth, &sign(&header, &json!({ "exp": NOW + 1 }).to_string(), by.as_bytes()))
    };
    for (kid, by, is_good) in [
        (json!("one"), &one, true),
        (json!("one"), &two, false),
        (json!("one"), &third, false),
        (json!("other"), &one, false),
        (json!("other"), &third, true),
        (Value::Null, &two, true),
    ] {
        assert_eq!(signed(kid.clone(), by).is_ok(), is_good, "{kid} signed by {by}");
    }
}

#[test]
fn a_token_says_until_when_it_is_good() {
    let auth = auth(with_secret());
    let until = |exp: Value| check(&auth, &token(&json!({ "exp": exp })));
    let verified = until(json!(NOW + 1)).expect("a good token");
    assert_eq!(verified.expires, Some(now() + Duration::from_secs(6)), "and the leeway");
    assert!(until(json!(NOW - 4)).is_ok() && until(json!(NOW as f64 - 4.5)).is_ok());
    assert!(until(json!(NOW - 5)).expect_err("refused").reason == "expired");
    for wrong in [Value::Null, json!("1900000000"), json!(-1), json!(1e300), json!(true)] {
        assert_eq!(until(wrong.clone()).expect_err("refused").reason, "invalid-token", "{wrong}");
    }
    assert!(check(&auth, &token(&json!({ "nbf": NOW + 5 }))).is_ok());
    assert!(check(&auth, &token(&json!({ "nbf": NOW + 6 }))).is_err());
}

#[test]
fn a_token_is_for_here_and_from_whom_it_should_be() {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let strict = auth(JwtOptions {
        issuers: texts(&["https://login.example"]),
        audiences: texts(&["sync", "sync-2"]),
        ..with_secret()
    });
    let good = json!({ "iss": "https://login.example", "aud": ["other", "sync"] });
    assert!(check(&strict, &token(&good)).is_ok());
    assert!(check(&strict, &token(&json!({ "iss": good["iss"], "aud": "sync-2" }))).is_ok());
    for wrong in [
        json!({ "iss": good["iss"] }),
        json!({ "iss": good["iss"], "aud": "elsewhere" }),
        json!({ "iss": good["iss"], "aud": [] }),
        json!({ "iss": good["iss"], "aud": 7 }),
        json!({ "aud": "sync" }),
        json!({ "iss": "https://evil.example", "aud": "sync" }),
        json!({ "iss": ["https://login.example"], "aud": "sync" }),
    ] {
        assert!(check(&strict, &token(&wrong)).is_err(), "{wrong}");
    }
    let open = auth(with_secret());
    assert!(check(&open, &token(&json!({ "iss": "anybody" }))).is_ok());
    let said = refusal(&open, &token(&json!({ "aud": "elsewhere" })));
    assert!(said.contains("\"aud\"") && said.contains("no audience is configured"), "{said}");
}

#[test]
fn what_is_not_said_is_what_the_documentation_says() {
    let nothing = rights_of(&json!({ "public_keys": null }));
    let Rights { keys, stores, signing_keys, read, write, events } = nothing;
    assert_eq!(signing_keys, PerKey::Unsaid);
    assert_eq!((keys.len(), stores, read, write, events), (0, PerKey::Unsaid, true, true, None));
}

#[test]
fn claims_say_what_is_allowed() {
    let rights = rights_of(&json!({
        "public_keys": ["alice", "alice-*"], "store_id": "team", "read": true, "write": false,
        "events": ["Todo*"], "sub": "u1", "jti": "t1",
    }));
    assert_eq!(rights.keys, ["alice".into(), "alice-*".into()]);
    assert_eq!(rights.stores, PerKey::One(store("team")));
    assert_eq!((rights.read, rights.write), (true, false));
    assert_eq!(rights.events, Some(vec!["Todo*".into()]));
    let each = rights_of(&json!({ "store_id": { "alice": "den", "bob": "team" } }));
    assert_eq!(each.stores.of(&key("bob")), Some(&store("team")));
}

/// For an `Auth` of an application, which asks this one and knows more claims.
#[test]
fn all_that_a_token_claims_is_there_for_the_application() {
    let said = json!({ "sub": "u1", "plan": { "seats": 5 }, "public_keys": ["alice"] });
    let verified = check(&auth(with_secret()), &token(&said)).expect("it is good");
    assert_eq!(verified.claims["plan"]["seats"], 5);
    assert_eq!((&verified.claims["sub"], verified.subject.as_deref()), (&json!("u1"), Some("u1")));
}

#[test]
fn a_claim_of_another_type_refuses_the_token() {
    let auth = auth(with_secret());
    for wrong in [
        json!({ "public_keys": "alice" }),
        json!({ "public_keys": ["alice", 7] }),
        json!({ "public_keys": { "alice": true } }),
        json!({ "store_id": 7 }),
        json!({ "store_id": ["team"] }),
        json!({ "store_id": "" }),
        json!({ "store_id": { "alice": 7 } }),
        json!({ "store_id": { "": "team" } }),
        json!({ "read": "false" }),
        json!({ "write": 0 }),
        json!({ "events": "Todo" }),
        json!({ "sub": 7 }),
        json!({ "jti": [] }),
        json!({ "nbf": "soon" }),
    ] {
        let name = wrong.as_object().and_then(|claims| claims.keys().next()).expect("a claim");
        assert!(refusal(&auth, &token(&wrong)).contains(&format!("{name:?}")), "{wrong}");
    }
}

#[test]
fn claims_have_the_names_and_places_that_are_configured() {
    let claims = ClaimNames {
        public_keys: "https://app.example/keys".to_owned(),
        store_id: "/app/store".to_owned(),
        ..ClaimNames::default()
    };
    let auth = auth(JwtOptions { claims, ..with_secret() });
    let named = json!({ "https://app.example/keys": ["bob"], "app": { "store": "team" } });
    let verified = check(&auth, &token(&named)).expect("a good token");
    let rights = verified.rights.expect("what it allows");
    assert_eq!(rights.keys, ["bob".into()]);
    assert_eq!(rights.stores, PerKey::One(store("team")));
}

#[test]
fn a_token_is_looked_for_where_it_may_stand_and_nowhere_else() {
    let token = token(&json!({}));
    let bearer = format!("bearer {token}");
    let cookie = format!("theme=dark; session={token}");
    let offered = format!("eventlog, bearer.{token}");
    let path = format!("/rpc?a=b&access_token={token}&c=d");
    let places = [
        ("authorization", caller("/rpc", &[("authorization", &bearer)])),
        ("cookie:session", caller("/rpc", &[("cookie", "a=b"), ("cookie", &cookie)])),
        ("query", caller(&path, &[])),
        ("subprotocol", caller("/rpc", &[("sec-websocket-protocol", &offered)])),
    ];
    for (allowed, _) in &places {
        let source: TokenSource = allowed.parse().expect("a place");
        let auth = auth(JwtOptions { tokens: vec![source], ..with_secret() });
        for (place, caller) in &places {
            let found = auth.check(caller, now()).now_or_never().expect("nothing is fetched");
            assert_eq!(found.is_ok(), place == allowed, "{place} where {allowed} is allowed");
        }
    }
    for wrong in
        ["", "header", "cookie", "cookie:", "Query", "cookie: a", "cookie:a;b", "cookie:a=b"]
    {
        assert!(wrong.parse::<TokenSource>().is_err(), "{wrong}");
    }
}

#[test]
fn options_that_cannot_work_are_refused() {
    let refused = |options: JwtOptions| JwtAuth::new(options).err();
    let url = |url: &str| JwtOptions { jwks_url: Some(url.to_owned()), ..JwtOptions::default() };
    assert_eq!(refused(JwtOptions::default()), Some(JwtError::NoKey));
    let algorithms = vec![Algorithm::HS256, Algorithm::RS256];
    let without = refused(JwtOptions { algorithms, ..with_secret() });
    assert_eq!(without, Some(JwtError::NoKeyFor(Algorithm::RS256)));
    let (algorithms, rsa) = (vec![Algorithm::RS256], Key::from_pem(RSA).expect("a key"));
    let unused =
        JwtOptions { algorithms, keys: keys(&[rsa, secret(SECRET)]), ..JwtOptions::default() };
    assert_eq!(refused(unused), Some(JwtError::UnusedKey(Algorithm::HS256)));
    let algorithms = vec![Algorithm::HS256];
    let of_a_url = JwtOptions { algorithms, ..url("https://login.example/keys") };
    assert_eq!(refused(of_a_url), Some(JwtError::NoKeyFor(Algorithm::HS256)), "sets are public");
    assert_eq!(refused(JwtOptions { tokens: vec![], ..with_secret() }), Some(JwtError::NoSource));
    assert_eq!(JwtOptions { tokens: vec![], ..with_secret() }.check(), Err(JwtError::NoSource));
    assert!(matches!(url("http://login.example/").check(), Err(JwtError::Url(_))));
    assert_eq!(with_secret().check(), Ok(vec![Algorithm::HS256]));
    for wrong in ["", "keys", "ftp://x/", "http://login.example/", "http://localhost@evil.example/"]
    {
        assert!(matches!(refused(url(wrong)), Some(JwtError::Url(_))), "{wrong}");
    }
}

#[test]
fn keys_that_are_no_good_are_refused() {
    assert_eq!(Key::from_secret(&"x".repeat(31)).err(), Some(InvalidKey::ShortSecret(31)));
    assert_eq!(Key::from_pem(SHORT_RSA).err(), Some(InvalidKey::Unknown));
    let private = include_str!("../../../../tests/vectors/jwt/rsa.pem");
    for text in ["", "secret", private] {
        assert_eq!(Key::from_pem(text).err(), Some(InvalidKey::NotPem), "{text}");
    }
    let set =
        |keys: Value| KeySet::default().add_jwks(json!({ "keys": keys }).to_string().as_bytes());
    let jwks: Value = serde_json::from_slice(JWKS).expect("JSON");
    let with = |name: &str, value: Value| {
        let mut key = jwks["keys"][0].clone();
        key[name] = value;
        set(json!([key]))
    };
    assert_eq!(with("alg", json!("RS256")), Ok(()));
    for (name, value) in [
        ("alg", json!("RS512")),
        ("use", json!("enc")),
        ("key_ops", json!(["encrypt"])),
        ("n", json!("AQAB")),
        ("n", json!(7)),
        ("kty", json!("oct")),
    ] {
        assert_eq!(with(name, value), Err(InvalidJwks::NoKey), "{name}");
    }
    let symmetric = json!([{ "kty": "oct", "k": BASE64.encode(SECRET), "alg": "HS256" }]);
    assert_eq!(set(symmetric), Err(InvalidJwks::NoKey));
    let too_many = vec![jwks["keys"][2].clone(); 33];
    assert_eq!(set(Value::Array(too_many)), Err(InvalidJwks::TooMany));
    assert!(matches!(KeySet::default().add_jwks(b"<html>"), Err(InvalidJwks::Malformed(_))));
}

#[test]
fn secrets_are_never_shown() {
    let shown = format!("{:?}", with_secret());
    assert!(!shown.contains("a secret"), "{shown}");
}
