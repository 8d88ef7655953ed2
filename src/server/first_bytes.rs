//! What a connection begins with that is no HTTP/1.1: looked at on its way to the parser, which refuses it without a word.
//!
//! Keeps: the first bytes of a connection are looked at once; reading and writing are as they are without it.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::actors::complaints::{Complaint, Complaints};

/// A socket whose first bytes are looked at.
pub(super) struct Watched {
    stream: TcpStream,
    /// Who is told, until there was something to look at.
    complaints: Option<Arc<Complaints>>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, complaints: Arc<Complaints>) -> Self {
        Self { stream, complaints: Some(complaints) }
    }

    pub(super) const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }

    fn look(&mut self, read: &[u8]) {
        if read.is_empty() {
            return;
        }
        let Some(complaints) = self.complaints.take() else { return };
        let Some(what) = recognize(read) else { return };
        let peer = self.stream.peer_addr().map(|peer| peer.ip());
        complaints.log(&complaint(what, peer.ok()));
    }
}

/// What a client speaks that begins like this, and what to do about it.
fn recognize(read: &[u8]) -> Option<&'static str> {
    // The first record of TLS has the type 22 and a version that begins with 3.
    if let [22, 3, ..] = read {
        return Some(
            "TLS; this port has none: connect with ws:// or http://, or put a proxy in front that ends TLS (docs/PROXIES.md)",
        );
    }
    let begins =
        |with: &[u8]| !read.is_empty() && with.starts_with(&read[..read.len().min(with.len())]);
    if read.len() >= 4 && begins(b"PRI * HTTP/2.0") {
        return Some(
            "HTTP/2; this port has HTTP/1.1: have the proxy in front speak that (docs/PROXIES.md)",
        );
    }
    if read.len() >= 6 && (begins(b"PROXY ") || begins(b"\r\n\r\n\0\r\nQUIT\n")) {
        return Some(
            "the PROXY protocol, which is not understood here: take it out of the proxy in front, which says in \
             X-Forwarded-For for whom it speaks (docs/PROXIES.md)",
        );
    }
    None
}

fn complaint(what: &str, peer: Option<IpAddr>) -> Complaint {
    let peer = peer.map_or_else(|| "?".to_owned(), |peer| peer.to_string());
    let line = format!("{peer} speaks {what}");
    Complaint::hourly(line.clone(), line)
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.complaints.is_some() {
            self.look(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_http_is_named_and_http_is_not() {
        for (bytes, word) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], "TLS"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "PROXY"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", "PROXY"),
        ] {
            assert!(recognize(bytes).is_some_and(|what| what.contains(word)), "{word}");
        }
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"PUT /", b"PR", b"PROPFIND /", b"\r\n\r\nGET /", b"\x16"]
        {
            assert_eq!(recognize(bytes), None, "{}", bytes.escape_ascii());
        }
    }
}
