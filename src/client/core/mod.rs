//! What the client has asked for, what it still waits for, and the order in which it hands things out; without socket,
//! clock or task.
//!
//! The driver passes in commands, the server's messages and changes of the connection, and sends what it is told to
//! send. Keeps: every write is answered once; a stream delivers every entry from its start, its own included, in order,
//! once, over any number of connections. Leaves out: encoding (`wire`), reconnecting (`driver`).

mod feed;
mod order;
mod pings;
#[cfg(test)]
mod schedule_test;
mod streams;
#[cfg(test)]
mod tests;
mod writes;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use self::feed::{Feed, FeedLink};
use self::pings::Pings;
pub(super) use self::writes::Pending;
use self::writes::Writes;
use super::entries::Entries;
use super::error::RemoteError;
use super::queue::Queue;
use crate::model::{Batch, PublicKey, RemoteId, Sequence};

/// What a handle or a stream asks of the connection.
#[derive(Debug)]
pub(super) enum Command {
    Write(Pending),
    Open {
        key: PublicKey,
        stream: u64,
        start: Sequence,
        queue: Arc<Queue>,
    },
    /// The queue of this stream is no longer full.
    Resume {
        key: PublicKey,
        stream: u64,
    },
    /// Nobody holds this stream any more.
    Drop {
        key: PublicKey,
        stream: u64,
    },
    /// The client should end once everything so far is answered.
    Close,
}

/// What to send, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    Write { key: PublicKey, id: u64, batch: Arc<Batch> },
    RequestChanges { key: PublicKey, start: Sequence },
    StopChanges { key: PublicKey },
    Ping { id: u64 },
}

/// What the server says, in either protocol.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Who it is: the first message on a connection, and only then.
    Hello { remote_id: RemoteId },
    /// A write is durable, with one sequence per slot.
    Acked { id: u64, sequences: Vec<Sequence> },
    /// The next entries of a feed.
    Fed { key: PublicKey, entries: Entries },
    /// The answer to a ping.
    Pong { id: u64 },
    /// A write failed.
    WriteFailed { id: u64, error: RemoteError },
    /// The subscription of a key failed, or was ended.
    FeedFailed { key: PublicKey, error: RemoteError },
}

/// The server did something that the protocol does not allow: give the connection up.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("a ping was not answered in time")]
    PongMissing,
    #[error("pong {found} instead of {expected:?}")]
    WrongPong { expected: Option<u64>, found: u64 },
    #[error("a second Hello")]
    SecondHello,
}

/// How a stream reads ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// Whether writes in flight when the connection breaks are sent again.
    pub(super) resend_writes: bool,
    /// Bytes that may be held back for one stream until answers put them in order.
    pub(super) held_bytes_max: usize,
    /// Whether the server sends no `Ack` before the feed below it, once a subscription has begun. Every server of the
    /// msgpack protocol does so. In the RPC protocol this server does, but Effect's acknowledges at once, however far
    /// behind the feed is.
    pub(super) acks_follow_the_feed: bool,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Core {
    policy: Policy,
    writes: Writes,
    feeds: HashMap<PublicKey, Feed>,
    outgoing: VecDeque<Outgoing>,
    connected: bool,
    closing: bool,
    pings: Pings,
}

impl Core {
    /// Starts without a connection.
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            writes: Writes::default(),
            feeds: HashMap::new(),
            outgoing: VecDeque::new(),
            connected: false,
            closing: false,
            pings: Pings::default(),
        }
    }

    /// Takes a command.
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Write(write) if self.closing => write.refuse(RemoteError::Closed),
            Command::Open { queue, .. } if self.closing => queue.end(Some(RemoteError::Closed)),
            Command::Write(write) => {
                let outgoing = self.writes.add(write);
                if self.connected {
                    self.outgoing.push_back(outgoing);
                }
            }
            Command::Open { key, stream, start, queue } => self.open(key, stream, start, queue),
            Command::Resume { key, stream } => {
                if let Some(open) = self.stream(&key, stream) {
                    open.paused = false;
                    self.settle(&key);
                }
            }
            Command::Drop { key, stream } => {
                if self.stream(&key, stream).is_some() {
                    self.drop_stream(&key);
                }
            }
            Command::Close => self.closing = true,
        }
    }

    /// The next thing to send. Whatever it returns counts as sent.
    pub(super) fn next_outgoing(&mut self) -> Option<Outgoing> {
        loop {
            let outgoing = self.outgoing.pop_front()?;
            let Outgoing::Write { key, id, .. } = &outgoing else { return Some(outgoing) };
            // A write whose caller gave up before it was sent is not sent.
            if self.writes.mark_sent(*id) {
                if let Some(open) = self.feeds.get_mut(key).and_then(|feed| feed.stream.as_mut()) {
                    open.order.sent(*id);
                }
                return Some(outgoing);
            }
        }
    }

    /// Whether the client was closed.
    pub(super) const fn is_closing(&self) -> bool {
        self.closing
    }

    /// How much waits to be sent.
    pub(super) fn outgoing_len(&self) -> usize {
        self.outgoing.len()
    }

    /// Whether no write is unanswered.
    pub(super) fn is_answered(&self) -> bool {
        self.writes.is_empty()
    }

    /// There is a connection, and its `Hello` has arrived. Subscriptions go first: whatever is written afterwards is
    /// then either fed or acknowledged in order.
    pub(super) fn connected(&mut self) {
        self.connected = true;
        let keys: Vec<PublicKey> = self.feeds.keys().cloned().collect();
        keys.iter().for_each(|key| self.settle(key));
        self.outgoing.extend(self.writes.resend());
    }

    /// The connection is gone. `broken_off`: the server closed it because of what it was sent.
    pub(super) fn disconnected(&mut self, broken_off: Option<&RemoteError>) {
        self.connected = false;
        self.outgoing.clear();
        self.pings.clear();
        self.feeds.retain(|_, feed| {
            feed.link = FeedLink::Off;
            feed.stream.as_mut().map(|open| open.order.disconnected()).is_some()
        });
        let unanswered = (!self.policy.resend_writes).then_some(&RemoteError::Unanswered);
        if let Some(error) = broken_off.or(unanswered) {
            self.writes.fail_sent(error);
        }
    }

    /// The client ends: every write and every stream ends with `error`; if there is none, streams end without an error.
    pub(super) fn end(&mut self, error: Option<&RemoteError>) {
        self.writes.fail_all(error);
        for (_, feed) in self.feeds.drain() {
            if let Some(open) = feed.stream {
                open.queue.end(error.cloned());
            }
        }
        self.outgoing.clear();
    }

    /// Must be called every ping interval while connected.
    pub(super) fn heartbeat(&mut self) -> Result<(), Fault> {
        let id = self.pings.heartbeat()?;
        self.outgoing.push_back(Outgoing::Ping { id });
        Ok(())
    }

    /// Handles a message of the server.
    pub(super) fn receive(&mut self, incoming: Incoming) -> Result<(), Fault> {
        match incoming {
            Incoming::Acked { id, sequences } => self.acked(id, sequences),
            Incoming::Fed { key, entries } => self.fed(&key, &entries),
            Incoming::Pong { id } => return self.pong(id),
            Incoming::WriteFailed { id, error } => self.answer(id, Err(error)),
            Incoming::FeedFailed { key, error } => self.feed_failed(&key, error),
            Incoming::Hello { .. } => return Err(Fault::SecondHello),
        }
        Ok(())
    }

    fn acked(&mut self, id: u64, sequences: Vec<Sequence>) {
        let Some(pending) = self.writes.get(id) else {
            log::warn!("the server acknowledged write {id}, which is not in flight");
            return;
        };
        let (slots, answered) = (pending.batch.len(), sequences.len());
        if slots != answered {
            let text = format!("{answered} sequences for a batch of {slots} entries");
            return self.answer(id, Err(RemoteError::WrongAnswer(text)));
        }
        let (key, batch) = (pending.key.clone(), Arc::clone(&pending.batch));
        self.deliver(&key, |link, order, pages| match link {
            FeedLink::On => order.acked(id, &batch, &sequences, pages),
            // The next subscription delivers it.
            FeedLink::Off | FeedLink::Stopping { .. } => order.answered(id, pages),
        });
        self.writes.answer(id, Ok(sequences));
    }

    fn fed(&mut self, key: &PublicKey, entries: &Entries) {
        if self.feeds.get(key).is_some_and(|feed| feed.link == FeedLink::On) {
            self.deliver(key, |_, order, pages| order.fed(entries, pages));
        }
    }

    fn pong(&mut self, id: u64) -> Result<(), Fault> {
        self.pings.answered(id)?;
        let stopping = FeedLink::Stopping { ping: id };
        let stopped = self.feeds.iter_mut().find(|(_, feed)| feed.link == stopping);
        if let Some((key, feed)) = stopped {
            feed.link = FeedLink::Off;
            let key = key.clone();
            self.settle(&key);
        }
        Ok(())
    }

    fn feed_failed(&mut self, key: &PublicKey, error: RemoteError) {
        // While stopping, it is about a subscription that nobody wants any more.
        if self.feeds.get(key).is_some_and(|feed| feed.link == FeedLink::On) {
            self.fail_stream(key, error);
        }
    }

    fn answer(&mut self, id: u64, answer: Result<Vec<Sequence>, RemoteError>) {
        if let Some(key) = self.writes.answer(id, answer) {
            self.deliver(&key, |_, order, pages| order.answered(id, pages));
        }
    }

    fn ping(&mut self) -> u64 {
        let id = self.pings.next();
        self.outgoing.push_back(Outgoing::Ping { id });
        id
    }
}
