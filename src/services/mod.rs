//! What the server asks others about: which store a key has, and what a key may do.
//!
//! Keeps: a mapping is domain state, written down by `assign` alone; nothing derives a store from a key.
//! Leaves out: where refusals go (`server`), and when the questions are asked (`actors`).

pub mod auth;
pub mod identities;
pub mod origin_policy;
pub mod registry;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::model::{Batch, PublicKey, StoreId};

/// The durable map from public keys to stores.
///
/// Every answer of the returned futures holds at the moment it is given. Dropping a future leaves the operation
/// done or not done, never half done.
pub trait StoreRegistry: Send + Sync + 'static {
    /// The store of `key`; [`RegistryError::NotMapped`] if it has none.
    fn resolve<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>>;

    /// Maps `key` to `store`, durably before it answers. Repeating an assignment is fine;
    /// [`RegistryError::AlreadyAssigned`] (with the store it has) if the key maps elsewhere.
    fn assign<'a>(
        &'a self,
        key: &'a PublicKey,
        store: &'a StoreId,
    ) -> BoxFuture<'a, Result<(), RegistryError>>;

    /// Removes the mapping of `key`, durably before it answers, and tells which store it had;
    /// [`RegistryError::NotMapped`] if there was none.
    fn remove<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>>;

    /// At most `count` mappings whose key comes after `after`, in the order of their keys.
    fn list<'a>(
        &'a self,
        after: Option<&'a PublicKey>,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<(PublicKey, StoreId)>, RegistryError>>;
}

/// The registry has no answer, or not the one asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The key has no store.
    #[error("public key {key:?} is not mapped to a store")]
    NotMapped {
        /// The key asked for.
        key: PublicKey,
    },
    /// The key maps to another store than the one it was to be assigned.
    #[error("public key {key:?} is already assigned to store {store:?}")]
    AlreadyAssigned {
        /// The key asked for.
        key: PublicKey,
        /// The store it has.
        store: StoreId,
    },
    /// The registry cannot be reached; asking again may help.
    #[error("the store registry is unavailable: {message}")]
    Unavailable {
        /// The key asked for, if the question named one.
        key: Option<PublicKey>,
        /// What went wrong.
        message: Arc<str>,
    },
}

/// Says what a public key may do. There is no default: a server without one does not build.
pub trait Auth: Send + Sync + 'static {
    /// Whether `key` may append `entries`; asked once per batch, before anything else happens to it.
    fn authorize_write<'a>(
        &'a self,
        key: &'a PublicKey,
        entries: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>>;

    /// Whether `key` may read; asked before a subscription exists.
    fn authorize_read<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<(), AuthError>>;

    /// Whether a client that has proved to hold `signing_key`, an Ed25519 public key, may be `key`; asked before the two are
    /// bound to each other. Only the RPC protocol has such proofs. Allowed unless an implementation says otherwise.
    fn authorize_identity<'a>(
        &'a self,
        key: &'a PublicKey,
        signing_key: &'a [u8; 32],
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        let _ = (key, signing_key);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A refusal of [`Auth`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct AuthError {
    /// The kind of refusal.
    pub reason: AuthReason,
    /// The key that was refused.
    pub key: PublicKey,
    /// What the client is told.
    pub message: Arc<str>,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthReason {
    /// Nobody knows who this is.
    Unauthorized,
    /// It is known who this is, and it is not allowed.
    Forbidden,
}

impl std::fmt::Display for AuthReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
        })
    }
}
