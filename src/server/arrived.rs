//! A connection of [`listen`](super::listen()) until its request has arrived.
//!
//! actix-http's dispatcher holds 16 KiB of buffers for a connection from the start, accepts a head of up to 128 KiB,
//! and after an answer waits for the rest of the next request without a limit. So it does not see connections that have
//! not sent a whole head: a silent connection costs one task, and the received part of a head counts against the
//! budget.
//!
//! Keeps: a connection is a stranger from the moment it is made; the head of the first request and of each later one
//! arrives in time, or the connection ends. Leaves out: what is asked (`routes`).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{Extensions, Protocol};
use actix_web::rt::net::TcpStream;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::first_bytes;
use super::pace::Who;
use super::sever::Severable;
use super::socket::{set_options, severable};
use super::wire::{Secure, Wire};
use crate::actors::budget::{Holding, SMALL_HEAD_BYTES};
use crate::actors::session::shared::Shared;
use crate::actors::strangers::Stranger;
use crate::core::strangers::Place;
use crate::services;

/// The maximum size of the head of a request, in bytes. A request for a WebSocket must be shorter.
const HEAD_BYTES_MAX: usize = 32 * 1_024;
/// How much of a head is read at once.
const READ_BYTES: usize = 4 * 1_024;

const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const TOO_LONG: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// What the dispatcher receives for a connection.
pub(super) type Connected = (Arrived, Protocol, Option<SocketAddr>);

/// Waits until the first request of a connection has arrived.
pub(super) async fn arrive(
    shared: Arc<Shared>,
    secure: Option<Secure>,
    stream: TcpStream,
    who: &Who,
) -> Result<Connected, DispatchError> {
    let peer = stream.peer_addr().ok();
    let severable = severable(&stream);
    let push_out = {
        let severable = severable.clone();
        move || {
            // Without one, it goes when its time is up.
            severable.as_ref().map(Severable::sever);
        }
    };
    let address = peer.map(|peer| peer.ip());
    let Ok(stranger) = shared.strangers.enter(address, push_out) else {
        return Err(DispatchError::DisconnectTimeout);
    };
    let stranger = Arc::new(stranger);
    who.is(&stranger);
    let timeout = shared.limits.handshake_timeout;
    let deadline = Instant::now() + timeout;
    let Ok(wire) = timeout_at(deadline, wire(&shared, secure.as_ref(), stream)).await else {
        shared.metrics.connections_slow.inc();
        return Err(DispatchError::SlowRequestTimeout);
    };
    let mut arrived = Arrived {
        wire: wire?,
        severable,
        head: Bytes::new(),
        is_new: false,
        stranger,
        timeout,
        unanswered: 0,
        deadline: None,
    };
    let answer = match timeout_at(deadline, arrived.read_head(&shared)).await {
        Ok(Ok(true)) => return Ok((arrived, Protocol::Http1, peer)),
        Ok(Ok(false)) => TOO_LONG,
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => TOO_SLOW,
    };
    shared.metrics.connections_slow.inc();
    // A client that does not read the answer has had its time.
    let _ = arrived.wire.write(answer).now_or_never();
    let _ = arrived.wire.shutdown().now_or_never();
    Err(DispatchError::SlowRequestTimeout)
}

/// The connection, encrypted if the listener uses TLS.
#[cfg_attr(not(feature = "tls"), expect(clippy::unused_async, reason = "TLS alone waits"))]
async fn wire(shared: &Shared, secure: Option<&Secure>, stream: TcpStream) -> io::Result<Wire> {
    match secure {
        None => Ok(Wire::Plain(stream)),
        #[cfg(feature = "tls")]
        Some(tls) => tls.accept(stream, shared).await,
        #[cfg(not(feature = "tls"))]
        Some(never) => {
            let _ = shared;
            match *never {}
        }
    }
}

/// Marks a connection that speaks TLS with this server.
#[cfg(feature = "console")]
pub(super) struct Encrypted;

/// The certificate that the client of a connection has shown, as DER.
#[derive(Clone)]
pub(super) struct ClientCertificate(pub(super) Arc<[u8]>);

impl ClientCertificate {
    /// The SHA-256 of the certificate, as hexadecimal digits.
    pub(super) fn sha256(&self) -> String {
        services::sha256(&self.0)
    }
}

/// A connection whose first request has arrived.
pub(super) struct Arrived {
    wire: Wire,
    severable: Option<Severable>,
    /// Bytes that were read and that the dispatcher does not have yet.
    head: Bytes,
    /// The whole head has been handed over, and nothing else yet.
    is_new: bool,
    stranger: Arc<Stranger>,
    /// How long a request may take to arrive.
    timeout: Duration,
    /// Bytes that have arrived since the last answer.
    unanswered: usize,
    /// When the request has to be complete and answered.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Arrived {
    pub(super) fn on_connect(&self, extensions: &mut Extensions) {
        set_options(self.wire.socket());
        if let Some(severable) = &self.severable {
            extensions.insert(severable.clone());
        }
        extensions.insert(Arc::clone(&self.stranger));
        #[cfg(feature = "console")]
        if self.wire.is_secure() {
            extensions.insert(Encrypted);
        }
        #[cfg(feature = "tls")]
        if let Some(certificate) = self.wire.client_certificate() {
            extensions.insert(ClientCertificate(certificate.into()));
        }
    }

    /// The connection below, when it no longer belongs to a dispatcher.
    pub(super) const fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Reads until a whole head has arrived; `false` if it is too long. Does not wait for the rest of what does not
    /// look like HTTP.
    async fn read_head(&mut self, shared: &Shared) -> io::Result<bool> {
        let waker = Arc::new(AtomicWaker::new());
        let woken = Arc::clone(&waker);
        let peer = self.wire.socket().peer_addr().ok().map(|peer| peer.ip());
        let mut holding =
            shared.budget.holding(SMALL_HEAD_BYTES, Place::of(peer), move || woken.wake());
        let mut head = Vec::new();
        loop {
            self.wire.readable().await?;
            room(&mut holding, &waker, head.capacity()).await;
            let looked_at = head.len().saturating_sub(3);
            let Some(read) = read_some(&mut self.wire, &mut head).await? else { continue };
            let is_http = head.first().is_some_and(u8::is_ascii_uppercase);
            if !is_http || has_end(&head[looked_at..]) {
                first_bytes::look(&head, peer, &shared.complaints);
                self.head = head.into();
                return Ok(true);
            }
            if head.len() > HEAD_BYTES_MAX {
                return Ok(false);
            }
            holding.received(read);
            holding.hold(head.capacity(), true);
        }
    }

    /// Whether a later request of a stranger takes too long or is too large.
    fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        if self.unanswered == 0 || self.stranger.is_accepted() {
            self.deadline = None;
            return false;
        }
        let until = Instant::now() + self.timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(until)));
        deadline.as_mut().poll(cx).is_ready() || self.unanswered > HEAD_BYTES_MAX
    }
}

/// Appends what has arrived; returns how much, or `None` if there is nothing yet.
async fn read_some(wire: &mut Wire, head: &mut Vec<u8>) -> io::Result<Option<usize>> {
    // The buffer exists only while this runs, not while it waits.
    std::future::poll_fn(|cx| {
        let mut buffer = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut buffer);
        Poll::Ready(match Pin::new(&mut *wire).poll_read(cx, &mut buffer) {
            Poll::Pending => Ok(None),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Poll::Ready(Ok(())) => {
                // Only what is held counts: nothing is reserved for what may never come.
                head.reserve_exact(buffer.filled().len());
                head.extend_from_slice(buffer.filled());
                Ok(Some(buffer.filled().len()))
            }
        })
    })
    .await
}

/// Waits until more may be read.
async fn room(holding: &mut Holding, waker: &AtomicWaker, held: usize) {
    std::future::poll_fn(|cx| {
        waker.register(cx.waker());
        if holding.may_read(held) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Whether there is an empty line.
fn has_end(bytes: &[u8]) -> bool {
    let ends = |line: &[u8]| line.starts_with(b"\n") || line.starts_with(b"\r\n");
    let mut feeds = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    feeds.any(|(at, _)| ends(&bytes[at + 1..]))
}

impl AsyncRead for Arrived {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.head.is_empty() {
            let some = self.head.len().min(buffer.remaining());
            buffer.put_slice(&self.head.split_to(some));
            self.is_new = self.head.is_empty();
            return Poll::Ready(Ok(()));
        }
        // The dispatcher has to look at the request before it reads ahead; otherwise up to 128 KiB of a stranger's
        // first messages would come along with it.
        if std::mem::take(&mut self.is_new) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Reading nothing means the end.
        if self.is_overdue(cx) {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.wire).poll_read(cx, buffer))?;
        self.unanswered += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Arrived {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.unanswered = 0;
        Pin::new(&mut self.wire).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_an_empty_line() {
        for whole in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\na: b\n\nx", "a\n\r\n"] {
            assert!(has_end(whole.as_bytes()), "{whole:?}");
        }
        for part in ["", "GET / HTTP/1.1\r\n", "a\r\nb\r\n", "\r\r"] {
            assert!(!has_end(part.as_bytes()), "{part:?}");
        }
    }
}
