//! What clients and the server append.

use bytes::Bytes;

use super::{EntryId, Sequence};

/// One event, owned: what a program builds to append it, and what it gets back from a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Chosen by the writer; a store takes each id once.
    pub id: EntryId,
    /// The event tag, never empty.
    pub event: String,
    /// What the event is about; may be empty.
    pub primary_key: String,
    /// Opaque to the server, unless a handler's codec reads it.
    pub payload: Bytes,
}

impl Entry {
    /// A borrowed view.
    pub fn as_ref(&self) -> EntryRef<'_> {
        EntryRef {
            id: self.id,
            event: &self.event,
            primary_key: &self.primary_key,
            payload: &self.payload,
        }
    }
}

/// One event, borrowed from a frame, a batch or a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// See [`Entry::id`].
    pub id: EntryId,
    /// See [`Entry::event`].
    pub event: &'a str,
    /// See [`Entry::primary_key`].
    pub primary_key: &'a str,
    /// See [`Entry::payload`].
    pub payload: &'a [u8],
}

impl EntryRef<'_> {
    /// An owned copy.
    pub fn to_entry(&self) -> Entry {
        Entry {
            id: self.id,
            event: self.event.to_owned(),
            primary_key: self.primary_key.to_owned(),
            payload: Bytes::copy_from_slice(self.payload),
        }
    }
}

/// An entry at its place in a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteEntry {
    /// Its position in the store's feed.
    pub remote_sequence: Sequence,
    /// The entry itself.
    pub entry: Entry,
}
