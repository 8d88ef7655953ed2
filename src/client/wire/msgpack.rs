//! The protocol of `docs/PROTOCOL.md`.
//!
//! Keeps: nothing that exceeds the limits for chunks and messages is sent or accepted.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{Joiner, Wire, WireError};
use crate::client::core::{Incoming, Outgoing};
use crate::client::entries::Entries;
use crate::client::error::RemoteError;
use crate::model::PublicKey;
use crate::model::limits::CHUNK_BYTES;
use crate::protocol::chunk::split;
use crate::protocol::msgpack::ErrorCode;
use crate::protocol::msgpack::{
    Response, decode_response, encode_chunk, encode_ping, encode_request_changes_with,
    encode_stop_changes, encode_write,
};

#[derive(Debug)]
pub(super) struct MsgpackWire {
    buffer: BytesMut,
    message_bytes_max: usize,
    chunk_id: u64,
    joiner: Joiner,
    messages: VecDeque<Bytes>,
    received: Option<Bytes>,
    /// Writes that cannot be sent.
    failed: VecDeque<Incoming>,
}

impl MsgpackWire {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            message_bytes_max,
            chunk_id: 0,
            joiner: Joiner::new(message_bytes_max),
            messages: VecDeque::new(),
            received: None,
            failed: VecDeque::new(),
        }
    }

    /// Cuts a message into parts.
    fn send_chunks(&mut self, message: &Bytes) {
        self.chunk_id += 1;
        let parts = split(message.len());
        let total = parts.len() as u64;
        for (index, part) in parts.enumerate() {
            let data = &message[part];
            encode_chunk(&mut self.buffer, self.chunk_id, index as u64, total, data);
            self.messages.push_back(self.buffer.split().freeze());
        }
    }

    /// Decodes a frame; `None` if it is a part of a message that is not complete yet.
    fn decode(&mut self, frame: &Bytes) -> Result<Option<Response>, WireError> {
        let (id, index, total, data) = match decode_response(frame)? {
            Response::Chunk { id, index, total, data } => (id, index, total, data),
            response => return Ok(Some(response)),
        };
        let Some(message) = self.joiner.push(id, index, total, data)? else { return Ok(None) };
        match decode_response(&message)? {
            Response::Chunk { .. } => Err(WireError::NestedChunk),
            response => Ok(Some(response)),
        }
    }
}

impl Wire for MsgpackWire {
    fn send(&mut self, outgoing: Outgoing) {
        let buffer = &mut self.buffer;
        match &outgoing {
            Outgoing::Write { key, id, batch } => encode_write(buffer, key, *id, batch),
            Outgoing::RequestChanges { key, start } => {
                encode_request_changes_with(buffer, key, *start, false, true);
            }
            Outgoing::StopChanges { key } => encode_stop_changes(buffer, key),
            Outgoing::Ping { id } => encode_ping(buffer, *id),
        }
        let message = buffer.split().freeze();
        let (bytes, bytes_max) = (message.len(), self.message_bytes_max);
        if bytes <= CHUNK_BYTES {
            self.messages.push_back(message);
        } else if bytes <= bytes_max {
            self.send_chunks(&message);
        } else if let Outgoing::Write { id, .. } = outgoing {
            let error = RemoteError::TooLarge { bytes, bytes_max };
            self.failed.push_back(Incoming::WriteFailed { id, error });
        }
    }

    fn messages(&mut self) -> &mut VecDeque<Bytes> {
        &mut self.messages
    }

    fn accept(&mut self, message: Bytes) {
        self.received = Some(message);
    }

    fn next_incoming(&mut self) -> Result<Option<Incoming>, WireError> {
        if let Some(failed) = self.failed.pop_front() {
            return Ok(Some(failed));
        }
        let Some(frame) = self.received.take() else { return Ok(None) };
        Ok(self.decode(&frame)?.and_then(incoming))
    }
}

/// What `response` means to the core; `None` if the core did not ask for it.
fn incoming(response: Response) -> Option<Incoming> {
    Some(match response {
        Response::Hello { remote_id } => Incoming::Hello { remote_id },
        Response::Ack { id, sequences } => Incoming::Acked { id, sequences },
        Response::Pong { id } => Incoming::Pong { id },
        Response::Changes(view) => {
            let key = view.public_key().clone();
            Incoming::Fed { key, entries: Entries::Msgpack(view) }
        }
        Response::Error { request_tag, id, public_key, code, message } => {
            return failed(request_tag, id, public_key, code, message);
        }
        // Parts were joined earlier, and nobody asks to be told that a subscription has begun.
        Response::Chunk { .. } | Response::Subscribed { .. } => return None,
    })
}

fn failed(
    request_tag: String,
    id: Option<u64>,
    key: Option<String>,
    code: ErrorCode,
    message: String,
) -> Option<Incoming> {
    let is_feed = request_tag == "RequestChanges";
    let is_write = matches!(request_tag.as_str(), "WriteEntries" | "WriteEntriesUnencrypted");
    let error = RemoteError::Rejected { code: code.into(), request_tag, message };
    match (id, key.map(PublicKey::new)) {
        (_, Some(Ok(key))) if is_feed => Some(Incoming::FeedFailed { key, error }),
        (Some(id), _) if is_write => Some(Incoming::WriteFailed { id, error }),
        _ => {
            log::warn!("the server refused something that was not asked: {error}");
            None
        }
    }
}
