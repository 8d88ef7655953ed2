//! The ids that a log has recently seen.
//!
//! Keeps: memory is bounded; an id that is in here has that sequence, unless its append failed (then it is removed). An
//! id that is not in here may still be in the database: another node wrote it. So calling an id fresh is a guess, which
//! the database's index checks.

use std::collections::BTreeMap;

use crate::model::{EntryId, Sequence};

/// How many ids are kept of each open store.
const IDS_MAX: usize = 2_048;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Recent {
    ids: BTreeMap<EntryId, Sequence>,
    /// Ids up to here may be known, although they are not in `ids`.
    floor: Option<EntryId>,
}

/// What is known of an id without asking the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guess {
    At(Sequence),
    Fresh,
    Unknown,
}

impl Recent {
    /// For a store whose newest entry, not counting those from the future, has the id `floor`.
    pub(super) fn above(floor: Option<EntryId>) -> Self {
        Self { ids: BTreeMap::new(), floor }
    }

    pub(super) fn guess(&self, id: EntryId) -> Guess {
        match self.ids.get(&id) {
            Some(sequence) => Guess::At(*sequence),
            None if self.floor.is_none_or(|floor| id > floor) => Guess::Fresh,
            None => Guess::Unknown,
        }
    }

    pub(super) fn add(&mut self, ids: impl Iterator<Item = (Sequence, EntryId)>) {
        for (sequence, id) in ids {
            self.ids.insert(id, sequence);
            // The oldest go first, so that the floor stays as low as possible.
            if self.ids.len() > IDS_MAX
                && let Some((oldest, _)) = self.ids.pop_first()
            {
                self.floor = self.floor.max(Some(oldest));
            }
        }
    }

    /// Nothing after `head` was appended after all.
    pub(super) fn forget_behind(&mut self, head: Sequence) {
        self.ids.retain(|_, sequence| *sequence <= head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> EntryId {
        EntryId::from_bytes(u128::from(n).to_be_bytes())
    }

    fn at(n: u64) -> Sequence {
        Sequence::new(n).expect("a sequence")
    }

    #[test]
    fn only_what_is_above_all_that_was_left_out_is_called_fresh() {
        let mut recent = Recent::above(Some(id(5)));
        assert_eq!(recent.guess(id(5)), Guess::Unknown);
        assert_eq!(recent.guess(id(6)), Guess::Fresh);
        recent.add((10..10 + IDS_MAX as u64 + 3).map(|n| (at(n), id(n))));
        assert_eq!(recent.ids.len(), IDS_MAX);
        assert_eq!(recent.guess(id(12)), Guess::Unknown);
        assert_eq!(recent.guess(id(13)), Guess::At(at(13)));
        assert_eq!(recent.guess(id(99_999)), Guess::Fresh);
        recent.forget_behind(at(13));
        assert_eq!(recent.guess(id(13)), Guess::At(at(13)));
        assert_eq!(recent.guess(id(14)), Guess::Fresh);
    }
}
