//! Entries of a feed as the server sent them, in either protocol.

use crate::model::{EntryRef, Sequence};
use crate::protocol::msgpack::ChangesView;
use crate::protocol::rpc::ReceivedEntries;

/// At least one entry, validated, still in the frame it arrived in. Cheap to clone; keeps the frame alive.
#[derive(Clone, Debug)]
pub(super) enum Entries {
    Msgpack(ChangesView),
    Rpc(ReceivedEntries),
}

impl Entries {
    /// Number of entries.
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Msgpack(view) => view.len(),
            Self::Rpc(received) => received.len(),
        }
    }

    /// The sequence of the last entry, the greatest of all.
    pub(super) const fn last(&self) -> Sequence {
        match self {
            Self::Msgpack(view) => view.last(),
            Self::Rpc(received) => received.last(),
        }
    }

    /// Bytes that the entries take in the frame.
    pub(super) const fn bytes(&self) -> usize {
        match self {
            Self::Msgpack(view) => view.bytes(),
            Self::Rpc(received) => received.bytes(),
        }
    }

    /// The same entries in memory of their own.
    pub(super) fn detached(&self) -> Self {
        match self {
            Self::Msgpack(view) => Self::Msgpack(view.detached()),
            Self::Rpc(received) => Self::Rpc(received.detached()),
        }
    }

    /// The entries with their sequences, which do not descend.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Sequence, EntryRef<'_>)> {
        let (view, received) = match self {
            Self::Msgpack(view) => (Some(view.iter()), None),
            Self::Rpc(received) => (None, Some(received.iter())),
        };
        view.into_iter().flatten().chain(received.into_iter().flatten())
    }
}
