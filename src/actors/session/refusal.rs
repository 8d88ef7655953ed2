//! Why a client does not get what it asked for, and the code that it is told.

use std::sync::Arc;

use crate::actors::guard::Panicked;
use crate::actors::newcomers::TooMany;
use crate::actors::quarantine::AsideError;
use crate::actors::quotas::Exceeded;
use crate::actors::reply::WriteFailure;
use crate::actors::stores::ResolveError;
use crate::core::validate::InvalidBatch;
use crate::protocol::msgpack::ErrorCode;
use crate::protocol::rpc;
use crate::protocol::rpc::large::LargeError;
use crate::services::identities::IdentityError;
use crate::services::revocations::IsRevoked;
use crate::services::{AuthError, AuthReason, RegistryError};
use crate::storage::StorageError;

/// The message to a client that encrypts its entries.
pub(crate) const ENCRYPTED: &str = "encrypted: this server does not support encrypted event logs; use \
                                    EventLogRemote.layerUnencrypted, and wss:// to encrypt the connection";

/// A request is refused, or a subscription ends.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Write(#[from] WriteFailure),
    #[error(transparent)]
    Invalid(#[from] InvalidBatch),
    #[error(transparent)]
    Quota(#[from] Exceeded),
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error("this connection already has {subscriptions_max} subscriptions, the most allowed")]
    TooManySubscriptions { subscriptions_max: usize },
    #[error("this connection has already proved {identities_max} identities, the most allowed")]
    TooManyIdentities { identities_max: usize },
    #[error("the public key has no store {store:?}")]
    NoSuchStore { store: Box<str> },
    #[error("the public key has another subscription now")]
    Replaced,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(
        "proof: this public key has a signing key and is refused without a proof; connect to /rpc"
    )]
    NeedsProof,
    #[error(
        "pinned: the signing key {signing_key} is not set for this public key; an administrator can \
         set it with `eventlog-server keys pin`"
    )]
    NotPinned { signing_key: Box<str> },
    #[error(
        "token: the signing key {signing_key} is not the one that the token or the application names for \
         this public key"
    )]
    NotNamed { signing_key: Box<str> },
    #[error("the public key was removed from the registry, or moved to another store")]
    KeyRemoved,
    #[error("closed: an administrator closed this subscription")]
    Closed,
    #[error(transparent)]
    Revoked(#[from] IsRevoked),
    #[error(transparent)]
    Large(Arc<LargeError>),
    #[error(transparent)]
    Aside(#[from] AsideError),
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<ResolveError> for Refusal {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Registry(error) => error.into(),
            ResolveError::Storage(error) => error.into(),
            ResolveError::TooMany(too_many) => too_many.into(),
        }
    }
}

impl From<Panicked> for Refusal {
    fn from(panicked: Panicked) -> Self {
        Self::Internal(panicked.to_string())
    }
}

impl From<LargeError> for Refusal {
    fn from(error: LargeError) -> Self {
        Self::Large(Arc::new(error))
    }
}

impl Refusal {
    /// The message for the log, which may have to hide public keys.
    pub(crate) fn in_log(&self) -> String {
        match self {
            Self::Identity(IdentityError::BoundToAnother { key }) => {
                format!("public key {} is bound to another signing key", key.in_log())
            }
            Self::Registry(RegistryError::NotMapped { key }) => {
                format!("public key {} is not mapped to a store", key.in_log())
            }
            Self::Registry(
                RegistryError::AlreadyAssigned { key, store } | RegistryError::Moved { key, store },
            ) => format!("public key {} already has store {store:?}", key.in_log()),
            other => other.to_string(),
        }
    }

    /// The message for the client: nothing about the internals of the application or the server, which only the log
    /// gets.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Registry(RegistryError::Unavailable { .. }) => {
                "the store registry is unavailable".to_owned()
            }
            Self::Registry(RegistryError::Moved { .. } | RegistryError::AlreadyAssigned { .. }) => {
                "moved: this public key was used with another store; use a new public key"
                    .to_owned()
            }
            Self::Identity(IdentityError::Unavailable { .. }) | Self::Storage(_) => {
                "the storage is unavailable".to_owned()
            }
            Self::Large(error) => match &**error {
                LargeError::Source(_) => "the write cannot be read back".to_owned(),
                LargeError::Malformed(_) | LargeError::Invalid(_) => error.to_string(),
            },
            Self::Aside(AsideError::Unavailable(_)) => {
                "quarantine: an entry is too large, and the quarantine is not available now"
                    .to_owned()
            }
            Self::Internal(_) => "internal error".to_owned(),
            Self::Aside(AsideError::Full { .. })
            | Self::Auth(_)
            | Self::Registry(RegistryError::NotMapped { .. })
            | Self::Write(_)
            | Self::Invalid(_)
            | Self::Quota(_)
            | Self::TooMany(_)
            | Self::TooManySubscriptions { .. }
            | Self::TooManyIdentities { .. }
            | Self::NoSuchStore { .. }
            | Self::Replaced
            | Self::Identity(IdentityError::BoundToAnother { .. })
            | Self::NeedsProof
            | Self::NotPinned { .. }
            | Self::NotNamed { .. }
            | Self::KeyRemoved
            | Self::Closed
            | Self::Revoked(_) => self.to_string(),
        }
    }

    /// The level of its log line: somebody has to see what the client is not told, and what it sends again without end.
    /// The `RegistryActor` logs problems of the registry, less often.
    pub(crate) const fn level(&self) -> log::Level {
        match self {
            Self::Identity(IdentityError::Unavailable { .. })
            | Self::Storage(_)
            | Self::Internal(_)
            | Self::Large(_)
            | Self::Aside(AsideError::Unavailable(_))
            | Self::Invalid(_) => log::Level::Warn,
            // Logged once for each entry.
            Self::Aside(AsideError::Full { .. })
            | Self::Auth(_)
            | Self::Registry(_)
            | Self::Write(_)
            | Self::Quota(_)
            | Self::TooMany(_)
            | Self::TooManySubscriptions { .. }
            | Self::TooManyIdentities { .. }
            | Self::NoSuchStore { .. }
            | Self::Replaced
            | Self::Identity(IdentityError::BoundToAnother { .. })
            | Self::NeedsProof
            | Self::NotPinned { .. }
            | Self::NotNamed { .. }
            | Self::KeyRemoved
            | Self::Closed
            | Self::Revoked(_) => log::Level::Debug,
        }
    }

    /// Its code in the msgpack protocol and in the RPC protocol. `Forbidden` makes a client authenticate again, so it
    /// is used only where that may help. What a client only has to request again later is called `InternalServerError`.
    pub(crate) fn codes(&self) -> (ErrorCode, rpc::ErrorCode) {
        match self {
            Self::Auth(AuthError {
                reason: AuthReason::Unauthorized | AuthReason::Forbidden,
                ..
            })
            | Self::NeedsProof
            | Self::NotPinned { .. }
            | Self::NotNamed { .. }
            | Self::Revoked(_) => (ErrorCode::Unauthorized, rpc::ErrorCode::Unauthorized),
            Self::Identity(IdentityError::BoundToAnother { .. }) => {
                (ErrorCode::InvalidRequest, rpc::ErrorCode::Forbidden)
            }
            Self::Registry(
                RegistryError::NotMapped { .. }
                | RegistryError::AlreadyAssigned { .. }
                | RegistryError::Moved { .. },
            )
            | Self::NoSuchStore { .. }
            | Self::KeyRemoved => (ErrorCode::InvalidRequest, rpc::ErrorCode::NotFound),
            Self::Large(error) => match &**error {
                LargeError::Source(_) => {
                    (ErrorCode::InternalServerError, rpc::ErrorCode::InternalServerError)
                }
                LargeError::Malformed(_) | LargeError::Invalid(_) => {
                    (ErrorCode::InvalidRequest, rpc::ErrorCode::InvalidRequest)
                }
            },
            Self::Invalid(_)
            | Self::TooManySubscriptions { .. }
            | Self::TooManyIdentities { .. }
            | Self::Replaced => (ErrorCode::InvalidRequest, rpc::ErrorCode::InvalidRequest),
            Self::Auth(AuthError { reason: AuthReason::Unavailable, .. })
            | Self::Registry(RegistryError::Unavailable { .. })
            | Self::Identity(IdentityError::Unavailable { .. })
            | Self::Storage(_)
            | Self::Write(_)
            | Self::Quota(_)
            | Self::TooMany(_)
            | Self::Aside(_)
            | Self::Closed
            | Self::Internal(_) => {
                (ErrorCode::InternalServerError, rpc::ErrorCode::InternalServerError)
            }
        }
    }
}
