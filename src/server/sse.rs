//! Server-sent events: JSON, one event after another, for as long as somebody reads.
//!
//! Keeps: there are so many streams at most; who does not read holds up its own alone; a stream ends with the server. Leaves out: what
//! is told.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{ACCEPT, CACHE_CONTROL};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use futures_util::{StreamExt, future};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::admin_failure::Failure;
use super::handle::Server;

/// So many may be read at once.
pub(super) const STREAMS_MAX: usize = 64;

/// After so long without an event something is sent all the same, so that a reader who is gone is noticed.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// A browser is back after so many milliseconds.
const BEGINNING: &str = "retry: 1000\n\n";

const SOMETHING: &str = ": still here\n\n";

/// Whether that is what the request asks for.
pub(super) fn is_asked(request: &HttpRequest) -> bool {
    let accepted = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| accepted.contains("text/event-stream"))
}

/// `events` as an answer that goes on. They end it when they end.
pub(super) fn answer(
    server: &Server,
    events: impl Stream<Item = Value> + Unpin + 'static,
) -> Result<HttpResponse, Failure> {
    let streams = Arc::clone(&server.inner().looking.streams);
    let permit = streams.try_acquire_owned().map_err(|_| Failure::TooManyStreams)?;
    let beginning = stream::once(future::ready(Bytes::from_static(BEGINNING.as_bytes())));
    let told = stream::unfold((events, permit), next);
    let body = beginning.chain(told).map(Ok::<_, actix_web::Error>);
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(body.boxed_local()))
}

async fn next<S: Stream<Item = Value> + Unpin>(
    (mut events, permit): (S, OwnedSemaphorePermit),
) -> Option<(Bytes, (S, OwnedSemaphorePermit))> {
    let event = match timeout(SILENCE_MAX, events.next()).await {
        Ok(event) => format!("data: {}\n\n", event?).into(),
        Err(_) => Bytes::from_static(SOMETHING.as_bytes()),
    };
    Some((event, (events, permit)))
}
