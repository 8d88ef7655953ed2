//! Management of groups: their state, pausing, resuming, rewinding, and what failed.
//!
//! Keeps: every change is durable when it is answered. Leaves out: opening stores for it (`server`).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::future::try_join_all;
use tokio::sync::watch;

use super::group::{ErasedEntry, Group};
use super::lane::{Lane, LaneRun};
use super::processor::Processor;
use super::replay::Interrupted;
use crate::model::{EntryId, Sequence, StoreId};
use crate::services::journal::layout::{self, Begin, GroupRecord};
use crate::services::journal::{
    Claims, Elsewhere, JournalChanges, JournalError, JournalPair, JournalRange, journal_origin,
};

/// How many keys are removed at once.
const REMOVED_AT_ONCE: usize = 10_000;
/// How many of the stores that refuse a group are named.
const REFUSED_MAX: usize = 100;

/// The state of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is one of this server's; for others, the journal still has positions.
    pub runs: bool,
    /// Whether somebody paused it.
    pub paused: bool,
    /// Whether it pauses because it has as many dead letters as it may keep.
    pub full: bool,
    /// How many dead letters it has.
    pub dead_letters: usize,
    /// In how many stores it is behind.
    pub stores_behind: usize,
    /// How many entries it is behind, in all stores.
    pub lag: u64,
    /// Stores whose feed is not the one that the journal belongs to, and what is wrong: the group continues there once
    /// it is rewound. At most 100 of them.
    pub refused: Vec<(StoreId, Arc<str>)>,
}

/// An entry that failed, and is kept until somebody retries or dismisses it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The store.
    pub store: StoreId,
    /// Its sequence.
    pub sequence: Sequence,
    /// The entry's id.
    pub id: EntryId,
    /// The entry's event; for a very long one, the beginning.
    pub event: String,
    /// The handler's last error; for a very long text, the beginning.
    pub error: String,
    /// When, in Unix milliseconds.
    pub unix_millis: u64,
}

/// Why a request about a group failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// No group of this server has this name.
    #[error("there is no group {0:?}")]
    NoSuchGroup(String),
    /// A group that runs cannot be forgotten.
    #[error("group {0:?} runs; remove it from the server before you forget it")]
    Runs(String),
    /// There is no such store.
    #[error("there is no store {0:?}")]
    NoSuchStore(StoreId),
    /// There is no such dead letter.
    #[error("there is no such dead letter")]
    NoSuchLetter,
    /// The entry of the dead letter is trimmed: it cannot be retried, but it can be dismissed.
    #[error("entry {0} is trimmed and cannot be retried; dismiss it")]
    Trimmed(Sequence),
    /// The handler failed again, and the dead letter stays.
    #[error("{0}")]
    FailedAgain(String),
    /// The journal or the feed failed.
    #[error("{0}")]
    Unavailable(String),
}

impl From<JournalError> for GroupError {
    fn from(error: JournalError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<Interrupted> for GroupError {
    fn from(fault: Interrupted) -> Self {
        Self::Unavailable(fault.to_string())
    }
}

impl Processor {
    pub(super) fn group(&self, name: &str) -> Result<(usize, &Group), GroupError> {
        let found = self.groups.iter().enumerate().find(|(_, group)| *group.name == *name);
        found.ok_or_else(|| GroupError::NoSuchGroup(name.to_owned()))
    }

    /// The state of each group: those that run, in their order, and then those that only the journal still knows.
    pub async fn groups(&self) -> Result<Vec<GroupStatus>, JournalError> {
        self.beginning().await?;
        let known = self.journal.read(vec![layout::groups()]).await?;
        let known = known.iter().flatten().map(layout::read_group);
        let known = known.collect::<Result<Vec<_>, _>>()?;
        let mut statuses: Vec<_> = self
            .groups
            .iter()
            .enumerate()
            .map(|(at, group)| self.group_status(at, group))
            .collect();
        for (name, record) in known {
            if self.group(&name).is_err() {
                let letters = layout::letters(&name, None, usize::MAX);
                let letters = self.journal.read(vec![letters]).await?;
                statuses.push(GroupStatus {
                    name: name.into(),
                    runs: false,
                    paused: record.paused,
                    full: false,
                    dead_letters: letters.iter().map(Vec::len).sum(),
                    stores_behind: 0,
                    lag: 0,
                    refused: Vec::new(),
                });
            }
        }
        Ok(statuses)
    }

    fn group_status(&self, at: usize, group: &Group) -> GroupStatus {
        let mut status = GroupStatus {
            name: Arc::clone(&group.name),
            runs: true,
            paused: group.paused.load(Relaxed),
            full: group.is_full(),
            dead_letters: group.letters.load(Relaxed),
            stores_behind: 0,
            lag: 0,
            refused: Vec::new(),
        };
        for (store, progress) in &*self.stores.lock() {
            let lag = progress.left(Some(at));
            status.stores_behind += usize::from(lag > 0);
            status.lag = status.lag.saturating_add(lag);
            let refused = progress.lanes.get(at).and_then(Lane::refused);
            if let Some(why) = refused.filter(|_| status.refused.len() < REFUSED_MAX) {
                status.refused.push((store.clone(), why));
            }
        }
        status
    }

    /// Pauses a group in all stores, after the running handlers, until it is resumed; a restart does not change that.
    pub async fn pause(&self, group: &str) -> Result<(), GroupError> {
        self.set_paused(group, true).await
    }

    /// Resumes a group that was paused.
    pub async fn resume(&self, group: &str) -> Result<(), GroupError> {
        self.set_paused(group, false).await
    }

    /// A handler requested it. If that cannot be written down, it holds while the process lives.
    pub(super) async fn pause_as_told(&self, group: &Group) {
        group.paused.store(true, Relaxed);
        if let Err(error) = self.pause(&group.name).await {
            log::error!("group {}: its pause cannot be saved: {error}", group.name);
        }
    }

    async fn set_paused(&self, name: &str, paused: bool) -> Result<(), GroupError> {
        let (_, group) = self.group(name)?;
        let beginning = self.beginning().await?;
        let _writing = beginning.writing.lock().await;
        let key = layout::group(name);
        let found = self.journal.read(vec![JournalRange::one(key.clone())]).await?;
        let found = found.iter().flatten().map(layout::read_group).next().transpose()?;
        let begin = found.map_or(Begin::First, |(_, record)| record.begin);
        let mut changes = JournalChanges::default();
        changes.set(&key, &layout::group_value(GroupRecord { begin, paused }));
        self.journal.write(changes).await?;
        group.paused.store(paused, Relaxed);
        group.tell();
        if !paused {
            // It may be behind in stores that are not open.
            self.look_again.notify_one();
        }
        Ok(())
    }

    /// Makes a group, or all of them, continue with entry `from` in these stores, given with their heads; beyond a
    /// head, with the next entry. Waits for running handlers.
    pub(crate) async fn rewind(
        &self,
        stores: &[(StoreId, Sequence)],
        group: Option<&str>,
        from: Sequence,
    ) -> Result<(), GroupError> {
        let only = group.map(|name| self.group(name)).transpose()?.map(|(at, _)| at);
        self.begin(stores).await?;
        let rewound = stores.iter().map(|(store, head)| async move {
            let progress = self.progress(store, &watch::channel(*head).1);
            for (at, (group, lane)) in self.groups.iter().zip(&progress.lanes).enumerate() {
                if only.is_none_or(|only| only == at) {
                    lane.rewind(self, group, (store, &progress), from.prev().min(*head)).await?;
                }
            }
            self.release(store, progress);
            Ok::<_, GroupError>(())
        });
        try_join_all(rewound).await?;
        self.look_again.notify_one();
        Ok(())
    }

    /// Removes what the journal has of a group that does not run: its positions and dead letters. If it comes back, it
    /// is a new one.
    pub async fn forget(&self, group: &str) -> Result<(), GroupError> {
        if self.group(group).is_ok() {
            return Err(GroupError::Runs(group.to_owned()));
        }
        let key = layout::group(group);
        let found = self.journal.read(vec![JournalRange::one(key.clone())]).await?;
        if found.iter().all(Vec::is_empty) {
            return Err(GroupError::NoSuchGroup(group.to_owned()));
        }
        self.remove(layout::letters(group, None, REMOVED_AT_ONCE), |_| true).await?;
        let of_group = |key: &[u8]| layout::place_group(key) == Some(group);
        let places = JournalRange { count: REMOVED_AT_ONCE, ..layout::places() };
        self.remove(places, of_group).await?;
        let mut changes = JournalChanges::default();
        changes.remove(&key);
        Ok(self.journal.write(changes).await?)
    }

    /// Removes the keys in `range` for which `wanted` returns true; looks at `count` of them at once.
    async fn remove(
        &self,
        mut range: JournalRange,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<usize, JournalError> {
        let mut removed = 0;
        loop {
            let found = self.journal.read(vec![range.clone()]).await?;
            let found: Vec<JournalPair> = found.into_iter().flatten().collect();
            let Some((last, _)) = found.last() else { return Ok(removed) };
            range.first = [last, &[0][..]].concat();
            let mut changes = JournalChanges::default();
            for (key, _) in found.iter().filter(|(key, _)| wanted(key)) {
                changes.remove(key);
                removed += 1;
            }
            if !changes.is_empty() {
                self.journal.write(changes).await?;
            }
        }
    }

    /// At most `count` dead letters of a group, in an order of their own, after the one of this store and sequence.
    pub async fn dead_letters(
        &self,
        group: &str,
        after: Option<(&StoreId, Sequence)>,
        count: usize,
    ) -> Result<Vec<DeadLetter>, GroupError> {
        let after = after.map(|(store, at)| layout::letter(group, journal_origin(store), at));
        let found = self.journal.read(vec![layout::letters(group, after, count)]).await?;
        let read = |pair: &JournalPair| {
            let (sequence, letter) = layout::read_letter(pair)?;
            let layout::Letter { unix_millis, id, store, event, error } = letter;
            let store = StoreId::new(store).map_err(|_| layout::malformed("a dead letter"))?;
            Ok(DeadLetter { store, sequence, id, event, error, unix_millis })
        };
        found.iter().flatten().map(read).collect()
    }

    /// Removes a dead letter, or all of a group; returns how many there were.
    pub async fn dismiss(
        &self,
        group: &str,
        letter: Option<(&StoreId, Sequence)>,
    ) -> Result<usize, GroupError> {
        let removed = match letter {
            None => {
                let range = layout::letters(group, None, REMOVED_AT_ONCE);
                self.remove(range, |_| true).await?
            }
            Some((store, sequence)) => {
                let key = layout::letter(group, journal_origin(store), sequence);
                self.remove(JournalRange::one(key), |_| true).await?
            }
        };
        if removed == 0 && letter.is_some() {
            return Err(GroupError::NoSuchLetter);
        }
        self.letters_left(group).await?;
        Ok(removed)
    }

    /// Runs the handler on a dead letter once more, after the one that is running in its store, which must be open. On
    /// success, the letter is removed. The conflicts are the current ones: later entries of its primary key are among
    /// them.
    pub(crate) async fn retry_letter(
        &self,
        group: &str,
        store: &StoreId,
        sequence: Sequence,
    ) -> Result<(), GroupError> {
        let (at, group) = self.group(group)?;
        let progress = self.stores.lock().get(store).cloned();
        let no_store = || GroupError::NoSuchStore(store.clone());
        let progress = progress.ok_or_else(no_store)?;
        let feed = progress.feed().ok_or_else(no_store)?;
        let Some(lane) = progress.lanes.get(at) else { return Err(no_store()) };
        let (processor, progress, feed) = (self, &*progress, &feed);
        let claim = self.follow(store, group);
        let claim = claim.as_ref();
        let run = LaneRun { processor, group, progress, lane, feed, claim, counts_others: false };
        run.retry_letter(sequence).await?;
        self.letters_left(&group.name).await
    }

    /// Where several nodes share the journal: reads what was asked of groups at other nodes.
    pub(crate) async fn hear_of_groups(&self) -> Result<(), JournalError> {
        let known = self.journal.read(vec![layout::groups()]).await?;
        let letters = |group: &Group| layout::letters(&group.name, None, usize::MAX);
        let letters = self.journal.count(self.groups.iter().map(letters).collect()).await?;
        for record in known.iter().flatten() {
            let (name, record) = layout::read_group(record)?;
            let Ok((at, group)) = self.group(&name) else { continue };
            let was_paused = group.is_paused();
            // What was asked here meanwhile is not in it.
            if group.heard_paused.swap(record.paused, Relaxed) != record.paused {
                group.paused.store(record.paused, Relaxed);
            }
            group.letters.store(letters.get(at).copied().unwrap_or_default(), Relaxed);
            if was_paused != group.is_paused() {
                group.tell();
                if was_paused {
                    self.look_again.notify_one();
                }
            }
        }
        Ok(())
    }

    /// What several nodes that share the journal tell each other; `None` if only one process uses it.
    pub(crate) fn claims(&self) -> Option<Arc<Claims>> {
        self.journal.claims()
    }

    /// Handles what happened at other nodes in stores that nobody follows here. Returns the stores to open.
    pub(crate) fn moved_elsewhere(&self, happened: Elsewhere) -> Vec<StoreId> {
        let Elsewhere { moved, some_gone, began } = happened;
        if some_gone {
            self.look_again.notify_one();
        }
        if (moved.is_empty() && !began) || !self.reactivity.has_observers() {
            return Vec::new();
        }
        // It is not known which entries those were; once a store is open, it is.
        self.reactivity.miss();
        moved
    }

    /// Tells all groups that these entries of `store` were erased, and counts dead letters again. The error says which
    /// group could not be told.
    pub(crate) async fn tell_erased(
        &self,
        store: &StoreId,
        entries: &[ErasedEntry],
    ) -> Result<(), GroupError> {
        let mut told = Ok(());
        for group in &self.groups {
            if let Err(failed) = group.tell_erased(store, entries).await {
                let why = format!("group {} was not told what was erased: {failed}", group.name);
                told = Err(GroupError::Unavailable(why));
            }
        }
        self.count_letters().await?;
        told
    }

    /// Counts the dead letters of all groups again, after some were removed from the journal.
    pub(crate) async fn count_letters(&self) -> Result<(), GroupError> {
        for group in &self.groups {
            self.letters_left(&group.name).await?;
        }
        Ok(())
    }

    /// Counts the dead letters of a group again; if it paused because of them, it continues when there is space.
    async fn letters_left(&self, group: &str) -> Result<(), GroupError> {
        let Ok((_, group)) = self.group(group) else { return Ok(()) };
        let letters = layout::letters(&group.name, None, usize::MAX);
        let left = self.journal.count(vec![letters]).await?;
        let was_full = group.is_full();
        group.letters.store(left.iter().sum(), Relaxed);
        if was_full && !group.is_full() {
            group.tell();
            self.look_again.notify_one();
        }
        Ok(())
    }
}
