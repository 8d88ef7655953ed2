//! Payloads as people write and read them.
//!
//! Clients of the msgpack protocol keep payloads as msgpack with named fields, so JSON is converted to that when it is
//! sent, and everything that is completely msgpack is shown as JSON again. Clients of the RPC protocol keep
//! `SchemaBinary`, which the library converts as far as possible. Leaves out: what other codecs write; it is shown as
//! bytes.

mod decode;
mod encode;

use eventlog_server::protocol::rpc::payload::json::infer;
use serde_json::Value;

pub(super) use decode::{Decoded, to_json};
use encode::from_json;

/// What JSON is converted to for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// msgpack with named fields.
    Msgpack,
    /// What Effect's clients read, as far as the JSON tells.
    SchemaBinary,
}

impl Codec {
    /// `json` as a payload.
    pub(super) fn encode(self, json: Value) -> Result<Vec<u8>, String> {
        match self {
            Self::Msgpack => from_json(json),
            Self::SchemaBinary => infer(&json).map_err(|error| error.to_string()),
        }
    }
}
