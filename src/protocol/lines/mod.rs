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
//! Keeps: what is written is read back byte for byte, whatever names and payloads are; a line is one line. Leaves out: files and
//! sockets.
//!
//! A store begins with a [`Head`] and ends with an [`End`]; a file ends with a [`Complete`]. A store that was cut and gone on with has
//! a further head, which says where. `createdAt` is what the id says, in milliseconds since 1970; `committedBy` is by when the server had
//! committed it, and at most ten minutes later than it had, absent where that is not known. `payload` is for people
//! and tools: what the bytes look like, if they look like anything, in payloads of up to [`SHOWN_BYTES_MAX`]; nothing reads it back.

mod read;
mod write;

#[cfg(test)]
mod tests;

use crate::model::limits::INTEGER_MAX;
use crate::model::{Entry, RemoteId, Sequence, StoreId};

pub use read::{Line, WrongLine};
pub use write::{put_complete, put_end, put_entry, put_head, put_shown};

/// The version of what is described here. A reader refuses another one.
pub const VERSION: u64 = 1;

/// Larger payloads are not shown as JSON, in bytes.
pub const SHOWN_BYTES_MAX: usize = 1 << 20;

/// The first line of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The store.
    pub store: StoreId,
    /// The server that it is of.
    pub remote_id: RemoteId,
    /// Where the lines that follow begin.
    pub from: Sequence,
    /// The last sequence when they began: there may be more by now.
    pub head: Sequence,
    /// What was chosen among the entries, as whoever chose wrote it; empty for all of them.
    pub filter: String,
}

/// The last line of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The store.
    pub store: StoreId,
    /// How many entries there are behind the last head.
    pub entries: u64,
}

/// The last line of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complete {
    /// How many stores there are.
    pub stores: u64,
    /// How many entries all of them have.
    pub entries: u64,
}

/// An entry, as a line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineEntry {
    /// Where it was; lines that were made elsewhere need not say.
    pub sequence: Option<Sequence>,
    /// The entry.
    pub entry: Entry,
}

/// A number that JavaScript can hold.
fn sequence(number: u64) -> Option<Sequence> {
    (number <= INTEGER_MAX).then(|| Sequence::new(number).ok()).flatten()
}
