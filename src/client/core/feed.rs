//! One public key's subscription, as this client has it.
//!
//! In the msgpack protocol a message of the server names the key only, so what was sent for an earlier subscription of
//! the key looks like the present one. Hence a subscription is ended by `StopChanges` and a ping behind it, and the key is not subscribed
//! again before the pong: by then everything sent for the old one is here, and passed over.

use std::sync::Arc;

use super::order::Order;
use crate::client::queue::Queue;
use crate::model::Sequence;

/// The state of one key that has, or lately had, a stream.
#[derive(Debug)]
pub(super) struct Feed {
    /// `None`: the stream was dropped, only the end of the subscription is waited for.
    pub(super) stream: Option<Open>,
    pub(super) link: FeedLink,
}

/// A stream that somebody holds.
#[derive(Debug)]
pub(super) struct Open {
    /// Tells it from earlier streams of the key.
    pub(super) id: u64,
    pub(super) queue: Arc<Queue>,
    pub(super) order: Order,
    /// The queue is full: nothing is wanted until it is not.
    pub(super) paused: bool,
    /// Where it stood at the last tick, if it held acknowledged entries back, and at how many before.
    pub(super) stuck: Option<(Sequence, u32)>,
}

/// What the server was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FeedLink {
    /// Nothing.
    Off,
    /// To feed the key.
    On,
    /// To stop; everything it sent before is here once this ping is answered.
    Stopping { ping: u64 },
}

impl Feed {
    /// Whether the server should feed this key.
    pub(super) fn is_wanted(&self) -> bool {
        self.stream.as_ref().is_some_and(|open| !open.paused)
    }
}
