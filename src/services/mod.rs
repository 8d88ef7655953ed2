//! What the server asks others for. An application may put something of its own in place of each.
//!
//! | trait | what it keeps | comes with | choose your own when |
//! | --- | --- | --- | --- |
//! | [`Storage`] | the entries of all stores | [`memory`](crate::storage::memory), [`sled`](crate::storage::sled) | entries belong into a database you run already |
//! | [`StoreRegistry`] | which store a key has | [`registry`] | your users' table knows who shares what |
//! | [`Identities`] | which signing key a key has | [`identities`] | keys are bound elsewhere |
//! | [`EventJournal`] | what handlers have run on | [`journal`] | handlers and journal belong into one database |
//! | [`Auth`] | nothing: it says what a key may do | [`auth`] | nearly always |
//!
//! Keeps: a mapping is domain state, written down by `assign` alone; nothing derives a store from a key.
//! Leaves out: where refusals go (`server`), and when the questions are asked (`actors`, `processing`).

pub mod auth;
pub mod identities;
pub mod journal;
pub mod origin_policy;
pub mod registry;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::model::{Batch, PublicKey};

#[doc(no_inline)]
pub use crate::storage::{Storage, StoreLog};
pub use identities::{Identities, IdentityError};
pub use journal::{EventJournal, JournalError};
pub use registry::{RegistryError, StoreRegistry};

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
