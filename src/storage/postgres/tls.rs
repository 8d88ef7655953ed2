//! TLS to the database, with the program's only provider.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Makes connections to servers with a certificate from one of the authorities, for the requested name.
#[derive(Clone)]
pub(super) struct Tls(Arc<ClientConfig>);

/// A connection to one host.
pub(super) struct ToHost {
    connector: TlsConnector,
    /// The name that the certificate is checked against. The driver has none for a socket or an address, and asks even
    /// if there will be no TLS.
    name: io::Result<ServerName<'static>>,
}

/// What the driver reads and writes.
pub(super) struct Stream<S>(TlsStream<S>);

impl Tls {
    /// Trusts only `authorities`, X.509 in DER.
    pub(super) fn trusting(authorities: &[Vec<u8>]) -> Self {
        let mut roots = RootCertStore::empty();
        let own = authorities.iter().cloned().map(CertificateDer::from);
        let (_, unusable) = roots.add_parsable_certificates(own);
        if unusable > 0 {
            log::warn!(
                "{unusable} of the certificates that the database is checked against cannot be read"
            );
        }
        let provider = Arc::new(ring::default_provider());
        let versions =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        // This fails for a provider without a cipher for these versions; this one has them.
        #[expect(clippy::expect_used)]
        let builder = versions.expect("ring supports TLS 1.2 and 1.3");
        Self(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Stream<S>;
    type TlsConnect = ToHost;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<ToHost> {
        let unusable = |error| {
            let told = format!(
                "there is no name to check the certificate against ({error}): the URL needs a host"
            );
            io::Error::new(io::ErrorKind::InvalidInput, told)
        };
        let name = ServerName::try_from(host.to_owned()).map_err(unusable);
        Ok(ToHost { connector: TlsConnector::from(self.0.clone()), name })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for ToHost {
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Stream<S>>>;

    fn connect(self, stream: S) -> Self::Future {
        async move { Ok(Stream(self.connector.connect(self.name?, stream).await?)) }.boxed()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for Stream<S> {
    /// The certificate is verified, which says who the other end is.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
