//! What the client has asked for, what is still owed to it, and in which order it hands things out; without socket,
//! clock or task.
//!
//! The driver feeds it commands, the server's messages and the fate of the connection, and sends what it asks to send.
//! Keeps: every write is answered once; a stream delivers every entry from its start, its own included, in order,
//! once, over any number of connections. Leaves out: encoding (`wire`), reconnecting (`driver`).

mod feed;
mod order;
#[cfg(test)]
mod schedule_test;
#[cfg(test)]
mod tests;
mod writes;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use self::feed::{Feed, Link, Open};
use self::order::Order;
pub(super) use self::writes::Pending;
use self::writes::Writes;
use super::error::RemoteError;
use super::queue::Queue;
use crate::model::{Batch, PublicKey, Sequence};
use crate::protocol::msgpack::{ChangesView, Response};

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
    /// The queue of this stream is not full any longer.
    Resume {
        key: PublicKey,
        stream: u64,
    },
    /// Nobody holds this stream any longer.
    Drop {
        key: PublicKey,
        stream: u64,
    },
    /// The client is to end once everything so far is answered.
    Close,
}

/// What is to be sent, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    Write { key: PublicKey, id: u64, batch: Arc<Batch> },
    RequestChanges { key: PublicKey, start: Sequence },
    StopChanges { key: PublicKey },
    Ping { id: u64 },
}

/// The server did what the protocol does not allow: the connection is to be given up.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("a ping was not answered in time")]
    PongMissing,
    #[error("pong {found} instead of {expected:?}")]
    WrongPong { expected: Option<u64>, found: u64 },
    #[error("a second Hello")]
    SecondHello,
    #[error("a chunk within a chunk")]
    NestedChunk,
}

/// How a stream reads ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// Whether writes in flight when the connection breaks are sent again.
    pub(super) resend_writes: bool,
    /// Bytes that may be held back for one stream until answers put them in order.
    pub(super) held_bytes_max: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Core {
    policy: Policy,
    writes: Writes,
    feeds: HashMap<PublicKey, Feed>,
    outgoing: VecDeque<Outgoing>,
    connected: bool,
    closing: bool,
    /// Pings that were sent and not answered, in order.
    pings: VecDeque<u64>,
    last_ping: u64,
    /// The last ping at the time of the last heartbeat.
    heartbeat_ping: u64,
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
            pings: VecDeque::new(),
            last_ping: 0,
            heartbeat_ping: 0,
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

    /// The next thing to send. What it gives out counts as sent.
    pub(super) fn next_outgoing(&mut self) -> Option<Outgoing> {
        loop {
            let outgoing = self.outgoing.pop_front()?;
            let Outgoing::Write { key, id, .. } = &outgoing else { return Some(outgoing) };
            // Whoever gave a write up before it was sent does not want it sent.
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

    /// Write `id` cannot be sent at all.
    pub(super) fn refuse(&mut self, id: u64, error: RemoteError) {
        self.answer(id, Err(error));
    }

    /// There is a connection, and its `Hello` has come. Subscriptions go first: whatever is written afterwards is
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
            feed.link = Link::Off;
            feed.stream.as_mut().map(|open| open.order.disconnected()).is_some()
        });
        let unanswered = (!self.policy.resend_writes).then_some(&RemoteError::Unanswered);
        if let Some(error) = broken_off.or(unanswered) {
            self.writes.fail_sent(error);
        }
    }

    /// The client ends: every write and every stream ends with `error`, or streams without one if there is none.
    pub(super) fn end(&mut self, error: Option<&RemoteError>) {
        self.writes.fail_all(error);
        for (_, feed) in self.feeds.drain() {
            if let Some(open) = feed.stream {
                open.queue.end(error.cloned());
            }
        }
        self.outgoing.clear();
    }

    /// To be called every ping interval while connected.
    pub(super) fn heartbeat(&mut self) -> Result<(), Fault> {
        if self.pings.front().is_some_and(|oldest| *oldest <= self.heartbeat_ping) {
            return Err(Fault::PongMissing);
        }
        self.heartbeat_ping = self.ping();
        Ok(())
    }

    /// Whether [`Core::tick`] has something to watch.
    pub(super) fn wants_tick(&self) -> bool {
        self.feeds
            .values()
            .filter_map(|feed| feed.stream.as_ref())
            .any(|open| open.order.waits_for_the_feed())
    }

    /// To be called about every second. A stream that holds back acknowledged entries, and has been fed nothing for
    /// a whole tick, subscribes again: either the feed has reached them by now and brings them, or it had nothing
    /// before them.
    pub(super) fn tick(&mut self) {
        let mut stuck = Vec::new();
        for (key, feed) in &mut self.feeds {
            let Some(open) = &mut feed.stream else { continue };
            let waits = open.order.waits_for_the_feed();
            if waits && open.stuck {
                stuck.push(key.clone());
            }
            open.stuck = waits;
        }
        stuck.iter().for_each(|key| self.resubscribe(key));
    }

    /// Takes a message of the server.
    pub(super) fn receive(&mut self, response: Response) -> Result<(), Fault> {
        match response {
            Response::Ack { id, sequences } => self.acked(id, sequences),
            Response::Changes(view) => self.fed(&view),
            Response::Pong { id } => return self.pong(id),
            Response::Error { request_tag, id, public_key, code, message } => {
                let error = RemoteError::Rejected { code, request_tag, message };
                self.refused(id, public_key.as_deref(), error);
            }
            Response::Hello { .. } => return Err(Fault::SecondHello),
            Response::Chunk { .. } => return Err(Fault::NestedChunk),
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
            Link::On => order.acked(id, &batch, &sequences, pages),
            // The next subscription brings it.
            Link::Off | Link::Stopping { .. } => order.answered(id, pages),
        });
        self.writes.answer(id, Ok(sequences));
    }

    fn fed(&mut self, view: &ChangesView) {
        let key = view.public_key();
        if self.feeds.get(key).is_some_and(|feed| feed.link == Link::On) {
            let key = key.clone();
            self.deliver(&key, |_, order, pages| order.fed(view, pages));
        }
    }

    fn pong(&mut self, id: u64) -> Result<(), Fault> {
        let expected = self.pings.pop_front();
        if expected != Some(id) {
            return Err(Fault::WrongPong { expected, found: id });
        }
        let stopping = Link::Stopping { ping: id };
        let stopped = self.feeds.iter_mut().find(|(_, feed)| feed.link == stopping);
        if let Some((key, feed)) = stopped {
            feed.link = Link::Off;
            let key = key.clone();
            self.settle(&key);
        }
        Ok(())
    }

    fn refused(&mut self, id: Option<u64>, key: Option<&str>, error: RemoteError) {
        let RemoteError::Rejected { request_tag, .. } = &error else { return };
        match (request_tag.as_str(), id, key) {
            ("RequestChanges", _, Some(key)) => {
                // While stopping it is about a subscription that nobody wants any longer.
                if let Some((key, feed)) = self.feeds.get_key_value(key)
                    && feed.link == Link::On
                {
                    let key = key.clone();
                    self.fail_stream(&key, error);
                }
            }
            ("WriteEntries" | "WriteEntriesUnencrypted", Some(id), _) => {
                self.answer(id, Err(error));
            }
            _ => log::warn!("the server refused something that was not asked: {error}"),
        }
    }

    fn answer(&mut self, id: u64, answer: Result<Vec<Sequence>, RemoteError>) {
        if let Some(key) = self.writes.answer(id, answer) {
            self.deliver(&key, |_, order, pages| order.answered(id, pages));
        }
    }

    fn open(&mut self, key: PublicKey, stream: u64, start: Sequence, queue: Arc<Queue>) {
        let link = match self.feeds.get(&key) {
            Some(Feed { stream: Some(_), .. }) => {
                return queue.end(Some(RemoteError::AlreadyStreaming(key)));
            }
            Some(Feed { stream: None, link }) => *link,
            None => Link::Off,
        };
        let order = Order::new(start, self.writes.sent_with(&key));
        let open = Open { id: stream, queue, order, paused: false, stuck: false };
        self.feeds.insert(key.clone(), Feed { stream: Some(open), link });
        self.settle(&key);
    }

    fn stream(&mut self, key: &PublicKey, stream: u64) -> Option<&mut Open> {
        self.feeds.get_mut(key)?.stream.as_mut().filter(|open| open.id == stream)
    }

    fn drop_stream(&mut self, key: &PublicKey) {
        if let Some(feed) = self.feeds.get_mut(key) {
            feed.stream = None;
            self.settle(key);
        }
    }

    fn fail_stream(&mut self, key: &PublicKey, error: RemoteError) {
        if let Some(feed) = self.feeds.remove(key)
            && let Some(open) = feed.stream
        {
            open.queue.end(Some(error));
        }
    }

    /// Lets `change` put things in order for the stream of `key`, if there is one, and hands out what comes of it.
    fn deliver(
        &mut self,
        key: &PublicKey,
        change: impl FnOnce(Link, &mut Order, &mut Vec<super::page::Page>),
    ) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        let Some(open) = &mut feed.stream else { return };
        let mut pages = Vec::new();
        change(feed.link, &mut open.order, &mut pages);
        if !pages.is_empty() && open.queue.push(pages) {
            open.paused = true;
            self.settle(key);
        } else if open.order.held_bytes() > self.policy.held_bytes_max {
            self.resubscribe(key);
        }
    }

    /// Ends the subscription of `key`, so that it begins again behind what was delivered.
    fn resubscribe(&mut self, key: &PublicKey) {
        if let Some(feed) = self.feeds.get_mut(key)
            && feed.link == Link::On
        {
            self.stop(key);
        }
    }

    /// Asks for what is wanted and not asked for, or the other way round.
    fn settle(&mut self, key: &PublicKey) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        match (feed.link, feed.is_wanted()) {
            (Link::Off, true) if self.connected => {
                if let Some(open) = &mut feed.stream {
                    open.order.restart();
                    let start = open.order.next();
                    feed.link = Link::On;
                    self.outgoing.push_back(Outgoing::RequestChanges { key: key.clone(), start });
                }
            }
            (Link::Off, false) if feed.stream.is_none() => {
                self.feeds.remove(key);
            }
            (Link::On, false) => self.stop(key),
            (Link::Off | Link::Stopping { .. }, _) | (Link::On, true) => {}
        }
    }

    fn stop(&mut self, key: &PublicKey) {
        self.outgoing.push_back(Outgoing::StopChanges { key: key.clone() });
        let ping = self.ping();
        if let Some(feed) = self.feeds.get_mut(key) {
            feed.link = Link::Stopping { ping };
            if let Some(open) = &mut feed.stream {
                open.order.restart();
            }
        }
    }

    fn ping(&mut self) -> u64 {
        self.last_ping += 1;
        self.pings.push_back(self.last_ping);
        self.outgoing.push_back(Outgoing::Ping { id: self.last_ping });
        self.last_ping
    }
}
