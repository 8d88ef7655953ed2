//! Compares the content of a store in two places.
//!
//! Keeps: the division into pieces does not matter. Commit times are not compared, since sled keeps them less exactly.

use sha2::{Digest as _, Sha256};

use super::{MigrateError, Piece, StoreState, Told};
use crate::model::{EntryRef, Origin, Segment, Sequence};

/// How much is read at once, in bytes of records.
pub(super) const READ_BYTES: usize = 1 << 20;

/// A hash over the entries of a store, in their order.
#[derive(Default)]
pub(crate) struct Digest {
    hash: Sha256,
    /// A gap that may continue.
    gap: Option<(Sequence, Sequence)>,
}

impl Digest {
    /// One that nobody can compute without the salt.
    pub(crate) fn salted(salt: &[u8]) -> Self {
        Self { hash: Sha256::new().chain_update(salt), gap: None }
    }

    pub(crate) fn add(&mut self, segment: &Segment) {
        if segment.is_gap() {
            let first = self.gap.map_or(segment.first(), |(first, _)| first);
            self.gap = Some((first, segment.last()));
            return;
        }
        self.end_gap();
        for ((at, entry), origin) in segment.iter().zip(segment.origin_of_each()) {
            self.hash.update([1]);
            self.number(at.get());
            self.entry(&entry, origin);
        }
    }

    fn entry(&mut self, entry: &EntryRef<'_>, origin: &Origin) {
        self.hash.update(entry.id.as_bytes());
        let who = match origin {
            Origin::Client(key) => key.as_str(),
            Origin::Server { run_handlers: true } => "\u{1}",
            Origin::Server { run_handlers: false } => "\u{0}",
        };
        let is_client = matches!(origin, Origin::Client(_));
        self.hash.update([u8::from(is_client)]);
        for part in [who.as_bytes(), entry.event.as_bytes(), entry.primary_key.as_bytes()] {
            self.bytes(part);
        }
        self.bytes(entry.payload);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.hash.update(bytes);
    }

    fn number(&mut self, number: u64) {
        self.hash.update(number.to_be_bytes());
    }

    fn end_gap(&mut self) {
        if let Some((first, last)) = self.gap.take() {
            self.hash.update([0]);
            self.number(first.get());
            self.number(last.get());
        }
    }

    pub(crate) fn finish(mut self) -> [u8; 32] {
        self.end_gap();
        self.hash.finalize().into()
    }
}

/// Reads some entries of a store, beginning with this sequence.
pub(super) type Read<'a> = dyn FnMut(Sequence) -> Result<Vec<Piece>, MigrateError> + 'a;

/// Compares the store from `from` on in both places.
pub(super) fn compare(
    store: &StoreState,
    from: Sequence,
    (one, other): (&mut Read<'_>, &mut Read<'_>),
    told: &Told,
) -> Result<(), MigrateError> {
    let before = over(store, from, one, |_| {})?;
    let after = over(store, from, other, |segment| told.compared(segment))?;
    if before == after {
        return Ok(());
    }
    let StoreState { name, head, .. } = store;
    Err(MigrateError::Differs(format!("store {name}, entries {from} to {head}")))
}

fn over(
    store: &StoreState,
    from: Sequence,
    read: &mut Read<'_>,
    mut seen: impl FnMut(&Segment),
) -> Result<[u8; 32], MigrateError> {
    let (mut digest, mut next) = (Digest::default(), from);
    while next <= store.head {
        let pieces = read(next)?;
        if pieces.is_empty() {
            let told = format!("store {}: there is nothing from {next} on", store.name);
            return Err(MigrateError::Differs(told));
        }
        for piece in pieces {
            if piece.segment.first() != next {
                let (name, first) = (&store.name, piece.segment.first());
                let told = format!("store {name}: {first} follows where {next} should");
                return Err(MigrateError::Differs(told));
            }
            next = piece.segment.last().next();
            seen(&piece.segment);
            digest.add(&piece.segment);
        }
    }
    Ok(digest.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Batch, EntryId, SegmentBuilder};
    use crate::testing::store;

    fn pieces(payloads: &[u8], run_handlers: bool) -> Vec<Piece> {
        let mut builder = SegmentBuilder::new(Sequence::FIRST);
        for payload in payloads {
            let id = EntryId::from_bytes([7; 16]);
            let entry = EntryRef { id, event: "E", primary_key: "k", payload: &[*payload] };
            let batch = Batch::from_entries([entry]);
            builder.push(batch.record(0).expect("a slot"), &Origin::Server { run_handlers });
        }
        let segments = builder.finish().into_iter();
        segments.map(|segment| Piece { segment, time_ms: 0 }).collect()
    }

    /// Whether they are the same, compared one entry at a time or all at once.
    fn is_same(one: &[Piece], other: &[Piece], at_once: usize) -> bool {
        let head = one.last().expect("a piece").segment.last();
        let state = StoreState { name: store("s"), head, trimmed: Sequence::ZERO };
        let from = |pieces: &[Piece], next: Sequence, at_once: usize| {
            let piece = pieces.iter().find(|piece| piece.segment.last() >= next);
            let piece = piece.expect("a piece");
            let rest = piece.segment.skipping(next.since(piece.segment.first()) as usize);
            let rest = rest.and_then(|rest| rest.truncated(at_once)).expect("a rest");
            Ok(vec![Piece { segment: rest, time_ms: 0 }])
        };
        let mut whole = |next| from(one, next, usize::MAX);
        let mut parts = |next| from(other, next, at_once);
        compare(&state, Sequence::FIRST, (&mut whole, &mut parts), &Told::default()).is_ok()
    }

    #[test]
    fn pieces_do_not_matter_and_all_else_does() {
        let mut one = pieces(&[1, 2, 3], true);
        for at_once in [1, 2, 9] {
            assert!(is_same(&one, &pieces(&[1, 2, 3], true), at_once));
        }
        assert!(!is_same(&one, &pieces(&[1, 2, 4], true), 9), "a payload");
        assert!(!is_same(&one, &pieces(&[1, 2, 3], false), 9), "who wrote it");
        let gap = Segment::gap(Sequence::ZERO.plus(4), 5).expect("a gap");
        one.push(Piece { segment: gap.clone(), time_ms: 1 });
        let mut other = pieces(&[1, 2, 3], true);
        other.push(Piece { segment: gap, time_ms: 2 });
        assert!(is_same(&one, &other, 2));
    }
}
