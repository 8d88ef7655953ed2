//! The key set of whoever signs, fetched by HTTP and kept up to date.
//!
//! Keeps: a good set is used until there is another good one; whatever callers send, keys that are not known have them fetched
//! once in ten seconds at most, for all callers together; an answer is bounded in bytes and time. A thread of its own waits
//! for the answers, since the HTTP client blocks.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use ureq::Agent;
use ureq::http::{StatusCode, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::{JwtError, KeySet};
use crate::services::Figure;

/// A set is fetched again after this, so that a key that was taken back does not count for longer.
const REFRESH: Duration = Duration::from_secs(300);

/// As long as there is no answer, this is how long it takes to the next try.
const RETRY: Duration = Duration::from_secs(10);

/// Callers have the keys fetched once in so long.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(10);

/// An answer takes this long at most, and has this many bytes.
const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 256 * 1_024;

/// Keys cannot be fetched from there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{url:?} is not an address to fetch keys from: use https://…, or http:// with 127.0.0.1, [::1] or \
     localhost"
)]
pub struct InvalidUrl {
    url: String,
}

/// A key set by its address. Dropped, it ends its thread.
pub(super) struct Fetched {
    state: watch::Receiver<State>,
    wanted: SyncSender<()>,
    /// When a caller had the last try made, and how many had ended then.
    asked: Mutex<Option<(Instant, u64)>>,
}

/// What came of all tries so far.
#[derive(Clone, Default)]
struct State {
    keys: Arc<KeySet>,
    tries: u64,
    failed: u64,
}

impl Fetched {
    /// Begins to fetch.
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

    /// The keys as they are known. Waits for nobody.
    pub(super) fn keys(&self) -> Arc<KeySet> {
        self.state.borrow().keys.clone()
    }

    /// How often they were fetched, and how often in vain.
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

    /// The keys after another try, if callers may have one made; if not, those that are known.
    pub(super) async fn fetch_again(&self) -> Arc<KeySet> {
        let mut state = self.state.clone();
        let before = state.borrow_and_update().tries;
        if self.is_under_way(before) {
            let ended = state.wait_for(|state| state.tries > before);
            // Late or never: what is known counts.
            let _ = tokio::time::timeout(TIMEOUT * 2, ended).await;
        }
        self.keys()
    }

    /// Whether another try follows the `ended` ones soon; has one made if callers may.
    fn is_under_way(&self, ended: u64) -> bool {
        #[expect(clippy::disallowed_methods, reason = "strangers must not cause many requests")]
        let now = Instant::now();
        let mut asked = self.asked.lock();
        match *asked {
            // The first one is always made.
            _ if ended == 0 => true,
            // It was asked for by another caller.
            Some((_, before)) if before == ended => true,
            Some((last, _)) if now.duration_since(last) < UNKNOWN_KEY_INTERVAL => false,
            Some(_) | None => {
                *asked = Some((now, ended));
                // It takes one wish at a time, and there is none that was not followed by a try.
                self.wanted.try_send(()).is_ok()
            }
        }
    }
}

/// Keys in the clear can be replaced on their way, and then everybody can be anybody.
fn check(url: &str) -> Result<Uri, InvalidUrl> {
    let invalid = || InvalidUrl { url: url.to_owned() };
    let uri: Uri = url.parse().map_err(|_| invalid())?;
    let here = ["127.0.0.1", "[::1]", "localhost"];
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => Ok(uri),
        (Some("http"), Some(host)) if here.contains(&host) => Ok(uri),
        _ => Err(invalid()),
    }
}

/// A set that comes from elsewhere than it was asked for is none, so redirects are not followed.
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
            match &fetched {
                Ok(keys) => log::debug!("fetched {} keys from {}", keys.len(), self.uri),
                Err(error) => log::warn!("no keys from {}: {error}; the known keys stay", self.uri),
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
