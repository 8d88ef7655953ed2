//! The bytes of a WebSocket between its socket and its session, for [`listen`](super::listen()).
//!
//! actix-http's dispatcher can do this as well, and does in applications that mount the server. But it keeps two
//! buffers of 8 KiB for as long as a connection lives, and copies every byte through them. Here it hands over the
//! socket when it has read a request for a WebSocket. The same routes answer the request; then what arrives is read
//! into a buffer of the thread, what leaves is written from where the session encoded it, and a silent connection holds
//! neither.
//!
//! Keeps: a session is polled only while the socket takes bytes, and bytes are read only when the session asks for them.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_codec::{AsyncWrite, Encoder, Framed};
use actix_http::body::{BodySize, BoxBody, MessageBody, to_bytes};
use actix_http::error::PayloadError;
use actix_http::h1::{Codec, Message};
use actix_http::{ConnectionType, HttpMessage, Payload, Request, Response, StatusCode};
use actix_service::{Service, ServiceFactory, fn_factory, fn_service};
use actix_web::dev::ServiceResponse;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_core::Stream;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::arrived::{Arrived, ClientCertificate};
use crate::actors::session::unfinished::ReadSize;

/// The maximum number of characters of a path that are shown.
pub(super) const PATH_SHOWN_MAX: usize = 200;
/// The maximum size of one read.
const READ_BYTES: usize = 64 * 1_024;

/// How long a connection that has ended waits for its client to close it as well.
const LINGER: Duration = Duration::from_secs(1);

/// How many do so at a time, in all servers of the process. They are not counted among the connections any more, and each
/// has a file: this is well below the files that are left for other things.
static LINGERING: Semaphore = Semaphore::const_new(64);

thread_local! {
    /// What a connection of this thread is reading. The receiver copies it before the next one reads.
    static ARRIVING: RefCell<BytesMut> = RefCell::default();
}

type Socket = Rc<RefCell<Arrived>>;

/// What the dispatcher passes on: a request, and its connection.
type Handed = (Request, Framed<Arrived, Codec>);

/// Answers a request for a WebSocket with `app`, and moves its bytes from then on; after any other answer the
/// connection ends.
pub(super) fn upgraded<A>(
    app: A,
) -> impl ServiceFactory<Handed, Config = (), Response = (), Error = Infallible, InitError = A::InitError>
where
    A: ServiceFactory<Request, Config = (), Response = ServiceResponse, Error = actix_web::Error>
        + 'static,
{
    fn_factory(move || {
        let app = app.new_service(());
        async move {
            let app = Rc::new(app.await?);
            Ok(fn_service(move |handed: Handed| serve(app.clone(), handed)))
        }
    })
}

/// What has passed through a connection, in bytes.
#[derive(Clone, Default)]
struct Gone {
    received: Rc<Cell<u64>>,
    sent: Rc<Cell<u64>>,
}

async fn serve<A>(app: Rc<A>, (mut request, framed): Handed) -> Result<(), Infallible>
where
    A: Service<Request, Response = ServiceResponse, Error = actix_web::Error>,
{
    let parts = framed.into_parts();
    let socket = Rc::new(RefCell::new(parts.io));
    // A copy, because the buffers must not be kept.
    let first = [&parts.read_buf[..], &socket.borrow_mut().take_held()].concat();
    socket.borrow_mut().leaves_dispatcher();
    let first = Some(Bytes::from(first)).filter(|first| !first.is_empty());
    let size = ReadSize::new(READ_BYTES);
    let gone = Gone::default();
    gone.received.set(first.as_ref().map_or(0, |first| first.len() as u64));
    let received = gone.received.clone();
    let incoming = Incoming { first, socket: socket.clone(), size: size.clone(), received };
    let ending = Ending::of(&request);
    request.extensions_mut().insert(size);
    *request.payload() = Payload::Stream { payload: Box::pin(incoming) };
    let response = app.call(request).await.map_or_else(Response::from, Response::from);
    // The end of an earlier answer may still be in the buffer.
    let sent = match answer(response, parts.codec, parts.write_buf).await {
        Ok((head, body)) => send(&socket, head, body, &gone.sent).await,
        Err(error) => Err(error),
    };
    match sent {
        Ok(()) => linger(socket, &gone).await,
        Err(error) => log::debug!("a connection ended early: {error}"),
    }
    ending.log(&gone);
    Ok(())
}

/// Reads on until the client closes as well. A socket with unread bytes is reset when it is closed, and then the client
/// loses what it has not read yet: its last acks, and why the connection ends.
async fn linger(socket: Socket, gone: &Gone) {
    let Ok(_permit) = LINGERING.try_acquire() else { return };
    let (size, received) = (ReadSize::new(READ_BYTES), gone.received.clone());
    let mut rest = Incoming { first: None, socket, size, received };
    let closed =
        async { while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut rest).poll_next(cx)).await {} };
    // Whoever does not close by then is not waited for.
    let _ = tokio::time::timeout(LINGER, closed).await;
}

/// The line of the access log when a connection ends.
struct Ending {
    began: Instant,
    connection: String,
    path: String,
    /// The SHA-256 of the client's certificate.
    certificate: Option<String>,
}

impl Ending {
    fn of(request: &Request) -> Self {
        let connection =
            request.peer_addr().map_or_else(|| "?".to_owned(), |peer| peer.to_string());
        let path = request.path().chars().take(PATH_SHOWN_MAX).collect();
        let certificate = request.conn_data::<ClientCertificate>();
        let certificate = certificate.map(ClientCertificate::sha256);
        Self { began: Instant::now(), connection, path, certificate }
    }

    fn log(&self, Gone { received, sent }: &Gone) {
        let Self { began, connection, path, certificate } = self;
        let (millis, received, sent) =
            (began.elapsed().as_millis() as u64, received.get(), sent.get());
        match certificate {
            None => log::debug!(
                target: "access", connection:%, path, millis, received, sent;
                "{connection} {path:?}: ends after {millis} ms, {received} bytes received, {sent} sent"
            ),
            Some(certificate) => log::debug!(
                target: "access", connection:%, path, millis, received, sent, certificate:%;
                "{connection} {path:?}: ends after {millis} ms, {received} bytes received, {sent} sent, \
                 with certificate {certificate}"
            ),
        }
    }
}

/// The beginning of the response, and the rest of it. Only a WebSocket has a body that takes time.
async fn answer(
    response: Response<BoxBody>,
    mut codec: Codec,
    mut buffer: BytesMut,
) -> io::Result<(Bytes, BoxBody)> {
    let (mut head, body) = response.into_parts();
    if head.status() == StatusCode::SWITCHING_PROTOCOLS {
        codec.encode(Message::Item((head, BodySize::Stream)), &mut buffer)?;
        return Ok((buffer.freeze(), body));
    }
    head.head_mut().set_connection_type(ConnectionType::Close);
    let body = to_bytes(body).await.map_err(|error| io::Error::other(error.to_string()))?;
    let size = BodySize::Sized(body.len() as u64);
    codec.encode(Message::Item((head, size)), &mut buffer)?;
    codec.encode(Message::Chunk(Some(body)), &mut buffer)?;
    Ok((buffer.freeze(), BoxBody::new(())))
}

/// Sends `head`, then `body` as it arrives, then the end of the stream.
async fn send(socket: &Socket, head: Bytes, mut body: BoxBody, sent: &Cell<u64>) -> io::Result<()> {
    write(socket, head).await?;
    socket.borrow_mut().becomes_session();
    while let Some(bytes) = poll_fn(|cx| Pin::new(&mut body).poll_next(cx)).await {
        let bytes = bytes.map_err(|error| io::Error::other(error.to_string()))?;
        let length = bytes.len() as u64;
        write(socket, bytes).await?;
        sent.set(sent.get() + length);
    }
    poll_fn(|cx| Pin::new(&mut *socket.borrow_mut()).poll_shutdown(cx)).await
}

async fn write(socket: &Socket, mut bytes: Bytes) -> io::Result<()> {
    while !bytes.is_empty() {
        let write =
            |cx: &mut Context<'_>| Pin::new(&mut *socket.borrow_mut()).poll_write(cx, &bytes);
        match poll_fn(write).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes.advance(written),
        }
    }
    // This flushes what TLS has encrypted and the socket has not taken yet.
    poll_fn(|cx| Pin::new(&mut *socket.borrow_mut()).poll_flush(cx)).await
}

/// What arrives on a socket.
struct Incoming {
    /// Bytes that arrived together with the request.
    first: Option<Bytes>,
    socket: Socket,
    size: ReadSize,
    received: Rc<Cell<u64>>,
}

impl Stream for Incoming {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        ARRIVING.with_borrow_mut(|buffer| {
            // Reuses the whole buffer in place, because nobody holds what was read before.
            buffer.reserve(READ_BYTES);
            let mut socket = self.socket.borrow_mut();
            let mut buffer = buffer.limit(self.size.bytes());
            let read = pin!(socket.wire().read_buf(&mut buffer)).poll(cx);
            let buffer = buffer.get_mut();
            Poll::Ready(match ready!(read) {
                Ok(0) => None,
                Ok(read) => {
                    let received = self.received.get() + read as u64;
                    self.received.set(received);
                    Some(Ok(buffer.split().freeze()))
                }
                Err(error) => Some(Err(PayloadError::Io(error))),
            })
        })
    }
}
