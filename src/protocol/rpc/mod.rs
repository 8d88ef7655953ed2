//! The wire of Effect 4.1's event log clients (`EventLogRemote`, unencrypted, over `SchemaBinary` RPC).
//!
//! A connection carries frames ([`FrameReader`]); each holds an [`Envelope`]: a request, an answer, or a message about
//! the connection. A request's payload is a [`Call`]. It is answered by an exit ([`Answer`], [`encode_acks`]); a feed
//! is sent in chunks before that ([`encode_changes`]). Both directions are here, for the server and for the client.
//!
//! Keeps: what is decoded is borrowed from the frame, nothing is allocated on the word of a length, and no bytes cause
//! a panic. Leaves out: connections, time, and who may do what. `docs/PROTOCOL-RPC.md` says how the server uses it.

mod answer;
pub mod auth;
mod call;
mod changes;
mod envelope;
mod exit;
mod fields;
mod frame;
mod identity;
mod ids;
pub mod large;
pub mod payload;
mod received;
mod rows;
mod varint;
mod window;
mod write;

pub use answer::{AckRows, Acks, Answer, ErrorCode, HelloResponse, ProtocolError, encode_acks};
pub use call::{Authenticate, Call, CallError, Changes, Part};
pub use changes::{EncodedRemoteEntries, Run, encode_changes};
pub use envelope::{Envelope, REQUEST_ID_BYTES_MAX, Request, RequestId, RequestIdRef};
pub use exit::{Cause, Exit, Reason, decode_defect};
pub use frame::{FRAME_BODY_BYTES_MAX, FrameError, FrameReader, payload_is_complete_frame};
pub use identity::Identity;
pub use received::{ChangesValue, ChangesValues, ReceivedEntries, RemoteEntries};
pub use window::Malformed;
pub use write::{BatchError, BatchFault, WriteEntries, encode_write_entries};

#[cfg(test)]
mod vectors;
