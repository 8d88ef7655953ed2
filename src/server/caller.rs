//! Who asks for a WebSocket, as the server's `Auth` sees them.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::HeaderValue;

use super::arrived::ClientCertificate;
use crate::model::limits::HANDSHAKE_BYTES_MAX;
use crate::services::proxies::{AddressRange, forwarded_address};
use crate::services::{Caller, Value};

/// The header in which proxies name their clients.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// What the embedding application derives from a request.
pub(super) type ValueOf = Arc<dyn Fn(&HttpRequest) -> Value + Send + Sync>;

/// Whether the request is larger than what may be kept of it while the connection lives.
pub(super) fn is_too_long(request: &HttpRequest) -> bool {
    let headers = request.headers().iter();
    let bytes: usize = headers.map(|(name, value)| name.as_str().len() + value.len()).sum();
    target(request).len() + bytes > HANDSHAKE_BYTES_MAX
}

/// The caller of a request that becomes a WebSocket.
pub(super) fn caller_of(
    request: &HttpRequest,
    value_of: Option<&ValueOf>,
    trusted: &[AddressRange],
) -> Caller {
    let headers = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let value = value_of.map(|value_of| value_of(request));
    let certificate = request.conn_data::<ClientCertificate>();
    let caller = Caller::connected(request.peer_addr(), target(request), headers, value)
        .with_certificate(certificate.map(|ClientCertificate(der)| Arc::clone(der)));
    match forwarded(request, trusted) {
        Some(address) => caller.forwarded_for(address),
        None => caller,
    }
}

/// Where a request comes from: what trusted proxies say, otherwise the other end of the socket.
pub(super) fn address_of(request: &HttpRequest, trusted: &[AddressRange]) -> Option<IpAddr> {
    forwarded(request, trusted).or_else(|| Some(request.peer_addr()?.ip()))
}

fn forwarded(request: &HttpRequest, trusted: &[AddressRange]) -> Option<IpAddr> {
    let lines: Vec<_> =
        request.headers().get_all(FORWARDED_FOR).map(HeaderValue::as_bytes).collect();
    forwarded_address(trusted, request.peer_addr()?.ip(), lines.into_iter())
}

fn target(request: &HttpRequest) -> &str {
    request.uri().path_and_query().map_or("", |target| target.as_str())
}
