//! Whether the web page that asks may: looks at the headers, and says in the log what to configure if it may not.

use actix_web::HttpRequest;
use actix_web::http::header::{HOST, HeaderName, ORIGIN};

use super::handle::Server;
use crate::actors::complaints::Complaint;
use crate::services::origin_policy::PageRequest;
use crate::services::proxies::is_trusted;

const FORWARDED_HOST: &str = "x-forwarded-host";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// What a page is told that may not. A browser shows it to nobody but a developer who looks.
pub(super) const REFUSED: &str =
    "pages of this origin are not allowed; the server's log says what to configure\n";

/// Whether the page that makes this request may. Programs that are no browser may.
pub(super) fn may(server: &Server, request: &HttpRequest) -> bool {
    let inner = server.inner();
    let header = |name: &HeaderName| {
        // One that is no text is no browser's.
        request.headers().get(name).map(|value| value.to_str().unwrap_or("?"))
    };
    // A chain of proxies writes a list; the first is the one that the browser asked.
    let first = |name: &'static str| {
        let value = header(&HeaderName::from_static(name))?;
        value.split(',').map(str::trim).find(|text| !text.is_empty())
    };
    let (said_host, said_proto) = (first(FORWARDED_HOST), first(FORWARDED_PROTO));
    let peer = request.peer_addr().map(|peer| peer.ip());
    let is_believed = peer.is_some_and(|peer| is_trusted(&inner.trusted_proxies, peer));
    let page = PageRequest {
        origin: header(&ORIGIN),
        host: header(&HOST),
        forwarded_host: said_host.filter(|_| is_believed),
        forwarded_proto: said_proto.filter(|_| is_believed),
    };
    let may = inner.origins.read().allows(&page);
    if !may {
        let proxy = said_host.zip(peer).filter(|_| !is_believed);
        inner.shared.complaints.log(&refused(&page, request.path(), proxy));
    }
    may
}

/// `proxy` says for which host it asks, and is not trusted.
fn refused<P: std::fmt::Display>(
    page: &PageRequest<'_>,
    path: &str,
    proxy: Option<(&str, P)>,
) -> Complaint {
    let short = |text: &str| text.chars().take(200).collect::<String>();
    let (origin, host) =
        (short(page.origin.unwrap_or_default()), short(page.host.unwrap_or_default()));
    let path = short(path);
    let more = match proxy {
        Some((said, proxy)) => format!(
            "; {proxy} says that it asks for {:?}: if that is your proxy, put \"{proxy}\" into trusted_proxies instead",
            short(said)
        ),
        None => {
            "; if a proxy is in front, it may pass Host on instead (docs/PROXIES.md)".to_owned()
        }
    };
    let line = format!(
        "a page of {origin:?} may not use {path:?} here, as Host is {host:?}: \
         if it is yours, put it into the configuration, origins = [{origin:?}]{more}"
    );
    Complaint::hourly(format!("page: {origin} {host}"), line)
}
