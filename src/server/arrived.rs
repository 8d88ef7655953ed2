//! A connection of [`listen`](super::listen()) until its request has arrived.
//!
//! actix-http's dispatcher holds 16 KiB of buffers for a connection from the start, accepts a head of up to 128 KiB,
//! and after an answer waits for the rest of the next request without a limit. So it does not see connections that have
//! not sent a whole head: a silent connection costs one task, and the received part of a head counts against the
//! budget. Later requests reach it one at a time, see `talk`.
//!
//! Keeps: a connection is a stranger from the moment it is made; the head of the first request arrives in time, or the
//! connection ends. Leaves out: what is asked (`routes`).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{Extensions, Protocol};
use actix_web::rt::net::TcpStream;
use bytes::{Buf, BytesMut};
use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout_at};

use super::first_bytes;
use super::pace::Who;
use super::sever::Severable;
use super::socket::{set_options, severable};
use super::talk::Talk;
use super::wire::{Secure, Wire};
use crate::actors::budget::{Holding, SMALL_HEAD_BYTES};
use crate::actors::session::shared::Shared;
use crate::actors::strangers::Stranger;
use crate::core::strangers::Place;
use crate::services;

/// The maximum size of the head of a request, in bytes. A request for a WebSocket must be shorter.
pub(super) const HEAD_BYTES_MAX: usize = 32 * 1_024;
/// How much of a head is read at once, and at most before its turn.
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
    let Ok(stranger) = Stranger::enter(&shared.strangers, address, push_out) else {
        return Err(DispatchError::DisconnectTimeout);
    };
    let stranger = Arc::new(stranger);
    who.is(&stranger);
    let deadline = Instant::now() + shared.limits.get().handshake_timeout;
    let Ok(wire) = timeout_at(deadline, wire(&shared, secure.as_ref(), stream)).await else {
        shared.metrics.connections_slow.inc();
        return Err(DispatchError::SlowRequestTimeout);
    };
    let mut arrived = Arrived {
        wire: wire?,
        severable,
        held: BytesMut::new(),
        is_session: false,
        talk: Talk::new(Arc::clone(&shared), Arc::clone(&stranger), address),
        stranger,
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
    held: BytesMut,
    /// It is a WebSocket now.
    is_session: bool,
    talk: Talk,
    stranger: Arc<Stranger>,
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

    /// Its request asks for a WebSocket, so that no dispatcher has it any more.
    pub(super) fn leaves_dispatcher(&mut self) {
        self.talk.leaves_dispatcher();
    }

    /// The connection below, when it no longer belongs to a dispatcher.
    pub(super) const fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// What has arrived after the request that made it a WebSocket.
    pub(super) fn take_held(&mut self) -> BytesMut {
        std::mem::take(&mut self.held)
    }

    /// From now on a session sends on it, and the watchdog looks after its reader.
    pub(super) const fn becomes_session(&mut self) {
        self.is_session = true;
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
                self.held = BytesMut::from(&head[..]);
                return Ok(true);
            }
            if head.len() > HEAD_BYTES_MAX {
                return Ok(false);
            }
            holding.received(read);
            holding.hold(head.capacity(), true);
        }
    }

    /// Reads a little, to be handed on later. Nothing is there afterwards if the client has closed its side.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The buffer exists only while this runs, not while it waits.
        let mut bytes = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.wire).poll_read(cx, &mut buffer))?;
        self.held.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }

    /// Looks whether the client is still there, while its request waits for an answer. Reading nothing means the end.
    fn poll_meanwhile(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The end comes after what is held.
        if self.held.is_empty() {
            ready!(self.poll_held(cx))?;
            if self.held.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }

    /// Reads into `buffer` what belongs to the current request. If nobody knows where that ends, reads nothing, which
    /// means the end.
    fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The body of an administrator's request may be large, and nothing else is.
        if self.talk.may_be_large() && self.held.is_empty() {
            match self.talk.poll_body(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(false) => return Poll::Ready(Ok(())),
                Poll::Ready(true) => {}
            }
            let before = buffer.filled().len();
            if Pin::new(&mut self.wire).poll_read(cx, buffer)?.is_pending() {
                return self.wait(cx);
            }
            let read = &buffer.filled()[before..];
            let taken = self.talk.hand_on(read);
            self.held.extend_from_slice(&read[taken..]);
            buffer.set_filled(before + taken);
            return Poll::Ready(Ok(()));
        }
        if self.held.is_empty() && self.poll_held(cx)?.is_pending() {
            return self.wait(cx);
        }
        let some = self.held.len().min(buffer.remaining());
        let taken = self.talk.hand_on(&self.held[..some]);
        buffer.put_slice(&self.held[..taken]);
        self.held.advance(taken);
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the client to read, until its time is up.
    fn wait_for_reader(&mut self, cx: &mut Context<'_>, bytes: usize) -> io::Result<()> {
        let waits = self.talk.waits_for_reader(cx, bytes);
        if waits.is_err() {
            // What the system still has for the client goes with the connection. If not, it goes later.
            let _ = SockRef::from(self.wire.socket()).set_linger(Some(Duration::ZERO));
        }
        waits
    }

    /// Waits for the client, until its time is up.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.talk.waits_for_client(cx) { Poll::Ready(Ok(())) } else { Poll::Pending }
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
        // Reading nothing means the end.
        if self.talk.ends() {
            return Poll::Ready(Ok(()));
        }
        // It may turn out to come from an administrator, whose bodies may be larger.
        if self.talk.pauses() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !self.talk.may_hand_on() {
            return self.poll_meanwhile(cx);
        }
        if self.talk.is_too_much() { Poll::Ready(Ok(())) } else { self.poll_request(cx, buffer) }
    }
}

impl AsyncWrite for Arrived {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.wire).poll_write(cx, bytes);
        if self.is_session {
            return sent;
        }
        match &sent {
            Poll::Ready(Ok(count)) => self.talk.sent(bytes, *count),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.wait_for_reader(cx, bytes.len())?,
        }
        sent
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.wire).poll_flush(cx)?;
        if !self.is_session {
            match flushed {
                Poll::Ready(()) => self.talk.flushed(cx),
                Poll::Pending => self.wait_for_reader(cx, 0)?,
            }
        }
        flushed.map(Ok)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut_down = Pin::new(&mut self.wire).poll_shutdown(cx)?;
        if !self.is_session && shut_down.is_pending() {
            self.wait_for_reader(cx, 0)?;
        }
        shut_down.map(Ok)
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
