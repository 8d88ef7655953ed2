//! The five things that a client can ask for: the payload of a request.

use bytes::Bytes;

use super::envelope::{RequestId, begin_request, end_request, request_len};
use super::fields::{
    Field, Fields, begin_sized_field, int, sized, write_int_field, write_natural_field,
    write_sized_field,
};
use super::frame::{begin_frame, frame_len, open};
use super::ids::{
    ALGORITHM, DATA, ID, PART, PUBLIC_KEY, SIGNATURE, SIGNING_PUBLIC_KEY, START_SEQUENCE, STORE_ID,
    TAG,
};
use super::varint::write_natural;
use super::window::{Malformed, Window, natural, text};
use crate::model::Sequence;
use crate::model::limits::INTEGER_MAX;

/// A decoded request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// Who are you, and what shall I sign?
    Hello,
    /// I am this; here is the proof.
    Authenticate(Authenticate<'a>),
    /// Append what is in `data`, see [`WriteEntries`](super::WriteEntries).
    WriteSingle {
        /// A whole write.
        data: &'a [u8],
    },
    /// A part of such data; the call that completes it is the write.
    WriteChunked(Part<'a>),
    /// Send me a feed, and keep sending.
    Changes(Changes<'a>),
}

/// The claim to be an identity. Lengths are as the client sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authenticate<'a> {
    /// The identity.
    pub public_key: &'a str,
    /// An Ed25519 key; 32 bytes if it is one.
    pub signing_public_key: &'a [u8],
    /// Over the bytes of [`signed_bytes`](super::auth::signed_bytes); 64 bytes if it is one.
    pub signature: &'a [u8],
}

/// One part of bytes that were too long for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The set that it is a part of.
    pub id: i64,
    /// Which part, from 0; below `total`.
    pub index: u64,
    /// How many parts there are, according to the writer; only 2^53-1 limits it.
    pub total: u64,
    /// Its bytes.
    pub data: &'a [u8],
}

/// A subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changes<'a> {
    /// Who reads.
    pub public_key: &'a str,
    /// Which of its stores.
    pub store_id: &'a str,
    /// Everything from here on.
    pub start_sequence: Sequence,
}

/// A request that cannot be carried out, whatever the state of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request's tag is unknown.
    #[error("unknown request tag")]
    UnknownTag,
    /// The payload does not have the form that the tag requires.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

mod tag {
    pub(super) const HELLO: &str = "EventLog.Hello";
    pub(super) const AUTHENTICATE: &str = "EventLog.Authenticate";
    pub(super) const WRITE_SINGLE: &str = "EventLog.WriteSingle";
    pub(super) const WRITE_CHUNKED: &str = "EventLog.WriteChunked";
    pub(super) const CHANGES: &str = "EventLog.Changes";
}

const ED25519: &[u8] = b"Ed25519";
const CHUNKED_TAG: &[u8] = b"Chunked";

impl<'a> Call<'a> {
    /// What a request with this tag and payload asks for.
    pub fn decode(tag: &str, payload: &'a [u8]) -> Result<Self, CallError> {
        Ok(match tag {
            tag::HELLO => {
                open(payload)?.end()?;
                Self::Hello
            }
            tag::AUTHENTICATE => Self::Authenticate(Authenticate::read(open(payload)?)?),
            tag::WRITE_SINGLE => {
                let fields = Fields::read(open(payload)?, &[sized(DATA)])?;
                Self::WriteSingle { data: fields.sized(0)? }
            }
            tag::WRITE_CHUNKED => Self::WriteChunked(read_tagged_part(open(payload)?)?),
            tag::CHANGES => Self::Changes(Changes::read(open(payload)?)?),
            _ => return Err(CallError::UnknownTag),
        })
    }

    /// The request's tag.
    pub const fn tag(&self) -> &'static str {
        match self {
            Self::Hello => tag::HELLO,
            Self::Authenticate(_) => tag::AUTHENTICATE,
            Self::WriteSingle { .. } => tag::WRITE_SINGLE,
            Self::WriteChunked(_) => tag::WRITE_CHUNKED,
            Self::Changes(_) => tag::CHANGES,
        }
    }

    /// The frame of a request with this id.
    pub fn encode(&self, id: &RequestId) -> Bytes {
        let mut head = Vec::new();
        let tail: &[u8] = match self {
            Self::Hello => &[],
            Self::Authenticate(claim) => {
                claim.write(&mut head);
                &[]
            }
            Self::WriteSingle { data } => {
                begin_sized_field(&mut head, DATA, data.len());
                data
            }
            Self::WriteChunked(part) => {
                write_int_field(&mut head, ID, part.id);
                write_sized_field(&mut head, TAG, CHUNKED_TAG);
                part.write_place(&mut head);
                begin_sized_field(&mut head, DATA, part.data.len());
                part.data
            }
            Self::Changes(changes) => {
                changes.write(&mut head);
                &[]
            }
        };
        request(id, self.tag(), &head, tail)
    }
}

/// A request whose payload holds `head` and then `tail`.
fn request(id: &RequestId, tag: &str, head: &[u8], tail: &[u8]) -> Bytes {
    let value_len = head.len() + tail.len();
    let payload_len = frame_len(value_len);
    let mut out = Vec::with_capacity(request_len(id, tag, payload_len));
    begin_request(&mut out, id, tag, payload_len);
    begin_frame(&mut out, value_len);
    out.extend_from_slice(head);
    out.extend_from_slice(tail);
    end_request(&mut out, id, tag);
    out.into()
}

impl<'a> Authenticate<'a> {
    const FIELDS: [Field; 4] =
        [sized(PUBLIC_KEY), sized(SIGNING_PUBLIC_KEY), sized(SIGNATURE), sized(ALGORITHM)];

    fn read(window: Window<'a>) -> Result<Self, Malformed> {
        let fields = Fields::read(window, &Self::FIELDS)?;
        if fields.sized(3)? != ED25519 {
            return Err(Malformed::new("the algorithm Ed25519"));
        }
        Ok(Self {
            public_key: text(fields.sized(0)?)?,
            signing_public_key: fields.sized(1)?,
            signature: fields.sized(2)?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_sized_field(out, ALGORITHM, ED25519);
        write_sized_field(out, SIGNATURE, self.signature);
        write_sized_field(out, PUBLIC_KEY, self.public_key.as_bytes());
        write_sized_field(out, SIGNING_PUBLIC_KEY, self.signing_public_key);
    }
}

/// In a request, unlike in a stream, a part carries its `_tag`.
fn read_tagged_part(window: Window<'_>) -> Result<Part<'_>, Malformed> {
    let fields = Fields::read(window, &[int(ID), sized(PART), sized(DATA), sized(TAG)])?;
    if fields.sized(3)? != CHUNKED_TAG {
        return Err(Malformed::new("the tag Chunked"));
    }
    Part::new(fields.int(0)?, fields.sized(1)?, fields.sized(2)?)
}

impl<'a> Part<'a> {
    /// Reads a part as it stands in a stream.
    pub(super) fn read(window: Window<'a>) -> Result<Self, Malformed> {
        let fields = Fields::read(window, &[int(ID), sized(PART), sized(DATA)])?;
        Self::new(fields.int(0)?, fields.sized(1)?, fields.sized(2)?)
    }

    fn new(id: i64, place: &[u8], data: &'a [u8]) -> Result<Self, Malformed> {
        let mut place = Window::new(place);
        let (index, total) = (natural(place.int()?)?, natural(place.int()?)?);
        place.end()?;
        if index >= total {
            return Err(Malformed::new("a part below the total"));
        }
        Ok(Self { id, index, total, data })
    }

    /// Appends the field that says which part it is.
    pub(super) fn write_place(&self, out: &mut Vec<u8>) {
        debug_assert!(self.index < self.total && self.total <= INTEGER_MAX);
        let mut place = Vec::with_capacity(16);
        write_natural(&mut place, self.index);
        write_natural(&mut place, self.total);
        write_sized_field(out, PART, &place);
    }
}

impl<'a> Changes<'a> {
    const FIELDS: [Field; 3] = [sized(PUBLIC_KEY), sized(STORE_ID), int(START_SEQUENCE)];

    fn read(window: Window<'a>) -> Result<Self, Malformed> {
        let fields = Fields::read(window, &Self::FIELDS)?;
        Ok(Self {
            public_key: text(fields.sized(0)?)?,
            store_id: text(fields.sized(1)?)?,
            start_sequence: sequence(fields.natural(2)?)?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_sized_field(out, STORE_ID, self.store_id.as_bytes());
        write_natural_field(out, START_SEQUENCE, self.start_sequence.get());
        write_sized_field(out, PUBLIC_KEY, self.public_key.as_bytes());
    }
}

pub(super) fn sequence(value: u64) -> Result<Sequence, Malformed> {
    Sequence::new(value).map_err(|_| Malformed::new("a sequence"))
}
