//! Why an admin request is not served: our errors as HTTP statuses, sent as `application/problem+json` (RFC 9457).
//!
//! Keeps: programs can rely on the word in `reason`; `detail` is for people. Leaves out: what the API does (`admin`).

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};

use super::access::RevokeError;
use super::admin_tokens::AdminRight;
use super::erasures::EraseError;
use super::grants::GrantsError;
use super::pages;
use super::quarantine::QuarantineError;
use super::reload::ReloadError;
use super::trims::ServerTrimError;
use crate::model::{EntryId, PublicKey, StoreId};
use crate::processing::{GroupError, WriteError};
use crate::services::{IdentityError, RecordsUnavailable, RegistryError};
use crate::storage::StorageError;

/// Why an admin request is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the admin API needs the header Authorization: Bearer TOKEN, with a token of [admin]")]
    Unauthorized,
    #[error("too many wrong tokens came from this address; try again in {seconds} s")]
    Guessing { seconds: u64 },
    #[error("{}", pages::REFUSED.trim_end())]
    Page,
    #[cfg(feature = "console")]
    #[error(
        "the console's cookie works only for the console: a change needs this host as its Origin, and \
         application/json"
    )]
    ConsolePage,
    #[error("this token does not have the right {:?}", .0.as_str())]
    Right(AdminRight),
    #[error("the limit of open live streams is reached: close one, or try again later")]
    TooManyStreams,
    #[error(
        "the limit of connections that use the admin API is reached ([limits] admin_connections_max): close one, or \
         try again later"
    )]
    TooManyConnections,
    #[error("nothing is here; /admin/openapi.json lists what there is")]
    NothingHere,
    #[error("this path takes {allowed}")]
    Method { allowed: String },
    #[error("{0}")]
    Invalid(String),
    #[error("public key {0:?} was not used with a store")]
    NotUsed(PublicKey),
    #[error("public key {0:?} has no signing key")]
    NotBound(PublicKey),
    #[error("there is no grant for exactly {0:?}")]
    NotGranted(PublicKey),
    #[error("there is no revocation {0:?}")]
    NotRevoked(String),
    #[error(
        "this storage is backed up with its own tools: with PostgreSQL, pg_dump or a base backup (docs/CLUSTER.md)"
    )]
    NoBackup,
    #[error("{0:?} is not a file of the latest backup, or is no longer kept: begin a backup")]
    NoSuchFile(String),
    #[error("store {0:?} does not exist")]
    NoSuchStore(StoreId),
    #[error("there is no session {0}")]
    NoSuchSession(u64),
    #[error("session {0} has no subscription with public key {1:?}")]
    NoSuchSubscription(u64, PublicKey),
    #[error("the store has no entry {0}, or it is erased or trimmed")]
    NoSuchEntry(EntryId),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Revoke(#[from] RevokeError),
    #[error(transparent)]
    Grants(#[from] GrantsError),
    #[error(transparent)]
    Trim(#[from] ServerTrimError),
    #[error(transparent)]
    Erase(#[from] EraseError),
    #[error(transparent)]
    Reload(#[from] ReloadError),
    #[error(transparent)]
    Records(#[from] RecordsUnavailable),
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
}

impl Failure {
    /// The status, and the word for programs.
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "wrong-token"),
            Self::Guessing { .. } => (StatusCode::TOO_MANY_REQUESTS, "guessing"),
            Self::Right(_) => (StatusCode::FORBIDDEN, "no-right"),
            Self::Page => (StatusCode::FORBIDDEN, "page"),
            #[cfg(feature = "console")]
            Self::ConsolePage => (StatusCode::FORBIDDEN, "page"),
            Self::TooManyStreams => (StatusCode::SERVICE_UNAVAILABLE, "too-many-streams"),
            Self::TooManyConnections => (StatusCode::SERVICE_UNAVAILABLE, "too-many-connections"),
            Self::NothingHere => (StatusCode::NOT_FOUND, "nothing-here"),
            Self::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method"),
            Self::Invalid(_)
            | Self::Write(WriteError::Invalid(_))
            | Self::Revoke(RevokeError::Invalid(_))
            | Self::Grants(GrantsError::TooLong)
            | Self::Reload(ReloadError::Wrong(_)) => (StatusCode::BAD_REQUEST, "invalid"),
            Self::NoSuchStore(_)
            | Self::Trim(ServerTrimError::NoSuchStore(_))
            | Self::Erase(EraseError::NoSuchStore(_))
            | Self::Group(GroupError::NoSuchStore(_)) => (StatusCode::NOT_FOUND, "no-such-store"),
            Self::NoSuchSession(_) => (StatusCode::NOT_FOUND, "no-such-session"),
            Self::NoSuchSubscription(..) => (StatusCode::NOT_FOUND, "no-such-subscription"),
            Self::NoSuchEntry(_) => (StatusCode::NOT_FOUND, "no-such-entry"),
            Self::NoBackup => (StatusCode::NOT_FOUND, "no-backup"),
            Self::NoSuchFile(_) => (StatusCode::NOT_FOUND, "no-such-file"),
            Self::NotUsed(_) => (StatusCode::NOT_FOUND, "not-used"),
            Self::NotBound(_) => (StatusCode::NOT_FOUND, "no-signing-key"),
            Self::NotRevoked(_) => (StatusCode::NOT_FOUND, "no-such-revocation"),
            Self::NotGranted(_) => (StatusCode::NOT_FOUND, "no-such-grant"),
            Self::Reload(ReloadError::NoConfiguration) => {
                (StatusCode::NOT_FOUND, "no-configuration")
            }
            Self::Registry(RegistryError::NotMapped { .. }) => {
                (StatusCode::NOT_FOUND, "no-such-key")
            }
            Self::Group(GroupError::NoSuchGroup(_)) => (StatusCode::NOT_FOUND, "no-such-group"),
            Self::Group(GroupError::NoSuchLetter) => (StatusCode::NOT_FOUND, "no-such-letter"),
            Self::Registry(RegistryError::AlreadyAssigned { .. }) => {
                (StatusCode::CONFLICT, "assigned")
            }
            Self::Registry(RegistryError::Moved { .. }) => (StatusCode::CONFLICT, "moved"),
            Self::Identity(IdentityError::BoundToAnother { .. }) => (StatusCode::CONFLICT, "bound"),
            Self::Quarantine(QuarantineError::None) => (StatusCode::NOT_FOUND, "no-quarantine"),
            Self::Quarantine(QuarantineError::NoSuchEntry(_)) => {
                (StatusCode::NOT_FOUND, "no-such-entry")
            }
            Self::Quarantine(QuarantineError::Invalid(_) | QuarantineError::Unreadable(_)) => {
                (StatusCode::CONFLICT, "not-storable")
            }
            Self::Erase(EraseError::Cannot(_)) => (StatusCode::CONFLICT, "cannot-erase"),
            Self::Grants(GrantsError::NoGrants) => (StatusCode::CONFLICT, "no-grants"),
            Self::Group(GroupError::Runs(_)) => (StatusCode::CONFLICT, "group-runs"),
            Self::Group(GroupError::Trimmed(_)) => (StatusCode::CONFLICT, "trimmed"),
            Self::Group(GroupError::FailedAgain(_)) => (StatusCode::CONFLICT, "failed-again"),
            Self::Registry(RegistryError::Unavailable { .. })
            | Self::Storage(_)
            | Self::Records(_)
            | Self::Trim(ServerTrimError::Failed(_) | ServerTrimError::Records(_))
            | Self::Erase(
                EraseError::Failed(_)
                | EraseError::Records(_)
                | EraseError::NotTold(_)
                | EraseError::Keys(_)
                | EraseError::Quarantine(_),
            )
            | Self::Quarantine(QuarantineError::Write(_) | QuarantineError::Unavailable(_))
            | Self::Revoke(RevokeError::Unavailable(_))
            | Self::Grants(GrantsError::Unavailable(_))
            | Self::Identity(IdentityError::Unavailable { .. })
            | Self::Group(GroupError::Unavailable(_))
            | Self::Write(
                WriteError::Unencodable { .. }
                | WriteError::Definite(_)
                | WriteError::Indefinite(_),
            ) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        }
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        self.kind().0
    }

    fn error_response(&self) -> HttpResponse {
        let (status, reason) = self.kind();
        let mut response = HttpResponse::build(status);
        match self {
            Self::Guessing { seconds } => {
                response.insert_header((RETRY_AFTER, seconds.to_string()));
            }
            Self::Method { allowed } => {
                response.insert_header((ALLOW, allowed.as_str()));
            }
            Self::Unauthorized => {
                response.insert_header((WWW_AUTHENTICATE, "Bearer"));
            }
            _ => {}
        }
        response.content_type("application/problem+json").json(serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": self.to_string(),
            "reason": reason,
        }))
    }
}
