//! One public key's subscription, from this client's point of view.
//!
//! In the msgpack protocol a message of the server names only the key, so what was sent for an earlier subscription of
//! the key looks like the current one. So a subscription is ended by `StopChanges` followed by a ping, and the key is
//! not subscribed again before the pong: by then everything sent for the old one has arrived and been skipped.

use std::sync::Arc;

use super::order::Order;
use crate::client::queue::Queue;
use crate::model::Sequence;

/// The state of one key that has a stream, or recently had one.
#[derive(Debug)]
pub(super) struct Feed {
    /// `None`: the stream was dropped, and only the end of the subscription is awaited.
    pub(super) stream: Option<Open>,
    pub(super) link: FeedLink,
}

/// A stream that somebody holds.
#[derive(Debug)]
pub(super) struct Open {
    /// Distinguishes it from earlier streams of the key.
    pub(super) id: u64,
    pub(super) queue: Arc<Queue>,
    pub(super) order: Order,
    /// The queue is full: nothing is wanted until there is space.
    pub(super) paused: bool,
    /// Its position at the last tick, if it held acknowledged entries back, and for how many ticks.
    pub(super) stuck: Option<(Sequence, u32)>,
}

/// What the server was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FeedLink {
    /// To send nothing.
    Off,
    /// To feed the key.
    On,
    /// To stop; everything that it sent before has arrived once this ping is answered.
    Stopping { ping: u64 },
}

impl Feed {
    /// Whether the server should feed this key.
    pub(super) fn is_wanted(&self) -> bool {
        self.stream.as_ref().is_some_and(|open| !open.paused)
    }
}
