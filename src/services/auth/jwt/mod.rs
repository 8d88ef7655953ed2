//! A token (JWT), signed by the application's own login, says who is calling.
//!
//! The token is checked once, at the handshake, and is valid for the connection until it expires: so keys can be
//! changed without disconnecting anybody. What it allows is read from its claims ([`ClaimNames`]) into [`Rights`].
//!
//! Keeps: a key checks only signatures of its own algorithm, whatever the token asks for; nothing in a token is trusted
//! before its signature was verified; no token appears in a message or in the log. Leaves out: the cryptography (the
//! crate `ring`), and renewing a token, which takes a new connection.

mod claims;
mod fetch;
mod jwks;
mod key;
mod token;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::RwLock;

use self::claims::Expected;
use self::fetch::Fetched;
use self::token::Token;
use super::Rights;
use crate::model::{Batch, PublicKey, StoreId};
use crate::services::identities::SigningKey;
use crate::services::{Auth, AuthError, AuthReason, Caller, Claim, Figure, Rejected, Verified};

pub use self::claims::ClaimNames;
pub use self::fetch::InvalidUrl;
pub use self::jwks::InvalidJwks;
pub use self::key::{Algorithm, InvalidKey, Key, KeySet};
pub use self::token::TokenSource;

/// Which tokens are trusted, and where to search for them.
#[derive(Clone, Debug)]
pub struct JwtOptions {
    /// The accepted algorithms; empty for all that there is a key for.
    pub algorithms: Vec<Algorithm>,
    /// The keys known from the start.
    pub keys: KeySet,
    /// Where to find more keys, as a JSON Web Key Set: https, or http on this machine. Fetched at the start, then every
    /// five minutes, and when a token names an unknown key.
    pub jwks_url: Option<String>,
    /// Certificates (X.509, DER) of the authorities to trust for `jwks_url`, instead of those that browsers trust;
    /// empty for the latter.
    pub trusted_certificates: Vec<Vec<u8>>,
    /// The claim `iss` has to be one of these; empty for any.
    pub issuers: Vec<String>,
    /// The claim `aud` has to have one of these. A token that has the claim is refused if this is empty.
    pub audiences: Vec<String>,
    /// How far the issuers' clocks may be off.
    pub leeway: Duration,
    /// Where to search for a token. The first one found counts.
    pub tokens: Vec<TokenSource>,
    /// The names of the claims.
    pub claims: ClaimNames,
}

impl Default for JwtOptions {
    fn default() -> Self {
        Self {
            algorithms: Vec::new(),
            keys: KeySet::default(),
            jwks_url: None,
            trusted_certificates: Vec::new(),
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: Duration::from_secs(5),
            tokens: vec![TokenSource::Authorization, TokenSource::Query],
            claims: ClaimNames::default(),
        }
    }
}

impl JwtOptions {
    /// Checks that they can work, and returns the accepted algorithms. Fetches nothing.
    pub fn check(&self) -> Result<Vec<Algorithm>, JwtError> {
        if self.tokens.is_empty() {
            return Err(JwtError::NoSource);
        }
        self.jwks_url.as_deref().map(fetch::check).transpose()?;
        algorithms_of(&self.algorithms, &self.keys, self.jwks_url.is_some())
    }
}

/// Why the options cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtError {
    /// Nothing could be checked.
    #[error(
        "there is no key to check tokens with: set a secret, a public key, or a JSON Web Key Set (`secret`, `secret_file`, `public_key_file`, `jwks_file`, `jwks_url`)"
    )]
    NoKey,
    /// No token could arrive.
    #[error("`tokens` is empty: there is no place to look for a token")]
    NoSource,
    /// A token of this algorithm could not be checked.
    #[error("{0} has no key that could check it")]
    NoKeyFor(Algorithm),
    /// A key would never be used.
    #[error("there is a key for {0}, and that is not among the algorithms")]
    UnusedKey(Algorithm),
    /// The address of the key set.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// The thread that fetches keys.
    #[error("the thread that fetches keys cannot be started: {0}")]
    Thread(Arc<str>),
}

/// An [`Auth`] that admits whoever has a valid token, and allows what the token says.
pub struct JwtAuth {
    /// The requested algorithms; empty for all that there is a key for.
    asked: Vec<Algorithm>,
    given: RwLock<Arc<Given>>,
    fetched: Option<Fetched>,
    expected: Expected,
    tokens: Vec<TokenSource>,
}

/// The given keys, and the algorithms that are accepted with them.
struct Given {
    algorithms: Vec<Algorithm>,
    keys: KeySet,
}

impl JwtAuth {
    /// Checks that the options can work, and starts to fetch keys if they have an address.
    pub fn new(options: JwtOptions) -> Result<Self, JwtError> {
        let algorithms = options.check()?;
        let trusted = &options.trusted_certificates;
        let fetched = options.jwks_url.as_deref().map(|url| Fetched::start(url, trusted));
        let fetched = fetched.transpose()?;
        Ok(Self {
            asked: options.algorithms,
            given: RwLock::new(Arc::new(Given { algorithms, keys: options.keys })),
            fetched,
            expected: Expected {
                issuers: options.issuers,
                audiences: options.audiences,
                leeway: options.leeway,
                names: options.claims,
            },
            tokens: options.tokens,
        })
    }

    /// Replaces the given keys by `keys`, if they can work. Connected clients stay until their tokens expire.
    pub fn replace_keys(&self, keys: KeySet) -> Result<(), JwtError> {
        let algorithms = algorithms_of(&self.asked, &keys, self.fetched.is_some())?;
        *self.given.write() = Arc::new(Given { algorithms, keys });
        Ok(())
    }

    async fn check(&self, caller: &Caller, now: SystemTime) -> Result<Verified, Rejected> {
        let Some(text) = self.tokens.iter().find_map(|source| source.find(caller)) else {
            return Err(Rejected::new("no-token", self.where_to_put_it()));
        };
        let given = self.given.read().clone();
        let token = Token::parse(text, &given.algorithms)?;
        let payload = self.verify(&token, &given.keys).await?;
        self.expected.read(&payload, now)
    }

    /// The payload of the token, if one of the keys has signed it.
    async fn verify(&self, token: &Token<'_>, given: &KeySet) -> Result<Vec<u8>, Rejected> {
        let known = self.fetched.as_ref().map(Fetched::keys).unwrap_or_default();
        let outcome = token.verify(&[given, &known]);
        match (outcome, &self.fetched) {
            (Err(refused), Some(fetched)) if refused.may_be_a_new_key() => {
                let new = fetched.fetch_again().await;
                let same = Arc::ptr_eq(&known, &new);
                let outcome = if same { Err(refused) } else { token.verify(&[given, &new]) };
                Ok(outcome?)
            }
            (outcome, _) => Ok(outcome?),
        }
    }

    fn where_to_put_it(&self) -> String {
        let places: Vec<String> = self.tokens.iter().map(ToString::to_string).collect();
        format!("a token is needed: {}", places.join(", or "))
    }
}

/// The accepted algorithms. Each has a key, and each key that was given individually has its algorithm among them.
fn algorithms_of(
    algorithms: &[Algorithm],
    keys: &KeySet,
    fetches: bool,
) -> Result<Vec<Algorithm>, JwtError> {
    let may_be_fetched = |algorithm: Algorithm| fetches && algorithm != Algorithm::HS256;
    let has_key = |algorithm: &Algorithm| keys.serves(*algorithm) || may_be_fetched(*algorithm);
    if algorithms.is_empty() {
        let all: Vec<Algorithm> = Algorithm::ALL.into_iter().filter(has_key).collect();
        return if all.is_empty() { Err(JwtError::NoKey) } else { Ok(all) };
    }
    if let Some(without) = algorithms.iter().find(|algorithm| !has_key(algorithm)) {
        return Err(JwtError::NoKeyFor(*without));
    }
    match keys.given().find(|algorithm| !algorithms.contains(algorithm)) {
        Some(unused) => Err(JwtError::UnusedKey(unused)),
        None => Ok(algorithms.to_vec()),
    }
}

/// What the token allows. A caller without a handshake has no token, and may do nothing.
fn rights<'a>(claim: &Claim<'a>) -> Result<&'a Rights, AuthError> {
    let rights = claim.caller.verified().and_then(|verified| verified.rights.as_ref());
    rights.ok_or_else(|| AuthError {
        reason: AuthReason::Unauthorized,
        key: PublicKey::clone(claim.key),
        message: "no token was given".into(),
    })
}

impl Auth for JwtAuth {
    fn verify<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<Option<Verified>, Rejected>> {
        #[expect(clippy::disallowed_methods, reason = "tokens say until when they are good")]
        let now = SystemTime::now();
        async move { Ok(Some(self.check(caller, now).await?)) }.boxed()
    }

    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        entries: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        let allowed = rights(&claim).and_then(|rights| rights.check_write(claim.key, entries));
        ready(allowed).boxed()
    }

    fn authorize_read<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        ready(rights(&claim).and_then(|rights| rights.check_read(claim.key))).boxed()
    }

    fn authorize_identity<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        ready(rights(&claim).and_then(|rights| rights.check_key(claim.key))).boxed()
    }

    fn store_of(&self, claim: Claim<'_>) -> Option<StoreId> {
        rights(&claim).ok()?.stores.of(claim.key).cloned()
    }

    fn signing_key_of(&self, claim: Claim<'_>) -> Option<SigningKey> {
        rights(&claim).ok()?.signing_keys.of(claim.key).copied()
    }

    fn figures(&self) -> Vec<Figure> {
        self.fetched.iter().flat_map(Fetched::figures).collect()
    }
}

#[cfg(test)]
mod tests;
