//! Which store a key has. There are registries in memory, on sled, and the one behind `--dev`.
//!
//! Keeps: one contract, written on [`StoreRegistry`] and run as one test suite (`testing::registry`) against each of
//! them. Leaves out: who asks, and what happens to subscriptions when a mapping is removed (`actors`).

mod dev;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sled")]
mod sled;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::model::{PublicKey, StoreId};

pub use dev::{DEV_STORE, DevRegistry};
pub use memory::MemoryRegistry;
#[cfg(feature = "postgres")]
pub use postgres::{Imported, PostgresRegistry};
#[cfg(feature = "sled")]
pub use sled::SledRegistry;

/// The durable map from public keys to stores.
///
/// A key that has a store here does not count as a stranger's: the number of such keys is not bounded
/// ([`Limits::keys_max`]).
///
/// [`Limits::keys_max`]: crate::model::Limits::keys_max
///
/// Whatever it answers, clients are served only from the store that their key was first used with (`docs/KEYS.md`): the
/// server records that itself, in its storage.
///
/// Every answer of the returned futures is true at the moment it is given. If a future is dropped, its operation is
/// done or not done, never half done.
pub trait StoreRegistry: Send + Sync + 'static {
    /// The store of `key`; [`RegistryError::NotMapped`] if it has none.
    fn resolve<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>>;

    /// Like [`StoreRegistry::resolve`], for callers that only look: changes nothing. A registry whose `resolve` may
    /// assign has its own implementation.
    fn look_up<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        self.resolve(key)
    }

    /// Maps `key` to `store`, durably before it answers. Repeating an assignment succeeds;
    /// [`RegistryError::AlreadyAssigned`] (with the store it has) if the key maps elsewhere.
    fn assign<'a>(
        &'a self,
        key: &'a PublicKey,
        store: &'a StoreId,
    ) -> BoxFuture<'a, Result<(), RegistryError>>;

    /// Removes the mapping of `key`, durably before it answers, and returns the store that it had;
    /// [`RegistryError::NotMapped`] if there was none.
    fn remove<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>>;

    /// At most `count` mappings whose key comes after `after`, in the order of their keys.
    fn list<'a>(
        &'a self,
        after: Option<&'a PublicKey>,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<(PublicKey, StoreId)>, RegistryError>>;

    /// What the operator may do about keys without a store, besides assigning one: the end of a sentence for the log.
    fn how_else(&self) -> Option<&'static str> {
        None
    }
}

/// Why the registry has no answer, or not the expected one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The key has no store.
    #[error("public key {key:?} is not mapped to a store")]
    NotMapped {
        /// The key asked for.
        key: PublicKey,
    },
    /// The key maps to another store than the one requested.
    #[error("public key {key:?} is already assigned to store {store:?}")]
    AlreadyAssigned {
        /// The key asked for.
        key: PublicKey,
        /// The store it has.
        store: StoreId,
    },
    /// Clients have used the key with another store before, so it does not move: the server enforces this, see
    /// `docs/KEYS.md`.
    #[error(
        "public key {key:?} was used with store {store:?}, and a key does not move, because its clients hold \
         sequences of that store. Give them another key, or release this one when none of them has anything \
         left of that store"
    )]
    Moved {
        /// The key asked for.
        key: PublicKey,
        /// The store that it was used with.
        store: StoreId,
    },
    /// The registry cannot be reached; asking again may help.
    #[error("the store registry is unavailable: {message}")]
    Unavailable {
        /// The key asked for, if the request named one.
        key: Option<PublicKey>,
        /// What went wrong.
        message: Arc<str>,
    },
}

impl RegistryError {
    /// A [`RegistryError::NotMapped`] about `key`.
    pub fn not_mapped(key: &PublicKey) -> Self {
        Self::NotMapped { key: key.clone() }
    }

    /// A [`RegistryError::Unavailable`] with this cause.
    pub fn unavailable(key: Option<&PublicKey>, cause: impl std::fmt::Display) -> Self {
        Self::Unavailable { key: key.cloned(), message: cause.to_string().into() }
    }
}
