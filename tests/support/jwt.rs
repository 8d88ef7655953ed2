//! A login server, as far as it signs tokens, and one that publishes its keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::{hmac, signature};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

pub const SECRET: &str = "a secret of more than 32 bytes, for tests";

pub const RSA_PUBLIC: &str = include_str!("../vectors/jwt/rsa.pub.pem");
const RSA: &str = include_str!("../vectors/jwt/rsa.pem");
const P256: &str = include_str!("../vectors/jwt/p256.pem");
const ED25519: &str = include_str!("../vectors/jwt/ed25519.pem");

/// This many seconds from now.
pub fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    now.as_secs() as i64 + seconds
}

/// The claims of a user with these keys for an hour.
pub fn claims(keys: &[&str]) -> Value {
    json!({ "sub": "user-1", "exp": in_seconds(3_600), "public_keys": keys })
}

/// `claims`, with this one added or replaced.
pub fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

/// A token with the secret of the tests.
pub fn token(claims: &Value) -> String {
    token_by("HS256", None, claims, SECRET.as_bytes())
}

/// A token that claims this algorithm and key, but is signed with HMAC.
pub fn token_by(algorithm: &str, kid: Option<&str>, claims: &Value, secret: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    join(algorithm, kid, claims, |signed| hmac::sign(&key, signed).as_ref().to_vec())
}

/// A token of this algorithm, with the key that the tests have for it.
pub fn signed(algorithm: &str, kid: Option<&str>, claims: &Value) -> String {
    let random = SystemRandom::new();
    join(algorithm, kid, claims, |signed| match algorithm {
        "RS256" => {
            let key = RsaKeyPair::from_pkcs8(&der(RSA)).expect("a key");
            let mut signature = vec![0; key.public().modulus_len()];
            key.sign(&RSA_PKCS1_SHA256, &random, signed, &mut signature).expect("signed");
            signature
        }
        "ES256" => {
            let key = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let key = EcdsaKeyPair::from_pkcs8(key, &der(P256), &random).expect("a key");
            bytes(key.sign(&random, signed).expect("signed"))
        }
        "EdDSA" => {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der(ED25519)).expect("a key");
            bytes(key.sign(signed))
        }
        other => panic!("no key for {other}"),
    })
}

fn bytes(signature: signature::Signature) -> Vec<u8> {
    signature.as_ref().to_vec()
}

fn der(pem: &str) -> Vec<u8> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).expect("a key");
    der.secret_pkcs8_der().to_vec()
}

fn join(
    algorithm: &str,
    kid: Option<&str>,
    claims: &Value,
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
) -> String {
    let mut header = json!({ "alg": algorithm, "typ": "JWT" });
    if let Some(kid) = kid {
        header["kid"] = json!(kid);
    }
    let signed =
        format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    format!("{signed}.{}", BASE64.encode(sign(signed.as_bytes())))
}

/// These of the tests' key sets: `rsa`, `p256` and `ed25519`.
pub fn jwks(kids: &[&str]) -> String {
    let all = include_str!("../vectors/jwt/jwks.json");
    let mut all: Value = serde_json::from_str(all).expect("JSON");
    let keys = all["keys"].as_array_mut().expect("keys");
    keys.retain(|key| kids.iter().any(|kid| key["kid"] == *kid));
    all.to_string()
}

/// A server that answers every request in the same way, until it is told another answer.
pub struct KeyServer {
    pub url: String,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
}

#[derive(Clone)]
pub enum Answer {
    /// A status and a body.
    Body(u16, String),
    /// No answer, ever.
    Hang,
}

impl KeyServer {
    pub async fn start(keys: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/jwks.json", listener.local_addr().expect("an address"));
        let answer = Arc::new(Mutex::new(Answer::Body(200, keys)));
        let asked = Arc::new(AtomicUsize::new(0));
        let (answers, count) = (answer.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answers.lock().clone();
                tokio::spawn(async move {
                    let mut request = [0; 4_096];
                    let _ = socket.read(&mut request).await;
                    match answer {
                        Answer::Hang => std::future::pending().await,
                        Answer::Body(status, body) => {
                            let head = format!("HTTP/1.1 {status} X\r\nlocation: /other\r\n");
                            let length = format!("content-length: {}\r\n", body.len());
                            let text = format!("{head}{length}connection: close\r\n\r\n{body}");
                            // The client may have read enough.
                            let _ = socket.write_all(text.as_bytes()).await;
                            let _ = socket.shutdown().await;
                        }
                    }
                });
            }
        });
        Self { url, answer, asked }
    }

    pub fn answers(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}
