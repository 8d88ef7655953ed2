//! What happens to committed entries: typed handlers, conflicts, invalidations, and events that the server writes
//! itself.
//!
//! Keeps: each group processes every committed entry that asks for it once, in the order of its store's feed, outside
//! the write path; what fails is logged and stops nothing. Leaves out: committing (`storage`, `actors`), feeds to
//! clients.
//!
//! A server without handlers has no processing: nothing is journaled, no task runs. When handlers are added later,
//! replay starts at the first entry of every store; when a group is added to others, it sees what is committed from
//! then on, unless its [`GroupOptions`] say otherwise.

mod begin;
mod codec;
mod committed;
pub mod compaction;
mod conflicts;
mod control;
mod erase;
mod event;
mod failure;
mod group;
mod handlers;
mod lane;
mod processor;
mod reactivity;
mod replay;
mod settle;
mod stats;
mod trim;
mod write;
mod writer;

pub use codec::{CodecError, Msgpack, PayloadCodec, SchemaBinary};
pub use committed::{Committed, Conflict};
pub use conflicts::{CONFLICT_BYTES_MAX, CONFLICTS_MAX};
pub use control::{DeadLetter, GroupError, GroupStatus};
pub use erase::{
    erase, first_entries, forget_entries, forget_erased, forget_letters, has_letters,
    of_primary_key,
};
pub use event::{Behind, Event, EventGroup, Events, Front, Holds, ListOf, NoneLeft};
pub use failure::Failure;
pub use group::{
    BatchOutcome, CommittedEntry, DEAD_LETTERS_MAX, EntryHandler, ErasedEntry, GroupOptions,
    TRIES_MAX,
};
pub use handlers::{Handlers, Outcome};
pub use processor::{Processor, ProcessorBuilder, ProcessorError, ReplayStatus};
pub use reactivity::{Invalidation, OBSERVER_QUEUE_MAX, Observed, Observer, Reactivity};
pub(crate) use replay::{OpenFeed, ReadFeed};
pub use stats::ProcessingStats;
pub use trim::{GroupBehind, TrimError, Trimming, trim};
pub use write::{NotProcessed, WriteError, WriteOutcome};
pub(crate) use writer::WriteEntries;
pub use writer::Writer;

#[cfg(test)]
mod tests;
