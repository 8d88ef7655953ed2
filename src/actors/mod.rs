//! The actors: one per store, one for the registry, one per WebSocket. Thin shells around `core`.
//!
//! Keeps: a slow or broken client holds back nobody else; nothing is shown before it is durable; every request is
//! answered, even if an actor panics. Leaves out: decisions (`core`), bytes (`protocol`), routes (`server`).
//!
//! Messages go from sessions to the `StoreActor`. Nothing is ever sent back to sessions, because a session whose client
//! does not read handles no messages: answers are put in its [`Inbox`](inbox::Inbox), entries are in the store's
//! [`Feed`](feed::Feed), and wake-ups, which coalesce, say that there is something to fetch.

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod budget;
#[expect(clippy::disallowed_methods, reason = "compaction is told what time it is")]
pub(crate) mod changes;
pub(crate) mod complaints;
pub(crate) mod connections;
pub(crate) mod crowd;
pub(crate) mod feed;
pub(crate) mod guard;
pub(crate) mod guesses;
pub(crate) mod idle;
pub(crate) mod inbox;
pub(crate) mod latency;
pub(crate) mod limits;
pub(crate) mod metrics;
pub(crate) mod newcomers;
pub(crate) mod open;
pub(crate) mod permit;
pub(crate) mod quarantine;
pub(crate) mod quotas;
pub(crate) mod reads;
pub(crate) mod registry;
pub(crate) mod reply;
pub(crate) mod resolved;
#[expect(
    clippy::disallowed_methods,
    reason = "the one that meets the clock: it tells the core what time it is"
)]
pub(crate) mod session;
#[expect(clippy::disallowed_methods, reason = "files are its trade: what is too large for memory")]
pub(crate) mod spill;
pub(crate) mod store;
pub(crate) mod stores;
pub(crate) mod strangers;
pub(crate) mod trace;
pub(crate) mod usage;
