//! The socket of a connection, with or without TLS.
//!
//! Keeps: bytes are read when they are asked for and no sooner, except the rest of their TLS record (16 KiB).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(feature = "tls")]
use super::tls::Metered;

/// What connections are encrypted with. Without the feature there is none.
#[cfg(feature = "tls")]
pub(super) type Secure = super::tls::Tls;
#[cfg(not(feature = "tls"))]
#[derive(Clone)]
pub(super) enum Secure {}

/// What a connection's bytes pass through.
pub(super) enum Wire {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Secure(Box<tokio_rustls::server::TlsStream<Metered>>),
}

impl Wire {
    /// The socket itself.
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            #[cfg(feature = "tls")]
            Self::Secure(stream) => stream.get_ref().0.stream(),
        }
    }

    /// Whether it uses TLS.
    #[cfg(feature = "console")]
    pub(super) const fn is_secure(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// The valid certificate that the client has shown, as DER.
    #[cfg(feature = "tls")]
    pub(super) fn client_certificate(&self) -> Option<&[u8]> {
        let Self::Secure(stream) = self else { return None };
        stream.get_ref().1.peer_certificates()?.first().map(|certificate| &**certificate)
    }

    /// Waits until there is something to read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Self::Secure(stream) = self
            && !stream.get_ref().1.wants_read()
        {
            return Ok(());
        }
        self.socket().readable().await
    }

    fn pinned(&mut self) -> Pin<&mut (dyn Both + '_)> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            #[cfg(feature = "tls")]
            Self::Secure(stream) => Pin::new(&mut **stream),
        }
    }
}

/// Both directions.
trait Both: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().pinned().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().pinned().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().pinned().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().pinned().poll_shutdown(cx)
    }
}
