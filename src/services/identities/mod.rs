//! Which signing key belongs to a public key: trust on first use.
//!
//! Keeps: a binding, once made, never changes, and is durable before it counts. Leaves out: the proof that a client
//! has the signing key (`protocol::rpc::auth`), which comes before anything is bound.

mod memory;
#[cfg(feature = "sled")]
mod sled;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::model::PublicKey;

pub use self::memory::MemoryIdentities;
#[cfg(feature = "sled")]
pub use self::sled::SledIdentities;

/// An Ed25519 public key.
pub type SigningKey = [u8; 32];

/// The durable map from public keys to signing keys.
pub trait Identities: Send + Sync + 'static {
    /// Binds `signing_key` to `key` if nothing is bound to it yet, durably before it answers; fine if it is the
    /// one that is bound. Of two calls at the same time for an unbound key, one wins. Dropping the future leaves the
    /// binding made or not made.
    fn bind<'a>(
        &'a self,
        key: &'a PublicKey,
        signing_key: &'a SigningKey,
    ) -> BoxFuture<'a, Result<(), IdentityError>>;
}

/// A signing key was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Another signing key is bound to the public key.
    #[error("public key {key:?} is bound to another signing key")]
    BoundToAnother {
        /// The public key.
        key: PublicKey,
    },
    /// The bindings cannot be reached; trying again may help.
    #[error("the bindings of signing keys are unavailable: {message}")]
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
