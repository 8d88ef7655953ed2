//! Sixteen-byte ids: of an entry, and of this server.

use std::fmt;

use uuid::Uuid;

/// Makes an id from its bytes, and returns them.
macro_rules! sixteen_bytes {
    ($id:ident) => {
        impl $id {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The id in `bytes`; `None` unless there are exactly 16.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Its 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// The id that a writer gives to an entry: a `UUIDv7`, compared as its 16 bytes.
///
/// Any 16 bytes are accepted; the version bits are up to the writer. The first 48 bits are read as the creation time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId([u8; 16]);

sixteen_bytes!(EntryId);

impl EntryId {
    /// Length in bytes, here and on every wire.
    pub const LEN: usize = 16;

    /// A fresh id for the current time: later calls in this process return greater ids.
    pub fn now() -> Self {
        Self(Uuid::now_v7().into_bytes())
    }

    /// Creation time in Unix milliseconds: the first 48 bits, big-endian.
    pub const fn created_at_millis(&self) -> u64 {
        let b = &self.0;
        u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]])
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Uuid::from_bytes(self.0).hyphenated(), f)
    }
}

impl std::str::FromStr for EntryId {
    type Err = uuid::Error;

    /// Reads the text form of a UUID, with or without hyphens.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(|id| Self(id.into_bytes()))
    }
}

/// Names a server, or the journal origin of one store: 16 bytes, stable across restarts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteId([u8; 16]);

sixteen_bytes!(RemoteId);

impl RemoteId {
    /// A random id, for a server that starts with an empty data directory.
    pub fn random() -> Self {
        Self(Uuid::new_v4().into_bytes())
    }
}

impl fmt::Display for RemoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creation_time_is_the_first_48_bits() {
        let id: EntryId = "018bcfe5-6800-70e1-8101-010101010101".parse().expect("a UUID");
        assert_eq!(id.created_at_millis(), 1_700_000_000_000);
        assert_eq!(id.to_string(), "018bcfe5-6800-70e1-8101-010101010101");
    }

    #[test]
    fn fresh_ids_ascend() {
        let ids: Vec<EntryId> = (0..1_000).map(|_| EntryId::now()).collect();
        assert!(ids.is_sorted());
    }
}
