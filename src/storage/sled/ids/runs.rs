//! Which sections a store has: sorted runs of them, in memory while the store is open.
//!
//! Keeps: the sections of a run do not overlap. In the middle of a merge, two runs may have the same id: it has the
//! same sequence in both.

use std::sync::Arc;

use super::hash::Seed;
use super::record::Section;
use crate::model::EntryId;
use crate::storage::sled::key::Ordinal;

/// What a lookup needs to know about a store's sections. Cheap to clone: a lookup holds what existed when it began.
#[derive(Clone, Debug)]
pub(super) struct Runs {
    pub(super) ordinal: Ordinal,
    pub(super) seed: Seed,
    all: Vec<Arc<Run>>,
}

/// Sections that do not overlap, ascending.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) number: u64,
    /// Ids of all sections.
    pub(super) ids: u64,
    pub(super) sections: Vec<Section>,
}

impl Run {
    /// Where the sections begin that do not end before `id`.
    fn position(&self, id: EntryId) -> usize {
        match self.sections.last() {
            // The usual case first: an id of the current time is beyond everything.
            Some(last) if last.last < id => self.sections.len(),
            _ => self.sections.partition_point(|section| section.last < id),
        }
    }

    fn has_room_for(&self, section: &Section) -> bool {
        let next = self.sections.get(self.position(section.first));
        next.is_none_or(|next| section.last < next.first)
    }
}

impl Runs {
    pub(super) const fn new(ordinal: Ordinal, seed: Seed) -> Self {
        Self { ordinal, seed, all: Vec::new() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.all.iter().map(|run| &**run)
    }

    /// The run with this number.
    pub(super) fn get(&self, number: u64) -> Option<&Run> {
        self.iter().find(|run| run.number == number)
    }

    /// A number that no run has.
    pub(super) fn unused(&self) -> u64 {
        self.iter().map(|run| run.number + 1).max().unwrap_or(0)
    }

    /// The largest run that `section` fits into, of those that `may_grow`.
    pub(super) fn room_for(
        &self,
        section: &Section,
        may_grow: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let fitting = self.iter().filter(|run| may_grow(run.number) && run.has_room_for(section));
        fitting.max_by_key(|run| run.ids).map(|run| run.number)
    }

    /// Adds `section` to the run with this number, which is made if there is none. False, without a change, if it
    /// overlaps an existing one.
    pub(super) fn add(&mut self, number: u64, section: Section) -> bool {
        if !self.iter().any(|run| run.number == number) {
            self.all.push(Arc::new(Run { number, ids: 0, sections: Vec::new() }));
        }
        let Some(run) = self.all.iter_mut().find(|run| run.number == number) else { return false };
        if !run.has_room_for(&section) {
            return false;
        }
        let at = run.position(section.first);
        let run = Arc::make_mut(run);
        run.ids += u64::from(section.count);
        run.sections.insert(at, section);
        true
    }

    /// Removes `section` from the run with this number, and also the run if that was its last one.
    pub(super) fn remove(&mut self, number: u64, section: &Section) {
        let Some(at) = self.all.iter().position(|run| run.number == number) else { return };
        let run = Arc::make_mut(&mut self.all[at]);
        let found = run.position(section.first);
        if run.sections.get(found).is_some_and(|found| found.number == section.number) {
            run.sections.remove(found);
            run.ids -= u64::from(section.count);
        }
        if run.sections.is_empty() {
            self.all.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn section(number: u64, first: u8, last: u8) -> Section {
        let [first, last] = [first, last].map(|byte| EntryId::from_bytes([byte; 16]));
        Section { number, first, last, count: 1 + u32::from(number as u8), pages: 1, slot: 0 }
    }

    fn overlap(a: &Section, b: &Section) -> bool {
        a.first <= b.last && b.first <= a.last
    }

    proptest! {
        #[test]
        fn sections_of_a_run_never_overlap(
            sections in proptest::collection::vec((any::<u8>(), 0..40_u8, any::<bool>()), 1..60),
        ) {
            let mut runs = Runs::new(0, Seed::random());
            let mut placed: BTreeMap<u64, (u64, Section)> = BTreeMap::new();
            for ((first, len, remove), number) in sections.into_iter().zip(0..) {
                let section = section(number, first, first.saturating_add(len));
                let room = runs.room_for(&section, |_| true);
                let free = |run: u64| placed.values().all(|(at, s)| *at != run || !overlap(s, &section));
                prop_assert!(room.is_none_or(free));
                prop_assert!(room.is_some() || runs.iter().all(|run| !free(run.number)));
                let taken = runs.iter().map(|run| run.number).find(|run| !free(*run));
                prop_assert!(taken.is_none_or(|taken| !runs.add(taken, section)));
                let run = room.unwrap_or(runs.unused());
                prop_assert!(runs.add(run, section));
                placed.insert(number, (run, section));
                if remove && let Some((_, (run, section))) = placed.pop_first() {
                    runs.remove(run, &section);
                }
            }
            for run in runs.iter() {
                prop_assert!(!run.sections.is_empty());
                prop_assert!(run.sections.windows(2).all(|pair| pair[0].last < pair[1].first));
                let ids: u64 = run.sections.iter().map(|section| u64::from(section.count)).sum();
                prop_assert_eq!(run.ids, ids);
                let here = placed.values().filter(|(at, _)| *at == run.number);
                prop_assert_eq!(here.count(), run.sections.len());
            }
        }
    }

    #[test]
    fn the_largest_run_that_may_grow_is_taken() {
        let mut runs = Runs::new(0, Seed::random());
        runs.add(3, section(1, 0, 9));
        runs.add(5, section(9, 0, 9));
        runs.add(6, section(20, 0, 99));
        let new = section(10, 50, 60);
        assert_eq!(runs.room_for(&new, |_| true), Some(5));
        assert_eq!(runs.room_for(&new, |run| run != 5), Some(3));
        assert_eq!(runs.room_for(&new, |_| false), None);
        assert_eq!(runs.unused(), 7);
    }
}
