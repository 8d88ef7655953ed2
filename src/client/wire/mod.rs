//! What a wire protocol does for a client: it turns requests into messages, and messages into what the server says.
//!
//! Two protocols share the core and the connection; their differences are here: how things are encoded, how an answer
//! finds its request, what comes before the first request.

mod identities;
mod msgpack;
mod rpc;
#[cfg(test)]
mod rpc_test;

use std::collections::VecDeque;
use std::fmt::Debug;

use bytes::Bytes;

pub(super) use self::identities::Keyring;
use self::msgpack::MsgpackWire;
use self::rpc::RpcWire;
use super::core::{Incoming, Outgoing};
use super::options::{Options, Protocol};
use crate::model::Limits;
use crate::protocol::chunk::{ChunkError, ChunkJoiner};
use crate::protocol::msgpack::ResponseError;
use crate::protocol::rpc::{FrameError, Malformed};

/// The connection has to be given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error(transparent)]
    Response(#[from] ResponseError),
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error("a chunk within a chunk")]
    NestedChunk,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the server interrupted a request")]
    Interrupted,
    #[error("the server does not identify itself: {0}")]
    NoHello(String),
    /// The server failed on something it was sent; sending that again would end the same way.
    #[error("the server failed: {0}")]
    Defect(String),
}

/// The client's side of a wire protocol on one connection.
pub(super) trait Wire: Debug + Send {
    /// Takes what is to be sent. Its messages are available at once, unless the server has to be asked something first.
    fn send(&mut self, outgoing: Outgoing);

    /// The messages to send, in this order; they are taken from the front.
    fn messages(&mut self) -> &mut VecDeque<Bytes>;

    /// Takes one message of the WebSocket. Before the next one, [`Wire::next_incoming`] has to be called until it has
    /// nothing left.
    fn accept(&mut self, message: Bytes);

    /// The next thing that the received messages say; also reports what cannot be sent.
    fn next_incoming(&mut self) -> Result<Option<Incoming>, WireError>;
}

/// The wire of a new connection. What has to be sent first is among its messages.
pub(super) fn connected(options: &Options, identities: &Keyring) -> Box<dyn Wire> {
    match &options.protocol {
        Protocol::Msgpack => Box::new(MsgpackWire::new(options.message_bytes_max)),
        Protocol::Rpc(rpc) => {
            let store = rpc.store.as_ref();
            Box::new(RpcWire::new(options.message_bytes_max, store, identities.clone()))
        }
    }
}

/// `Changes` have more around an entry than the write that it came in, which may have been as large as a message can
/// be: another public key, its sequence.
const AROUND_ENTRIES_BYTES_MAX: usize = 4 * 1_024;

/// Joins the parts of messages whose entries fit into one of `message_bytes_max` bytes.
#[derive(Debug)]
struct Joiner {
    chunks: ChunkJoiner,
}

impl Joiner {
    fn new(message_bytes_max: usize) -> Self {
        let message_bytes_max = message_bytes_max + AROUND_ENTRIES_BYTES_MAX;
        let limits = Limits {
            message_bytes_max,
            chunk_set_bytes_max: 2 * message_bytes_max,
            ..Limits::default()
        };
        Self { chunks: ChunkJoiner::new(&limits) }
    }

    /// See [`ChunkJoiner::push`].
    fn push(
        &mut self,
        id: u64,
        index: u64,
        total: u64,
        data: Bytes,
    ) -> Result<Option<Bytes>, ChunkError> {
        self.chunks.push(id, index, total, data)
    }
}
