//! A record of the ledger.
//!
//! ```text
//! crc32     4   over the rest
//! magic     4   "erls"
//! length    4   of the whole record, in bytes
//! number    8   1, 2, 3 and so on
//! time      8   of the erasure, milliseconds since 1970
//! kind      1   1 entries, 2 a whole store
//! name      2   bytes of the store's name, which follows, UTF-8
//! content       of kind 1: ids, 16 each; of kind 2: its last sequence (8), the sequence of its first entry that is known (8), and its id (16)
//! chain    16   XXH3-128 over the chain before (zeros at first) and this record from its number on
//! ```

use twox_hash::XxHash3_128;

use super::Mark;
use crate::model::{EntryId, Sequence, StoreId};
use crate::storage::slot::{sum, u32_at, u64_at};
use crate::storage::{ERASE_MAX, MadeAgain, WholeStore};

const MAGIC: &[u8; 4] = b"erls";
const HEAD: usize = 31;
const NUMBER: usize = 12;
const ENTRIES: u8 = 1;
const STORE: u8 = 2;
pub(super) const CHAIN: usize = 16;
/// The maximum length of a record in bytes, with a name of the maximum length.
const LEN_MAX: usize = HEAD + u16::MAX as usize + ERASE_MAX * 16 + CHAIN;
/// The minimum length.
const LEN_MIN: usize = HEAD + CHAIN;
const SEED: u32 = 0;

/// The hash over all records up to one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Chain(pub(crate) [u8; CHAIN]);

/// What was erased of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Erased {
    /// The entries with these ids, at most [`ERASE_MAX`].
    Entries(Vec<EntryId>),
    /// The whole store.
    Store {
        /// The store's last sequence.
        last: Sequence,
        /// One of its entries, which identifies it: stores of other servers may have the same name.
        first: (Sequence, EntryId),
    },
}

/// A record of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Erasure {
    /// The number of the record.
    pub(crate) number: u64,
    /// The time in milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// The store.
    pub(crate) store: StoreId,
    /// What was erased of it.
    pub(crate) what: Erased,
}

impl From<Erasure> for MadeAgain {
    fn from(Erasure { number, store, what, .. }: Erasure) -> Self {
        let (entries, whole) = match what {
            Erased::Entries(entries) => (entries, None),
            Erased::Store { last, first } => (Vec::new(), Some(WholeStore { last, known: first })),
        };
        Self { number, store, entries, whole }
    }
}

/// Encodes the record with this number after this chain. Also returns the new chain.
pub(super) fn encode(
    (number, before): (u64, Chain),
    store: &StoreId,
    what: &Erased,
    time_ms: u64,
) -> (Vec<u8>, Chain) {
    let (kind, content) = match what {
        Erased::Entries(ids) => (ENTRIES, ids.iter().flat_map(|id| *id.as_bytes()).collect()),
        Erased::Store { last, first: (at, id) } => {
            let numbers = [last.get().to_be_bytes(), at.get().to_be_bytes()].concat();
            (STORE, [&numbers[..], id.as_bytes()].concat())
        }
    };
    let name = store.as_str().as_bytes();
    let len = HEAD + name.len() + content.len() + CHAIN;
    let mut record = vec![0; 4];
    record.extend_from_slice(MAGIC);
    // Names and batches are far below that.
    record.extend_from_slice(&(len as u32).to_be_bytes());
    record.extend_from_slice(&number.to_be_bytes());
    record.extend_from_slice(&time_ms.to_be_bytes());
    record.push(kind);
    record.extend_from_slice(&(name.len() as u16).to_be_bytes());
    record.extend_from_slice(name);
    record.extend_from_slice(&content);
    let chain = chain_of(before, &record[NUMBER..]);
    record.extend_from_slice(&chain.0);
    let crc = sum(SEED, &record);
    record[..4].copy_from_slice(&crc.to_be_bytes());
    (record, chain)
}

/// What identifies an erasure in any ledger: the hash over time, kind, store and content.
pub(super) fn identity(erasure: &Erasure) -> u128 {
    let none = (0, Chain::default());
    let (record, _) = encode(none, &erasure.store, &erasure.what, erasure.time_ms);
    XxHash3_128::oneshot(&record[NUMBER + 8..record.len() - CHAIN])
}

pub(super) fn chain_of(before: Chain, rest: &[u8]) -> Chain {
    Chain(XxHash3_128::oneshot(&[&before.0[..], rest].concat()).to_be_bytes())
}

/// Whether these 8 bytes may be the start of a record.
pub(super) fn may_begin(head: &[u8]) -> bool {
    head[4..] == *MAGIC
}

/// The length that a record states, if these may be its first bytes.
pub(super) fn len_of(head: &[u8]) -> Option<usize> {
    let is_one = head.len() >= NUMBER && head[4..8] == *MAGIC;
    let len = is_one.then(|| u32_at(head, 8) as usize)?;
    (LEN_MIN..=LEN_MAX).contains(&len).then_some(len)
}

/// The position of a ledger after this record, if it was at `before`. `None` if the record is damaged or may not follow.
/// After lost records, the number may be greater than the next one.
pub(super) fn check(record: &[u8], before: Mark) -> Option<Mark> {
    if len_of(record) != Some(record.len()) || u32_at(record, 0) != sum(SEED, record) {
        return None;
    }
    let number = u64_at(record, NUMBER);
    let chain = record[record.len() - CHAIN..].try_into().map(Chain).ok()?;
    let follows = chain_of(before.chain, &record[NUMBER..record.len() - CHAIN]) == chain;
    let fits = if number == before.number + 1 { follows } else { number > before.number };
    fits.then_some(Mark { number, chain })
}

/// Whether the record is as it was written.
#[cfg(feature = "postgres")]
pub(super) fn is_whole(record: &[u8]) -> bool {
    len_of(record) == Some(record.len()) && u32_at(record, 0) == sum(SEED, record)
}

/// Decodes a checked record. `None` if a later version wrote it.
pub(super) fn decode(record: &[u8]) -> Option<Erasure> {
    let (number, time_ms) = (u64_at(record, NUMBER), u64_at(record, NUMBER + 8));
    let name_len = usize::from(u16::from_be_bytes([record[HEAD - 2], record[HEAD - 1]]));
    let rest = &record[HEAD..record.len() - CHAIN];
    let (name, content) = rest.split_at_checked(name_len)?;
    let store = StoreId::new(std::str::from_utf8(name).ok()?).ok()?;
    let id = |bytes: &[u8]| Some(EntryId::from_bytes(bytes.try_into().ok()?));
    let what = match record[HEAD - 3] {
        ENTRIES if content.len() % 16 == 0 => {
            Erased::Entries(content.chunks_exact(16).filter_map(id).collect())
        }
        STORE if content.len() == 32 => Erased::Store {
            last: Sequence::new(u64_at(content, 0)).ok()?,
            first: (Sequence::new(u64_at(content, 8)).ok()?, id(&content[16..])?),
        },
        _ => return None,
    };
    Some(Erasure { number, time_ms, store, what })
}
