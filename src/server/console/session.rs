//! Sessions of the console: a token is exchanged for a cookie that no script can read and that expires.
//!
//! Keeps: a cookie changes nothing without the `Origin` of this host and JSON, so no other page can use it; a session
//! ends with its token, even when that is removed; the number of sessions is bounded. Leaves out: which tokens there
//! are (`admin_tokens`), and who guesses (`admin_guard`).

use std::collections::HashMap;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, COOKIE, HeaderName, HeaderValue, ORIGIN, SET_COOKIE,
};
use actix_web::web::{self, Bytes, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use crate::server::admin_failure::Failure;
use crate::server::admin_guard;
use crate::server::admin_tokens::AdminToken;
use crate::server::handle::Server;
use crate::server::pages;

/// Most sessions at one time; beyond that, the one that has been idle longest has to sign in again.
const SESSIONS_MAX: usize = 256;

/// A session ends when it has not been used for this long,
const IDLE_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// and in any case after this long.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Longest body with a token, in bytes.
const BODY_MAX: usize = 4_096;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// All sessions, in memory: a restart ends them.
#[derive(Default)]
pub(in crate::server) struct Sessions(Mutex<HashMap<Id, Session>>);

/// The hash of the cookie's value.
type Id = [u8; 32];

struct Session {
    token: AdminToken,
    began: Instant,
    used: Instant,
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.used) >= IDLE_MAX || now.duration_since(self.began) >= AGE_MAX
    }
}

impl Sessions {
    /// Begins a session; returns the value for the cookie.
    fn begin(&self, token: AdminToken, now: Instant) -> String {
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let mut all = self.0.lock();
        all.retain(|_, session| !session.is_over(now));
        if all.len() >= SESSIONS_MAX {
            let oldest = all.iter().min_by_key(|(_, session)| session.used).map(|(id, _)| *id);
            oldest.and_then(|id| all.remove(&id));
        }
        all.insert(id_of(&secret), Session { token, began: now, used: now });
        secret
    }

    /// The token with which the session began.
    fn token(&self, secret: &str, now: Instant) -> Option<AdminToken> {
        let (mut all, id) = (self.0.lock(), id_of(secret));
        let session = all.get_mut(&id)?;
        if session.is_over(now) {
            all.remove(&id);
            return None;
        }
        session.used = now;
        Some(session.token.clone())
    }

    fn end(&self, secret: &str) {
        self.0.lock().remove(&id_of(secret));
    }

    /// How many sessions a token has.
    pub(in crate::server) fn count(&self, token: &AdminToken) -> usize {
        let now = Instant::now();
        let of_it = |session: &&Session| session.token == *token && !session.is_over(now);
        self.0.lock().values().filter(of_it).count()
    }
}

fn id_of(secret: &str) -> Id {
    Sha256::digest(secret).into()
}

/// Servers on the same host share cookies whatever their ports, so each uses a cookie name of its own.
fn cookie_name(server: &Server) -> String {
    let id = server.remote_id().to_string();
    format!("eventlog-console-{}", id.get(..8).unwrap_or(&id))
}

fn secret_of(server: &Server, request: &HttpRequest) -> Option<String> {
    let name = cookie_name(server);
    let lines = request.headers().get_all(COOKIE).filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(other, _)| other.trim() == name).map(|(_, value)| value.trim().to_owned())
}

/// The session that a request's cookie names.
pub(in crate::server) struct Opened(String);

impl Opened {
    pub(in crate::server) fn of(server: &Server, request: &HttpRequest) -> Option<Self> {
        secret_of(server, request).map(Self)
    }

    /// The session's token, if the session and the token still exist. Counts as a use of the session.
    fn token(&self, server: &Server) -> Option<AdminToken> {
        let sessions = &server.inner().looking.sessions;
        let token = sessions.token(&self.0, Instant::now())?;
        if server.inner().admin_tokens.read().0.contains(&token) {
            return Some(token);
        }
        sessions.end(&self.0);
        None
    }

    /// Whether the session still exists. A stream asks this while it is open, and so uses the session.
    pub(in crate::server) fn holds(&self, server: &Server) -> bool {
        self.token(server).is_some()
    }
}

/// The token that the request's cookie stands for.
pub(in crate::server) fn check(
    server: &Server,
    request: &HttpRequest,
) -> Result<AdminToken, Failure> {
    let opened = Opened::of(server, request).ok_or(Failure::Unauthorized)?;
    let token = opened.token(server).ok_or(Failure::Unauthorized)?;
    if !is_own_page(server, request) {
        return Err(Failure::ConsolePage);
    }
    Ok(token)
}

/// Whether only the console can have made this request.
fn is_own_page(server: &Server, request: &HttpRequest) -> bool {
    let from = request.headers().get(FETCH_SITE).map(HeaderValue::as_bytes);
    // "none" means that somebody typed the address.
    let is_elsewhere = from.is_some_and(|from| from != b"same-origin" && from != b"none");
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    if looks {
        return !is_elsewhere && pages::is_own_or_none(server, request);
    }
    !is_elsewhere
        && request.headers().contains_key(ORIGIN)
        && pages::is_own_or_none(server, request)
        && is_json(request)
}

fn is_json(request: &HttpRequest) -> bool {
    let media = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = media.and_then(|media| media.split(';').next()).unwrap_or_default();
    media.trim().eq_ignore_ascii_case("application/json")
}

pub(super) fn configure(server: &Server, config: &mut ServiceConfig) {
    let (beginning, showing, ending) = (server.clone(), server.clone(), server.clone());
    let begin = move |request: HttpRequest, body: Bytes| {
        std::future::ready(begin(&beginning, &request, &body))
    };
    let show = move |request: HttpRequest| std::future::ready(show(&showing, &request));
    let end = move |request: HttpRequest| std::future::ready(end(&ending, &request));
    let session = web::resource("/console/session")
        // Nobody is known yet.
        .app_data(web::PayloadConfig::new(BODY_MAX))
        .route(web::get().to(show))
        .route(web::post().to(begin))
        .route(web::delete().to(end));
    config.service(session);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    token: String,
}

/// Takes a token, returns a cookie.
fn begin(server: &Server, request: &HttpRequest, body: &[u8]) -> Result<HttpResponse, Failure> {
    if !pages::may(server, request) {
        return Err(Failure::Page);
    }
    if !request.headers().contains_key(ORIGIN) || !is_own_page(server, request) {
        return Err(Failure::ConsolePage);
    }
    let wrong = || Failure::Invalid("the body is {\"token\": \"…\"}".to_owned());
    let body = Some(body).filter(|body| body.len() <= BODY_MAX).ok_or_else(wrong)?;
    let Begin { token } = serde_json::from_slice(body).map_err(|_| wrong())?;
    let token = admin_guard::look_up(server, request, token.trim())?;
    let secret = server.inner().looking.sessions.begin(token.clone(), Instant::now());
    let cookie = cookie(server, request, &secret, AGE_MAX);
    Ok(answer().insert_header((SET_COOKIE, cookie)).json(description(server, &token)))
}

fn show(server: &Server, request: &HttpRequest) -> Result<HttpResponse, Failure> {
    if !pages::may(server, request) {
        return Err(Failure::Page);
    }
    let token = check(server, request)?;
    Ok(answer().json(description(server, &token)))
}

fn end(server: &Server, request: &HttpRequest) -> Result<HttpResponse, Failure> {
    if !pages::may(server, request) {
        return Err(Failure::Page);
    }
    check(server, request)?;
    if let Some(secret) = secret_of(server, request) {
        server.inner().looking.sessions.end(&secret);
    }
    let gone = cookie(server, request, "", Duration::ZERO);
    Ok(HttpResponse::NoContent().insert_header((SET_COOKIE, gone)).finish())
}

fn answer() -> HttpResponseBuilder {
    let mut answer = HttpResponse::Ok();
    answer.insert_header((CACHE_CONTROL, "no-store"));
    answer
}

fn description(server: &Server, token: &AdminToken) -> serde_json::Value {
    serde_json::json!({
        "name": token.name(),
        "rights": token.rights().iter().map(|right| right.as_str()).collect::<Vec<_>>(),
        "version": env!("CARGO_PKG_VERSION"),
        "remoteId": server.remote_id().to_string(),
    })
}

/// The cookie as a header sets it.
fn cookie(server: &Server, request: &HttpRequest, value: &str, age: Duration) -> String {
    let (name, seconds) = (cookie_name(server), age.as_secs());
    let secure = if pages::is_secure(server, request) { "; Secure" } else { "" };
    format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> AdminToken {
        AdminToken::new("ops", [], "s3cret").expect("a token")
    }

    #[tokio::test]
    async fn a_session_ends_when_it_is_not_used_and_after_a_week() {
        let (sessions, start) = (Sessions::default(), Instant::now());
        let secret = sessions.begin(token(), start);
        assert!(sessions.token(&secret, start + IDLE_MAX - Duration::from_secs(1)).is_some());
        assert!(sessions.token(&secret, start + IDLE_MAX * 2).is_none());
        let secret = sessions.begin(token(), start);
        let mut now = start;
        while now < start + AGE_MAX {
            assert_eq!(sessions.token(&secret, now), Some(token()));
            now += IDLE_MAX / 2;
        }
        assert_eq!(sessions.token(&secret, now), None);
    }

    #[tokio::test]
    async fn sessions_are_bounded_and_the_one_that_is_used_stays() {
        let (sessions, start) = (Sessions::default(), Instant::now());
        let used = sessions.begin(token(), start);
        let unused = sessions.begin(token(), start);
        for number in 1..=SESSIONS_MAX as u32 {
            let now = start + Duration::from_millis(number.into());
            sessions.token(&used, now);
            sessions.begin(token(), now);
        }
        assert_eq!(sessions.0.lock().len(), SESSIONS_MAX);
        assert!(sessions.token(&used, start).is_some());
        assert!(sessions.token(&unused, start).is_none());
        sessions.end(&used);
        assert!(sessions.token(&used, start).is_none());
    }

    #[test]
    fn a_secret_is_long_and_not_kept() {
        let sessions = Sessions::default();
        let now = Instant::now();
        let (one, other) = (sessions.begin(token(), now), sessions.begin(token(), now));
        assert!(one.len() == 64 && one != other);
        assert!(sessions.0.lock().keys().all(|id| id.as_slice() != one.as_bytes()));
    }
}
