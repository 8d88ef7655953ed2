//! The console: a page for people, at `/console`, beside the admin API that it shows.
//!
//! Keeps: the page is the same for everybody and reveals nothing about this server; everything it shows comes from the
//! admin API, which it uses with a session, so no token is within reach of scripts. Leaves out: the page itself
//! (`crate::console`).

mod session;

use std::sync::LazyLock;

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_NONE_MATCH, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::web::{self, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Route, guard};
use sha2::{Digest, Sha256};

use super::handle::Server;
use crate::console::{ASSETS, Asset};

pub(super) use session::{Opened, Sessions, check};

/// What the page may do: run its own files, and talk to its origin.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Relative, so the console works wherever it is mounted.
const WITHOUT_SLASH: &str = "../console";

pub(super) fn configure(server: &Server, config: &mut ServiceConfig) {
    let page = |request: HttpRequest| std::future::ready(show(&ASSETS[0], &request));
    let slash = || std::future::ready(without_slash());
    config
        .service(web::resource("/console").route(looked_at().to(page)))
        .service(web::resource("/console/").route(looked_at().to(slash)));
    session::configure(server, config);
    config.service(web::resource("/console/{file:.*}").route(looked_at().to(file)));
}

fn looked_at() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// The page refers to its files by relative names, which only works at one of its two addresses.
fn without_slash() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((LOCATION, WITHOUT_SLASH)).finish()
}

async fn file(request: HttpRequest, path: Path<String>) -> HttpResponse {
    match ASSETS.iter().find(|asset| asset.path == *path) {
        Some(asset) => show(asset, &request),
        None => HttpResponse::NotFound().body("the console has no such file\n"),
    }
}

/// Changes with each of the files, so a page and its files always have the same version.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    ASSETS.iter().for_each(|asset| hash.update(asset.bytes));
    let hash = hash.finalize();
    let number = hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("\"{number:016x}\"")
});

fn show(asset: &Asset, request: &HttpRequest) -> HttpResponse {
    let known = request.headers().get(IF_NONE_MATCH);
    let is_known = known.is_some_and(|known| known.as_bytes() == VERSION.as_bytes());
    let mut answer = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    answer
        .insert_header((ETAG, VERSION.as_str()))
        // Checked each time: a newer server has a newer console.
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((CONTENT_TYPE, HeaderValue::from_static(asset.media)))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header((OPENER_POLICY, "same-origin"))
        .insert_header((RESOURCE_POLICY, "same-origin"));
    if is_known { answer.finish() } else { answer.body(asset.bytes) }
}
