//! TLS at the port: the certificates, and the connections that speak it.
//!
//! Keeps: certificates are loaded as a whole or not at all, and existing connections keep their certificates; the bytes
//! of a client's handshake are limited, and count against the budget of strangers until the handshake is complete.
//! Leaves out: when files are read again (the code that started the server decides), and how long a handshake may take
//! (`arrived`).

mod expiry;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_web::rt::net::TcpStream;
use futures_util::task::AtomicWaker;
use parking_lot::RwLock;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::wire::Wire;
use crate::actors::budget::{Budget, Holding, SMALL_HEAD_BYTES};
use crate::actors::complaints::Complaint;
use crate::actors::session::shared::Shared;
use crate::core::strangers::Place;

/// The most that a client may send before the handshake is complete, in bytes: a chain of certificates takes a few
/// thousand.
const HANDSHAKE_BYTES_MAX: usize = 32 * 1_024;
/// How many encrypted bytes may wait for a client to read them; a record is half of that.
const WAITING_BYTES_MAX: usize = 32 * 1_024;

/// The answer to HTTP without TLS.
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 66\r\nconnection: close\r\n\r\n\
this port speaks TLS: write https:// or wss:// in front, not http\n";

/// The files with the certificates, all of them PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's own certificate first, then those of its issuers, without the root.
    pub certificate: PathBuf,
    /// The private key that belongs to it.
    pub key: PathBuf,
    /// The authorities that must sign clients' certificates. `None` asks clients for no certificate.
    pub client_ca: Option<PathBuf>,
    /// Whether each client must have one, if clients are asked.
    pub clients: ClientCertificates,
}

impl TlsFiles {
    /// Everything that is wrong with the files. Blocks on disk.
    pub fn faults(&self) -> Vec<TlsError> {
        let Self { certificate, key, client_ca, clients: _ } = self;
        let authorities = client_ca.as_ref().map(|path| certificates(path).map(drop));
        let each = [certificates(certificate).map(drop), private_key(key).map(drop)];
        let found: Vec<_> = each.into_iter().chain(authorities).filter_map(Result::err).collect();
        // What is wrong with them together shows once each can be read.
        if found.is_empty() {
            read(Arc::new(self.clone())).err().into_iter().collect()
        } else {
            found
        }
    }
}

/// Which clients need a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientCertificates {
    /// All clients.
    #[default]
    Required,
    /// None. But a certificate that is shown must be valid, and
    /// [`Caller::certificate`](crate::services::Caller::certificate) returns it.
    Optional,
}

/// Why certificates cannot be used. Names files, but nothing of their contents.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// A file lacks what it should contain.
    #[error("{}: there is no {what} in it", path.display())]
    Nothing {
        /// The file.
        path: PathBuf,
        /// What was looked for, as it begins.
        what: &'static str,
    },
    /// Key and certificate do not match, or are of an unknown kind.
    #[error("{}: this certificate cannot be used with the key in {}: {cause}", certificate.display(), key.display())]
    Unusable {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        cause: rustls::Error,
    },
    /// No client could be checked.
    #[error("{}: no client certificate can be verified with this: {cause}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: VerifierBuilderError,
    },
}

/// The encryption of connections. Clones share it.
#[derive(Clone)]
pub struct Tls {
    current: Arc<RwLock<Current>>,
}

/// The configuration for new connections.
#[derive(Clone)]
struct Current {
    files: Arc<TlsFiles>,
    config: Arc<ServerConfig>,
    /// When the first of the certificates expires, in seconds since 1970.
    expires: Option<u64>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.files()).finish()
    }
}

impl Tls {
    /// Reads the files. Blocks on disk.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        Ok(Self { current: Arc::new(RwLock::new(read(Arc::new(files))?)) })
    }

    /// Reads the files again, for connections from now on. If they cannot be used, everything stays as it was. Blocks
    /// on disk.
    pub fn reload(&self) -> Result<(), TlsError> {
        let new = read(self.files())?;
        let mut current = self.current.write();
        // Meanwhile other files may have taken effect.
        if current.files == new.files {
            *current = new;
        }
        Ok(())
    }

    /// The first of two steps that replace the files by others, or by their present contents. Nothing has changed yet.
    /// Blocks on disk.
    pub fn read(&self, files: &TlsFiles) -> Result<NewCertificates, TlsError> {
        Ok(NewCertificates { new: read(Arc::new(files.clone()))?, tls: self.clone() })
    }

    /// When the certificate or one of its issuers expires first, in seconds since 1970. `None` if that is unknown.
    pub fn expires(&self) -> Option<u64> {
        self.current.read().expires
    }

    /// The files.
    pub fn files(&self) -> Arc<TlsFiles> {
        self.current.read().files.clone()
    }

    /// Completes the handshake and returns the connection. What the client sends until then counts against the budget.
    pub(super) async fn accept(&self, stream: TcpStream, shared: &Shared) -> io::Result<Wire> {
        let peer = stream.peer_addr().map_or_else(|_| "?".to_owned(), |peer| peer.ip().to_string());
        let mut first = [0; 1];
        if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
            speaks_plainly(stream, &peer, shared).await;
            return Err(io::Error::other("it speaks HTTP without TLS"));
        }
        let accepted = self.handshake(stream, &shared.budget).await;
        if let Err(error) = &accepted {
            shared.metrics.tls_handshakes_failed.inc();
            // A client that just leaves is a port scanner, or a check whether the port is open.
            if error.kind() == io::ErrorKind::InvalidData {
                let line = format!("{peer}: the TLS handshake failed: {error}");
                shared.complaints.log(&Complaint::hourly(line.clone(), line));
            }
        }
        accepted.map(|stream| Wire::Secure(Box::new(stream)))
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        budget: &Arc<Budget>,
    ) -> io::Result<TlsStream<Metered>> {
        let config = Arc::clone(&self.current.read().config);
        let mut stream = TlsAcceptor::from(config).accept(Metered::new(stream, budget)).await?;
        let (metered, connection) = stream.get_mut();
        metered.unfinished = None;
        connection.set_buffer_limit(Some(WAITING_BYTES_MAX));
        Ok(stream)
    }
}

/// Tells a client that speaks HTTP where TLS is expected, and logs it.
async fn speaks_plainly(mut stream: TcpStream, peer: &str, shared: &Shared) {
    let line =
        format!("{peer} speaks HTTP, and this port has TLS: connect with wss:// or https://");
    shared.complaints.log(&Complaint::hourly(line.clone(), line));
    // Unread input would destroy the answer on its way to them.
    let _ = stream.try_read(&mut [0; 4_096]);
    let _ = stream.try_write(PLAIN);
    let _ = stream.shutdown().await;
}

/// Valid certificates that are not in effect yet.
pub struct NewCertificates {
    new: Current,
    tls: Tls,
}

impl NewCertificates {
    /// Uses them for connections from now on.
    pub fn take_effect(self) {
        *self.tls.current.write() = self.new;
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates are files")]
fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|cause| TlsError::Unreadable { path: path.to_owned(), cause })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read_file(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => {
            Err(TlsError::Nothing { path: path.to_owned(), what: "-----BEGIN CERTIFICATE-----" })
        }
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read_file(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsError::Nothing {
        path: path.to_owned(),
        what: "-----BEGIN PRIVATE KEY-----",
    })
}

fn read(files: Arc<TlsFiles>) -> Result<Current, TlsError> {
    let TlsFiles { certificate, key, client_ca, clients } = &*files;
    let provider = Arc::new(ring::default_provider());
    let unusable =
        |cause| TlsError::Unusable { certificate: certificate.clone(), key: key.clone(), cause };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match clients {
                ClientCertificates::Required => verifier,
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
            };
            let wrong = |cause| TlsError::ClientCa { path: path.clone(), cause };
            builder.with_client_cert_verifier(verifier.build().map_err(wrong)?)
        }
    };
    let chain = certificates(certificate)?;
    let expires = chain.iter().filter_map(|one| expiry::expires(one)).min();
    let mut config = builder.with_single_cert(chain, private_key(key)?).map_err(unusable)?;
    // A WebSocket begins as HTTP/1.1, and nothing else is offered here.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Current { files, config: Arc::new(config), expires })
}

/// A socket that counts what arrives until the handshake is complete.
pub(super) struct Metered {
    stream: TcpStream,
    unfinished: Option<Handshake>,
}

/// What a client has sent of its handshake.
struct Handshake {
    holding: Holding,
    waker: Arc<AtomicWaker>,
    received: usize,
}

impl Metered {
    fn new(stream: TcpStream, budget: &Arc<Budget>) -> Self {
        let waker = Arc::new(AtomicWaker::new());
        let woken = Arc::clone(&waker);
        let place = Place::of(stream.peer_addr().ok().map(|address| address.ip()));
        let holding = budget.holding(SMALL_HEAD_BYTES, place, move || woken.wake());
        Self { stream, unfinished: Some(Handshake { holding, waker, received: 0 }) }
    }

    pub(super) const fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, unfinished } = &mut *self;
        let Some(Handshake { holding, waker, received }) = unfinished else {
            return Pin::new(stream).poll_read(cx, buffer);
        };
        // A client that sends nothing does not stand in line.
        ready!(stream.poll_read_ready(cx))?;
        waker.register(cx.waker());
        if !holding.may_read(*received) {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        *received += read;
        if *received > HANDSHAKE_BYTES_MAX {
            return Poll::Ready(Err(io::Error::other("its handshake is too long")));
        }
        holding.received(read);
        holding.hold(*received, true);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
