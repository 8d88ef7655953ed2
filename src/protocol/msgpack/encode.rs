//! Encodes the messages of both directions, in the shortest forms.
//!
//! Every function appends one whole message to `out`, except [`encode_changes_header`]. Optional fields are left out when
//! there is nothing to say.

use bytes::{BufMut, BytesMut};

use super::code::ErrorCode;
use super::entry::{ENTRY_OVERHEAD_BYTES, put_entry};
use super::write::{put_array_len, put_bytes, put_natural, put_text};
use crate::model::{Batch, PublicKey, RemoteId, Sequence};

/// Enough for the keys, the tag and the numbers of any message.
const HEADER_BYTES: usize = 96;

/// Encodes the first message on every connection.
pub fn encode_hello(out: &mut BytesMut, remote_id: &RemoteId) {
    out.put_slice(b"\x82\xa4_tag\xa5Hello\xa8remoteId");
    put_bytes(out, remote_id.as_bytes());
}

/// Encodes the answer to the write `id`: one sequence per slot, in slot order.
pub fn encode_ack(out: &mut BytesMut, id: u64, sequences: impl ExactSizeIterator<Item = Sequence>) {
    // The longest number takes nine bytes.
    out.reserve(HEADER_BYTES + sequences.len() * 9);
    out.put_slice(b"\x83\xa4_tag\xa3Ack");
    put_id(out, id);
    out.put_slice(b"\xafsequenceNumbers");
    put_array_len(out, sequences.len());
    for sequence in sequences {
        put_natural(out, sequence.get());
    }
}

/// Encodes the answer to the ping `id`.
pub fn encode_pong(out: &mut BytesMut, id: u64) {
    out.put_slice(b"\x82\xa4_tag\xa4Pong");
    put_id(out, id);
}

/// Encodes a refusal of a request. A refused write is identified by `id` and `public_key`, a refused subscription by
/// `public_key`.
pub fn encode_error(
    out: &mut BytesMut,
    request_tag: &str,
    id: Option<u64>,
    public_key: Option<&str>,
    code: ErrorCode,
    message: &str,
) {
    let optional = u8::from(id.is_some()) + u8::from(public_key.is_some());
    out.put_u8(0x80 | (4 + optional));
    out.put_slice(b"\xa4_tag\xa5Error\xaarequestTag");
    put_text(out, request_tag);
    if let Some(id) = id {
        put_id(out, id);
    }
    if let Some(public_key) = public_key {
        out.put_slice(b"\xa9publicKey");
        put_text(out, public_key);
    }
    out.put_slice(b"\xa4code");
    put_text(out, code.as_str());
    out.put_slice(b"\xa7message");
    put_text(out, message);
}

/// Encodes the part of a `Changes` message before its elements: `count` of them have to follow, as held by
/// [`EncodedEntries`](super::EncodedEntries).
pub fn encode_changes_header(out: &mut BytesMut, public_key: &PublicKey, count: usize) {
    out.put_slice(b"\x83\xa4_tag\xa7Changes");
    put_public_key(out, public_key);
    out.put_slice(b"\xa7entries");
    put_array_len(out, count);
}

/// Encodes a write of `batch`. If it is larger than [`CHUNK_BYTES`](crate::model::limits::CHUNK_BYTES), it has to be
/// sent as chunks.
pub fn encode_write(out: &mut BytesMut, public_key: &PublicKey, id: u64, batch: &Batch) {
    let entries = batch.bytes() + batch.len() * ENTRY_OVERHEAD_BYTES;
    out.reserve(HEADER_BYTES + public_key.as_str().len() + entries);
    out.put_slice(b"\x84\xa4_tag\xacWriteEntries");
    put_public_key(out, public_key);
    put_id(out, id);
    out.put_slice(b"\xa7entries");
    put_array_len(out, batch.len());
    for entry in batch.iter() {
        put_entry(out, &entry);
    }
}

/// Encodes a subscription to the store of `public_key`, from `start` on.
pub fn encode_request_changes(out: &mut BytesMut, public_key: &PublicKey, start: Sequence) {
    out.put_slice(b"\x83\xa4_tag\xaeRequestChanges");
    put_public_key(out, public_key);
    out.put_slice(b"\xadstartSequence");
    put_natural(out, start.get());
}

/// Like [`encode_request_changes`], and asks to be told when the subscription has begun.
pub fn encode_request_changes_with_ack(
    out: &mut BytesMut,
    public_key: &PublicKey,
    start: Sequence,
) {
    encode_request_changes_with(out, public_key, start, true, false);
}

/// Like [`encode_request_changes`]; `ack` asks to be told when the subscription has begun, `marks` which entries are erased.
pub fn encode_request_changes_with(
    out: &mut BytesMut,
    public_key: &PublicKey,
    start: Sequence,
    ack: bool,
    marks: bool,
) {
    out.put_u8(0x83 + u8::from(ack) + u8::from(marks));
    out.put_slice(b"\xa4_tag\xaeRequestChanges");
    put_public_key(out, public_key);
    out.put_slice(b"\xadstartSequence");
    put_natural(out, start.get());
    if ack {
        out.put_slice(b"\xa3ack\xc3");
    }
    if marks {
        out.put_slice(b"\xa5marks\xc3");
    }
}

/// Encodes that the subscription with `public_key` has begun, the last sequence that its store had then, and where its
/// feed began, unless that is the first entry.
pub fn encode_subscribed(
    out: &mut BytesMut,
    public_key: &PublicKey,
    head: Sequence,
    begins: Sequence,
) {
    let is_trimmed = begins > Sequence::FIRST;
    out.put_u8(if is_trimmed { 0x84 } else { 0x83 });
    out.put_slice(b"\xa4_tag\xaaSubscribed");
    put_public_key(out, public_key);
    out.put_slice(b"\xa4head");
    put_natural(out, head.get());
    if is_trimmed {
        out.put_slice(b"\xa6begins");
        put_natural(out, begins.get());
    }
}

/// Encodes the end of the subscription with `public_key`.
pub fn encode_stop_changes(out: &mut BytesMut, public_key: &PublicKey) {
    out.put_slice(b"\x82\xa4_tag\xabStopChanges");
    put_public_key(out, public_key);
}

/// Encodes a ping, to be answered by a pong with the same `id` (at most 2^53-1).
pub fn encode_ping(out: &mut BytesMut, id: u64) {
    out.put_slice(b"\x82\xa4_tag\xa4Ping");
    put_id(out, id);
}

/// Encodes part `index` of `total` of the larger message `id`, in either direction.
pub fn encode_chunk(out: &mut BytesMut, id: u64, index: u64, total: u64, data: &[u8]) {
    out.reserve(HEADER_BYTES + data.len());
    out.put_slice(b"\x84\xa4_tag\xaeChunkedMessage");
    put_id(out, id);
    out.put_slice(b"\xa4part\x92");
    put_natural(out, index);
    put_natural(out, total);
    out.put_slice(b"\xa4data");
    put_bytes(out, data);
}

fn put_public_key(out: &mut BytesMut, public_key: &PublicKey) {
    out.put_slice(b"\xa9publicKey");
    put_text(out, public_key.as_str());
}

fn put_id(out: &mut BytesMut, id: u64) {
    out.put_slice(b"\xa2id");
    put_natural(out, id);
}
