//! Segments with bare records: all that is left of an erased entry is its id.
//!
//! Keeps: sequences do not change, whatever is erased; the result holds nothing of an erased entry but its id, not even
//! who wrote it. Leaves out: which entries are erased (`storage`).

use std::collections::BTreeSet;

use super::{Origins, Segment};
use crate::model::record::{BARE_LEN, write_bare};
use crate::model::{MalformedRecord, Origin, OriginRun, RecordReader, Sequence};

/// The recorded writer of an entry whose content is gone.
const NOBODY: Origin = Origin::Server { run_handlers: false };

impl Segment {
    /// Whether some of its records may be bare ids.
    pub(crate) const fn may_be_bare(&self) -> bool {
        self.bare && !self.is_gap()
    }

    /// The same segment, marked as having bare records if `bare`.
    pub(crate) fn marked_bare(self, bare: bool) -> Self {
        Self { bare, ..self }
    }

    /// The same segment, marked by whether some of its records are bare.
    ///
    /// # Errors
    /// If a record is malformed.
    pub(crate) fn looked_through(self) -> Result<Self, MalformedRecord> {
        let mut reader = RecordReader::new(&self.records);
        let mut bare = false;
        while reader.remaining() > 0 {
            let before = reader.remaining();
            reader.skip_one()?;
            bare |= before - reader.remaining() == BARE_LEN;
        }
        Ok(Self { bare, ..self })
    }

    /// The same segment with bare records in place of those with these sequences. `None` if it has none of them, if all
    /// of them are bare already, or if it cannot be read.
    pub(crate) fn erasing(&self, gone: &BTreeSet<Sequence>) -> Option<Self> {
        if self.is_gap() || gone.range(self.first()..=self.last()).next().is_none() {
            return None;
        }
        let mut records = Vec::with_capacity(self.records.len());
        let mut origins = Origins::new();
        let (mut reader, mut changed) = (RecordReader::new(&self.records), false);
        for (at, origin) in (0..).map(|n| self.first.plus(n)).zip(self.origin_of_each()) {
            let start = self.records.len() - reader.remaining();
            let id = reader.skip_one().ok()?;
            let record = &self.records[start..self.records.len() - reader.remaining()];
            let is_gone = gone.contains(&at);
            changed |= is_gone && record.len() != BARE_LEN;
            if is_gone {
                write_bare(&mut records, id);
            } else {
                records.extend_from_slice(record);
            }
            add(&mut origins, if is_gone { &NOBODY } else { origin });
        }
        changed.then(|| Self { records: records.into(), origins, bare: true, ..self.clone() })
    }

    /// The segment as readers see it: erased entries are gaps. One piece if it has none.
    ///
    /// # Errors
    /// If a record is malformed.
    pub(crate) fn shown(self) -> Result<Vec<Self>, MalformedRecord> {
        if !self.may_be_bare() {
            return Ok(vec![self]);
        }
        let mut pieces: Vec<Self> = Vec::new();
        let (mut reader, mut from) = (RecordReader::new(&self.records), 0);
        let (mut first, mut was_bare) = (self.first, false);
        let (mut origins, mut at) = (Origins::new(), self.first);
        for origin in self.origin_of_each() {
            let before = self.records.len() - reader.remaining();
            reader.skip_one()?;
            let is_bare = self.records.len() - reader.remaining() - before == BARE_LEN;
            if is_bare != was_bare && at > first {
                pieces.push(self.piece((first, at), (from, before), was_bare, &mut origins));
                (first, from) = (at, before);
            }
            was_bare = is_bare;
            add(&mut origins, origin);
            at = at.next();
        }
        pieces.push(self.piece((first, at), (from, self.records.len()), was_bare, &mut origins));
        Ok(pieces)
    }

    /// The entries from one sequence up to another, whose records are in this range; a gap if they are bare.
    fn piece(
        &self,
        (first, end): (Sequence, Sequence),
        (from, to): (usize, usize),
        bare: bool,
        origins: &mut Origins,
    ) -> Self {
        let origins = std::mem::take(origins);
        // Not more than the segment has.
        let count = end.since(first) as u32;
        if bare {
            return Self {
                first,
                count,
                records: bytes::Bytes::new(),
                origins: Origins::new(),
                bare,
            };
        }
        Self { first, count, records: self.records.slice(from..to), origins, bare }
    }

    /// This gap and the next one as one gap; `None` unless both are of erased entries and adjoin.
    pub(crate) fn erased_with(&self, next: &Self) -> Option<Self> {
        let follow = self.is_erased() && next.is_erased() && self.last().next() == next.first;
        let count = self.count.checked_add(next.count).filter(|_| follow)?;
        Some(Self { count, ..self.clone() })
    }
}

fn add(origins: &mut Origins, origin: &Origin) {
    match origins.last_mut() {
        Some(run) if run.origin == *origin => run.count += 1,
        _ => origins.push(OriginRun { count: 1, origin: origin.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Batch, EntryId, EntryRef, PublicKey, SegmentBuilder};

    fn segment(count: usize, first: u64) -> Segment {
        let mut builder = SegmentBuilder::new(Sequence::ZERO.plus(first));
        let alice = Origin::Client(PublicKey::new("alice").expect("a key"));
        for n in 0..count {
            let payload = &vec![7; n % 5];
            let entry = EntryRef { id: EntryId::now(), event: "E", primary_key: "k", payload };
            let batch = Batch::from_entries([entry]);
            let origin = if n % 3 == 0 { NOBODY } else { alice.clone() };
            builder.push(batch.record(0).expect("a slot"), &origin);
        }
        builder.finish().remove(0)
    }

    proptest! {
        #[test]
        fn what_is_erased_is_a_gap_and_all_else_stays(
            count in 1..40_usize,
            first in 1..1_000_u64,
            gone in proptest::collection::btree_set(0..60_u64, 0..40),
        ) {
            let whole = segment(count, first);
            let gone: BTreeSet<Sequence> = gone.into_iter().map(|n| Sequence::ZERO.plus(first + n)).collect();
            let bare = whole.erasing(&gone);
            let hit = whole.ids().any(|(at, _)| gone.contains(&at));
            prop_assert_eq!(bare.is_some(), hit);
            let bare = bare.unwrap_or_else(|| whole.clone());
            prop_assert!(bare.ids().eq(whole.ids()), "ids stay");
            prop_assert_eq!(bare.erasing(&gone), None, "nothing more to erase");
            let looked = bare.clone().marked_bare(false).looked_through().expect("read");
            prop_assert_eq!(&looked, &bare);
            let shown = bare.shown().expect("read");
            let mut next = whole.first();
            for piece in &shown {
                prop_assert_eq!(piece.first(), next);
                prop_assert_eq!(piece.is_erased(), gone.contains(&next));
                next = piece.last().next();
            }
            prop_assert_eq!(next, whole.last().next());
            let entries = shown.iter().flat_map(|piece| piece.iter().zip(piece.origin_of_each()));
            let kept = whole.iter().zip(whole.origin_of_each());
            prop_assert!(entries.eq(kept.filter(|((at, _), _)| !gone.contains(at))));
            let without = whole.clone().without(&gone);
            let joined = |pieces: &[Segment]| {
                let mut joined: Vec<Segment> = Vec::new();
                for piece in pieces {
                    match joined.last().and_then(|last| last.erased_with(piece)) {
                        Some(both) => *joined.last_mut().expect("one") = both,
                        None => joined.push(piece.clone()),
                    }
                }
                joined
            };
            prop_assert_eq!(joined(&without), joined(&shown));
        }
    }
}
