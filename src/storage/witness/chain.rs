//! The hash over the entries of a store, in order: two copies of a store with the same head and the same hash hold the
//! same entries.
//!
//! ```text
//! frame salt    16 random bytes, one for each frame of the commit log
//! append salt   the first 16 bytes of SHA-256(frame salt, ordinal of the store (4), its first sequence (8))
//! entry salts   8 bytes each, four of them from each SHA-256(append salt, number of the four (4))
//! digest        XXH3-64(record behind its id), multiplied by an odd number, + XXH3-64(origin), XOR the entry salt
//! hash          XXH3-128(hash before (16), sequence (8), id (16), digest (8)); sixteen zeros before the first entry
//! ```
//!
//! Numbers are big-endian. Keeps: a digest without its salt is as good as random, whatever the entry was: each salt is
//! a one-time pad as long as the digest. To erase an entry, discard its salt and those that it can be derived from, and
//! keep the other salts that were derived from them; with the digest kept, the hash can still be computed.
//!
//! Leaves out: forgers. It detects accidental loss and changes; somebody who knows the salts can make other entries
//! with the same hash. A cryptographic hash costs 150 ns and more for an entry of 100 bytes (SHA-256; BLAKE3 takes
//! longer for so little), a quarter of what an ingested entry costs the server altogether; this one costs 37.

use sha2::{Digest, Sha256};
use twox_hash::{XxHash3_64, XxHash3_128};

use crate::model::{EntryId, MalformedRecord, Origin, RecordReader, Segment, Sequence};

/// How many entry salts one SHA-256 produces.
const SALTS_AT_ONCE: usize = 4;

/// Any odd number works: the product carries as much information as the factor.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The salt of a frame of the commit log; the salts of its appends are derived from it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FrameSalt([u8; 16]);

/// The salt of one append to one store; the salts of its entries are derived from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct AppendSalt([u8; 16]);

/// The salt of one entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntrySalt([u8; 8]);

/// The salts of an append's entries: more than an append can have.
#[derive(Clone)]
pub(crate) struct EntrySalts {
    append: AppendSalt,
    /// The number of the next four.
    number: u32,
    salts: [u8; 32],
    used: usize,
}

/// What the hash uses of an entry besides its id and sequence. For an erased entry, it is all that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryDigest(pub(crate) [u8; 8]);

/// The hash over the entries of a store up to some sequence. Two copies of a store with the same last entry and the
/// same hash hold the same entries; two servers that got the same entries have different hashes. Shown as 32
/// hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreHash(pub(crate) [u8; 16]);

impl std::fmt::Display for StoreHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl std::fmt::Debug for FrameSalt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Somebody who knows it can find out what an erased entry was.
        f.write_str("FrameSalt")
    }
}

impl FrameSalt {
    /// A random one.
    pub(crate) fn random() -> Self {
        // 122 random bits.
        Self(uuid::Uuid::new_v4().into_bytes())
    }

    /// With these bytes.
    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes.
    pub(crate) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The salt of the entries from `first` on that the frame appends to the store with this ordinal.
    pub(crate) fn append(&self, ordinal: u32, first: Sequence) -> AppendSalt {
        let hash: [u8; 32] = Sha256::new()
            .chain_update(self.0)
            .chain_update(ordinal.to_be_bytes())
            .chain_update(first.get().to_be_bytes())
            .finalize()
            .into();
        let mut salt = [0; 16];
        salt.copy_from_slice(&hash[..16]);
        AppendSalt(salt)
    }
}

impl AppendSalt {
    /// The salts of the append's entries, in order.
    pub(crate) const fn entries(self) -> EntrySalts {
        EntrySalts { append: self, number: 0, salts: [0; 32], used: SALTS_AT_ONCE }
    }
}

impl Iterator for EntrySalts {
    type Item = EntrySalt;

    #[inline]
    fn next(&mut self) -> Option<EntrySalt> {
        if self.used == SALTS_AT_ONCE {
            let four = Sha256::new()
                .chain_update(self.append.0)
                .chain_update(self.number.to_be_bytes())
                .finalize();
            self.salts = four.into();
            self.number = self.number.checked_add(1)?;
            self.used = 0;
        }
        let mut salt = EntrySalt([0; 8]);
        salt.0.copy_from_slice(&self.salts[self.used * 8..][..8]);
        self.used += 1;
        Some(salt)
    }
}

impl EntryDigest {
    /// The digest of an entry whose record is `rest` after its id, with this hash of its origin.
    fn new(rest: &[u8], origin: u64, salt: EntrySalt) -> Self {
        let plain = XxHash3_64::oneshot(rest).wrapping_mul(ODD).wrapping_add(origin);
        Self((plain ^ u64::from_be_bytes(salt.0)).to_be_bytes())
    }
}

impl StoreHash {
    /// The hash with one more entry.
    #[must_use]
    pub(crate) fn with_entry(self, sequence: Sequence, id: EntryId, digest: EntryDigest) -> Self {
        let mut row = [0; 48];
        row[..16].copy_from_slice(&self.0);
        row[16..24].copy_from_slice(&sequence.get().to_be_bytes());
        row[24..40].copy_from_slice(id.as_bytes());
        row[40..].copy_from_slice(&digest.0);
        Self(XxHash3_128::oneshot(&row).to_be_bytes())
    }

    /// The hash with the entries of `segment`, which were one append.
    pub(crate) fn with_append(
        self,
        segment: &Segment,
        salt: AppendSalt,
    ) -> Result<Self, MalformedRecord> {
        let (mut hash, mut sequence) = (self, segment.first());
        each_digest(segment, salt, |id, digest| {
            hash = hash.with_entry(sequence, id, digest);
            sequence = sequence.plus(1);
        })?;
        Ok(hash)
    }

    /// The same, with the digests of the entries, of which some may be erased.
    pub(crate) fn with_digests(
        self,
        segment: &Segment,
        digests: &[EntryDigest],
    ) -> Result<Self, MalformedRecord> {
        let (mut hash, mut reader) = (self, RecordReader::new(segment.records()));
        for (sequence, digest) in (0..).map(|n| segment.first().plus(n)).zip(digests) {
            hash = hash.with_entry(sequence, reader.skip_one()?, *digest);
        }
        Ok(hash)
    }
}

/// The digests of the entries of `segment`, which were one append: they have to be kept when some are erased.
pub(crate) fn digests_of(
    segment: &Segment,
    salt: AppendSalt,
) -> Result<Vec<EntryDigest>, MalformedRecord> {
    let mut digests = Vec::with_capacity(segment.len());
    each_digest(segment, salt, |_, digest| digests.push(digest))?;
    Ok(digests)
}

#[inline]
fn each_digest(
    segment: &Segment,
    salt: AppendSalt,
    mut each: impl FnMut(EntryId, EntryDigest),
) -> Result<(), MalformedRecord> {
    let records = segment.records();
    let mut reader = RecordReader::new(records);
    let mut salts = salt.entries();
    for run in segment.origins() {
        let origin = origin_hash(&run.origin);
        for salt in salts.by_ref().take(run.count as usize) {
            let start = records.len() - reader.remaining();
            let id = reader.skip_one()?;
            let rest = &records[start + EntryId::LEN..records.len() - reader.remaining()];
            each(id, EntryDigest::new(rest, origin, salt));
        }
    }
    Ok(())
}

fn origin_hash(origin: &Origin) -> u64 {
    match origin {
        Origin::Client(key) => XxHash3_64::oneshot(key.as_str().as_bytes()),
        Origin::Server { run_handlers } => u64::from(*run_handlers),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::{EntryRef, OriginRun, PublicKey, write_record};

    fn segment(first: u64, payloads: &[&[u8]], origins: &[(u32, &str)]) -> Segment {
        let mut records = Vec::new();
        for (number, payload) in (first..).zip(payloads) {
            let id = EntryId::from_bytes(u128::from(number).to_be_bytes());
            let entry = EntryRef { id, event: "Made", primary_key: "p", payload };
            write_record(&mut records, &entry);
        }
        let origin = |key: &str| match key {
            "" => Origin::Server { run_handlers: true },
            key => Origin::Client(PublicKey::new(key).expect("a key")),
        };
        let origins = origins
            .iter()
            .map(|(count, key)| OriginRun { count: *count, origin: origin(key) })
            .collect();
        let first = Sequence::new(first).expect("a sequence");
        Segment::from_parts(first, records.into(), origins).expect("a segment")
    }

    fn hash(segment: &Segment) -> StoreHash {
        let salt = FrameSalt::from_bytes([3; 16]).append(7, segment.first());
        StoreHash::default().with_append(segment, salt).expect("well-formed")
    }

    #[test]
    fn the_hash_is_what_it_always_was() {
        let hash =
            hash(&segment(1, &[b"one", b"two", b"", b"four", b"five"], &[(2, "a"), (3, "")]));
        // As computed by another implementation of this file's first paragraphs.
        assert_eq!(u128::from_be_bytes(hash.0), 0x02b1_a5f7_17a2_ebdf_30de_2b0e_aec9_8667);
    }

    #[test]
    fn any_difference_makes_another_hash() {
        let cases = [
            segment(1, &[b"one", b"two"], &[(2, "a")]),
            segment(2, &[b"one", b"two"], &[(2, "a")]),
            segment(1, &[b"two", b"one"], &[(2, "a")]),
            segment(1, &[b"one", b"twO"], &[(2, "a")]),
            segment(1, &[b"one"], &[(1, "a")]),
            segment(1, &[b"one", b"two"], &[(2, "b")]),
            segment(1, &[b"one", b"two"], &[(1, "a"), (1, "b")]),
            segment(1, &[b"one", b"two"], &[(2, "")]),
        ];
        let hashes: HashSet<_> = cases.iter().map(|segment| hash(segment).0).collect();
        assert_eq!(hashes.len(), cases.len());
    }

    #[test]
    fn an_erased_entry_is_skipped_with_its_digest_alone() {
        let (bodies, first) = ([&b"one"[..], b"secret", b"three"], Sequence::new(1).expect("one"));
        let whole = segment(1, &bodies, &[(3, "a")]);
        let salts: Vec<_> =
            FrameSalt::from_bytes([3; 16]).append(7, first).entries().take(3).collect();
        let origin = &whole.origins()[0].origin;
        let mut reader = RecordReader::new(whole.records());
        let mut again = StoreHash::default();
        let (mut start, mut sequence) = (0, first);
        let mut kept = Vec::new();
        for salt in salts {
            let id = reader.skip_one().expect("a record");
            let end = whole.records().len() - reader.remaining();
            let rest = &whole.records()[start + EntryId::LEN..end];
            kept.push((sequence, id, EntryDigest::new(rest, origin_hash(origin), salt)));
            (start, sequence) = (end, sequence.plus(1));
        }
        for (sequence, id, digest) in kept {
            again = again.with_entry(sequence, id, digest);
        }
        assert_eq!(again, hash(&whole));
    }

    #[test]
    fn no_two_entries_have_the_same_salt() {
        let frame = FrameSalt::random();
        let first = |first| Sequence::new(first).expect("a sequence");
        let appends = [(1, 1), (2, 1), (1, 2), (1, 9)];
        let salts = appends
            .iter()
            .flat_map(|(ordinal, at)| frame.append(*ordinal, first(*at)).entries().take(100));
        let salts: HashSet<_> = salts.map(|salt| salt.0).collect();
        assert_eq!(salts.len(), 400);
    }

    #[test]
    fn the_same_entry_has_another_digest_under_another_salt() {
        let origin = Origin::Server { run_handlers: false };
        let salts = FrameSalt::random().append(1, Sequence::new(1).expect("one")).entries();
        let digests: HashSet<_> = salts
            .take(50)
            .map(|salt| EntryDigest::new(b"yes", origin_hash(&origin), salt).0)
            .collect();
        assert_eq!(digests.len(), 50);
    }
}
