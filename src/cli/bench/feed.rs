//! The feeds on one connection, checked as they come.
//!
//! Keeps: every entry comes once, in order, without a gap.

use std::io;

use bytes::BytesMut;
use eventlog_server::model::{Limits, PublicKey, Sequence};
use eventlog_server::protocol::chunk::ChunkJoiner;
use eventlog_server::protocol::msgpack::{Response, encode_request_changes};

use super::message::{Element, Elements, Message, Messages};
use super::socket::Socket;

/// The largest message that is joined from chunks.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Reads the messages of a connection that has subscriptions.
pub(super) struct Feeds {
    all: Vec<Feed>,
    messages: Messages,
    joined: Messages,
    chunks: ChunkJoiner,
    pongs: u64,
}

/// One subscription.
struct Feed {
    key: PublicKey,
    /// The sequence that comes next.
    next: u64,
}

impl Feeds {
    /// Subscribes these keys from the sequence `first` on, which is not zero. What it puts into `socket` is still to be
    /// sent.
    pub(super) fn subscribe(
        socket: &mut Socket,
        keys: impl Iterator<Item = PublicKey>,
        first: Sequence,
    ) -> Self {
        let all: Vec<Feed> = keys.map(|key| Feed { key, next: first.get() }).collect();
        for feed in &all {
            let mut request = BytesMut::new();
            encode_request_changes(&mut request, &feed.key, first);
            socket.push(request.len(), |out| out.extend_from_slice(&request));
        }
        let limits = Limits { message_bytes_max: MESSAGE_BYTES_MAX, ..Limits::default() };
        Self {
            all,
            messages: Messages::default(),
            joined: Messages::default(),
            chunks: ChunkJoiner::new(&limits),
            pongs: 0,
        }
    }

    /// The last sequence that every feed has come to.
    pub(super) fn reached(&self) -> u64 {
        self.all.iter().map(|feed| feed.next - 1).min().unwrap_or(0)
    }

    /// How many pings were answered.
    pub(super) const fn pongs(&self) -> u64 {
        self.pongs
    }

    /// Takes in a message and shows the entries in it to `each`; an error if they are not the next ones.
    pub(super) fn take(
        &mut self,
        message: &[u8],
        each: &mut impl FnMut(&Element<'_>),
    ) -> io::Result<()> {
        match self.messages.read(message).map_err(io::Error::other)? {
            Message::Changes(key, elements) => take(&mut self.all, key, elements, each),
            Message::Other(Response::Chunk { id, index, total, data }) => {
                let whole = self.chunks.push(0, id, index, total, data);
                let Some(whole) = whole.map_err(io::Error::other)? else { return Ok(()) };
                match self.joined.read(&whole).map_err(io::Error::other)? {
                    Message::Changes(key, elements) => take(&mut self.all, key, elements, each),
                    Message::Ack(..) | Message::Other(_) => Ok(()),
                }
            }
            Message::Other(Response::Error { code, message, .. }) => {
                Err(io::Error::other(format!("{code}: {message}")))
            }
            Message::Other(Response::Pong { .. }) => {
                self.pongs += 1;
                Ok(())
            }
            Message::Other(_) | Message::Ack(..) => Ok(()),
        }
    }
}

fn take(
    feeds: &mut [Feed],
    key: &str,
    elements: Elements<'_>,
    each: &mut impl FnMut(&Element<'_>),
) -> io::Result<()> {
    let feed = feeds.iter_mut().find(|feed| feed.key.as_str() == key);
    let feed = feed.ok_or_else(|| io::Error::other("entries for another key"))?;
    let end = feed.next + elements.len() as u64;
    for element in elements {
        if element.sequence != feed.next {
            let (found, next) = (element.sequence, feed.next);
            return Err(io::Error::other(format!("sequence {found} came instead of {next}")));
        }
        feed.next += 1;
        each(&element);
    }
    if feed.next == end { Ok(()) } else { Err(io::Error::other("an entry cannot be read")) }
}
