//! The outermost message of every frame: a request, an answer, or a message about the connection.
//!
//! Its fields have no ids; they come in a fixed order, each preceded by its length. What it carries (payload, values,
//! exit, defect) is a frame of its own, which this module does not look into. Request ids belong to the client: they
//! are checked to be ids, kept as bytes, and sent back unchanged.

use std::borrow::Borrow;

use bytes::Bytes;

use super::ids::{FINGERPRINT, FINGERPRINT_HEADER};
use super::varint::{natural_len, sized_len, write_natural, write_sized, write_uvarint};
use super::window::{Malformed, Window, text};

/// The longest request id that is accepted, in bytes; an Effect client uses two to nine.
pub const REQUEST_ID_BYTES_MAX: usize = 256;

/// Identifies a request on its connection, as its bytes in the envelope.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RequestId(Box<[u8]>);

impl RequestId {
    /// The id of the `number`th request of a client. After 2^48 requests they begin again: beyond that, numbers are not
    /// written as integers any more.
    pub fn from_number(number: u64) -> Self {
        let number = number % (1 << 48);
        let mut bytes = Vec::with_capacity(1 + natural_len(number));
        bytes.push(0);
        write_natural(&mut bytes, number);
        Self(bytes.into())
    }

    /// An owned copy of `id`.
    pub fn from_ref(id: RequestIdRef<'_>) -> Self {
        Self(id.0.into())
    }

    /// A borrowed view.
    pub fn as_ref(&self) -> RequestIdRef<'_> {
        RequestIdRef(&self.0)
    }
}

/// Lets a [`RequestIdRef`] be looked up among owned ids.
impl Borrow<[u8]> for RequestId {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// A request id within a frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestIdRef<'a>(&'a [u8]);

impl<'a> RequestIdRef<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > REQUEST_ID_BYTES_MAX {
            return Err(Malformed::new("a request id of at most 256 bytes"));
        }
        let mut window = Window::new(bytes);
        match window.uvarint()? {
            0 => check_number(window)?,
            1 => drop(text(window.rest())?),
            _ => return Err(Malformed::new("a request id that is a number or a string")),
        }
        Ok(Self(bytes))
    }

    /// The id as it is written.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The number of this request, if [`RequestId::from_number`] made the id.
    pub fn number(self) -> Option<u64> {
        let mut window = Window::new(self.0.strip_prefix(&[0])?);
        // A double has eight bytes, and such a number has fewer.
        let number = (window.len() < 8).then(|| window.int().ok())??;
        window.is_empty().then(|| u64::try_from(number).ok())?
    }
}

/// A general number: a double, or a varint, or a varint and a decimal scale.
fn check_number(mut window: Window<'_>) -> Result<(), Malformed> {
    match window.len() {
        8 => return Ok(()),
        1..8 => window.skip_varint()?,
        _ => return Err(Malformed::new("a number")),
    }
    if !window.is_empty() && !matches!(window.byte()?, 1..=8) {
        return Err(Malformed::new("a decimal scale from 1 to 8"));
    }
    window.end()
}

/// What a frame of the connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope<'a> {
    /// From the client: it has processed the values of one [`Envelope::Chunk`].
    Ack(RequestIdRef<'a>),
    /// From the server: the request has ended with this result.
    Exit {
        /// Which request.
        id: RequestIdRef<'a>,
        /// A frame that holds the result.
        exit: &'a [u8],
    },
    /// From the server: something is broken beyond a single request. This server sends none.
    Defect(&'a [u8]),
    /// From the client: is anybody there?
    Ping,
    /// From the client: no more requests will come.
    Eof,
    /// From the server: values of a stream.
    Chunk {
        /// Which request.
        id: RequestIdRef<'a>,
        /// A frame that holds a non-empty array of values.
        values: &'a [u8],
    },
    /// From the server: the answer to [`Envelope::Ping`].
    Pong,
    /// From the client: do this.
    Request(Request<'a>),
    /// From the client: the answer is no longer wanted.
    Interrupt(RequestIdRef<'a>),
}

/// A request. Trace fields and headers are checked and returned, and mean nothing to this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Chosen by the client; the answers carry it.
    pub id: RequestIdRef<'a>,
    /// What is asked for.
    pub tag: &'a str,
    /// A frame that holds the arguments.
    pub payload: &'a [u8],
    /// Names and values, as they came.
    pub headers: &'a [u8],
    /// No answer at all is wanted.
    pub is_notification: bool,
    /// Only a confirmation that the request was received is wanted.
    pub discard: bool,
    /// Of the client's tracing.
    pub trace_id: Option<&'a str>,
    /// Of the client's tracing.
    pub span_id: Option<&'a str>,
    /// Of the client's tracing.
    pub sampled: Option<bool>,
}

mod selector {
    pub(super) const ACK: u8 = 0;
    pub(super) const EXIT: u8 = 1;
    pub(super) const DEFECT: u8 = 2;
    pub(super) const PING: u8 = 3;
    pub(super) const EOF: u8 = 4;
    pub(super) const CHUNK: u8 = 5;
    pub(super) const PONG: u8 = 6;
    pub(super) const REQUEST: u8 = 7;
    pub(super) const INTERRUPT: u8 = 8;
}

/// Bits that say which optional fields a request has.
mod has {
    pub(super) const SPAN_ID: u8 = 1;
    pub(super) const SAMPLED: u8 = 2;
    pub(super) const TRACE_ID: u8 = 4;
    pub(super) const IS_NOTIFICATION: u8 = 8;
    pub(super) const DISCARD: u8 = 16;
}

impl<'a> Envelope<'a> {
    /// Reads the body of a frame, as returned by [`FrameReader`](super::FrameReader).
    pub fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut window = Window::new(body);
        if window.byte()? != FINGERPRINT_HEADER || window.array()? != FINGERPRINT {
            return Err(Malformed::NO_ENVELOPE);
        }
        let selector = u8::try_from(window.uvarint()?).unwrap_or(u8::MAX);
        let envelope = match selector {
            selector::ACK => Self::Ack(read_id(&mut window)?),
            selector::EXIT => Self::Exit { id: read_id(&mut window)?, exit: window.sized()? },
            selector::DEFECT => Self::Defect(window.sized()?),
            selector::PING => Self::Ping,
            selector::EOF => Self::Eof,
            selector::CHUNK => {
                let values = window.sized()?;
                Self::Chunk { values, id: read_id(&mut window)? }
            }
            selector::PONG => Self::Pong,
            selector::REQUEST => Self::Request(Request::read(&mut window)?),
            selector::INTERRUPT => Self::Interrupt(read_id(&mut window)?),
            _ => return Err(Malformed::new("a known message")),
        };
        window.end()?;
        Ok(envelope)
    }

    /// Reads a whole frame, with the length before its body.
    pub fn decode_frame(frame: &'a [u8]) -> Result<Self, Malformed> {
        let mut window = Window::new(frame);
        let body = window.sized()?;
        window.end()?;
        Self::decode(body)
    }

    /// The whole frame.
    pub fn encode(&self) -> Bytes {
        let frame = match self {
            Self::Ack(id) => parts(selector::ACK, &[id.0]),
            Self::Exit { id, exit } => parts(selector::EXIT, &[id.0, exit]),
            Self::Defect(defect) => parts(selector::DEFECT, &[defect]),
            Self::Ping => parts(selector::PING, &[]),
            Self::Eof => parts(selector::EOF, &[]),
            Self::Chunk { id, values } => parts(selector::CHUNK, &[values, id.0]),
            Self::Pong => parts(selector::PONG, &[]),
            Self::Request(request) => request.encode(),
            Self::Interrupt(id) => parts(selector::INTERRUPT, &[id.0]),
        };
        frame.into()
    }
}

fn read_id<'a>(window: &mut Window<'a>) -> Result<RequestIdRef<'a>, Malformed> {
    RequestIdRef::read(window.sized()?)
}

/// An envelope whose fields are all preceded by their lengths.
fn parts(selector: u8, parts: &[&[u8]]) -> Vec<u8> {
    let fields_len = parts.iter().map(|part| sized_len(part.len())).sum();
    let mut out = Vec::with_capacity(frame_len(fields_len));
    begin_frame(&mut out, selector, fields_len);
    for part in parts {
        write_sized(&mut out, part);
    }
    out
}

/// How many bytes an envelope takes whose fields take `fields_len`.
const fn frame_len(fields_len: usize) -> usize {
    sized_len(2 + FINGERPRINT.len() + fields_len)
}

/// Begins the frame of an envelope whose fields take `fields_len` bytes; the fields must follow.
fn begin_frame(out: &mut Vec<u8>, selector: u8, fields_len: usize) {
    write_uvarint(out, (2 + FINGERPRINT.len() + fields_len) as u64);
    out.push(FINGERPRINT_HEADER);
    out.extend_from_slice(&FINGERPRINT);
    out.push(selector);
}

/// How many bytes a chunk for request `id` takes if its values are a frame of `values_len` bytes.
pub(super) fn chunk_len(id: &RequestId, values_len: usize) -> usize {
    frame_len(sized_len(values_len) + sized_len(id.0.len()))
}

/// Begins a chunk for request `id`; a frame of `values_len` bytes must follow, then [`end_chunk`].
pub(super) fn begin_chunk(out: &mut Vec<u8>, id: &RequestId, values_len: usize) {
    begin_frame(out, selector::CHUNK, sized_len(values_len) + sized_len(id.0.len()));
    write_uvarint(out, values_len as u64);
}

/// Ends a chunk.
pub(super) fn end_chunk(out: &mut Vec<u8>, id: &RequestId) {
    write_sized(out, &id.0);
}

impl<'a> Request<'a> {
    /// A request with only the required fields.
    pub const fn new(id: RequestIdRef<'a>, tag: &'a str, payload: &'a [u8]) -> Self {
        Self {
            id,
            tag,
            payload,
            headers: &[0],
            is_notification: false,
            discard: false,
            trace_id: None,
            span_id: None,
            sampled: None,
        }
    }

    fn read(window: &mut Window<'a>) -> Result<Self, Malformed> {
        let bitmap = window.byte()?;
        let optional = |window: &mut Window<'a>, bit| {
            if bitmap & bit == 0 { Ok(None) } else { window.sized().map(Some) }
        };
        let span_id = optional_text(optional(window, has::SPAN_ID)?)?;
        let payload = window.sized()?;
        let id = read_id(window)?;
        let sampled = optional_boolean(optional(window, has::SAMPLED)?)?;
        let tag = text(window.sized()?)?;
        let trace_id = optional_text(optional(window, has::TRACE_ID)?)?;
        let headers = read_headers(window.sized()?)?;
        let is_notification = optional_true(optional(window, has::IS_NOTIFICATION)?)?;
        let discard = optional_true(optional(window, has::DISCARD)?)?;
        Ok(Self { id, tag, payload, headers, is_notification, discard, trace_id, span_id, sampled })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bitmap = 0;
        let mut fields = Vec::new();
        let mut optional = |fields: &mut Vec<u8>, bit, value: Option<Vec<u8>>| {
            if let Some(value) = value {
                bitmap |= bit;
                write_sized(fields, &value);
            }
        };
        let some_text = |text: Option<&str>| text.map(|text| [b"\x01", text.as_bytes()].concat());
        let truth = |truth: bool| truth.then(|| vec![0, 1]);
        optional(&mut fields, has::SPAN_ID, some_text(self.span_id));
        write_sized(&mut fields, self.payload);
        write_sized(&mut fields, self.id.0);
        optional(&mut fields, has::SAMPLED, self.sampled.map(|sampled| vec![0, sampled.into()]));
        write_sized(&mut fields, self.tag.as_bytes());
        optional(&mut fields, has::TRACE_ID, some_text(self.trace_id));
        write_sized(&mut fields, self.headers);
        optional(&mut fields, has::IS_NOTIFICATION, truth(self.is_notification));
        optional(&mut fields, has::DISCARD, truth(self.discard));
        let mut out = Vec::with_capacity(frame_len(1 + fields.len()));
        begin_frame(&mut out, selector::REQUEST, 1 + fields.len());
        out.push(bitmap);
        out.extend_from_slice(&fields);
        out
    }
}

/// How many bytes a request without optional fields and headers takes.
pub(super) fn request_len(id: &RequestId, tag: &str, payload_len: usize) -> usize {
    frame_len(request_fields_len(id, tag, payload_len))
}

/// Begins a request without optional fields and headers; a payload frame of `payload_len` bytes must follow, then
/// [`end_request`].
pub(super) fn begin_request(out: &mut Vec<u8>, id: &RequestId, tag: &str, payload_len: usize) {
    begin_frame(out, selector::REQUEST, request_fields_len(id, tag, payload_len));
    out.push(0);
    write_uvarint(out, payload_len as u64);
}

/// Ends a request.
pub(super) fn end_request(out: &mut Vec<u8>, id: &RequestId, tag: &str) {
    write_sized(out, &id.0);
    write_sized(out, tag.as_bytes());
    out.extend_from_slice(&NO_HEADERS);
}

/// An array without elements, preceded by its length.
const NO_HEADERS: [u8; 2] = [1, 0];

fn request_fields_len(id: &RequestId, tag: &str, payload_len: usize) -> usize {
    1 + sized_len(payload_len) + sized_len(id.0.len()) + sized_len(tag.len()) + NO_HEADERS.len()
}

fn optional_text(bytes: Option<&[u8]>) -> Result<Option<&str>, Malformed> {
    let Some(bytes) = bytes else { return Ok(None) };
    let mut window = Window::new(bytes);
    match window.uvarint()? {
        0 => window.end().map(|()| None),
        1 => text(window.rest()).map(Some),
        _ => Err(Malformed::new("a string or undefined")),
    }
}

fn optional_boolean(bytes: Option<&[u8]>) -> Result<Option<bool>, Malformed> {
    let Some(bytes) = bytes else { return Ok(None) };
    let mut window = Window::new(bytes);
    let value = match (window.uvarint()?, window.rest()) {
        (0, [0]) => Some(false),
        (0, [1]) => Some(true),
        (1, []) => None,
        _ => return Err(Malformed::new("a boolean or undefined")),
    };
    Ok(value)
}

fn optional_true(bytes: Option<&[u8]>) -> Result<bool, Malformed> {
    match optional_boolean(bytes)? {
        Some(true) => Ok(true),
        Some(false) => Err(Malformed::new("true or undefined")),
        None => Ok(false),
    }
}

/// The headers of a request, after checking that all of them are pairs of a name and a value.
fn read_headers(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let mut window = Window::new(bytes);
    for _ in 0..window.count()? {
        let mut pair = Window::new(window.sized()?);
        text(pair.sized()?)?;
        text(pair.sized()?)?;
        pair.end()?;
    }
    window.end().map(|()| bytes)
}
