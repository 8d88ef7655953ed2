//! Server-sent events, one after another, for as long as somebody reads.
//!
//! Keeps: the number of streams is bounded; a client that does not read delays only its own stream; a stream regularly sends
//! something, so that it ends if its reader is gone; it ends with the token or session that opened it, and when it is closed. Leaves out: the content.

use std::fmt::{Display, Write};
use std::time::Duration;

use actix_web::http::header::{ACCEPT, CACHE_CONTROL};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use futures_util::{StreamExt, future};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use super::admin_failure::Failure;
use super::admin_guard::{self, Standing};
use super::handle::Server;
use super::streams::{Cursor, Listed};
use crate::model::StoreId;
use crate::storage::StorageError;

/// The maximum number of concurrent streams.
pub(super) const STREAMS_MAX: usize = 256;

/// After this long without an event, something is sent anyway.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// How often a stream checks that its reader may still read it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The milliseconds after which a browser reconnects.
const BEGINNING: &str = "retry: 1000\n\n";

const SOMETHING: &str = ": still here\n\n";

/// Whether the request asks for server-sent events.
pub(super) fn is_asked(request: &HttpRequest) -> bool {
    accepts(request, "text/event-stream")
}

/// Whether the request accepts this media type.
pub(super) fn accepts(request: &HttpRequest, media: &str) -> bool {
    let accepted = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| accepted.contains(media))
}

/// Appends an event to others. `data` is one line.
pub(super) fn put(out: &mut String, id: Option<&dyn Display>, data: &str) {
    // Writing to a `String` does not fail.
    if let Some(id) = id {
        let _ = writeln!(out, "id: {id}");
    }
    let _ = write!(out, "data: {data}\n\n");
}

/// A slot for a stream, until it is dropped.
pub(super) struct Place {
    server: Server,
    standing: Standing,
    listed: Listed,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Takes a slot for the sender of this request, which was authorized.
    pub(super) fn take(server: &Server, request: &HttpRequest) -> Result<Self, Failure> {
        let standing = admin_guard::standing(server, request).ok_or(Failure::Unauthorized)?;
        let permit = server.inner().streams.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Failure::TooManyStreams)?;
        let listed = Listed::of(server, request);
        Ok(Self { server: server.clone(), standing, listed, _permit: permit })
    }

    /// The stream follows this store; returns where to say how far it is.
    pub(super) fn follows(&self, store: &StoreId) -> Cursor {
        self.listed.follows(store)
    }

    /// A response that streams `events`, each made by [`put`]. It ends when they end.
    pub(super) fn answer(
        self,
        events: impl Stream<Item = Result<Bytes, StorageError>> + Unpin + 'static,
    ) -> HttpResponse {
        let beginning = stream::once(future::ready(Ok(Bytes::from_static(BEGINNING.as_bytes()))));
        let told = stream::unfold((events, self), next);
        HttpResponse::Ok()
            .content_type("text/event-stream")
            .insert_header((CACHE_CONTROL, "no-store"))
            .insert_header(("x-accel-buffering", "no"))
            .streaming(beginning.chain(told).boxed_local())
    }
}

async fn next<S>(
    (mut events, place): (S, Place),
) -> Option<(Result<Bytes, StorageError>, (S, Place))>
where
    S: Stream<Item = Result<Bytes, StorageError>> + Unpin,
{
    let since = Instant::now();
    loop {
        let event = timeout(LOOK_EVERY, events.next()).await;
        if place.listed.is_closed() || !place.standing.holds(&place.server) {
            return None;
        }
        match event {
            Ok(event) => {
                let event = event?;
                place.listed.sent(event.as_ref().map_or(0, Bytes::len));
                return Some((event, (events, place)));
            }
            Err(_) if since.elapsed() < SILENCE_MAX => {}
            Err(_) => return Some((Ok(Bytes::from_static(SOMETHING.as_bytes())), (events, place))),
        }
    }
}
