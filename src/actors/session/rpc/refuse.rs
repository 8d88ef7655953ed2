//! How requests are refused, and connections ended.
//!
//! Keeps: a refusal is never longer than a client can read, whatever the client said.

use actix_http::ws::CloseCode;

use super::WRITE;
use crate::actors::complaints::Complaint;
use crate::actors::session::wire::{Broken, Out};
use crate::model::limits::{PUBLIC_KEY_BYTES_MAX, STORE_ID_BYTES_MAX};
use crate::model::{PublicKey, key_in_log};
use crate::protocol::rpc::{Answer, ErrorCode, FrameError, Malformed, ProtocolError, RequestId};

/// The first characters of a text, up to this many.
pub(super) fn beginning(text: &str, chars_max: usize) -> &str {
    text.char_indices().nth(chars_max).map_or(text, |(end, _)| &text[..end])
}

/// Refuses a write that will be repeated unchanged, and refused again.
pub(super) fn refuse_for_good(
    request: &RequestId,
    names: (Option<&str>, Option<&str>),
    message: &str,
    out: &mut Out,
) {
    let key =
        names.0.map_or_else(String::new, |key| format!(" with the public key {}", key_in_log(key)));
    let line = format!("a write{key} is refused, and its client will repeat it: {message}");
    out.complain(Complaint::once(line.clone(), line).about_key(names.0));
    fail(request, WRITE, names, ErrorCode::InvalidRequest, message, out);
}

/// Clients with this key are not sent some entries of their store: not a page each, but for the whole store.
pub(super) fn withheld(key: &PublicKey, out: &mut Out) {
    let line = format!(
        "clients of Effect 4.1 with the public key {} are not sent some entries of its store: the payloads are not \
         SchemaBinary, which is all that these clients read (docs/PROTOCOL-RPC.md)",
        key.in_log()
    );
    let about = format!("withheld: {}", key.as_str());
    out.complain(Complaint::hourly(about, line).about_key(Some(key.as_str())));
}

/// Ends a request that no client of the package sends.
pub(super) fn die(request: &RequestId, message: &str, out: &mut Out) {
    out.count_refusal("rpc", "Die");
    out.push(Answer::Died(message).encode(request));
}

/// Refuses a request. Names that cannot exist are left out: they may be as long as a message.
pub(super) fn fail(
    request: &RequestId,
    request_tag: &str,
    (public_key, store_id): (Option<&str>, Option<&str>),
    code: ErrorCode,
    message: &str,
    out: &mut Out,
) {
    let public_key = public_key.filter(|key| key.len() <= PUBLIC_KEY_BYTES_MAX);
    let store_id = store_id.filter(|store| store.len() <= STORE_ID_BYTES_MAX);
    let error = ProtocolError { request_tag, public_key, store_id, code, message };
    out.count_refusal("rpc", code.as_str());
    out.push(Answer::Failed(error).encode(request));
}

pub(super) fn broken(malformed: &Malformed) -> Broken {
    Broken { code: CloseCode::Invalid, message: malformed.to_string() }
}

pub(super) fn broken_frame(error: &FrameError) -> Broken {
    let code = match error {
        FrameError::Length => CloseCode::Protocol,
        FrameError::TooLong { .. } => CloseCode::Size,
    };
    Broken { code, message: error.to_string() }
}
