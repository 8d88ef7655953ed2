//! The feeds on one connection, checked as they come.
//!
//! Keeps: every entry comes once, in order, without a gap.

use std::io;

use bytes::{Bytes, BytesMut};
use eventlog_server::model::{Limits, PublicKey, Sequence};
use eventlog_server::protocol::chunk::ChunkJoiner;
use eventlog_server::protocol::msgpack::encode_request_changes;
use eventlog_server::protocol::rpc::{ChangesValue, ChangesValues, Envelope, Exit, RemoteEntries};

use super::message::{Element, Elements, Message, Messages};
use super::rpc::{self, malformed};
use super::socket::Socket;
use crate::cli::peer::Protocol;

/// The largest message that is joined from chunks.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Reads the messages of a connection that has subscriptions.
pub(super) struct Feeds {
    protocol: Protocol,
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
    /// Messages that are to be acknowledged, in the RPC protocol.
    unacknowledged: u32,
}

impl Feeds {
    /// Subscribes these keys from the sequence `first` on, which is not zero. What it puts into `socket` is still to be
    /// sent.
    pub(super) fn subscribe(
        protocol: Protocol,
        socket: &mut Socket,
        keys: impl Iterator<Item = PublicKey>,
        first: Sequence,
    ) -> Self {
        let all: Vec<Feed> =
            keys.map(|key| Feed { key, next: first.get(), unacknowledged: 0 }).collect();
        for (number, feed) in all.iter().enumerate() {
            let request = match protocol {
                Protocol::Msgpack => {
                    let mut request = BytesMut::new();
                    encode_request_changes(&mut request, &feed.key, first);
                    request.freeze()
                }
                Protocol::Rpc => rpc::encode_subscription(&feed.key, number, first),
            };
            socket.push(&request);
        }
        let limits = Limits { message_bytes_max: MESSAGE_BYTES_MAX, ..Limits::default() };
        Self {
            protocol,
            all,
            messages: Messages::new(Protocol::Msgpack),
            joined: Messages::new(Protocol::Msgpack),
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
        if self.protocol == Protocol::Rpc {
            return self.take_rpc(message, each);
        }
        match self.messages.read(message)? {
            Message::Changes(key, elements) => take(&mut self.all, key, elements, each),
            Message::Part(id, index, total, data) => {
                let whole = self.chunks.push(0, id, index, total, data);
                let Some(whole) = whole.map_err(io::Error::other)? else { return Ok(()) };
                match self.joined.read(&whole)? {
                    Message::Changes(key, elements) => take(&mut self.all, key, elements, each),
                    _ => Ok(()),
                }
            }
            Message::Refused(_, reason) => Err(io::Error::other(reason)),
            Message::Pong => {
                self.pongs += 1;
                Ok(())
            }
            Message::Ack(_) | Message::Nothing => Ok(()),
        }
    }

    fn take_rpc(&mut self, message: &[u8], each: &mut impl FnMut(&Element<'_>)) -> io::Result<()> {
        let (id, values) = match rpc::envelope(message)? {
            Envelope::Chunk { id, values } => (id, values),
            Envelope::Exit { exit, .. } => {
                let reason = match Exit::decode(exit).map_err(malformed)? {
                    Exit::Success(_) => "a feed has ended".to_owned(),
                    Exit::Failure(cause) => rpc::reason(&cause),
                };
                return Err(io::Error::other(reason));
            }
            Envelope::Pong => {
                self.pongs += 1;
                return Ok(());
            }
            _ => return Ok(()),
        };
        let number = rpc::subscription_of(id).filter(|number| *number < self.all.len());
        let number = number.ok_or_else(|| io::Error::other("entries for another subscription"))?;
        let feed = &mut self.all[number];
        feed.unacknowledged += 1;
        let mut values = ChangesValues::decode(values).map_err(malformed)?;
        while let Some(value) = values.next_value().map_err(malformed)? {
            match value {
                ChangesValue::Single(data) => feed.take_data(data, each)?,
                ChangesValue::Chunked(part) => {
                    // Sets are numbered by subscription.
                    let set = (number as u64) << 32 | part.id.cast_unsigned() & 0xffff_ffff;
                    let data = Bytes::copy_from_slice(part.data);
                    let whole = self.chunks.push(0, set, part.index, part.total, data);
                    if let Some(whole) = whole.map_err(io::Error::other)? {
                        feed.take_data(&whole, each)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts into `socket` what the server has to hear before it sends more.
    pub(super) fn acknowledge(&mut self, socket: &mut Socket) {
        for (number, feed) in self.all.iter_mut().enumerate() {
            for _ in 0..std::mem::take(&mut feed.unacknowledged) {
                let taken = rpc::encode_taken(number);
                socket.push(&taken);
            }
        }
    }
}

impl Feed {
    /// Takes in an array of the RPC protocol.
    fn take_data(&mut self, data: &[u8], each: &mut impl FnMut(&Element<'_>)) -> io::Result<()> {
        let mut entries = RemoteEntries::decode(data).map_err(malformed)?;
        while let Some((sequence, entry)) = entries.next_entry().map_err(malformed)? {
            let payload = entry.payload.get(rpc::PAYLOAD_HEADER_BYTES..).unwrap_or_default();
            self.take_one(&Element { sequence: sequence.get(), id: entry.id, payload }, each)?;
        }
        Ok(())
    }

    fn take_one(
        &mut self,
        element: &Element<'_>,
        each: &mut impl FnMut(&Element<'_>),
    ) -> io::Result<()> {
        if element.sequence != self.next {
            let (found, next) = (element.sequence, self.next);
            return Err(io::Error::other(format!("sequence {found} came instead of {next}")));
        }
        self.next += 1;
        each(element);
        Ok(())
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
        feed.take_one(&element, each)?;
    }
    if feed.next == end { Ok(()) } else { Err(io::Error::other("an entry cannot be read")) }
}
