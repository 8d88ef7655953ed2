//! Decides what of a feed's history a reader is sent, when compactors replace old entries.
//!
//! # What a bucket is
//!
//! A reader begins at a *moment*: a time `now` and a `head`. An entry is *eligible* at that moment if it is at or below
//! the head, its event belongs to a compactor, and `created_at_millis <= now - older_than`. A *bucket* is all the
//! eligible entries of one compactor and one primary key, from the whole feed, in feed order; the reader's cursor has
//! no part in it. Its *end* is its greatest sequence. A reader is sent, ascending, from its cursor on:
//!
//! * every entry that is not eligible, at its own sequence;
//! * of a bucket with [`Rule::KeepLatest`], the entry with the greatest id, unchanged and at its own sequence, wherever
//!   that is: clients resolve conflicts by ids and not by the order in which entries arrived;
//! * what an effect wrote in place of a bucket ([`Rule::Effect`]), at the bucket's end; nothing with [`Rule::Drop`];
//! * the entries of a bucket whose effect failed, at their own sequences.
//!
//! So what a reader is sent is a function of the feed, the compactors, its moment and its cursor. Nothing else matters:
//! not what is kept in memory, not which other readers there are, not how fast it reads.
//!
//! # Why a cursor is safe
//!
//! *At one moment*, everything that is sent has one place, and a cursor is before or after it. Everything that shares a
//! place (the replacements of one bucket) is sent in one message, so no cursor comes to be within it. A reader that
//! resumes with the highest sequence it saw is sent that place again, with the same ids; with that plus one, it is not.
//!
//! *From one moment to a later one* (time and head do not go back), buckets only gain members. Consider a reader that
//! has seen everything below `c` at the first moment, and resumes from `c` at the second.
//!
//! With an effect, ends only move up. An entry `e` below `c` was sent unchanged, or was in a bucket. If that bucket
//! ended below `c`, its replacement was sent. If it ended at or above `c`, it still does, and its current replacement
//! (which contains `e`) is still to come. So nothing is skipped. What may come twice, in another form, is an entry that
//! was sent unchanged or in a smaller bucket, and whose bucket now ends at or above `c`. This is why a replacement must
//! say what its primary key *is* after the bucket rather than what *changed*: it is applied on top of some of the
//! entries that it was made from.
//!
//! With `KeepLatest`, let `w` be the entry with the greatest id of a bucket at the second moment. If `w` is at or above
//! `c`, it is sent now, at its own sequence. If it is below, the reader has seen it: either unchanged, because it was
//! not eligible at the first moment or came after that moment's head; or in the bucket of the first moment, which has
//! no ids that the second one lacks, so `w` represented it and was sent. Every other entry of the bucket has a smaller
//! id, and to a client that resolves conflicts by ids it makes no difference whether it came at all, before `w` or
//! after it. So each reader, however often it resumed, has the greatest id of each primary key. An entry that is
//! superseded by one before a reader's cursor is not a separate case: the reader has that one.
//!
//! *What is outside of this*: a clock that goes back, a compactor that is removed or changed, a bucket whose effect
//! starts to fail. Each of them returns entries unchanged that were to be replaced further on. A reader that begins at
//! the first entry is sent all of them; one that was between such an entry and the end of its bucket is sent only those
//! above its cursor. So callers must not let `now` go back while they run.
//!
//! # How it is found
//!
//! [`Index`] takes the entries of a feed in order and keeps a slot for each one that belongs to a compactor, linked to
//! its neighbours in the bucket. Whether an entry is eligible depends on the reader's moment, so one index answers
//! readers of many moments. Entries that no later moment will need are reduced to one bit ([`Index::prune`]). With
//! `KeepLatest`, neighbours are neighbours by id. The eligible entries of a bucket are then the first ones of its
//! chain, except those after the head, because ids begin with the time: so an entry is superseded if an eligible one
//! follows, and it takes a step or two to see whether one does. An index that does not begin with the first entry needs
//! those earlier entries whose ids are greater than the least that it has seen ([`Index::missing`]): mostly none.
//!
//! Keeps: the answer above, for every moment at or after the index's floor. Leaves out: reading entries, running
//! effects, what fits into memory (`processing::compaction`).

mod at_hand;
mod chains;
mod index;
mod plan;
mod positions;
mod short_key;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::model::Sequence;

pub(crate) use at_hand::AtHand;
pub(crate) use index::{Index, Members, Output, Sighting};
pub(crate) use plan::{Plan, Progress, Question, Step};

/// What happens to the buckets of one compactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The entry with the greatest id stays, unchanged.
    KeepLatest,
    /// Nothing stays.
    Drop,
    /// An effect is asked, with a [`Question`].
    Effect,
}

/// When a reader began: it decides what is sent as backlog, and which of those entries are eligible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// For each compactor, eligible entries were created before this, in Unix milliseconds.
    created_before: Arc<[u64]>,
    head: Sequence,
}

impl Moment {
    /// The moment `now_millis`, with the ages (in milliseconds) at which entries become eligible, one per compactor.
    pub(crate) fn new(
        now_millis: u64,
        older_than_millis: impl IntoIterator<Item = u64>,
        head: Sequence,
    ) -> Self {
        // `created <= now - age` in whole numbers; never true where that would be below zero.
        let end = now_millis.saturating_add(1);
        let limits = older_than_millis.into_iter().map(|age| end.saturating_sub(age));
        Self { created_before: limits.collect(), head }
    }

    /// The last sequence of the backlog.
    pub(crate) const fn head(&self) -> Sequence {
        self.head
    }

    /// Whether an entry of this compactor is eligible.
    pub(crate) fn eligible(&self, compactor: u32, created: u64, sequence: Sequence) -> bool {
        sequence <= self.head && created < self.created_before[compactor as usize]
    }

    /// Whether everything eligible at `other` is eligible here.
    pub(crate) fn not_before(&self, other: &Self) -> bool {
        let limits = self.created_before.iter().zip(other.created_before.iter());
        self.head >= other.head && limits.into_iter().all(|(this, that)| this >= that)
    }

    /// The latest moment that neither `self` nor `other` is before.
    pub(crate) fn earlier_of(&self, other: &Self) -> Self {
        self.merge(other, u64::min, Sequence::min)
    }

    /// The earliest moment that is before neither `self` nor `other`.
    pub(crate) fn later_of(&self, other: &Self) -> Self {
        self.merge(other, u64::max, Sequence::max)
    }

    fn merge(
        &self,
        other: &Self,
        limit: fn(u64, u64) -> u64,
        head: fn(Sequence, Sequence) -> Sequence,
    ) -> Self {
        let limits = self.created_before.iter().zip(other.created_before.iter());
        let created_before = limits.map(|(this, that)| limit(*this, *that)).collect();
        Self { created_before, head: head(self.head, other.head) }
    }
}
