//! What a server answers to a request, except a feed: the result in an exit.

use bytes::Bytes;

use super::call::sequence;
use super::envelope::{Envelope, RequestId};
use super::fields::{
    Field, Fields, begin_sized_field, member, optional, sized, write_optional_text,
    write_sized_field,
};
use super::frame::{FRAME_BODY_BYTES_MAX, begin_frame, frame, frame_len};
use super::ids::{
    CHALLENGE, CODE, COMPACTION, ENTRY_ID, FIRST_SEQUENCE, MESSAGE, PROTOCOL_ERROR, PUBLIC_KEY,
    REMOTE_ID, REQUEST_TAG, SEQUENCE, STORE_ID, VARIANT,
};
use super::rows::{Column, FIRST_SHAPE, Rows, begin_cell, bytes_column, cell_len, write_cell};
use super::varint::{natural_len, uvarint_len, write_natural, write_sized, write_uvarint};
use super::window::{Malformed, Window, natural, text, whole_int};
use crate::model::{EntryId, RemoteId, Sequence};
use crate::protocol;

/// The result of a request, as the server sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Done; there is nothing more to say.
    Done,
    /// To `Hello`.
    Hello(HelloResponse<'a>),
    /// Refused, with a reason that the client understands and that makes it try again.
    Failed(ProtocolError<'a>),
    /// Crashed. An Effect client that gets this may stop syncing for good, so it is only for what no ordinary client
    /// does: an unknown tag, or a payload that cannot be decoded.
    Died(&'a str),
}

/// Who the server is and what it wants signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloResponse<'a> {
    /// Names the server's data.
    pub remote_id: RemoteId,
    /// The challenge to sign; 32 bytes from this server.
    pub challenge: &'a [u8],
    /// No entry has a lower sequence.
    pub first_sequence: Sequence,
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolError<'a> {
    /// What was refused.
    pub request_tag: &'a str,
    /// The identity, if one was named.
    pub public_key: Option<&'a str>,
    /// The store, if one was named.
    pub store_id: Option<&'a str>,
    /// The only field that an Effect client looks at.
    pub code: ErrorCode,
    /// For people.
    pub message: &'a str,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// Access to this store is refused.
    Unauthorized,
    /// Not authenticated as this identity; the client authenticates and asks again.
    Forbidden,
    /// There is no such store.
    NotFound,
    /// It cannot be done in this form.
    InvalidRequest,
    /// It cannot be done now.
    InternalServerError,
}

impl ErrorCode {
    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::InvalidRequest => "InvalidRequest",
            Self::InternalServerError => "InternalServerError",
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        const ALL: [ErrorCode; 5] = [
            ErrorCode::Unauthorized,
            ErrorCode::Forbidden,
            ErrorCode::NotFound,
            ErrorCode::InvalidRequest,
            ErrorCode::InternalServerError,
        ];
        let found = ALL.into_iter().find(|code| code.as_str().as_bytes() == bytes);
        found.ok_or(Malformed::new("a known error code"))
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The msgpack protocol knows some of the codes.
impl From<protocol::msgpack::ErrorCode> for ErrorCode {
    fn from(code: protocol::msgpack::ErrorCode) -> Self {
        match code {
            protocol::msgpack::ErrorCode::Unauthorized => Self::Unauthorized,
            protocol::msgpack::ErrorCode::InvalidRequest => Self::InvalidRequest,
            protocol::msgpack::ErrorCode::InternalServerError => Self::InternalServerError,
        }
    }
}

/// How the result in an exit begins.
pub(super) mod outcome {
    pub(in super::super) const SUCCESS: u8 = 0;
    pub(in super::super) const FAILURE: u8 = 1;
}

/// How a reason for a failure begins.
pub(super) mod reason {
    pub(in super::super) const FAIL: u8 = 0;
    pub(in super::super) const DIE: u8 = 1;
    pub(in super::super) const INTERRUPT: u8 = 2;
    pub(in super::super) const INTERRUPT_BY: u8 = 3;
}

impl Answer<'_> {
    /// The frame that ends request `id` with this.
    pub fn encode(&self, id: &RequestId) -> Bytes {
        let mut value = Vec::new();
        match self {
            Self::Done => value.push(outcome::SUCCESS),
            Self::Hello(hello) => {
                value.push(outcome::SUCCESS);
                hello.write(&mut value);
            }
            Self::Failed(error) => {
                let mut reason = vec![reason::FAIL, VARIANT];
                reason.extend_from_slice(&PROTOCOL_ERROR.to_le_bytes());
                error.write(&mut reason);
                write_failure(&mut value, &reason);
            }
            Self::Died(message) => {
                let mut reason = vec![reason::DIE];
                reason.extend_from_slice(serde_json::Value::from(*message).to_string().as_bytes());
                write_failure(&mut value, &reason);
            }
        }
        Envelope::Exit { id: id.as_ref(), exit: &frame(&value) }.encode()
    }
}

/// Appends the result of a request that failed for one reason.
fn write_failure(out: &mut Vec<u8>, reason: &[u8]) {
    out.extend_from_slice(&[outcome::FAILURE, 1]);
    write_sized(out, reason);
}

impl<'a> HelloResponse<'a> {
    const FIELDS: [Field; 4] =
        [sized(REMOTE_ID), sized(CHALLENGE), sized(FIRST_SEQUENCE), sized(COMPACTION)];

    /// Reads the value of a successful exit.
    pub fn decode(value: &'a [u8]) -> Result<Self, Malformed> {
        let fields = Fields::read(Window::new(value), &Self::FIELDS)?;
        let remote_id = RemoteId::from_slice(fields.sized(0)?);
        let first = optional(fields.optional(2), member::NUMBER, whole_int)?.unwrap_or_default();
        optional(fields.optional(3), member::BOOLEAN, |value| match value {
            [1] => Ok(()),
            _ => Err(Malformed::new("true")),
        })?;
        Ok(Self {
            remote_id: remote_id.ok_or(Malformed::new("a remote id of 16 bytes"))?,
            challenge: fields.sized(1)?,
            first_sequence: sequence(natural(first)?)?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let first = self.first_sequence.get();
        write_sized_field(out, CHALLENGE, self.challenge);
        write_sized_field(out, REMOTE_ID, self.remote_id.as_bytes());
        begin_sized_field(out, FIRST_SEQUENCE, 1 + natural_len(first));
        out.push(member::NUMBER);
        write_natural(out, first);
    }
}

impl<'a> ProtocolError<'a> {
    const FIELDS: [Field; 5] =
        [sized(REQUEST_TAG), sized(PUBLIC_KEY), sized(STORE_ID), sized(CODE), sized(MESSAGE)];

    pub(super) fn read(window: Window<'a>) -> Result<Self, Malformed> {
        let fields = Fields::read(window, &Self::FIELDS)?;
        Ok(Self {
            request_tag: text(fields.sized(0)?)?,
            public_key: optional(fields.optional(1), member::TEXT, text)?,
            store_id: optional(fields.optional(2), member::TEXT, text)?,
            code: ErrorCode::read(fields.sized(3)?)?,
            message: text(fields.sized(4)?)?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_sized_field(out, MESSAGE, self.message.as_bytes());
        write_optional_text(out, STORE_ID, self.store_id);
        write_sized_field(out, REQUEST_TAG, self.request_tag.as_bytes());
        write_optional_text(out, PUBLIC_KEY, self.public_key);
        write_sized_field(out, CODE, self.code.as_str().as_bytes());
    }
}

/// Space that is left for what surrounds the acknowledgements in their frame.
const AROUND_ACKS: usize = 64 + super::envelope::REQUEST_ID_BYTES_MAX;

/// The frame that ends the write `id`: these entries are durable, at these sequences.
pub fn encode_acks(id: &RequestId, acks: impl IntoIterator<Item = (EntryId, Sequence)>) -> Bytes {
    let mut answer = AckRows::default();
    answer.extend(acks);
    answer.encode(id)
}

/// The acknowledgements of a write, as they are added.
///
/// They keep the order of the write's slots. Those that would make the frame longer than any peer reads are left out
/// from the end: the success itself tells the client that everything is stored, and the feed delivers what its cursor
/// did not pass.
#[derive(Debug, Default)]
pub struct AckRows {
    rows: Vec<u8>,
    count: u64,
    is_full: bool,
}

impl AckRows {
    /// The frame that ends the write `id`.
    pub fn encode(self, id: &RequestId) -> Bytes {
        let Self { rows, count, .. } = self;
        let value_len = 1 + uvarint_len(count) + rows.len();
        let mut exit = Vec::with_capacity(frame_len(value_len));
        begin_frame(&mut exit, value_len);
        exit.push(outcome::SUCCESS);
        write_uvarint(&mut exit, count);
        exit.extend_from_slice(&rows);
        // There may be as many as fit in a frame: avoid a third copy.
        drop(rows);
        Envelope::Exit { id: id.as_ref(), exit: &exit }.encode()
    }
}

impl Extend<(EntryId, Sequence)> for AckRows {
    fn extend<T: IntoIterator<Item = (EntryId, Sequence)>>(&mut self, acks: T) {
        for (entry, sequence) in acks {
            self.is_full |=
                self.rows.len() + ACK_ROW_BYTES_MAX > FRAME_BODY_BYTES_MAX - AROUND_ACKS;
            if self.is_full {
                return;
            }
            if self.rows.capacity() - self.rows.len() < ACK_ROW_BYTES_MAX {
                // Doubling would take twice what is needed when there are many.
                self.rows.reserve_exact(self.rows.len().clamp(256, ROWS_GROWTH_BYTES_MAX));
            }
            write_ack(&mut self.rows, entry, sequence, self.count == 0);
            self.count += 1;
        }
    }
}

const ACK_ROW_BYTES_MAX: usize = 48;

const ROWS_GROWTH_BYTES_MAX: usize = 1_024 * 1_024;

/// Appends an acknowledgement; the first one declares the shape of all.
fn write_ack(rows: &mut Vec<u8>, entry: EntryId, sequence: Sequence, is_first: bool) {
    let sequence = sequence.get();
    let cells = cell_len(natural_len(sequence)) + cell_len(EntryId::LEN);
    let ids = if is_first { [Some(SEQUENCE), Some(ENTRY_ID)] } else { [None; 2] };
    let ids_len: usize = ids.iter().flatten().map(|id| uvarint_len(u64::from(*id))).sum();
    write_uvarint(rows, (1 + ids_len + cells) as u64);
    rows.push(if is_first { 0 } else { FIRST_SHAPE });
    if let Some(id) = ids[0] {
        write_uvarint(rows, u64::from(id));
    }
    begin_cell(rows, natural_len(sequence));
    write_natural(rows, sequence);
    if let Some(id) = ids[1] {
        write_uvarint(rows, u64::from(id));
    }
    write_cell(rows, entry.as_bytes());
}

/// The acknowledgements in a successful exit of a write, in the order of its slots.
#[derive(Debug)]
pub struct Acks<'a>(Rows<'a, 2>);

const ACK: [Column; 2] = [bytes_column(ENTRY_ID), bytes_column(SEQUENCE)];

impl<'a> Acks<'a> {
    /// Begins to read the value of a successful exit.
    pub fn decode(value: &'a [u8]) -> Result<Self, Malformed> {
        Ok(Self(Rows::read(Window::new(value), &ACK)?))
    }

    /// The next acknowledgement; `None` after the last one.
    pub fn next_ack(&mut self) -> Result<Option<(EntryId, Sequence)>, Malformed> {
        let Some([entry, at]) = self.0.next_row()? else { return Ok(None) };
        let entry = EntryId::from_slice(entry.bytes());
        let entry = entry.ok_or(Malformed::new("an entry id of 16 bytes"))?;
        Ok(Some((entry, sequence(natural(whole_int(at.bytes())?)?)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::exit::Exit;
    use super::super::frame::FrameReader;
    use super::*;

    #[test]
    fn more_acks_than_a_frame_holds_are_left_out() {
        let id = RequestId::from_number(7);
        let sequences = (0..900_000_u64).map(|n| Sequence::MAX.get() - n);
        let entry = EntryId::from_bytes([7; 16]);
        let acks = sequences.map(|n| (entry, Sequence::new(n).expect("in range")));
        let mut bytes = encode_acks(&id, acks);
        let mut reader = FrameReader::new(usize::MAX);
        let body = reader.next_body(&mut bytes).expect("not too long").expect("complete");
        assert!(body.len() > FRAME_BODY_BYTES_MAX - 1_024, "{} bytes", body.len());
        let Ok(Envelope::Exit { exit, .. }) = Envelope::decode(&body) else { panic!("no exit") };
        let Ok(Exit::Success(value)) = Exit::decode(exit) else { panic!("no success") };
        let mut acks = Acks::decode(value).expect("acks");
        let mut count = 0;
        while let Some((entry, sequence)) = acks.next_ack().expect("an ack") {
            assert_eq!((entry, sequence.get()), (entry, Sequence::MAX.get() - count));
            count += 1;
        }
        assert!((500_000..900_000).contains(&count), "{count} acks");
    }
}
