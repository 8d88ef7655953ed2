//! The ends of stores: of those that are open, and of those with entries that are in packs alone.
//!
//! A small append goes to disk in a pack, together with those of other stores, and from there to a segment of its store
//! once there is more of it, or once packs hold too much. Until then its entries are read from here.
//!
//! Keeps: what is durable and not in a segment is here. An entry leaves only after the segment that it is in is in the
//! tree: who looks here first and then in the tree finds it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::key::{Ordinal, PackKey};
use super::log::Layout;
use super::places::{Place, Places};
use super::trees::OpenFailure;
use super::value::pack;
use crate::model::{Segment, Sequence};

/// The ends of the stores of a database that was opened.
#[derive(Debug, Default)]
pub(super) struct Ends {
    places: Arc<Places>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ends: HashMap<Ordinal, Known>,
    /// Those that have something in packs, in the order in which that began.
    by_age: BTreeMap<u64, Ordinal>,
    next_age: u64,
}

#[derive(Debug)]
struct Known {
    end: Arc<End>,
    /// How many [`HeldEnd`]s there are of it.
    holders: usize,
}

/// The end of a store, for who opened the store or writes it out. It is forgotten when the last one of these is
/// dropped and nothing is in packs.
#[derive(Debug)]
pub(super) struct HeldEnd {
    ends: Arc<Ends>,
    end: Arc<End>,
}

/// The end of one store.
#[derive(Debug)]
pub(super) struct End {
    pub(super) ordinal: Ordinal,
    /// How it lies on disk: for the commit thread, and for who opens the store.
    pub(super) layout: Mutex<Layout>,
    packed: Mutex<Packed>,
}

/// What of a store is in packs alone.
#[derive(Debug, Default)]
struct Packed {
    /// Consecutive, up to the end of the store.
    pieces: VecDeque<(Segment, Arc<Place>)>,
    /// So many of them are in a segment of the group that is being committed.
    moving: usize,
    /// Of the records of the others.
    bytes: u64,
    age: u64,
}

impl Ends {
    /// Reads all packs.
    pub(super) fn load(tree: &sled::Tree) -> Result<Self, OpenFailure> {
        let corrupt = |finding: &dyn std::fmt::Display| OpenFailure::Corrupt(finding.to_string());
        let ends = Self::default();
        for item in tree.range(PackKey::all()) {
            let (key, value) = item?;
            let key = PackKey::parse(&key).ok_or_else(|| corrupt(&"malformed key of a pack"))?;
            let place = Arc::new(ends.places.found(key.number(), value.len()));
            let pieces = pack::decode(&Bytes::from_owner(value)).map_err(|e| corrupt(&e))?;
            for (ordinal, piece) in pieces {
                let end = ends.state.lock().known(ordinal).end.clone();
                ends.push(&end, piece, place.clone());
            }
        }
        for known in ends.state.lock().ends.values() {
            // Numbers of packs are given out again, so packs are not in the order in which they were written.
            let mut packed = known.end.packed.lock();
            packed.pieces.make_contiguous().sort_by_key(|(piece, _)| piece.first());
        }
        Ok(ends)
    }

    /// Where packs lie.
    pub(super) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// The end of the store with this ordinal.
    pub(super) fn hold(self: &Arc<Self>, ordinal: Ordinal) -> HeldEnd {
        self.held(self.state.lock().known(ordinal))
    }

    fn held(self: &Arc<Self>, known: &mut Known) -> HeldEnd {
        known.holders += 1;
        HeldEnd { ends: self.clone(), end: known.end.clone() }
    }

    /// All that is in packs of the store with this ordinal, be it on its way to a segment or not.
    pub(super) fn in_packs(&self, ordinal: Ordinal) -> Vec<Segment> {
        let end = self.state.lock().ends.get(&ordinal).map(|known| known.end.clone());
        end.map_or_else(Vec::new, |end| end.in_packs())
    }

    /// The greatest ordinal of a store that has something in packs.
    pub(super) fn ordinal_max(&self) -> Option<Ordinal> {
        self.state.lock().ends.keys().max().copied()
    }

    /// The `count` ends that have had something in packs for longest.
    pub(super) fn oldest(self: &Arc<Self>, count: usize) -> Vec<HeldEnd> {
        let mut state = self.state.lock();
        let ordinals: Vec<Ordinal> = state.by_age.values().take(count).copied().collect();
        ordinals.into_iter().map(|ordinal| self.held(state.known(ordinal))).collect()
    }

    /// Adds `piece`, which follows what `end` has, and is in the pack at `place`.
    pub(super) fn push(&self, end: &End, piece: Segment, place: Arc<Place>) {
        let mut packed = end.packed.lock();
        if packed.pieces.is_empty() {
            let mut state = self.state.lock();
            packed.age = state.next_age;
            state.next_age += 1;
            state.by_age.insert(packed.age, end.ordinal);
        }
        packed.bytes += piece.records().len() as u64;
        packed.pieces.push_back((piece, place));
    }

    /// Forgets what is in segments already, of what was found in packs; they end with `last`.
    pub(super) fn forget_up_to(&self, end: &End, last: Sequence) {
        let mut packed = end.packed.lock();
        let superseded = packed.pieces.partition_point(|(piece, _)| piece.last() <= last);
        let bytes =
            packed.pieces.range(..superseded).map(|(piece, _)| piece.records().len() as u64);
        packed.bytes -= bytes.sum::<u64>();
        self.remove_first(&mut packed, superseded);
    }

    fn remove_first(&self, packed: &mut Packed, count: usize) {
        packed.pieces.drain(..count);
        if count > 0 && packed.pieces.is_empty() {
            self.state.lock().by_age.remove(&packed.age);
        }
    }

    /// `end` is not among the oldest any more, though it has something in packs.
    pub(super) fn give_up(&self, end: &End) {
        let age = end.packed.lock().age;
        self.state.lock().by_age.remove(&age);
    }
}

impl State {
    fn known(&mut self, ordinal: Ordinal) -> &mut Known {
        let new = || Known { end: Arc::new(End::new(ordinal)), holders: 0 };
        self.ends.entry(ordinal).or_insert_with(new)
    }
}

impl HeldEnd {
    /// The group is in the tree: what it moved into segments is there from now on.
    pub(super) fn moved(&self) {
        let mut packed = self.end.packed.lock();
        let moving = std::mem::take(&mut packed.moving);
        self.ends.remove_first(&mut packed, moving);
    }
}

impl Deref for HeldEnd {
    type Target = End;

    fn deref(&self) -> &End {
        &self.end
    }
}

impl Drop for HeldEnd {
    fn drop(&mut self) {
        let mut state = self.ends.state.lock();
        let known = state.known(self.end.ordinal);
        known.holders -= 1;
        // Nobody else can add anything then, and so nobody holds both locks the other way round.
        if known.holders == 0 && self.end.packed.lock().pieces.is_empty() {
            state.ends.remove(&self.end.ordinal);
        }
    }
}

impl End {
    fn new(ordinal: Ordinal) -> Self {
        Self { ordinal, layout: Mutex::default(), packed: Mutex::default() }
    }

    /// Bytes of the records that are in packs alone and do not move yet.
    pub(super) fn packed_bytes(&self) -> u64 {
        self.packed.lock().bytes
    }

    /// What is in packs alone and does not move yet, in order.
    pub(super) fn packed(&self) -> Vec<Segment> {
        let packed = self.packed.lock();
        packed.pieces.iter().skip(packed.moving).map(|(piece, _)| piece.clone()).collect()
    }

    /// All that is in packs is in the group that is being committed, as segments.
    pub(super) fn move_packed(&self) {
        let mut packed = self.packed.lock();
        packed.moving = packed.pieces.len();
        packed.bytes = 0;
    }

    /// The entries in packs, if `at` is among them.
    pub(super) fn segment(&self, at: Sequence) -> Option<Segment> {
        let packed = self.packed.lock();
        let (first, last) = (packed.pieces.front()?.0.first(), packed.pieces.back()?.0.last());
        if !(first..=last).contains(&at) {
            return None;
        }
        let pieces: Vec<Segment> = packed.pieces.iter().map(|(piece, _)| piece.clone()).collect();
        Segment::joined(&pieces)
    }

    fn in_packs(&self) -> Vec<Segment> {
        self.packed.lock().pieces.iter().map(|(piece, _)| piece.clone()).collect()
    }
}
