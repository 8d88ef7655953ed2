//! How a group's payloads become bytes.
//!
//! Keeps: bytes decode as a whole or not at all, and never panic. Leaves out: which type an event has (`event`).

mod javascript;
mod msgpack;
mod schema_binary;

pub use msgpack::Msgpack;
pub use schema_binary::SchemaBinary;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The encoding of the payloads of one [`EventGroup`](super::EventGroup).
///
/// Everything that writes or reads events of the group must agree on it, including the applications on the clients.
pub trait PayloadCodec: Send + Sync + 'static {
    /// The bytes of `payload`.
    fn encode<T: Serialize + ?Sized>(payload: &T) -> Result<Vec<u8>, CodecError>;

    /// The value in `bytes`; fails unless all of them are part of it. The bytes come from clients: a length in them is
    /// a claim, and nothing is allocated because of it.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError>;
}

/// A payload could not be encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(String);

impl CodecError {
    /// An error with this description.
    pub fn new(finding: impl std::fmt::Display) -> Self {
        Self(finding.to_string())
    }
}
