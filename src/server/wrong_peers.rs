//! Requests that reach the right port but the wrong thing: no WebSocket where one is expected, a WebSocket where there
//! is none.
//!
//! Keeps: each gets an answer that says what is here and what to do, and the log has a line for each kind of mistake.
//! Leaves out: what is not HTTP at all (`first_bytes`), and clients that speak another protocol once they are connected
//! (`actors::session`).

use actix_http::ws::HandshakeError;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{SEC_WEBSOCKET_VERSION, UPGRADE};
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest, HttpResponse};

use super::caller::address_of;
use super::handle::Server;
use super::routes::ServedPath;
use crate::actors::complaints::Complaint;

/// Paths of this server, beside those of sessions and those below `/admin/` and `/console/`. An application may have others.
const PAGES: [&str; 5] = ["/healthz", "/readyz", "/metrics", "/admin", "/console"];

/// Answers a plain request at the path of a WebSocket.
pub(super) fn no_websocket(
    server: &Server,
    request: &HttpRequest,
    error: HandshakeError,
) -> HttpResponse {
    let advice = "this path is for a WebSocket; if the client opened one, the proxy in front must pass on \
                  Upgrade and Connection (docs/PROXIES.md)";
    complain(server, request, &format!("{error}; {advice}"));
    HttpResponse::UpgradeRequired()
        .insert_header((UPGRADE, "websocket"))
        .insert_header((SEC_WEBSOCKET_VERSION, "13"))
        .body(format!("{error}: {advice}\n"))
}

/// Answers a request at a path where there is nothing.
pub(super) fn nothing_here(server: &Server, request: &HttpRequest) -> HttpResponse {
    let sockets: Vec<&str> = server.inner().paths.iter().map(|path| path.as_str()).collect();
    let mut advice = where_sockets_are(server);
    let path = request.path().trim_end_matches('/');
    let below = sockets.iter().find_map(|socket| path.strip_suffix(socket));
    if let Some(prefix) = below.filter(|prefix| !prefix.is_empty() && prefix.len() < 200) {
        advice = format!("{advice}; a proxy in front must remove {prefix:?}");
    }
    if request.headers().contains_key(UPGRADE) {
        complain(server, request, &format!("nothing is there; {advice}"));
    }
    HttpResponse::NotFound().body(format!("nothing is here; {advice}\n"))
}

/// Answers a request for a WebSocket at a path that takes other requests; any other request goes on.
pub(super) async fn socket_elsewhere<B: MessageBody + 'static>(
    server: Server,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse, Error> {
    let path = request.path().trim_end_matches('/');
    let mut sockets = server.inner().paths.iter().map(|path| path.as_str());
    let is_below = ["/admin/", "/console/"].iter().any(|above| path.starts_with(above));
    let is_known = PAGES.contains(&path) || is_below;
    if !is_known || sockets.any(|socket| socket == path) || !asks_for_socket(request.request()) {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    let advice = format!("this path takes no WebSocket; {}", where_sockets_are(&server));
    complain(&server, request.request(), &advice);
    Ok(request.into_response(HttpResponse::BadRequest().body(format!("{advice}\n"))))
}

fn asks_for_socket(request: &HttpRequest) -> bool {
    let upgrade = request.headers().get(UPGRADE).and_then(|upgrade| upgrade.to_str().ok());
    upgrade.is_some_and(|upgrade| upgrade.trim().eq_ignore_ascii_case("websocket"))
}

fn where_sockets_are(server: &Server) -> String {
    let sockets: Vec<&str> = server.inner().paths.iter().map(|path| path.as_str()).collect();
    match &sockets[..] {
        [] => "this port has none".to_owned(),
        sockets => format!("a WebSocket is at {}", sockets.join(" and at ")),
    }
}

fn complain(server: &Server, request: &HttpRequest, what: &str) {
    let address = address_of(request, &server.inner().trusted_proxies);
    let address = address.map_or_else(|| "?".to_owned(), |address| address.to_string());
    let path: String = request.path().chars().take(100).collect();
    let line = format!("{address} cannot connect at {path:?}: {what}");
    server.inner().shared.complaints.log(&Complaint::hourly(line.clone(), line));
}

impl ServedPath {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Eventlog => "/eventlog",
            Self::Rpc => "/rpc",
        }
    }
}
