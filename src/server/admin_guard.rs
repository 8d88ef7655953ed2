//! Who may use the admin API: whoever has one of its tokens.
//!
//! Keeps: whoever guesses tokens is slowed down, counted, and named in the log, and this shuts out nobody at other
//! addresses. Leaves out: which tokens there are (`admin_tokens`).

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::AUTHORIZATION;

use super::admin::Failure;
use super::admin_tokens::{AdminToken, Rights};
use super::caller::address_of;
use super::handle::Server;
use crate::actors::audit::By;
use crate::actors::guesses;
use crate::model::seldom::Seldom;

/// How many wrong tokens an address may send at once,
const BURST: u32 = 10;

/// and how long until it may send one more. Until then no token from that address is looked at, because the answer
/// would tell whether it is right.
const INTERVAL: Duration = Duration::from_secs(6);

/// The recent wrong tokens.
pub(super) struct Guesses {
    tokens: guesses::Guesses,
    line: Seldom,
}

impl Default for Guesses {
    fn default() -> Self {
        let line = Seldom::every(Duration::from_secs(1));
        Self { tokens: guesses::Guesses::new(BURST, INTERVAL), line }
    }
}

/// Who the caller is and what they may do, if they have a token, or the console's cookie instead.
pub(super) fn check(server: &Server, request: &HttpRequest) -> Result<(By, Rights), Failure> {
    let token = match bearer(request) {
        Some(token) => look_up(server, request, token)?,
        // Whoever sends no token is not guessing.
        None => console_check(server, request)?,
    };
    if !server.accept(request) {
        return Err(Failure::TooManyConnections);
    }
    let address = address_of(request, &server.inner().trusted_proxies);
    let by = By::Admin { address, token: token.name().into() };
    Ok((by, Rights::of(&token)))
}

/// The token that a request shows.
fn bearer(request: &HttpRequest) -> Option<&str> {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (_, token) = given
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))?;
    Some(token.trim_matches(' '))
}

#[cfg(feature = "console")]
use super::console::check as console_check;

#[cfg(not(feature = "console"))]
fn console_check(_: &Server, _: &HttpRequest) -> Result<AdminToken, Failure> {
    Err(Failure::Unauthorized)
}

/// Why a request was let in. A stream keeps it, to check it again.
pub(super) enum Standing {
    Token(AdminToken),
    #[cfg(feature = "console")]
    Session(super::console::Opened),
}

impl Standing {
    /// Whether it would be let in now.
    pub(super) fn holds(&self, server: &Server) -> bool {
        match self {
            Self::Token(token) => server.inner().admin_tokens.read().0.contains(token),
            #[cfg(feature = "console")]
            Self::Session(opened) => opened.holds(server),
        }
    }
}

/// Why this request was let in; `None` if it would not be now.
pub(super) fn standing(server: &Server, request: &HttpRequest) -> Option<Standing> {
    if let Some(token) = bearer(request) {
        return server.inner().admin_tokens.read().find(token).map(Standing::Token);
    }
    #[cfg(feature = "console")]
    return super::console::Opened::of(server, request).map(Standing::Session);
    #[cfg(not(feature = "console"))]
    None
}

/// Finds the token that matches `given`. Slows down whoever guesses.
pub(super) fn look_up(
    server: &Server,
    request: &HttpRequest,
    given: &str,
) -> Result<AdminToken, Failure> {
    let inner = server.inner();
    let address = address_of(request, &inner.trusted_proxies);
    let now = tokio::time::Instant::now().into_std();
    let blocked = inner.guesses.tokens.blocked(address, now);
    if blocked.is_none()
        && let Some(token) = inner.admin_tokens.read().find(given)
    {
        return Ok(token);
    }
    inner.shared.metrics.admin_tokens_refused.inc();
    if let Some(unsaid) = inner.guesses.line.next_line(now) {
        let address = address.map_or_else(|| "?".to_owned(), |address| address.to_string());
        log::warn!(connection:% = address, error = "admin-token"; "a wrong admin token came from {address} ({unsaid} more since the last such line)");
    }
    match blocked {
        Some(wait) => Err(Failure::Guessing { seconds: wait.as_secs() + 1 }),
        None => {
            inner.guesses.tokens.add(address, now);
            Err(Failure::Unauthorized)
        }
    }
}
