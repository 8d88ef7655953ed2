//! The key set of a login server, fetched over TLS.

use std::sync::Arc;

use eventlog_server::server::Server;
use eventlog_server::services::auth::jwt::{JwtAuth, JwtOptions};
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::memory::MemoryStorage;

use crate::client::tls::{CERTIFICATE, terminator};
use crate::support::jwt::{KeyServer, claims, jwks, signed};
use crate::support::server::TestServer;
use crate::support::socket::Socket;

/// The status of a handshake with a valid token, with the key set at `url` and these certificates trusted; also checks
/// that it is counted whether the key set was fetched.
async fn handshake(url: &str, trusted_certificates: Vec<Vec<u8>>) -> (u16, String) {
    let jwks_url = Some(url.to_owned());
    let options = JwtOptions { jwks_url, trusted_certificates, ..JwtOptions::default() };
    let auth = Arc::new(JwtAuth::new(options).expect("it works"));
    let (storage, registry) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryRegistry::new()));
    let server = TestServer::start(Server::builder(storage, registry, auth), &[]).await;
    let token = signed("RS256", Some("rsa"), &claims(&["alice"]));
    let url = format!("{}?access_token={token}", server.url());
    let answer = match Socket::try_connect(&url).await {
        Some(_) => (101, String::new()),
        None => Socket::refused(&url, &[]).await,
    };
    let failed = server.metric("eventlog_auth_jwks_fetches_failed_total").await;
    assert_eq!(failed > 0.5, answer.0 == 401, "{failed} failed, and {answer:?}");
    answer
}

#[tokio::test]
async fn a_key_set_behind_tls_counts_if_its_server_is_trusted() {
    let login = KeyServer::start(jwks(&["rsa"])).await;
    let address = login.url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    let address = address.expect("an address").parse().expect("an address");
    let port = terminator(address).await.port();
    let url = format!("https://localhost:{port}/jwks.json");
    assert_eq!(handshake(&url, vec![CERTIFICATE.to_vec()]).await.0, 101);
    let asked = login.asked();
    let (status, said) = handshake(&url, Vec::new()).await;
    assert_eq!((status, said.contains("no key is known")), (401, true), "{said}");
    // The name matters too.
    let elsewhere = format!("https://127.0.0.1:{port}/jwks.json");
    assert_eq!(handshake(&elsewhere, vec![CERTIFICATE.to_vec()]).await.0, 401);
    assert_eq!(login.asked(), asked, "nothing was asked where nobody is trusted");
}
