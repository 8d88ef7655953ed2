//! The issuer's key set, fetched over HTTP and kept up to date.
//!
//! Keeps: a good set is used until there is another good one; whatever callers send, unknown keys cause at most one
//! fetch in ten seconds, for all callers together; an answer is bounded in bytes and time. A thread of its own waits
//! for the answers, because the HTTP client blocks.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use ureq::Agent;
use ureq::http::{StatusCode, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::{JwtError, KeySet};
use crate::model::without_user;
use crate::services::Figure;

/// A set is fetched again after this time, so that a revoked key does not count for longer.
const REFRESH: Duration = Duration::from_secs(300);

/// While there is no answer, the time until the next attempt.
const RETRY: Duration = Duration::from_secs(10);

/// Callers can cause one fetch in this time.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(10);

/// The most time and bytes that an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 256 * 1_024;

/// Keys cannot be fetched from there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{url:?} is not an address to fetch keys from: use https://… without a user, or http:// with 127.0.0.1, \
     [::1] or localhost"
)]
pub struct InvalidUrl {
    url: String,
}

/// A key set by its address. Dropping it ends its thread.
pub(super) struct Fetched {
    state: watch::Receiver<State>,
    wanted: SyncSender<()>,
    /// When a caller caused the last attempt, and how many had ended then.
    asked: Mutex<Option<(Instant, u64)>>,
}

/// The results of all attempts so far.
#[derive(Clone, Default)]
struct State {
    keys: Arc<KeySet>,
    tries: u64,
    failed: u64,
}

impl Fetched {
    /// Starts to fetch.
    pub(super) fn start(url: &str, trusted: &[Vec<u8>]) -> Result<Self, JwtError> {
        let uri = check(url)?;
        let agent = agent(&uri, trusted);
        let (told, state) = watch::channel(State::default());
        let (wanted, wishes) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("jwks".to_owned());
        let started = thread.spawn(move || Source { agent, uri }.run(&told, &wishes));
        started.map_err(|error| JwtError::Thread(error.to_string().into()))?;
        Ok(Self { state, wanted, asked: Mutex::new(None) })
    }

    /// The keys as currently known. Does not wait.
    pub(super) fn keys(&self) -> Arc<KeySet> {
        self.state.borrow().keys.clone()
    }

    /// How often they were fetched, and how often without success.
    pub(super) fn figures(&self) -> [Figure; 2] {
        let state = self.state.borrow();
        [
            Figure { name: "jwks_fetches", help: "Tries to fetch the key set", value: state.tries },
            Figure {
                name: "jwks_fetches_failed",
                help: "Tries to fetch the key set that failed",
                value: state.failed,
            },
        ]
    }

    /// The keys after another attempt, if callers may cause one; otherwise the known ones.
    pub(super) async fn fetch_again(&self) -> Arc<KeySet> {
        let mut state = self.state.clone();
        let before = state.borrow_and_update().tries;
        if self.is_under_way(before) {
            let ended = state.wait_for(|state| state.tries > before);
            // If it is late or never comes, the known keys count.
            let _ = tokio::time::timeout(TIMEOUT * 2, ended).await;
        }
        self.keys()
    }

    /// Whether another attempt follows the `ended` ones soon; causes one if callers may.
    fn is_under_way(&self, ended: u64) -> bool {
        #[expect(clippy::disallowed_methods, reason = "strangers must not cause many requests")]
        let now = Instant::now();
        let mut asked = self.asked.lock();
        match *asked {
            // The first one always happens.
            _ if ended == 0 => true,
            // Another caller asked for it.
            Some((_, before)) if before == ended => true,
            Some((last, _)) if now.duration_since(last) < UNKNOWN_KEY_INTERVAL => false,
            Some(_) | None => {
                *asked = Some((now, ended));
                // The channel holds one request, and each request is followed by an attempt.
                self.wanted.try_send(()).is_ok()
            }
        }
    }
}

/// Keys sent in the clear can be replaced on the way, and then anybody can be anybody.
pub(super) fn check(url: &str) -> Result<Uri, InvalidUrl> {
    let invalid = || InvalidUrl { url: without_user(url) };
    let uri: Uri = url.parse().map_err(|_| invalid())?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(invalid());
    }
    let here = ["127.0.0.1", "[::1]", "localhost"];
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => Ok(uri),
        (Some("http"), Some(host)) if here.contains(&host) => Ok(uri),
        _ => Err(invalid()),
    }
}

/// The address for the log, without the parts that may be secret.
fn shown(uri: &Uri) -> String {
    let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
    let port = uri.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{scheme}://{host}{port}{}", uri.path())
}

/// A set from a different place than the one asked counts as none, so redirects are not followed.
fn agent(uri: &Uri, trusted: &[Vec<u8>]) -> Agent {
    let mut config = Agent::config_builder().timeout_global(Some(TIMEOUT)).max_redirects(0);
    if uri.scheme_str() == Some("http") {
        config = config.proxy(None);
    }
    if !trusted.is_empty() {
        let trusted = trusted.iter().map(|der| Certificate::from_der(der).to_owned());
        let roots = RootCerts::Specific(Arc::new(trusted.collect()));
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    config.build().into()
}

/// The thread's side.
struct Source {
    agent: Agent,
    uri: Uri,
}

impl Source {
    fn run(&self, told: &watch::Sender<State>, wishes: &Receiver<()>) {
        loop {
            let fetched = self.fetch();
            let after = if fetched.is_ok() { REFRESH } else { RETRY };
            let from = shown(&self.uri);
            match &fetched {
                Ok(keys) => log::debug!("fetched {} keys from {from}", keys.len()),
                Err(error) => log::warn!("no keys from {from}: {error}; the known keys stay"),
            }
            told.send_modify(|state| {
                state.tries += 1;
                match fetched {
                    Ok(keys) => state.keys = Arc::new(keys),
                    Err(_) => state.failed += 1,
                }
            });
            match wishes.recv_timeout(after) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn fetch(&self) -> Result<KeySet, String> {
        let answer = self.agent.get(&self.uri).header("accept", "application/json").call();
        let mut answer = answer.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("it answered {}", answer.status()));
        }
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| error.to_string())?;
        let mut keys = KeySet::default();
        keys.add_jwks(&body).map_err(|error| error.to_string())?;
        Ok(keys)
    }
}
