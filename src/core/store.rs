//! Decides the order of entries in one store.
//!
//! Keeps: sequences have no holes; an id is placed once; a write is answered with one sequence per slot, and only when
//! everything up to the greatest of them is durable; a batch is placed as a whole or not at all. Leaves out: what is
//! already on disk (`storage` knows that), disk and mailbox (`actors::store`), who is subscribed.
//!
//! ```text
//! enqueue ─► waiting ─► take_group ─► (storage: which ids are known?) ─► place ─► placed groups
//!                                                                                    │ append, sync
//!            answers  ◄──────────────────────────────────────────────── settle  ◄────┘ in order
//! ```
//!
//! While a group is being synced the next one collects, so groups grow with the load and a single write waits for
//! nobody.

use std::collections::{HashMap, VecDeque};

use super::room::Room;
use crate::model::{Batch, EntryId, Origin, Segment, SegmentBuilder, Sequence, sparing};

/// Most groups that are placed but not yet durable. Two keep the disk busy while answers are delivered; more would make
/// groups smaller without making anything faster.
const PLACED_GROUPS_MAX: usize = 2;

/// A group takes waiting writes up to this many bytes of records (and always at least one write). A new write waits for
/// two of these.
const WRITE_GROUP_BYTES_MAX: usize = 512 * 1_024;

/// The ids that a group has placed so far. The hash is fast, and nobody who chooses ids can predict it.
pub(crate) type PlacedIds = HashMap<EntryId, Sequence, foldhash::fast::RandomState>;

/// Whose writes stay in order: those of one connection, or of the server itself. Between different senders, a store may
/// choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Sender(pub(crate) usize);

impl Sender {
    /// The server itself.
    pub(crate) const SERVER: Self = Self(0);
}

/// One write: a batch, its writer, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Write<R> {
    pub(crate) batch: Batch,
    pub(crate) origin: Origin,
    pub(crate) sender: Sender,
    pub(crate) reply: R,
}

/// The sequences of a write, one per slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slots {
    /// All slots were fresh: `count` sequences from `first` on. An empty batch has a count of 0.
    Run { first: Sequence, count: usize },
    /// At least one slot was a duplicate.
    Each(Vec<Sequence>),
}

impl Slots {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Run { count, .. } => *count,
            Self::Each(sequences) => sequences.len(),
        }
    }

    pub(crate) fn iter(&self) -> SlotsIter<'_> {
        SlotsIter { slots: self, at: 0 }
    }

    /// The greatest sequence among the slots; zero if there is none.
    pub(crate) fn greatest(&self) -> Sequence {
        match self {
            Self::Run { count: 0, .. } => Sequence::ZERO,
            Self::Run { first, count } => first.plus(*count as u64 - 1),
            Self::Each(sequences) => sequences.iter().copied().max().unwrap_or_default(),
        }
    }
}

/// The sequences of [`Slots`], in slot order.
pub(crate) struct SlotsIter<'a> {
    slots: &'a Slots,
    at: usize,
}

impl Iterator for SlotsIter<'_> {
    type Item = Sequence;

    fn next(&mut self) -> Option<Sequence> {
        let at = self.at;
        self.at += 1;
        match self.slots {
            Slots::Run { first, count } => (at < *count).then(|| first.plus(at as u64)),
            Slots::Each(sequences) => sequences.get(at).copied(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let rest = self.slots.len().saturating_sub(self.at);
        (rest, Some(rest))
    }
}

impl ExactSizeIterator for SlotsIter<'_> {}

/// The answer to one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acked {
    /// One sequence per slot.
    pub(crate) slots: Slots,
    /// The entries that this write committed: a run of sequences from here on.
    pub(crate) fresh: FreshRun,
}

/// Consecutive sequences; none if `count` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FreshRun {
    pub(crate) first: Sequence,
    pub(crate) count: u64,
}

/// Writes taken to be placed together.
#[derive(Debug)]
pub(crate) struct WriteGroup<R> {
    writes: Vec<Write<R>>,
}

impl<R> WriteGroup<R> {
    /// The ids of all slots, write after write. Storage is asked about these.
    pub(crate) fn ids(&self) -> Vec<EntryId> {
        self.writes.iter().flat_map(|write| write.batch.ids()).collect()
    }

    /// Where the answers go.
    pub(crate) fn replies(&self) -> impl Iterator<Item = &R> {
        self.writes.iter().map(|write| &write.reply)
    }

    /// The writes themselves. They can be made a group again.
    pub(crate) fn into_writes(self) -> Vec<Write<R>> {
        self.writes
    }

    /// The group of these, which are of one that was taken.
    pub(crate) fn of(writes: Vec<Write<R>>) -> Self {
        Self { writes }
    }

    /// Where the answers of a group that cannot be placed go.
    pub(crate) fn into_replies(self) -> impl Iterator<Item = R> {
        self.writes.into_iter().map(|write| write.reply)
    }
}

#[derive(Debug)]
struct Placed<R> {
    answers: Vec<(R, Acked)>,
    segments: Vec<Segment>,
    /// What was written, write by write, if others can overtake; otherwise nothing.
    written: Vec<(Batch, Origin, Sender)>,
}

/// A group that is now durable: tell its writers, then move the head, then wake the subscribers.
#[derive(Debug)]
pub(crate) struct Settled<R> {
    pub(crate) answers: Vec<(R, Acked)>,
    pub(crate) segments: Vec<Segment>,
}

/// The state of one store's write path. `R` is where an answer goes.
#[derive(Debug)]
pub(crate) struct StoreCore<R> {
    next: Sequence,
    waiting: VecDeque<Write<R>>,
    placing: bool,
    placed: VecDeque<Placed<R>>,
    /// `None` if the store has no limit.
    room: Option<Room>,
    /// Writes of the last group for which there was no space.
    without_room: Vec<R>,
    /// Whether others append to this store as well.
    shared: bool,
}

impl<R> StoreCore<R> {
    /// A store whose last durable sequence is `head`.
    pub(crate) fn new(head: Sequence) -> Self {
        Self {
            next: head.next(),
            waiting: VecDeque::new(),
            placing: false,
            placed: VecDeque::new(),
            room: None,
            without_room: Vec::new(),
            shared: false,
        }
    }

    /// Others append to this store as well: what is placed can be [taken back](StoreCore::unplace).
    pub(crate) fn set_shared(&mut self) {
        self.shared = true;
    }

    /// How much more the store may hold; call it while nothing is in progress.
    pub(crate) fn set_room(&mut self, room: Room) {
        self.room = Some(room);
    }

    /// How much the store may hold from now on.
    pub(crate) const fn set_bytes_max(&mut self, bytes_max: u64) {
        if let Some(room) = &mut self.room {
            room.set_bytes_max(bytes_max);
        }
    }

    /// The writes for which [`StoreCore::place`] found no space, and how many bytes the store may hold.
    pub(crate) fn take_without_room(&mut self) -> (Vec<R>, u64) {
        let bytes_max = self.room.as_ref().map_or(0, Room::bytes_max);
        (std::mem::take(&mut self.without_room), bytes_max)
    }

    /// Accepts writes; they are placed after all earlier ones.
    pub(crate) fn enqueue(&mut self, writes: Vec<Write<R>>) {
        if self.waiting.is_empty() {
            // Not copied: if each write goes to another store, this is where they wait, and their group.
            self.waiting = writes.into();
        } else {
            self.waiting.extend(writes);
        }
    }

    /// The next writes to place, if there are any and it is their turn. [`StoreCore::place`] must follow before another
    /// group is taken.
    pub(crate) fn take_group(&mut self) -> Option<WriteGroup<R>> {
        let syncing = self.placed.iter().filter(|placed| !placed.segments.is_empty()).count();
        if self.placing || self.waiting.is_empty() || syncing >= PLACED_GROUPS_MAX {
            return None;
        }
        self.placing = true;
        let mut bytes = 0;
        let all_fit = self.waiting.iter().all(|write| {
            let fits = bytes < WRITE_GROUP_BYTES_MAX;
            bytes += write.batch.bytes();
            fits
        });
        let waiting = std::mem::take(&mut self.waiting);
        if all_fit {
            return Some(WriteGroup { writes: waiting.into() });
        }
        let (writes, left) = shared_out(waiting);
        self.waiting = left;
        Some(WriteGroup { writes })
    }

    /// Gives sequences to the fresh ids of `group`. `known` answers [`WriteGroup::ids`] one to one. Returns what to
    /// append as one piece; nothing if everything was known.
    pub(crate) fn place(
        &mut self,
        group: WriteGroup<R>,
        known: &[Option<Sequence>],
        in_group: &mut PlacedIds,
    ) -> Vec<Segment> {
        self.placing = false;
        in_group.clear();
        // A single slot cannot duplicate another one in its group.
        let is_lone = known.len() <= 1;
        let bytes = group.writes.iter().map(|write| write.batch.bytes()).sum();
        let mut builder = SegmentBuilder::expecting(self.next, bytes);
        let mut known = known;
        let mut placed = 0;
        let mut answers = Vec::with_capacity(group.writes.len());
        let mut written = Vec::new();
        for write in group.writes {
            let (of_write, rest) = known.split_at(write.batch.len().min(known.len()));
            known = rest;
            if let Some(room) = &self.room {
                if !room.has(placed, &write, of_write, in_group) {
                    self.without_room.push(write.reply);
                    continue;
                }
                placed += write.batch.bytes() as u64;
            }
            let in_group = (!is_lone).then_some(&mut *in_group);
            let acked = place_write(&write, of_write.iter().copied(), in_group, &mut builder);
            let Write { batch, origin, sender, reply } = write;
            answers.push((reply, acked));
            if self.shared {
                written.push((batch, origin, sender));
            }
        }
        self.next = builder.next();
        let segments = builder.finish();
        if let Some(room) = &mut self.room {
            room.placed(&segments);
        }
        let placed = Placed { answers, segments: segments.clone(), written };
        sparing::push_back(&mut self.placed, placed);
        segments
    }

    /// The group that was taken last is not placed after all.
    pub(crate) fn cancel_group(&mut self) {
        self.placing = false;
    }

    /// The group that was taken last waits again, before all others.
    pub(crate) fn put_back(&mut self, group: WriteGroup<R>) {
        self.placing = false;
        group.writes.into_iter().rev().for_each(|write| self.waiting.push_front(write));
    }

    /// Somebody else took the sequences that were assigned: everything that is not settled waits again, in order. Then
    /// [`StoreCore::resume`] has to say where to continue. No group may be taken and not placed.
    pub(crate) fn unplace(&mut self) {
        while let Some(Placed { answers, segments: _, written }) = self.placed.pop_back() {
            let writes = answers.into_iter().zip(written).rev();
            for ((reply, _), (batch, origin, sender)) in writes {
                self.waiting.push_front(Write { batch, origin, sender, reply });
            }
        }
    }

    /// Whether a group is taken and not placed.
    pub(crate) fn is_placing(&self) -> bool {
        self.placing
    }

    /// Whether groups are placed and not settled.
    pub(crate) fn has_placed(&self) -> bool {
        !self.placed.is_empty()
    }

    /// Groups at the front that do not need the disk: all of their entries were known, and everything before them is
    /// durable by now.
    pub(crate) fn settle_known(&mut self) -> Option<Settled<R>> {
        self.placed.front()?.segments.is_empty().then(|| self.pop_placed()).flatten()
    }

    /// The oldest append is durable.
    pub(crate) fn settle_appended(&mut self) -> Option<Settled<R>> {
        self.pop_placed()
    }

    fn pop_placed(&mut self) -> Option<Settled<R>> {
        let Placed { answers, segments, written: _ } = self.placed.pop_front()?;
        Some(Settled { answers, segments })
    }

    /// An append failed: everything that is not settled is refused, and the state starts again from disk.
    pub(crate) fn fail(&mut self) -> Vec<R> {
        self.placing = false;
        let placed = self.placed.drain(..).flat_map(|placed| placed.answers);
        let placed = placed.map(|(reply, _)| reply);
        placed.chain(self.waiting.drain(..).map(|write| write.reply)).collect()
    }

    /// Continues after `head`, the state of the disk after a failure.
    pub(crate) fn resume(&mut self, head: Sequence) {
        self.next = head.next();
    }

    /// Releases the memory that it keeps to use it again. Call it while nothing is in progress.
    pub(crate) fn release(&mut self) {
        self.waiting.shrink_to_fit();
        self.placed.shrink_to_fit();
    }

    /// Whether nothing waits and nothing is in progress.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.placing && self.placed.is_empty()
    }
}

/// Takes a group out of `waiting`: an equal share of each sender, and what is larger than that as long as there is
/// space. Both parts stay in order.
fn shared_out<R>(waiting: VecDeque<Write<R>>) -> (Vec<Write<R>>, VecDeque<Write<R>>) {
    /// Marks a sender with something left over; everything that it wrote later is left too.
    const ENOUGH: usize = usize::MAX;
    let mut taken_of: HashMap<Sender, usize, foldhash::fast::RandomState> =
        waiting.iter().map(|write| (write.sender, 0)).collect();
    let share = WRITE_GROUP_BYTES_MAX / taken_of.len().max(1);
    let (mut taken, mut left) = (Vec::new(), VecDeque::new());
    let mut bytes = 0;
    for write in waiting {
        let of_sender = taken_of.entry(write.sender).or_default();
        let with_this = of_sender.saturating_add(write.batch.bytes());
        let is_first = *of_sender == 0 && bytes < WRITE_GROUP_BYTES_MAX;
        if *of_sender != ENOUGH && (with_this <= share || is_first) {
            bytes += write.batch.bytes();
            *of_sender = with_this;
            taken.push(write);
        } else {
            *of_sender = ENOUGH;
            left.push_back(write);
        }
    }
    (taken, left)
}

fn place_write<R>(
    write: &Write<R>,
    known: impl Iterator<Item = Option<Sequence>>,
    mut in_group: Option<&mut PlacedIds>,
    builder: &mut SegmentBuilder,
) -> Acked {
    let first = builder.next();
    let count = write.batch.len();
    // Filled only once a duplicate appears: an all-fresh batch needs no list.
    let mut each: Option<Vec<Sequence>> = None;
    for (slot, (id, known)) in write.batch.ids().zip(known).enumerate() {
        let duplicate = known.or_else(|| in_group.as_ref()?.get(&id).copied());
        let sequence = duplicate.unwrap_or_else(|| {
            let record = write.batch.record(slot).unwrap_or_default();
            let sequence = builder.push(record, &write.origin);
            if let Some(in_group) = &mut in_group {
                in_group.insert(id, sequence);
            }
            sequence
        });
        if duplicate.is_some() && each.is_none() {
            each = Some((0..slot as u64).map(|n| first.plus(n)).collect());
        }
        if let Some(each) = &mut each {
            each.push(sequence);
        }
    }
    let fresh = FreshRun { first, count: builder.next().since(first) };
    let slots = each.map_or(Slots::Run { first, count }, Slots::Each);
    Acked { slots, fresh }
}

#[cfg(test)]
mod tests;
