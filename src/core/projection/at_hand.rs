//! What comes next for a reader, if all of it is kept: no log is read, no effect is called, and the work is bounded.

use super::index::Slot;
use super::{Index, Moment, Rule};
use crate::model::Sequence;

/// How many slots are checked for one piece. This takes some tenths of a millisecond if none of them is sent.
const SLOTS_MAX: usize = if cfg!(test) { 16 } else { 16 * 1_024 };

/// How many positions are skipped at once. A bit is checked for each of them.
const POSITIONS_MAX: u64 = if cfg!(test) { 16 } else { 1_024 * 1_024 };

/// Kept records that come next, if any do.
#[derive(Debug)]
pub(crate) struct AtHand {
    /// One for each record, ascending.
    pub(crate) sequences: Vec<Sequence>,
    /// One after the other.
    pub(crate) records: Vec<u8>,
    /// The position after them, in the stored feed.
    pub(crate) next: Sequence,
}

impl Index {
    /// What a reader with this moment is sent from `from` on, as far as it is kept: up to `bytes_max` bytes of records,
    /// or one record. Ends before everything that [`Index::plan`] has to find out, which includes everything that an
    /// effect replaced. The index must have seen all entries up to the moment's head.
    pub(crate) fn at_hand(&self, at: &Moment, from: Sequence, bytes_max: usize) -> AtHand {
        let mut hand = AtHand { sequences: Vec::new(), records: Vec::new(), next: from };
        let end = self.end(at);
        let mut slots_left = SLOTS_MAX;
        for slot in &self.slots[self.slot_at(from)..] {
            if !self.pass_gone(&mut hand.next, slot.sequence.min(end)) || hand.next == end {
                return hand;
            }
            match self.sent(slot, at, &mut slots_left) {
                Some([]) => {}
                Some(record) if hand.has_room(record, bytes_max) => {
                    hand.sequences.push(slot.sequence);
                    hand.records.extend_from_slice(record);
                }
                Some(_) | None => return hand,
            }
            hand.next = slot.sequence.next();
        }
        self.pass_gone(&mut hand.next, end);
        hand
    }

    /// Moves `next` to `to` if nothing in between is sent and that is quickly seen.
    fn pass_gone(&self, next: &mut Sequence, to: Sequence) -> bool {
        let passed =
            *next >= to || to.since(*next) <= POSITIONS_MAX && self.gone.next_outside(*next) >= to;
        if passed {
            *next = to.max(*next);
        }
        passed
    }

    /// The record at a slot, empty if nothing is sent; `None` if that is not kept, or takes too long to see.
    fn sent(&self, slot: &Slot, at: &Moment, slots_left: &mut usize) -> Option<&[u8]> {
        *slots_left = slots_left.checked_sub(1)?;
        if !self.is_eligible(slot, at) {
            return None;
        }
        match self.rule_of(slot) {
            Rule::Drop => Some(&[]),
            Rule::KeepLatest if self.is_superseded_within(slot, at, slots_left)? => Some(&[]),
            Rule::KeepLatest => Some(self.kept_latest(slot)?),
            Rule::Effect => None,
        }
    }
}

impl AtHand {
    fn has_room(&self, record: &[u8], bytes_max: usize) -> bool {
        self.records.is_empty() || self.records.len() + record.len() <= bytes_max
    }
}
