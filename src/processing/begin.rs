//! Where groups begin.
//!
//! A group that the journal sees for the first time begins at the first entry, at the head, or at the single position
//! of earlier versions. The last two differ from store to store, and are written down for all existing stores; a store
//! in which the group has no place is then a younger one, and the group begins at its first entry.
//!
//! Keeps: a group that begins at the head receives whatever is committed after the journal knew of it, even if the
//! process ends while stores are still being looked at: a store is not opened for writes before its head was written
//! down. Leaves out: listing the stores (`server`).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use super::group::BeginAt;
use super::processor::Processor;
use crate::model::{Sequence, StoreId};
use crate::services::journal::layout::{self, Begin, GroupRecord, Place};
use crate::services::journal::{JournalChanges, JournalError, JournalRange, journal_origin};

/// How many keys of earlier versions are removed at once.
const REMOVED_AT_ONCE: usize = 10_000;

/// The groups whose beginning is not written down in every store yet.
#[derive(Default)]
pub(super) struct Beginning {
    groups: Mutex<Vec<(Arc<str>, Begin)>>,
    /// Held from reading the current state to the end of the write.
    pub(super) writing: tokio::sync::Mutex<()>,
}

impl Processor {
    /// Makes the groups known to the journal if necessary, and returns those that still have to begin in some stores.
    /// Reads the journal once.
    pub(super) async fn beginning(&self) -> Result<&Beginning, JournalError> {
        self.beginning.get_or_try_init(|| self.look()).await
    }

    async fn look(&self) -> Result<Beginning, JournalError> {
        let [former, _] = layout::former(1);
        let mut ranges = vec![layout::groups(), former];
        let all = usize::MAX;
        ranges.extend(self.groups.iter().map(|group| layout::letters(&group.name, None, all)));
        let found = self.journal.read(ranges).await?;
        let [known, former, letters @ ..] = &found[..] else {
            return Err(layout::malformed("an answer"));
        };
        for (group, letters) in self.groups.iter().zip(letters) {
            group.letters.store(letters.len(), Relaxed);
        }
        let known = known.iter().map(layout::read_group).collect::<Result<Vec<_>, _>>()?;
        let by_default = match (known.is_empty(), former.is_empty()) {
            (true, true) => Begin::First,
            (true, false) => Begin::Former,
            (false, _) => Begin::Head,
        };
        let mut changes = JournalChanges::default();
        let mut groups = Vec::new();
        for group in &self.groups {
            let record = known.iter().find(|(name, _)| **name == *group.name);
            let begin = match (record, group.options.begin) {
                (Some((_, record)), _) => record.begin,
                (None, Some(BeginAt::Start)) => Begin::First,
                (None, Some(BeginAt::Now)) => Begin::Head,
                (None, None) => by_default,
            };
            let is_paused = record.is_some_and(|(_, record)| record.paused);
            group.paused.store(is_paused, Relaxed);
            group.heard_paused.store(is_paused, Relaxed);
            if record.is_none() {
                let record = GroupRecord { begin, paused: false };
                changes.set(&layout::group(&group.name), &layout::group_value(record));
            }
            if begin != Begin::First {
                groups.push((Arc::clone(&group.name), begin));
            }
        }
        if !changes.is_empty() {
            self.journal.write_new(changes).await?;
        }
        Ok(Beginning { groups: Mutex::new(groups), ..Beginning::default() })
    }

    /// Writes down where groups begin in these stores, given with their heads, unless that is known. Must be called
    /// before a store is opened for writes.
    pub(crate) async fn begin(&self, stores: &[(StoreId, Sequence)]) -> Result<(), JournalError> {
        let beginning = self.beginning().await?;
        if beginning.groups.lock().is_empty() {
            return Ok(());
        }
        let _writing = beginning.writing.lock().await;
        let groups = beginning.groups.lock().clone();
        let mut ranges = Vec::with_capacity(stores.len() * (groups.len() + 1));
        for (store, _) in stores {
            let origin = journal_origin(store);
            ranges.push(JournalRange::one(layout::former_position(origin)));
            let places = groups.iter().map(|(group, _)| layout::place(origin, group));
            ranges.extend(places.map(JournalRange::one));
        }
        let mut found = self.journal.read(ranges.clone()).await?.into_iter().zip(ranges);
        let mut changes = JournalChanges::default();
        for (_, head) in stores {
            let former = found.next().and_then(|(pairs, _)| pairs.into_iter().next());
            let former = former.map(|(_, value)| layout::read_sequence(&value));
            for ((_, begin), (place, range)) in groups.iter().zip(&mut found) {
                if !place.is_empty() {
                    continue;
                }
                let place = match (begin, &former) {
                    (Begin::First, _) | (Begin::Former, None) => Place::at(Sequence::ZERO),
                    (Begin::Head, _) => Place::at(*head),
                    // Nothing says which ids were processed.
                    (Begin::Former, Some(Some(position))) => {
                        Place { greatest: layout::ID_MAX, ..Place::at(*position) }
                    }
                    (Begin::Former, Some(None)) => return Err(layout::malformed("a position")),
                };
                changes.set(&range.first, &layout::place_value(&place));
            }
        }
        // Another node may have begun there meanwhile.
        if changes.is_empty() { Ok(()) } else { self.journal.write_new(changes).await }
    }

    /// Every store was passed to [`Processor::begin`]: from now on, an unknown store is a young one. Removes what only
    /// earlier versions needed.
    pub(crate) async fn begun(&self) -> Result<(), JournalError> {
        let beginning = self.beginning().await?;
        let _writing = beginning.writing.lock().await;
        let groups = beginning.groups.lock().clone();
        let mut changes = JournalChanges::default();
        let mut former = false;
        for record in self.journal.read(vec![layout::groups()]).await?.iter().flatten() {
            let (name, mut record) = layout::read_group(record)?;
            if groups.iter().any(|(group, _)| **group == *name) {
                record.begin = Begin::First;
                changes.set(&layout::group(&name), &layout::group_value(record));
            }
            former |= record.begin == Begin::Former;
        }
        if !changes.is_empty() {
            self.journal.write(changes).await?;
            beginning.groups.lock().clear();
        }
        if former { Ok(()) } else { self.remove_former().await }
    }

    async fn remove_former(&self) -> Result<(), JournalError> {
        loop {
            let found = self.journal.read(layout::former(REMOVED_AT_ONCE).into()).await?;
            let mut changes = JournalChanges::default();
            found.iter().flatten().for_each(|(key, _)| changes.remove(key));
            if changes.is_empty() {
                return Ok(());
            }
            self.journal.write(changes).await?;
        }
    }
}
