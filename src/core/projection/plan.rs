//! What comes next for a reader.

use std::collections::HashMap;
use std::sync::Arc;

use super::index::{Members, Output, Slot};
use super::{Index, Moment, Rule};
use crate::model::{EntryId, Sequence};

/// No record is shorter: an id and three lengths.
const RECORD_BYTES_MIN: u64 = EntryId::LEN as u64 + 3;

/// How far ahead of a reader questions are collected.
const LOOK_AHEAD_SLOTS: usize = 64 * 1_024;

/// One piece of what a reader is sent.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// All entries of the feed from `first` to `last`, as they are.
    Raw {
        /// The first sequence.
        first: Sequence,
        /// The last sequence.
        last: Sequence,
    },
    /// The entry at `sequence`, which represents its bucket.
    Latest {
        /// Its sequence.
        sequence: Sequence,
        /// The bucket, for keeping its record with [`Index::set_output`].
        bucket: u32,
    },
    /// These records, all at `sequence`; there may be none.
    Replaced {
        /// The end of their bucket.
        sequence: Sequence,
        /// One after the other.
        records: Arc<[u8]>,
    },
}

impl Step {
    /// The greatest sequence in it.
    pub(crate) const fn last(&self) -> Sequence {
        match self {
            Self::Raw { last, .. } => *last,
            Self::Latest { sequence, .. } | Self::Replaced { sequence, .. } => *sequence,
        }
    }
}

/// What a reader is sent from its cursor on, as far as it is known.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Ascending.
    pub(crate) steps: Vec<Step>,
    /// The position after the last step, in the stored feed.
    pub(crate) next: Sequence,
    /// The steps have at least this many bytes of records.
    bytes: u64,
    /// Buckets of effects that were reached, with their members at the reader's moment.
    members: HashMap<u32, Members>,
}

impl Plan {
    /// An empty plan, from `cursor` on.
    pub(crate) fn new(cursor: Sequence) -> Self {
        Self { steps: Vec::new(), next: cursor, bytes: 0, members: HashMap::new() }
    }

    /// Appends unchanged entries; no step if there are none.
    pub(crate) fn push_raw(&mut self, first: Sequence, last: Sequence, bytes: u64) {
        self.bytes += bytes;
        match self.steps.last_mut() {
            Some(Step::Raw { last: before, .. }) if before.next() == first => *before = last,
            _ if first <= last => self.steps.push(Step::Raw { first, last }),
            _ => {}
        }
        self.next = self.next.max(last.next());
    }
}

/// How planning ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The plan is long enough, or at its end.
    Done,
    /// The next entry belongs to a bucket about which an effect has to be asked: see [`Index::questions`].
    Asking,
}

/// A bucket about which an effect has to be asked; [`Index::set_output`] takes the answer.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) bucket: u32,
    pub(crate) compactor: u32,
    pub(crate) members: Members,
    /// The sequences of its members, ascending; empty if they are larger than the limit.
    pub(crate) sequences: Vec<Sequence>,
}

/// What happens to one entry.
enum Fate {
    Raw,
    /// Nothing of it is sent, at least not here.
    Gone,
    /// This step replaces it.
    End(Step),
    Asking,
}

impl Index {
    /// Continues `plan` until it holds `bytes_max` bytes of records (slightly more, or less if sizes are not known), is
    /// at its end, or needs an answer. The index must have seen all entries up to the moment's head.
    pub(crate) fn plan(&self, at: &Moment, plan: &mut Plan, bytes_max: usize) -> Progress {
        let end = self.end(at);
        let mut slot = self.slot_at(plan.next);
        while plan.next < end && plan.bytes < bytes_max as u64 {
            let position = plan.next;
            let present = self.gone.next_outside(position).min(end);
            if present > position {
                plan.next = present;
                continue;
            }
            match self.slots.get(slot) {
                Some(found) if found.sequence == position => {
                    if self.pass(found, at, plan) == Progress::Asking {
                        return Progress::Asking;
                    }
                    slot += 1;
                }
                next => {
                    let slot = next.map_or(end, |slot| slot.sequence);
                    let gone = self.gone.next_inside(position).unwrap_or(end);
                    let until = slot.min(gone).min(end);
                    let bytes = until.since(position) * RECORD_BYTES_MIN;
                    plan.push_raw(position, until.prev(), bytes);
                }
            }
        }
        Progress::Done
    }

    /// The buckets to ask about before `plan` can continue, and some of the next ones: as many as have `bytes_max`
    /// bytes of members together, at least one. A single bucket of more than `bucket_bytes_max` comes without
    /// sequences.
    pub(crate) fn questions(
        &self,
        at: &Moment,
        plan: &Plan,
        (bytes_max, bucket_bytes_max): (u64, u64),
    ) -> Vec<Question> {
        let mut met: HashMap<u32, (Members, bool)> = HashMap::new();
        let mut questions = Vec::new();
        let (mut bytes, end) = (0, self.end(at));
        let ahead = self.slots[self.slot_at(plan.next)..].iter();
        for slot in ahead.take(LOOK_AHEAD_SLOTS).take_while(|slot| slot.sequence < end) {
            if self.rule_of(slot) != Rule::Effect || !self.is_eligible(slot, at) {
                continue;
            }
            let sum = || (self.sum_members(slot.bucket, at), false);
            let (members, asked) = met.entry(slot.bucket).or_insert_with(sum);
            if *asked || !self.must_ask(slot, members) {
                continue;
            }
            if bytes > 0 && bytes + members.bytes > bytes_max {
                break;
            }
            bytes += members.bytes;
            *asked = true;
            let fits = members.bytes <= bucket_bytes_max;
            questions.push(self.question(slot.bucket, *members, at, fits));
        }
        questions
    }

    fn question(&self, bucket: u32, members: Members, at: &Moment, fits: bool) -> Question {
        let compactor = self.buckets[bucket as usize].compactor;
        let mut sequences: Vec<Sequence> = Vec::new();
        if fits {
            sequences.extend(self.members(bucket, at).map(|slot| slot.sequence));
            sequences.reverse();
        }
        Question { bucket, compactor, members, sequences }
    }

    /// Adds the entry at the plan's position to the plan.
    fn pass(&self, slot: &Slot, at: &Moment, plan: &mut Plan) -> Progress {
        match self.fate(slot, at, &mut plan.members) {
            Fate::Raw => plan.push_raw(slot.sequence, slot.sequence, u64::from(slot.bytes)),
            Fate::Gone => {}
            Fate::End(step) => {
                plan.bytes += match &step {
                    Step::Replaced { records, .. } => records.len() as u64,
                    Step::Latest { .. } | Step::Raw { .. } => u64::from(slot.bytes),
                };
                plan.steps.push(step);
            }
            Fate::Asking => return Progress::Asking,
        }
        plan.next = slot.sequence.next();
        Progress::Done
    }

    fn fate(&self, slot: &Slot, at: &Moment, met: &mut HashMap<u32, Members>) -> Fate {
        if !self.is_eligible(slot, at) {
            return Fate::Raw;
        }
        match self.rule_of(slot) {
            Rule::Drop => Fate::Gone,
            Rule::KeepLatest if self.is_superseded(slot, at) => Fate::Gone,
            Rule::KeepLatest => Fate::End(self.latest(slot)),
            Rule::Effect => {
                let sum = || self.sum_members(slot.bucket, at);
                let members = met.entry(slot.bucket).or_insert_with(sum);
                self.fate_in_effect(slot, members)
            }
        }
    }

    fn latest(&self, slot: &Slot) -> Step {
        let (sequence, bucket) = (slot.sequence, slot.bucket);
        match self.kept_latest(slot) {
            Some(records) => Step::Replaced { sequence, records: records.clone() },
            None => Step::Latest { sequence, bucket },
        }
    }

    /// The record of the entry at a slot that represents its bucket, if it is kept.
    pub(super) fn kept_latest(&self, slot: &Slot) -> Option<&Arc<[u8]>> {
        self.kept_output(slot.bucket, &Members::only(slot.sequence))?.records.as_ref()
    }

    fn fate_in_effect(&self, slot: &Slot, members: &Members) -> Fate {
        match self.kept_output(slot.bucket, members) {
            Some(output) if output.raw => Fate::Raw,
            Some(_) if slot.sequence < members.end => Fate::Gone,
            Some(Output { records: Some(records), .. }) => {
                Fate::End(Step::Replaced { sequence: slot.sequence, records: records.clone() })
            }
            Some(Output { records: None, .. }) | None => Fate::Asking,
        }
    }

    fn must_ask(&self, slot: &Slot, members: &Members) -> bool {
        matches!(self.fate_in_effect(slot, members), Fate::Asking)
    }

    fn kept_output(&self, bucket: u32, members: &Members) -> Option<&Output> {
        let output = self.buckets[bucket as usize].output.as_ref();
        output.filter(|output| output.members == *members)
    }

    /// The first slot at or after a position.
    pub(super) fn slot_at(&self, position: Sequence) -> usize {
        self.slots.partition_point(|slot| slot.sequence < position)
    }
}
