//! Finds the entries whose ids are above a given one: few, because ids mostly ascend with time.

use std::sync::Arc;

use super::Slots;
use super::cache::Cache;
use super::lookup::{Source, Stop, TRIES};
use super::runs::Runs;
use crate::model::{EntryId, Sequence};
use crate::storage::StorageError;

/// What is requested; see [`StoreLog::above`](crate::storage::StoreLog::above).
#[derive(Clone, Copy, Debug)]
pub(super) struct Above {
    pub(super) id: EntryId,
    pub(super) before: Sequence,
    pub(super) count_max: usize,
}

impl Above {
    /// Their sequences, ascending; `None` if there are too many, or the index cannot tell. `begin` calls
    /// [`Known::begin_above`](super::lookup::Known::begin_above), under the lock that protects it.
    pub(super) fn find(
        &self,
        cache: &Cache,
        slots: &dyn Slots,
        begin: impl Fn() -> Option<(Vec<Sequence>, Arc<Runs>)>,
    ) -> Result<Option<Vec<Sequence>>, StorageError> {
        let source = Source { cache, slots: Some(slots) };
        for _ in 0..TRIES {
            let Some((mut found, runs)) = begin() else { return Ok(None) };
            match self.search(&runs, source, &mut found) {
                Ok(true) => return Ok(self.sorted(found)),
                // What is damaged is rebuilt when an id is looked up; the entries themselves answer as well.
                Ok(false) | Err(Stop::Damaged(_)) => return Ok(None),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Gone) => {}
            }
        }
        // Merges were always faster.
        Ok(None)
    }

    /// Adds to `found` what sections have. `false` if that becomes too many.
    fn search(
        &self,
        runs: &Runs,
        source: Source<'_>,
        found: &mut Vec<Sequence>,
    ) -> Result<bool, Stop> {
        for run in runs.iter() {
            let ahead = run.sections.partition_point(|section| section.last <= self.id);
            for section in &run.sections[ahead..] {
                let Some(head) = source.head(runs, section)? else { return Ok(false) };
                let first = head.page_of(self.id);
                for number in first..section.pages as usize {
                    let Some(page) = source.page(runs, section, number)? else { return Ok(false) };
                    found.extend(page.above(self.id).filter(|sequence| *sequence < self.before));
                    // Some are there twice: in the middle of a merge, and in memory as well as in a section.
                    if found.len() / 4 > self.count_max {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn sorted(&self, mut found: Vec<Sequence>) -> Option<Vec<Sequence>> {
        found.sort_unstable();
        found.dedup();
        (found.len() <= self.count_max).then_some(found)
    }
}
