//! The server's routes: the WebSocket, and what operators look at.

use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::http::header::{HOST, ORIGIN};
use actix_web::web::{self, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use actix_web_actors::ws::{WebsocketContext, handshake};
use futures_util::stream;

use super::admin;
use super::caller::{caller_of, is_too_long};
use super::handle::Server;
use super::metrics;
use super::sever::Severable;
use crate::actors::connections::{Refused, Sever};
use crate::actors::inbox::Inbox;
use crate::actors::session::Session;
use crate::actors::session::msgpack::MsgpackWire;
use crate::actors::session::rpc::RpcWire;
use crate::actors::session::wire::Wire;
use crate::model::{Limits, RemoteId};

pub(super) fn configure_sockets(server: &Server, config: &mut ServiceConfig) {
    let upgrade = upgrade_with(server, MsgpackWire::new);
    let upgrade_rpc = upgrade_with(server, RpcWire::new);
    config.route("/eventlog", web::get().to(upgrade)).route("/rpc", web::get().to(upgrade_rpc));
}

/// A handler whose sessions speak the protocol that `wire` makes.
fn upgrade_with<W: Wire>(
    server: &Server,
    wire: fn(RemoteId, &Limits) -> W,
) -> impl Fn(HttpRequest, Payload) -> Ready<Result<HttpResponse, actix_web::Error>> + Clone + use<W>
{
    let server = server.clone();
    move |request: HttpRequest, payload: Payload| {
        let shared = &server.inner().shared;
        let wire = wire(shared.remote_id, &shared.limits);
        ready(upgrade(&server, &request, payload, wire))
    }
}

pub(super) fn configure_operations(server: &Server, config: &mut ServiceConfig) {
    let ready = server.clone();
    let shown = server.clone();
    config
        .route("/healthz", web::get().to(|| async { HttpResponse::Ok().body("ok\n") }))
        .route("/readyz", web::get().to(move || std::future::ready(readiness(&ready))))
        .route("/metrics", web::get().to(move || std::future::ready(metrics::show(&shown))));
    admin::configure(server, config);
}

fn readiness(server: &Server) -> HttpResponse {
    match server.inner().storage.ready() {
        Ok(()) => HttpResponse::Ok().body("ready\n"),
        Err(error) => HttpResponse::ServiceUnavailable().body(format!("{error}\n")),
    }
}

/// Turns a request into a session.
fn upgrade<W: Wire>(
    server: &Server,
    request: &HttpRequest,
    payload: Payload,
    wire: W,
) -> Result<HttpResponse, actix_web::Error> {
    let shared = &server.inner().shared;
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    if !server.inner().origins.allows(header(ORIGIN), header(HOST)) {
        shared.metrics.connections_refused.inc();
        return Ok(HttpResponse::Forbidden().body("this origin is not allowed\n"));
    }
    let mut response = handshake(request)?;
    if is_too_long(request) {
        shared.metrics.connections_refused.inc();
        return Ok(HttpResponse::RequestHeaderFieldsTooLarge().body("the handshake is too long\n"));
    }
    let inbox = Arc::new(Inbox::new());
    let sever = request.conn_data::<Severable>().cloned();
    let sever = sever.map(|socket| Box::new(move || socket.sever()) as Sever);
    let seat = match shared.connections.enter(inbox.clone(), sever) {
        Ok(seat) => seat,
        Err(refused) => {
            shared.metrics.connections_refused.inc();
            return Ok(refusal(refused));
        }
    };
    let caller = caller_of(request, server.inner().caller.as_ref());
    let session = Session::new(shared.clone(), caller, inbox, seat, wire, payload);
    // The session reads the payload itself; the context's own decoder gets nothing.
    Ok(response.streaming(WebsocketContext::create(session, stream::pending())))
}

fn refusal(refused: Refused) -> HttpResponse {
    HttpResponse::ServiceUnavailable()
        .insert_header(("retry-after", "5"))
        .body(format!("{refused}\n"))
}
