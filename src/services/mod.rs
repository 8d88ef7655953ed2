//! The services that the server asks. An application can replace each with its own.
//!
//! | trait | what it keeps | comes with | choose your own when |
//! | --- | --- | --- | --- |
//! | [`Storage`] | the entries of all stores | [`memory`](crate::storage::memory), [`sled`](crate::storage::sled) | entries belong in a database that you already run |
//! | [`StoreRegistry`] | which store a key has | [`registry`] | your users' table knows who shares what |
//! | [`Identities`] | which signing key a key has | [`identities`] | keys are bound elsewhere |
//! | [`Records`] | what administrators set while the server runs | [`records`] | they are kept elsewhere |
//! | [`Quarantine`] | entries that are too large to be stored | [`quarantine`] | they are kept elsewhere |
//! | [`EventJournal`] | the positions of groups of handlers | [`journal`] | positions belong in your database |
//! | [`Auth`] | nothing: it says what a key may do | [`auth`] | nearly always |
//!
//! Keeps: a mapping is domain state, written only by `assign`; nothing derives a store from a key. Leaves out: where
//! refusals go (`server`), and when the questions are asked (`actors`, `processing`).

pub mod auth;
mod caller;
pub mod identities;
pub mod journal;
pub mod origin_policy;
pub mod proxies;
pub mod quarantine;
pub mod records;
pub mod registry;
pub mod revocations;
mod verified;

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;

use crate::model::{Batch, PublicKey, StoreId};

pub use self::caller::Caller;
pub(crate) use self::caller::{Value, sha256};
use self::identities::SigningKey;
#[doc(no_inline)]
pub use crate::storage::{Figure, Storage, StoreLog};
pub use identities::{Identities, IdentityError};
pub use journal::{EventJournal, JournalError};
pub use quarantine::{Quarantine, QuarantineUnavailable, Quarantined};
pub use records::{Records, RecordsUnavailable};
pub use registry::{RegistryError, StoreRegistry};
pub use revocations::{Revocation, Revoked};
pub use verified::{Rejected, Verified};

/// Decides who may do what. There is no default: a server without one does not compile.
///
/// It is asked about requests of clients; what the server's own code writes is not checked, because nobody called.
pub trait Auth: Send + Sync + 'static {
    /// Who is calling: asked once for each WebSocket, at its handshake, before anything about it is kept. The answer is
    /// the caller's [`verified`](Caller::verified) from then on, and the session ends when it expires. A rejected
    /// caller gets 401 and no WebSocket. By default, everybody is let in and nothing is known about them.
    fn verify<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<Option<Verified>, Rejected>> {
        let _ = caller;
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Whether the caller may append `entries` with the key; asked once per batch, before anything else happens to it.
    /// A write of the RPC protocol that is too large for one batch comes in several: all of them are checked before the
    /// first one is stored, and a batch is checked again if rights change meanwhile. An entry that is too large to be
    /// stored, and is put aside, comes alone and without its payload, which may be larger than memory.
    /// [`Batch::slots`] counts the entries as the client does, across the batches of a write.
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        entries: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>>;

    /// Whether the caller may read with the key; asked before a subscription exists. During the subscription it is
    /// asked again when [`Server::access_changed`](crate::server::Server::access_changed) says that answers have
    /// changed, and at the time that [`holds_until`](Self::holds_until) returned.
    fn authorize_read<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>>;

    /// Whether the caller, who has just proved to hold the signing key of the claim, may be its public key; asked
    /// before the two are bound to each other. Only the RPC protocol has such proofs. By default it is allowed.
    fn authorize_identity<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        let _ = claim;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Until when the answer counts that this claim was just given; asked after each time that reading is authorized.
    /// At that time the subscription is checked again, and continues meanwhile; at most once a second. By default
    /// `None`: until answers change.
    fn holds_until(&self, claim: Claim<'_>) -> Option<Instant> {
        let _ = claim;
        None
    }

    /// The signing key that may be bound to the caller's key, according to the proof of who the caller is; asked after
    /// [`authorize_identity`](Self::authorize_identity). Whoever proves another one is refused. By default `None`: then
    /// only [`BindPolicy`](identities::BindPolicy) says who may bind one.
    fn signing_key_of(&self, claim: Claim<'_>) -> Option<SigningKey> {
        let _ = claim;
        None
    }

    /// Who the caller is with this key, for [revocations](Revocation); asked after each authorization while somebody is
    /// revoked. By default, what [`verify`](Self::verify) found out; an implementation may find it out later.
    fn subject_of(&self, claim: Claim<'_>) -> Option<Arc<str>> {
        claim.caller.verified()?.subject.as_deref().map(Arc::from)
    }

    /// The store of the caller's key, according to the proof of who the caller is; asked after each authorization. A
    /// key without a store is assigned this one, durably, unless it once had another. A key that has another store is
    /// refused. By default `None`: then only the registry says which store a key has.
    fn store_of(&self, claim: Claim<'_>) -> Option<StoreId> {
        let _ = claim;
        None
    }

    /// What it has counted since the start, for `/metrics`; by default nothing. The names stay the same while the
    /// server runs.
    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }
}

/// What a client claims with each request: that it is this public key.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Who connected.
    pub caller: &'a Caller,
    /// The public key that the request names.
    pub key: &'a PublicKey,
    /// The signing key with which the client proved on this connection to be that public key. `None` in the msgpack
    /// protocol, which has no proofs: there the key is a name that anyone who knows it can use.
    pub proof: Option<&'a SigningKey>,
}

/// A refusal of [`Auth`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct AuthError {
    /// The kind of refusal.
    pub reason: AuthReason,
    /// The key that was refused.
    pub key: PublicKey,
    /// The text for the client.
    pub message: Arc<str>,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthReason {
    /// It is unknown who the caller is.
    Unauthorized,
    /// It is known who the caller is, and the caller is not allowed to do it.
    Forbidden,
    /// This cannot be determined at the moment. Trying again may help.
    Unavailable,
}

impl std::fmt::Display for AuthReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "unavailable",
        })
    }
}
