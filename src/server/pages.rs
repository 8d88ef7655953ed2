//! Checks whether a web page may connect: looks at the headers, and says in the log what to configure if it may not.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header::{HOST, HeaderName, ORIGIN};

#[cfg(feature = "console")]
use super::arrived::Encrypted;
use super::handle::Server;
use crate::actors::complaints::Complaint;
#[cfg(feature = "console")]
use crate::services::origin_policy::OriginPolicy;
use crate::services::origin_policy::{PageOrigin, PageRequest};
use crate::services::proxies::is_trusted;

const FORWARDED_HOST: &str = "x-forwarded-host";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The answer to a page that may not. A browser shows it only to a developer who looks.
pub(super) const REFUSED: &str =
    "pages of this origin are not allowed; the server's log says what to configure\n";

/// What the request says about its page.
fn page_of<'a>(server: &Server, request: &'a HttpRequest) -> PageRequest<'a> {
    let header = |name: &HeaderName| {
        // A header that is not text does not come from a browser.
        request.headers().get(name).map(|value| value.to_str().unwrap_or("?"))
    };
    let is_believed = believed_peer(server, request).is_some();
    PageRequest {
        origin: header(&ORIGIN),
        host: header(&HOST),
        forwarded_host: first(request, FORWARDED_HOST).filter(|_| is_believed),
        forwarded_proto: first(request, FORWARDED_PROTO).filter(|_| is_believed),
    }
}

/// A chain of proxies writes a list; the first item is the proxy that the browser reached.
fn first<'a>(request: &'a HttpRequest, name: &'static str) -> Option<&'a str> {
    let value = request.headers().get(HeaderName::from_static(name))?;
    let value = value.to_str().unwrap_or("?");
    value.split(',').map(str::trim).find(|text| !text.is_empty())
}

/// The proxy in front, if it is trusted.
fn believed_peer(server: &Server, request: &HttpRequest) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip();
    is_trusted(&server.inner().trusted_proxies, peer).then_some(peer)
}

/// Whether the page that makes this request may do so. Programs that are not browsers may.
pub(super) fn may(server: &Server, request: &HttpRequest) -> bool {
    let inner = server.inner();
    let page = page_of(server, request);
    let may = inner.origins.read().allows(&page);
    if !may {
        let peer = request.peer_addr().map(|peer| peer.ip());
        let peer = peer.filter(|_| believed_peer(server, request).is_none());
        let proxy = first(request, FORWARDED_HOST).zip(peer);
        inner.shared.complaints.log(&refused(&page, request.path(), proxy));
    }
    may
}

/// Whether a page of this very host makes this request, or no page at all.
#[cfg(feature = "console")]
pub(super) fn is_own_or_none(server: &Server, request: &HttpRequest) -> bool {
    OriginPolicy::SameHost.allows(&page_of(server, request))
}

/// Whether the browser connected over TLS, to this server or to a trusted proxy.
#[cfg(feature = "console")]
pub(super) fn is_secure(server: &Server, request: &HttpRequest) -> bool {
    let said = page_of(server, request).forwarded_proto;
    // The second is what actix-web knows where an application mounts the server.
    request.conn_data::<Encrypted>().is_some()
        || request.app_config().secure()
        || said.is_some_and(|said| said.eq_ignore_ascii_case("https"))
}

/// `proxy` says which host it forwards for, and is not trusted.
fn refused<P: std::fmt::Display>(
    page: &PageRequest<'_>,
    path: &str,
    proxy: Option<(&str, P)>,
) -> Complaint {
    let short = |text: &str| text.chars().take(200).collect::<String>();
    let (origin, host) =
        (short(page.origin.unwrap_or_default()), short(page.host.unwrap_or_default()));
    let (path, proto) = (short(path), short(page.forwarded_proto.unwrap_or_default()));
    let what = format!("a page of {origin:?} may not use {path:?} here");
    let line = if origin.parse::<PageOrigin>().is_err() {
        format!(
            "{what}: no browser sends this as Origin, so no setting allows it. Have the program, or the proxy in \
             front, send the page's origin, or no Origin at all if it is no page"
        )
    } else if page.differs_in_tls() {
        format!(
            "{what}: it was loaded without TLS, and the proxy says that the browser used TLS (X-Forwarded-Proto is \
             {proto:?}). Open the page with https, or have the proxy send the scheme that the browser used \
             (docs/PROXIES.md); to allow it as it is, add it to the configuration, origins = [{origin:?}]"
        )
    } else {
        let more = match proxy {
            Some((said, proxy)) => format!(
                "; {proxy} forwards it for {:?}: if that is your proxy, add \"{proxy}\" to trusted_proxies \
                 instead",
                short(said)
            ),
            None => {
                "; if a proxy is in front, it may pass Host on instead (docs/PROXIES.md)".to_owned()
            }
        };
        format!(
            "{what}, because Host is {host:?}: if it is yours, add it to the configuration, \
             origins = [{origin:?}]{more}"
        )
    };
    Complaint::hourly(format!("page: {origin} {host}"), line)
}
