//! Requests that reach the right port but the wrong thing: no WebSocket where one is expected, a WebSocket where there
//! is none.
//!
//! Keeps: each gets an answer that says what is here and what to do, and the log has a line for each kind of mistake.
//! Leaves out: what is not HTTP at all (`first_bytes`), and clients that speak another protocol once they are connected
//! (`actors::session`).

use actix_http::ws::HandshakeError;
use actix_web::http::header::{SEC_WEBSOCKET_VERSION, UPGRADE};
use actix_web::{HttpRequest, HttpResponse};

use super::caller::address_of;
use super::handle::Server;
use super::routes::ServedPath;
use crate::actors::complaints::Complaint;

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
    let mut advice = format!("a WebSocket is at {}", sockets.join(" and at "));
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
