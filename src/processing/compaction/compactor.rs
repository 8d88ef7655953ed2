//! What a compactor receives and returns.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::EventPattern;
use crate::core::projection::{Moment, Rule};
use crate::model::{Entry, EntryId, Sequence};

/// How many events are remembered for warnings; tags come from clients.
const WARNED_EVENTS_MAX: usize = 1_000;

/// The eligible entries of one primary key, in feed order; at least one.
#[derive(Clone, Copy, Debug)]
pub struct Bucket<'a> {
    /// What they are about.
    pub primary_key: &'a str,
    /// The entries as they are stored.
    pub entries: &'a [Entry],
}

/// Collects what replaces a bucket.
#[derive(Debug, Default)]
pub struct Replacements {
    written: Vec<Replacement>,
}

/// One entry that replaces a bucket.
#[derive(Clone, Debug)]
pub(super) struct Replacement {
    /// Its existing id, if it is a stored entry.
    pub(super) id: Option<EntryId>,
    pub(super) event: String,
    pub(super) payload: Bytes,
}

impl Replacements {
    /// Adds a new entry in place of the bucket, after those written before. It gets the bucket's primary key, and an id
    /// that is the same for every reader of this bucket, with the creation time of the bucket's first entry.
    pub fn write(&mut self, event: impl Into<String>, payload: impl Into<Bytes>) {
        let (event, payload) = (event.into(), payload.into());
        self.written.push(Replacement { id: None, event, payload });
    }

    /// Keeps one of the bucket's entries unchanged, including its id, so that a client that already has it ignores it.
    pub fn keep(&mut self, entry: &Entry) {
        let (event, payload) = (entry.event.clone(), entry.payload.clone());
        self.written.push(Replacement { id: Some(entry.id), event, payload });
    }

    pub(super) fn into_written(self) -> Vec<Replacement> {
        self.written
    }
}

/// A bucket cannot be compacted: its entries are sent unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event}: {reason}")]
#[non_exhaustive]
pub struct CompactionFailure {
    /// The event that caused it; a warning is logged once for it.
    pub event: String,
    /// Why.
    pub reason: String,
}

impl CompactionFailure {
    /// A failure at an entry with this event.
    pub fn new(event: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self { event: event.into(), reason: reason.to_string() }
    }
}

/// Code that replaces buckets; see [`Strategy::effect`].
type Effect = dyn Fn(&Bucket<'_>, &mut Replacements) -> Result<(), CompactionFailure> + Send + Sync;

/// What a compactor does with a bucket.
#[derive(Clone)]
pub enum Strategy {
    /// The entry with the greatest id, which may not be the last one, is sent unchanged and at its own sequence.
    KeepLatest,
    /// Nothing of it is sent.
    Drop,
    /// Code decides what is sent instead.
    Effect(Arc<Effect>),
}

impl Strategy {
    /// Lets `effect` decide what replaces a bucket.
    ///
    /// It must depend only on the bucket, because it is asked again when its result is no longer in memory, and must
    /// not block or call into the server. What it writes must say what the primary key *is* after the bucket, not what
    /// changed: clients may have seen some of the bucket's entries before. A panic counts as a failure.
    pub fn effect(
        effect: impl Fn(&Bucket<'_>, &mut Replacements) -> Result<(), CompactionFailure>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self::Effect(Arc::new(effect))
    }

    const fn rule(&self) -> Rule {
        match self {
            Self::KeepLatest => Rule::KeepLatest,
            Self::Drop => Rule::Drop,
            Self::Effect(_) => Rule::Effect,
        }
    }
}

impl fmt::Debug for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeepLatest => "KeepLatest",
            Self::Drop => "Drop",
            Self::Effect(_) => "Effect",
        })
    }
}

/// A registered compactor.
#[derive(Debug)]
pub(super) struct Compactor {
    /// Identifies the registration while the process lives.
    pub(super) number: u64,
    /// Sorted, so that replacement ids do not depend on the order in which they were listed.
    pub(super) events: Vec<EventPattern>,
    older_than_millis: u64,
    pub(super) strategy: Strategy,
    warned: Mutex<HashSet<String>>,
}

impl Compactor {
    pub(super) fn new(
        number: u64,
        mut events: Vec<EventPattern>,
        older_than: Duration,
        strategy: Strategy,
    ) -> Self {
        events.sort();
        events.dedup();
        // Creation times are whole milliseconds: a fraction of one counts as one.
        let older_than_millis = older_than.as_nanos().div_ceil(1_000_000);
        let older_than_millis = u64::try_from(older_than_millis).unwrap_or(u64::MAX);
        Self { number, events, older_than_millis, strategy, warned: Mutex::default() }
    }

    /// Logs a failure, the first time for its event; returns whether it did.
    pub(super) fn warn(&self, failure: &CompactionFailure) -> bool {
        let mut warned = self.warned.lock();
        let first = warned.len() < WARNED_EVENTS_MAX && warned.insert(failure.event.clone());
        if first {
            log::warn!("compaction leaves entries as they are: {failure}");
        }
        first
    }
}

/// The compactors that are registered at some moment, in the order of their registration.
#[derive(Debug)]
pub(super) struct CompactorSet {
    compactors: Vec<Arc<Compactor>>,
    rules: Arc<[Rule]>,
    /// The compactor of each event that is named exactly.
    exact: HashMap<Box<str>, u32>,
    globs: Vec<(EventPattern, u32)>,
}

impl CompactorSet {
    pub(super) fn new(compactors: Vec<Arc<Compactor>>) -> Self {
        let rules = compactors.iter().map(|compactor| compactor.strategy.rule()).collect();
        let (mut exact, mut globs) = (HashMap::new(), Vec::new());
        for (at, compactor) in (0..).zip(&compactors) {
            for pattern in &compactor.events {
                match pattern.only_event() {
                    Some(event) => _ = exact.insert(event.into(), at),
                    None => globs.push((pattern.clone(), at)),
                }
            }
        }
        Self { compactors, rules, exact, globs }
    }

    pub(super) fn compactors(&self) -> &[Arc<Compactor>] {
        &self.compactors
    }

    pub(super) const fn rules(&self) -> &Arc<[Rule]> {
        &self.rules
    }

    /// The compactor that `event` belongs to.
    pub(super) fn of(&self, event: &str) -> Option<u32> {
        let glob = || self.globs.iter().find(|(pattern, _)| pattern.matches(event));
        self.exact.get(event).copied().or_else(|| glob().map(|(_, at)| *at))
    }

    /// Whether what is sent at a position can depend on any earlier entry. With [`Rule::KeepLatest`] it depends only on
    /// those with greater ids, which are few.
    pub(super) fn looks_back(&self) -> bool {
        self.rules.contains(&Rule::Effect)
    }

    pub(super) fn moment(&self, now_millis: u64, head: Sequence) -> Moment {
        let ages = self.compactors.iter().map(|compactor| compactor.older_than_millis);
        Moment::new(now_millis, ages, head)
    }
}
