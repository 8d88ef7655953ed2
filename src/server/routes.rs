//! The server's routes: the WebSocket, and the pages for operators.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix_web::http::header::{ACCEPT, HeaderValue, SEC_WEBSOCKET_PROTOCOL, WWW_AUTHENTICATE};
use actix_web::web::{Payload, ServiceConfig};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use actix_web_actors::ws::{WebsocketContext, handshake};
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, stream};

use super::caller::{caller_of, is_too_long};
use super::endpoint::Endpoint;
use super::handle::{Inner, Server};
use super::sever::Severable;
use super::{metrics, pace, pages, wrong_peers};
use crate::actors::budget::SMALL_STRANGER_BYTES;
use crate::actors::complaints::Complaint;
use crate::actors::connections::{Refused, Sever};
use crate::actors::crowd::Full;
use crate::actors::guard::guarded;
use crate::actors::inbox::{Inbox, Notice};
use crate::actors::session::Session;
use crate::actors::session::msgpack::MsgpackWire;
use crate::actors::session::rpc::RpcWire;
use crate::actors::session::rpc::proofs::Proofs;
use crate::actors::session::shared::Shared;
use crate::actors::session::unfinished::{ReadSize, Unfinished};
use crate::actors::session::wire::Wire;
use crate::actors::strangers::Stranger;
use crate::core::strangers::Place;
use crate::services::{Caller, Rejected};

type Answer = Result<HttpResponse, actix_web::Error>;

/// The subprotocol that clients may request. It has no meaning. But a browser that offers subprotocols, because one of
/// them carries its token, accepts only a WebSocket that picks one.
const SUBPROTOCOL: &str = "eventlog";

pub(super) fn configure_sockets(server: &Server, config: &mut ServiceConfig) {
    let upgrade =
        upgrade_with(server, |shared| MsgpackWire::new(shared.remote_id, &shared.limits.get()));
    let upgrade_rpc = upgrade_with(server, |shared| {
        let proofs = Proofs::new(&shared.proofs);
        RpcWire::new(shared.remote_id, &shared.limits.get(), shared.spill.as_ref(), proofs)
    });
    let paths = &server.inner().paths;
    if paths.contains(&ServedPath::Eventlog) {
        config.service(Endpoint::at("/eventlog").socket(upgrade).done());
    }
    if paths.contains(&ServedPath::Rpc) {
        config.service(Endpoint::at("/rpc").socket(upgrade_rpc).done());
    }
}

/// A path that clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedPath {
    /// `/eventlog`: the msgpack protocol.
    Eventlog,
    /// `/rpc`: the RPC protocol of Effect.
    Rpc,
}

/// A handler whose sessions speak the protocol of `wire`.
fn upgrade_with<W: Wire>(
    server: &Server,
    wire: fn(&Shared) -> W,
) -> impl Fn(HttpRequest, Payload) -> LocalBoxFuture<'static, Answer> + Clone + use<W> {
    let server = server.clone();
    move |request: HttpRequest, payload: Payload| {
        let shared = &server.inner().shared;
        let wire = wire(shared);
        let server = server.clone();
        async move { upgrade(&server, &request, payload, wire).await }.boxed_local()
    }
}

pub(super) fn configure_health(server: &Server, config: &mut ServiceConfig) {
    let ready = server.clone();
    let shown = server.clone();
    let healthy = || async { HttpResponse::Ok().body("ok\n") };
    let ready = move || std::future::ready(readiness(&ready));
    let metrics = move |request: HttpRequest| {
        let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
        let stranger = request.conn_data::<Arc<Stranger>>();
        let is_stranger = stranger.is_some_and(|stranger| !stranger.was_accepted());
        std::future::ready(metrics::show(&shown, accept, is_stranger && pace::strangers_wait()))
    };
    config
        .service(Endpoint::at("/healthz").get(healthy).done())
        .service(Endpoint::at("/readyz").get(ready).done())
        .service(Endpoint::at("/metrics").get(metrics).done());
}

fn readiness(server: &Server) -> HttpResponse {
    if server.inner().draining.load(Ordering::Relaxed) {
        return HttpResponse::ServiceUnavailable().body("the server is stopping\n");
    }
    match server.inner().storage.ready() {
        Ok(()) if !knows_who_may(server) => not_ready(),
        Ok(()) => HttpResponse::Ok().body(match server.inner().storage.held_up() {
            None => "ready\n".to_owned(),
            Some(why) => format!("ready\n{why}\n"),
        }),
        Err(error) => HttpResponse::ServiceUnavailable().body(format!("{error}\n")),
    }
}

/// Nobody is let in until revocations and grants are known.
fn knows_who_may(server: &Server) -> bool {
    let Inner { shared, grants, .. } = server.inner();
    let is_counted = !shared.quotas.counts_keys() || shared.quotas.usage.is_read();
    is_counted
        && shared.revocations.kept.is_read()
        && grants.as_ref().is_none_or(|one| one.kept.is_read())
}

fn not_ready() -> HttpResponse {
    HttpResponse::ServiceUnavailable()
        .insert_header(("retry-after", "1"))
        .body("revocations, grants or quotas cannot be read yet\n")
}

/// Turns a request into a session.
async fn upgrade<W: Wire>(
    server: &Server,
    request: &HttpRequest,
    payload: Payload,
    wire: W,
) -> Answer {
    let shared = &server.inner().shared;
    if !pages::may(server, request) {
        shared.metrics.connections_refused.inc();
        return Ok(HttpResponse::Forbidden().body(pages::REFUSED));
    }
    let mut response = match handshake(request) {
        Ok(response) => response,
        Err(error) => return Ok(wrong_peers::no_websocket(server, request, error)),
    };
    if !knows_who_may(server) {
        shared.metrics.connections_refused.inc();
        return Ok(not_ready());
    }
    if is_too_long(request) {
        shared.metrics.connections_refused.inc();
        return Ok(HttpResponse::RequestHeaderFieldsTooLarge().body("the handshake is too long\n"));
    }
    let caller = match verified_caller(server, request).await {
        Ok(caller) => caller,
        Err(refused) => {
            shared.metrics.connections_refused.inc();
            return Ok(refused);
        }
    };
    let inbox = Arc::new(Inbox::new());
    let Ok(stranger) = stranger(server, request, &caller, &inbox) else {
        shared.metrics.connections_refused.inc();
        return Ok(refusal(Refused::Strangers));
    };
    let sever = request.conn_data::<Severable>().cloned();
    let sever = sever.map(|socket| Box::new(move || socket.sever()) as Sever);
    let seat = match shared.connections.enter(inbox.clone(), caller.clone(), sever) {
        Ok(seat) => seat,
        Err(refused) => {
            shared.metrics.connections_refused.inc();
            if refused == Refused::Full {
                complain_of_number(server, &caller);
            }
            return Ok(refusal(refused));
        }
    };
    if offers_our_subprotocol(request) {
        response.insert_header((SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL)));
    }
    let waker = Arc::clone(&inbox);
    let holding =
        shared
            .budget
            .holding(SMALL_STRANGER_BYTES, Place::of(caller.address()), move || waker.wake());
    let size = request.extensions().get::<ReadSize>().cloned();
    let unfinished =
        Unfinished::new(holding, stranger, size.unwrap_or_else(|| ReadSize::new(usize::MAX)));
    let session = Session::new(shared.clone(), caller, inbox, seat, wire, payload, unfinished);
    // The session reads the payload itself; the context's own decoder gets nothing.
    Ok(response.streaming(WebsocketContext::create(session, stream::pending())))
}

/// Logs that the server has reached its maximum number of connections.
fn complain_of_number(server: &Server, caller: &Caller) {
    let shared = &server.inner().shared;
    let line = format!(
        "there are {} connections ([limits] connections_max), so further ones are refused, now one from {}; to take \
         more, raise connections_max, and the files that the process may open (ulimit -n)",
        shared.limits.get().connections_max,
        caller.shown_address()
    );
    shared.complaints.log(&Complaint::hourly("connections_max".to_owned(), line));
}

/// Counts a session among the strangers until its first good request.
fn stranger(
    server: &Server,
    request: &HttpRequest,
    caller: &Caller,
    inbox: &Arc<Inbox>,
) -> Result<Arc<Stranger>, Full> {
    let inbox = Arc::clone(inbox);
    let push_out = move || {
        inbox.push(Notice::PushedOut);
        inbox.wake();
    };
    // If the server owns the socket, it was counted when it connected.
    let stranger = match request.conn_data::<Arc<Stranger>>() {
        Some(stranger) if !stranger.is_accepted() => Arc::clone(stranger),
        Some(_) | None => {
            let strangers = &server.inner().shared.strangers;
            Arc::new(Stranger::enter(strangers, caller.address(), push_out.clone())?)
        }
    };
    stranger.is_session(caller.address(), caller.kept_bytes(), push_out);
    Ok(stranger)
}

/// The caller, with the result of `Auth`; or the response if `Auth` refuses them.
async fn verified_caller(server: &Server, request: &HttpRequest) -> Result<Caller, HttpResponse> {
    let inner = server.inner();
    let mut caller = caller_of(request, inner.caller.as_ref(), &inner.trusted_proxies);
    let verified = async { inner.shared.auth.verify(&caller).await };
    let rejected = match guarded("authorization", verified).await {
        Ok(Ok(verified)) => {
            caller = caller.with_verified(verified);
            match inner.shared.revocations.check_caller(&caller) {
                Ok(()) => return Ok(caller),
                Err(revoked) => revoked.into(),
            }
        }
        Ok(Err(rejected)) => rejected,
        Err(panicked) => {
            return Err(HttpResponse::InternalServerError().body(format!("{panicked}\n")));
        }
    };
    inner.rejections.log(&caller, &rejected);
    Err(rejection(&rejected))
}

fn rejection(rejected: &Rejected) -> HttpResponse {
    HttpResponse::Unauthorized()
        .insert_header((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
        .body(format!("{rejected}\n"))
}

fn offers_our_subprotocol(request: &HttpRequest) -> bool {
    let mut offers = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL);
    offers.any(|offer| {
        let offered = offer.to_str().unwrap_or_default().split(',');
        offered.map(str::trim).any(|name| name == SUBPROTOCOL)
    })
}

fn refusal(refused: Refused) -> HttpResponse {
    HttpResponse::ServiceUnavailable()
        .insert_header(("retry-after", "5"))
        .body(format!("{refused}\n"))
}
