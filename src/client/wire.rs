//! Messages to bytes and back: all of the client that knows how the protocol is encoded.
//!
//! Keeps: nothing above the limits for chunks and messages goes out or comes in.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::core::{Fault, Outgoing};
use crate::model::Limits;
use crate::model::limits::CHUNK_BYTES;
use crate::protocol::chunk::{ChunkError, ChunkJoiner, split};
use crate::protocol::msgpack::{
    Response, ResponseError, decode_response, encode_chunk, encode_ping, encode_request_changes,
    encode_stop_changes, encode_write,
};

/// What comes in cannot be read: the connection is to be given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error(transparent)]
    Response(#[from] ResponseError),
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A message above the limit; it cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge {
    pub(super) bytes: usize,
}

/// Both directions of one connection.
#[derive(Debug)]
pub(super) struct Wire {
    buffer: BytesMut,
    message_bytes_max: usize,
    chunk_id: u64,
    joiner: ChunkJoiner,
    started: Instant,
}

impl Wire {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        let limits = Limits {
            message_bytes_max,
            chunk_set_bytes_max: 2 * message_bytes_max,
            ..Limits::default()
        };
        Self {
            buffer: BytesMut::new(),
            message_bytes_max,
            chunk_id: 0,
            joiner: ChunkJoiner::new(&limits),
            started: Instant::now(),
        }
    }

    /// Encodes `outgoing` into frames, which go to `send` in order.
    pub(super) fn encode(
        &mut self,
        outgoing: &Outgoing,
        mut send: impl FnMut(Bytes),
    ) -> Result<(), TooLarge> {
        let buffer = &mut self.buffer;
        match outgoing {
            Outgoing::Write { key, id, batch } => encode_write(buffer, key, *id, batch),
            Outgoing::RequestChanges { key, start } => encode_request_changes(buffer, key, *start),
            Outgoing::StopChanges { key } => encode_stop_changes(buffer, key),
            Outgoing::Ping { id } => encode_ping(buffer, *id),
        }
        let message = buffer.split().freeze();
        let bytes = message.len();
        if bytes <= CHUNK_BYTES {
            send(message);
            return Ok(());
        }
        if bytes > self.message_bytes_max {
            return Err(TooLarge { bytes });
        }
        self.chunk_id += 1;
        let parts = split(bytes);
        let total = parts.len() as u64;
        for (index, part) in parts.enumerate() {
            encode_chunk(buffer, self.chunk_id, index as u64, total, &message[part]);
            send(buffer.split().freeze());
        }
        Ok(())
    }

    /// Decodes a frame; `None` if it is a part of a message that is not complete yet.
    pub(super) fn decode(&mut self, frame: &Bytes) -> Result<Option<Response>, WireError> {
        let (id, index, total, data) = match decode_response(frame)? {
            Response::Chunk { id, index, total, data } => (id, index, total, data),
            response => return Ok(Some(response)),
        };
        let now_millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Some(message) = self.joiner.push(now_millis, id, index, total, data)? else {
            return Ok(None);
        };
        match decode_response(&message)? {
            Response::Chunk { .. } => Err(Fault::NestedChunk.into()),
            response => Ok(Some(response)),
        }
    }
}
