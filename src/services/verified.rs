//! What is known about a caller who proved it at the handshake, and the answer to one who did not.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::auth::Rights;

/// What was found out about a caller at the handshake. `Debug` shows who it is, but nothing else.
#[derive(Default)]
pub struct Verified {
    /// Who it is: the claim `sub` of a token.
    pub subject: Option<Box<str>>,
    /// The id of the proof, if it has one: the claim `jti` of a token.
    pub token_id: Option<Box<str>>,
    /// Until when this is valid. Then the session ends.
    pub expires: Option<SystemTime>,
    /// Everything that was said: the claims of a token.
    pub claims: Map<String, Value>,
    /// What the caller may do according to it. Only the [`Auth`](super::Auth) that put it here reads it.
    pub rights: Option<Rights>,
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, token_id, expires, claims: _, rights: _ } = self;
        let mut shown = f.debug_struct("Verified");
        shown.field("subject", subject).field("token_id", token_id).field("expires", expires);
        shown.finish_non_exhaustive()
    }
}

/// Why a caller is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Rejected {
    /// A word for programs: `no-token`, `invalid-token`, `expired`.
    pub reason: &'static str,
    /// What the client is told. It must not repeat what was sent as proof.
    pub message: Arc<str>,
}

impl Rejected {
    /// A rejection for this reason.
    pub fn new(reason: &'static str, message: impl Into<Arc<str>>) -> Self {
        Self { reason, message: message.into() }
    }
}
