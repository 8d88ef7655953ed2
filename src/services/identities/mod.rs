//! Which signing key belongs to a public key.
//!
//! Keeps: a binding, once made, is changed only by an administrator, and is durable before it counts. Leaves out: the
//! proof that a client has the signing key (`protocol::rpc::auth`), which comes before anything is bound.

mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sled")]
mod sled;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::model::PublicKey;

pub use self::memory::MemoryIdentities;
#[cfg(feature = "postgres")]
pub use self::postgres::PostgresIdentities;
#[cfg(feature = "sled")]
pub use self::sled::SledIdentities;

/// An Ed25519 public key.
pub type SigningKey = [u8; 32];

/// The durable map from public keys to signing keys.
pub trait Identities: Send + Sync + 'static {
    /// Binds `signing_key` to `key` if nothing is bound to it yet, durably before it answers; succeeds if the same one
    /// is already bound. Of two calls at the same time for an unbound key, one wins. If the future is dropped, the
    /// binding is made or not made.
    fn bind<'a>(
        &'a self,
        key: &'a PublicKey,
        signing_key: &'a SigningKey,
    ) -> BoxFuture<'a, Result<(), IdentityError>>;

    /// The signing key that is bound to `key`. Called for each request of a connection whose store is not known yet.
    fn get<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<SigningKey>, IdentityError>>;

    /// Binds `signing_key` to `key` whatever was bound before, or unbinds the key if it is `None`, durably before it
    /// answers; returns the previous one. For administrators.
    fn replace<'a>(
        &'a self,
        key: &'a PublicKey,
        signing_key: Option<&'a SigningKey>,
    ) -> BoxFuture<'a, Result<Option<SigningKey>, IdentityError>>;

    /// How many public keys have a signing key, counted up to `most`. Called once after the start, and now and then
    /// when the limit is reached.
    fn count(&self, most: usize) -> BoxFuture<'_, Result<usize, IdentityError>>;
}

/// A signing key in its text form: 64 hexadecimal digits.
pub fn signing_key_to_hex(signing_key: &SigningKey) -> String {
    let digits = signing_key.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// Parses what [`signing_key_to_hex`] writes, in upper or lower case.
pub fn signing_key_from_hex(text: &str) -> Option<SigningKey> {
    let digits = text.as_bytes();
    let mut signing_key = SigningKey::default();
    if digits.len() != 2 * signing_key.len() {
        return None;
    }
    for (byte, pair) in signing_key.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(signing_key)
}

/// Who may bind a signing key to a public key that has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BindPolicy {
    /// Whoever proves the first one and is allowed to be that key (`Auth::authorize_identity`).
    #[default]
    FirstUse,
    /// Nobody: an administrator does it ([`Server::pin`](crate::server::Server::pin)).
    Pinned,
    /// The holder of the signing key that `Auth::signing_key_of` names.
    Named,
}

/// Why a signing key was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Another signing key is bound to the public key.
    #[error("public key {key:?} is bound to another signing key")]
    BoundToAnother {
        /// The public key.
        key: PublicKey,
    },
    /// The bindings cannot be reached; trying again may help.
    #[error("signing keys cannot be looked up: {message}")]
    Unavailable {
        /// What went wrong.
        message: Arc<str>,
    },
}

impl IdentityError {
    /// An [`IdentityError::Unavailable`] with this cause.
    pub fn unavailable(cause: impl std::fmt::Display) -> Self {
        Self::Unavailable { message: cause.to_string().into() }
    }
}
