//! Who may use the admin API: whoever has one of its tokens.
//!
//! Keeps: whoever guesses is slowed down, counted, and named in the log,
//! and keeps nobody out who comes from another address. Leaves out: which tokens there are (`admin_tokens`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::http::header::AUTHORIZATION;
use parking_lot::Mutex;

use super::admin::Failure;
use super::admin_tokens::Rights;
use super::caller::address_of;
use super::handle::Server;
use crate::actors::audit::By;
use crate::actors::strangers::Stranger;
use crate::core::strangers::network;
use crate::model::seldom::Seldom;

/// So many wrong tokens may come from an address at once,
const BURST: u32 = 10;

/// and one more for each such time. Until then no token from there is looked at, since the answer would tell whether it is right.
const INTERVAL: Duration = Duration::from_secs(6);

/// So many addresses are remembered; one more, and all are forgotten.
const ADDRESSES_MAX: usize = 10_000;

/// The wrong tokens that came lately.
pub(super) struct Guesses {
    /// When the last wrong token of an address is forgiven.
    forgiven: Mutex<HashMap<IpAddr, Instant>>,
    line: Seldom,
}

impl Default for Guesses {
    fn default() -> Self {
        let line = Seldom::every(Duration::from_secs(1));
        Self { forgiven: Mutex::default(), line }
    }
}

impl Guesses {
    /// How long no token from `address` is looked at.
    fn blocked(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let forgiven = *self.forgiven.lock().get(&address)?;
        let left = forgiven.saturating_duration_since(now);
        left.checked_sub(INTERVAL * (BURST - 1)).filter(|wait| !wait.is_zero())
    }

    /// A wrong token came from `address`.
    fn add(&self, address: IpAddr, now: Instant) {
        let mut all = self.forgiven.lock();
        if all.len() >= ADDRESSES_MAX && !all.contains_key(&address) {
            all.retain(|_, forgiven| *forgiven > now);
            if all.len() >= ADDRESSES_MAX {
                all.clear();
            }
        }
        let forgiven = all.entry(address).or_insert(now);
        *forgiven = (*forgiven).max(now) + INTERVAL;
    }
}

/// Who asks, and what they may do, if they have a token.
pub(super) fn check(server: &Server, request: &HttpRequest) -> Result<(By, Rights), Failure> {
    let inner = server.inner();
    let address = address_of(request, &inner.trusted_proxies);
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let given = given.map(|(_, token)| token.trim_matches(' '));
    // Who sends none does not guess.
    let given = given.ok_or(Failure::Unauthorized)?;
    let from = address.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), network);
    let now = tokio::time::Instant::now().into_std();
    let blocked = inner.guesses.blocked(from, now);
    if blocked.is_none()
        && let Some((token, rights)) = inner.admin_tokens.read().find(given)
    {
        if let Some(stranger) = request.conn_data::<Arc<Stranger>>() {
            stranger.accept();
        }
        return Ok((By::Admin { address, token }, rights));
    }
    inner.shared.metrics.admin_tokens_refused.inc();
    if let Some(unsaid) = inner.guesses.line.next_line(now) {
        let address = address.map_or_else(|| "?".to_owned(), |address| address.to_string());
        log::warn!("a wrong admin token came from {address} ({unsaid} others before it)");
    }
    match blocked {
        Some(wait) => Err(Failure::Guessing { seconds: wait.as_secs() + 1 }),
        None => {
            inner.guesses.add(from, now);
            Err(Failure::Unauthorized)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        network(text.parse().expect("an address"))
    }

    #[test]
    fn an_address_that_guesses_is_slowed_down_and_no_other() {
        #[expect(clippy::disallowed_methods, reason = "some time to begin with")]
        let now = Instant::now();
        let (guesses, mallory) = (Guesses::default(), address("192.0.2.1"));
        for _ in 0..BURST {
            assert_eq!(guesses.blocked(mallory, now), None);
            guesses.add(mallory, now);
        }
        assert_eq!(guesses.blocked(mallory, now), Some(INTERVAL));
        assert_eq!(guesses.blocked(address("192.0.2.2"), now), None);
        let later = now + INTERVAL;
        assert_eq!(guesses.blocked(mallory, later), None);
        guesses.add(mallory, later);
        assert_eq!(guesses.blocked(mallory, later), Some(INTERVAL));
        assert_eq!(guesses.blocked(mallory, later + INTERVAL * BURST), None);
    }

    #[test]
    fn addresses_of_one_network_are_one_and_few_are_remembered() {
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:0:0:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        #[expect(clippy::disallowed_methods, reason = "some time to begin with")]
        let (guesses, now) = (Guesses::default(), Instant::now());
        for number in 0..=ADDRESSES_MAX as u32 {
            guesses.add(std::net::Ipv4Addr::from_bits(number).into(), now);
        }
        assert!(guesses.forgiven.lock().len() <= ADDRESSES_MAX);
    }
}
