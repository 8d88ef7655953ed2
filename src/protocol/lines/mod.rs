//! Entries as lines of JSON: what `export` writes and `import` reads.
//!
//! ```json
//! {"export":1,"storeId":"team","remoteId":"5b…","from":1,"head":2}
//! {"sequence":1,"id":"018bcfe5-…","event":"TodoAdded","primaryKey":"t1","createdAt":1700000000000,"committedBy":1700000000950,"origin":{"publicKey":"alice"},"payloadBase64":"gaV0aXRsZaRNaWxr","payload":{"title":"Milk"}}
//! {"sequence":2,"id":"018bcfe5-…","event":"TodoDone","primaryKey":"t1","createdAt":1700000000001,"origin":{"runHandlers":true},"payloadBase64":""}
//! {"end":"team","entries":2}
//! {"complete":true,"stores":1,"entries":2}
//! ```
//!
//! Keeps: what is written is read back byte for byte, whatever the names and payloads are; a line is one line. Leaves
//! out: files and sockets.
//!
//! A store begins with a [`Head`] and ends with an [`End`]; a file ends with a [`Complete`]. If the export of a store
//! was interrupted and resumed, there is another head, which says where it continues. `createdAt` is the time in the
//! id, in milliseconds since 1970. `committedBy` is a time by which the server had committed the entry, at most ten
//! minutes later than the commit, and absent where it is not known. `payload` is for people and tools: what the bytes
//! look like, if anything, in payloads of up to [`SHOWN_BYTES_MAX`]; nothing reads it back.

mod read;
mod write;

#[cfg(test)]
mod tests;

use crate::model::limits::INTEGER_MAX;
use crate::model::{Entry, RemoteId, Sequence, StoreId};

pub use read::{Line, WrongLine};
pub use write::{put_complete, put_end, put_entry, put_head, put_shown};

/// The version of this format. A reader refuses any other.
pub const VERSION: u64 = 1;

/// Larger payloads are not shown as JSON, in bytes.
pub const SHOWN_BYTES_MAX: usize = 1 << 20;

/// The first line of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The store.
    pub store: StoreId,
    /// The server that it comes from.
    pub remote_id: RemoteId,
    /// Where the lines that follow begin.
    pub from: Sequence,
    /// The last sequence when the lines began: there may be more by now.
    pub head: Sequence,
    /// Which entries were selected, as the caller wrote it; empty for all of them.
    pub filter: String,
}

/// The last line of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The store.
    pub store: StoreId,
    /// How many entries there are after the last head.
    pub entries: u64,
}

/// The last line of the whole output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complete {
    /// How many stores there are.
    pub stores: u64,
    /// How many entries all of them have.
    pub entries: u64,
}

/// An entry, as a line shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineEntry {
    /// Its sequence; lines that were made elsewhere may omit it.
    pub sequence: Option<Sequence>,
    /// The entry.
    pub entry: Entry,
}

/// A number that JavaScript can hold.
fn sequence(number: u64) -> Option<Sequence> {
    (number <= INTEGER_MAX).then(|| Sequence::new(number).ok()).flatten()
}
