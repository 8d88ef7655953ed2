//! The slots of each bucket, linked to each other: by id where the greatest one counts, otherwise in feed order.
//!
//! Keeps: asking something of every slot in turn takes one step per slot; no order in which ids arrive makes linking
//! slow. Leaves out: which slots there are (`index`), what happens to them (`plan`, `at_hand`).

use std::cmp::Reverse;

use super::index::{NONE, Slot};
use super::{Index, Members, Moment, Rule};

impl Index {
    /// Whether a bucket entry with a greater id is eligible, wherever it is in the feed. Walks up to the next such
    /// entry, so asking this of every slot in turn takes one step per slot. For [`Rule::KeepLatest`].
    pub(super) fn is_superseded(&self, slot: &Slot, at: &Moment) -> bool {
        let mut no_limit = usize::MAX;
        self.is_superseded_within(slot, at, &mut no_limit).unwrap_or(false)
    }

    /// The same in at most this many steps, or `None`; counts them down.
    pub(super) fn is_superseded_within(
        &self,
        slot: &Slot,
        at: &Moment,
        steps_left: &mut usize,
    ) -> Option<bool> {
        let mut next = slot.next;
        while next != NONE {
            *steps_left = steps_left.checked_sub(1)?;
            let greater = &self.slots[next as usize];
            if self.is_eligible(greater, at) {
                return Some(true);
            }
            next = greater.next;
        }
        Some(false)
    }

    /// The eligible entries of a bucket, from the end of its chain to the beginning.
    pub(super) fn members(&self, bucket: u32, at: &Moment) -> impl Iterator<Item = &Slot> {
        let slot = |at: u32| (at != NONE).then(|| &self.slots[at as usize]);
        let last = slot(self.buckets[bucket as usize].last);
        std::iter::successors(last, move |this| slot(this.prev))
            .filter(move |slot| self.is_eligible(slot, at))
    }

    /// The sums over [`Index::members`].
    pub(super) fn sum_members(&self, bucket: u32, at: &Moment) -> Members {
        let mut members = Members::default();
        self.members(bucket, at).for_each(|slot| members.add(slot));
        members
    }

    /// Links all chains again.
    pub(super) fn link_all(&mut self) {
        self.buckets.iter_mut().for_each(|bucket| bucket.last = NONE);
        self.late.clear();
        (0..self.slots.len()).for_each(|at| self.link(at));
        self.settle();
    }

    /// Appends a slot to its bucket's chain, or leaves it to [`Index::settle`] if it belongs elsewhere.
    pub(super) fn link(&mut self, at: usize) {
        let slot = self.slots[at];
        let prev = self.buckets[slot.bucket as usize].last;
        let is_late = prev != NONE
            && self.rule_of(&slot) == Rule::KeepLatest
            && self.slots[prev as usize].id > slot.id;
        if is_late {
            self.late.push(at as u32);
            return;
        }
        self.buckets[slot.bucket as usize].last = at as u32;
        self.join(prev, at as u32);
        self.slots[at].next = NONE;
    }

    /// Inserts slots into their chains that do not belong at the ends. All at once, from the greatest id of each bucket
    /// to the least, so that each chain is walked once, whatever the order of late ids.
    pub(crate) fn settle(&mut self) {
        let mut late = std::mem::take(&mut self.late);
        late.sort_unstable_by_key(|at| {
            let slot = &self.slots[*at as usize];
            (slot.bucket, Reverse(slot.id))
        });
        let (mut bucket, mut above) = (None, NONE);
        for at in late {
            let slot = self.slots[at as usize];
            if bucket != Some(slot.bucket) {
                // A slot is late only if its bucket has one with a greater id.
                (bucket, above) = (Some(slot.bucket), self.buckets[slot.bucket as usize].last);
            }
            let mut below = self.slots[above as usize].prev;
            while below != NONE && self.slots[below as usize].id > slot.id {
                (above, below) = (below, self.slots[below as usize].prev);
            }
            self.join(below, at);
            self.join(at, above);
            above = at;
        }
    }

    /// Makes two slots neighbours in their chain; the first one may be absent.
    fn join(&mut self, prev: u32, next: u32) {
        self.slots[next as usize].prev = prev;
        if prev != NONE {
            self.slots[prev as usize].next = next;
        }
    }
}
