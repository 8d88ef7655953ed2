//! `wss://`.

use std::net::SocketAddr;
use std::sync::Arc;

use eventlog_server::client::{ConnectError, EventLogRemote, Options};
use eventlog_server::model::Sequence;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{entries, numbered, take};
use crate::support::key;
use crate::support::server::TestServer;

/// For `localhost`, self-signed, valid for a hundred years.
pub const CERTIFICATE: &[u8] = include_bytes!("tls/certificate.der");
const KEY: &[u8] = include_bytes!("tls/key.der");

/// Removes TLS before it forwards to `server`.
pub async fn terminator(server: SocketAddr) -> SocketAddr {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(KEY));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(CERTIFICATE)], key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // A client that does not trust us ends the handshake.
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            let mut plain = TcpStream::connect(server).await.expect("the server");
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    addr
}

#[tokio::test]
async fn a_trusted_server_is_spoken_to_over_tls_and_another_one_is_not() {
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    let addr = terminator(server.addr).await;
    let url = format!("wss://localhost:{}/eventlog", addr.port());
    let error = EventLogRemote::connect(&url, Options::default()).await.expect_err("no trust");
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
    let trusted_certificates = vec![CERTIFICATE.to_vec()];
    let options = Options { trusted_certificates, ..Options::default() };
    let remote = EventLogRemote::connect(&url, options).await.expect("a connection");
    let (alice, written) = (key("alice"), entries(2_000));
    let mut changes = remote.changes(&alice, Sequence::ZERO);
    remote.write(&alice, written.clone()).await.expect("an ack");
    assert_eq!(take(&mut changes, 2_000).await, numbered(1, &written));
}
