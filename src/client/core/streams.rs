//! What the streams of a client ask of the server, and get.

use std::sync::Arc;

use super::feed::{Feed, FeedLink, Open};
use super::order::Order;
use super::{Core, Outgoing};
use crate::client::error::RemoteError;
use crate::client::page::Page;
use crate::client::queue::Queue;
use crate::model::{PublicKey, Sequence};

impl Core {
    /// Whether [`Core::tick`] has something to watch.
    pub(in crate::client) fn wants_tick(&self) -> bool {
        self.feeds
            .values()
            .filter_map(|feed| feed.stream.as_ref())
            .any(|open| open.order.waits_for_the_feed())
    }

    /// Must be called every second. A stream that holds back acknowledged entries, and has not moved for some ticks,
    /// subscribes again: either the feed has reached them by now and delivers them, or it had nothing before them.
    pub(in crate::client) fn tick(&mut self) {
        let mut stuck = Vec::new();
        for (key, feed) in &mut self.feeds {
            let Some(open) = &mut feed.stream else { continue };
            if !open.order.waits_for_the_feed() {
                open.stuck = None;
                continue;
            }
            let next = open.order.next();
            let ticks = open.stuck.map_or(0, |(at, ticks)| if at == next { ticks + 1 } else { 0 });
            open.stuck = Some((next, ticks));
            if ticks >= open.order.patience_ticks() {
                open.stuck = None;
                stuck.push(key.clone());
            }
        }
        stuck.iter().for_each(|key| self.resubscribe(key));
    }

    pub(super) fn open(&mut self, key: PublicKey, stream: u64, start: Sequence, queue: Arc<Queue>) {
        let link = match self.feeds.get(&key) {
            Some(Feed { stream: Some(_), .. }) => {
                return queue.end(Some(RemoteError::AlreadyStreaming(key)));
            }
            Some(Feed { stream: None, link }) => *link,
            None => FeedLink::Off,
        };
        let order =
            Order::new(start, self.writes.sent_with(&key), self.policy.acks_follow_the_feed);
        let open = Open { id: stream, queue, order, paused: false, stuck: None };
        self.feeds.insert(key.clone(), Feed { stream: Some(open), link });
        self.settle(&key);
    }

    pub(super) fn stream(&mut self, key: &PublicKey, stream: u64) -> Option<&mut Open> {
        self.feeds.get_mut(key)?.stream.as_mut().filter(|open| open.id == stream)
    }

    pub(super) fn drop_stream(&mut self, key: &PublicKey) {
        if let Some(feed) = self.feeds.get_mut(key) {
            feed.stream = None;
            self.settle(key);
        }
    }

    pub(super) fn fail_stream(&mut self, key: &PublicKey, error: RemoteError) {
        if let Some(feed) = self.feeds.remove(key)
            && let Some(open) = feed.stream
        {
            open.queue.end(Some(error));
        }
    }

    /// Lets `change` update the order of the stream of `key`, if there is one, and hands out the result.
    pub(super) fn deliver(
        &mut self,
        key: &PublicKey,
        change: impl FnOnce(FeedLink, &mut Order, &mut Vec<Page>),
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

    /// Ends the subscription of `key`, so that it begins again after what was delivered.
    fn resubscribe(&mut self, key: &PublicKey) {
        if let Some(feed) = self.feeds.get_mut(key)
            && feed.link == FeedLink::On
        {
            self.stop(key);
        }
    }

    /// Requests what is wanted and not requested yet, or the other way round.
    pub(super) fn settle(&mut self, key: &PublicKey) {
        let Some(feed) = self.feeds.get_mut(key) else { return };
        match (feed.link, feed.is_wanted()) {
            (FeedLink::Off, true) if self.connected => {
                if let Some(open) = &mut feed.stream {
                    open.order.restart();
                    let start = open.order.next();
                    feed.link = FeedLink::On;
                    self.outgoing.push_back(Outgoing::RequestChanges { key: key.clone(), start });
                }
            }
            (FeedLink::Off, false) if feed.stream.is_none() => {
                self.feeds.remove(key);
            }
            (FeedLink::On, false) => self.stop(key),
            (FeedLink::Off | FeedLink::Stopping { .. }, _) | (FeedLink::On, true) => {}
        }
    }

    fn stop(&mut self, key: &PublicKey) {
        self.outgoing.push_back(Outgoing::StopChanges { key: key.clone() });
        let ping = self.ping();
        if let Some(feed) = self.feeds.get_mut(key) {
            feed.link = FeedLink::Stopping { ping };
            if let Some(open) = &mut feed.stream {
                open.order.restart();
            }
        }
    }
}
