//! The msgpack protocol: one message per WebSocket message, described in `docs/PROTOCOL.md`.
//!
//! Keeps: the encoding facts of the JavaScript clients (see `write`); a batch goes from the frame to a
//! [`Batch`](crate::model::Batch), and a segment from its records to a frame, without an allocation per entry. Leaves
//! out: joining chunks ([`chunk`](super::chunk)), everything about connections.
//!
//! A server reads with [`decode_request`], a client with [`decode_response`]. Both directions write with the `encode_…`
//! functions, which append to a buffer. Payloads are msgpack too, for most clients: [`Reader`] reads any msgpack, value
//! by value.

mod changes;
mod code;
mod encode;
mod entry;
mod error;
mod field;
mod json;
mod read;
mod request;
mod response;
mod write;

#[cfg(test)]
mod tests;

pub use changes::{
    EncodedEntries, MARK_BYTES_MAX, encode_entries, encode_mark, encode_remote_entries,
    encode_remote_entry, remote_entries_bytes_max,
};
pub use code::ErrorCode;
pub use encode::{
    encode_ack, encode_changes_header, encode_chunk, encode_error, encode_hello, encode_ping,
    encode_pong, encode_request_changes, encode_request_changes_with,
    encode_request_changes_with_ack, encode_stop_changes, encode_subscribed, encode_write,
};
pub use error::{DecodeError, InvalidRequest, Malformed, ResponseError};
pub use json::{JSON_DEPTH_MAX, NoJson, to_json, travels_as_float};
pub use read::{Reader, Value};
pub(crate) use request::ENCRYPTED;
pub use request::{Request, WriteRequest, decode_request};
pub use response::{ChangesView, Response, decode_response};
