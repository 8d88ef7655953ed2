//! Every bound on what clients can make the server hold, with unit and default.

use std::time::Duration;

/// The greatest integer that JavaScript holds exactly, 2^53-1: no sequence, count or length of a protocol is above it.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;
/// Longest store id.
pub const STORE_ID_BYTES_MAX: usize = 256;
/// Longest public key.
pub const PUBLIC_KEY_BYTES_MAX: usize = 1_024;
/// Longest path, query and headers of a WebSocket's handshake, together: they are kept as long as the connection lives.
pub const HANDSHAKE_BYTES_MAX: usize = 16 * 1_024;
/// A segment is closed once its records reach this size. Whoever reads one entry reads its segment, so larger ones cost
/// readers of few entries; smaller ones cost storage a value each.
pub const SEGMENT_BYTES_TARGET: usize = 32 * 1_024;
/// An encoded message above this size travels in chunks of this size.
pub const CHUNK_BYTES: usize = 512_000;

/// Gives every limit to the macro `$with`: its documentation, name, kind and default, the least that works, and why not
/// less. All that is said about limits anywhere else is made of this.
#[doc(hidden)]
#[macro_export]
macro_rules! with_limits {
    ($with:ident) => {
        $with! {
            /// Largest WebSocket frame, in bytes. Larger ones are refused at their header.
            frame_bytes_max: Size = MIB,
                least $crate::model::limits::CHUNK_BYTES + 1_024,
                "clients send chunks of 512000 bytes, which would not fit; 513024 is the least";
            /// Largest message, joined from frames or chunks, in bytes.
            message_bytes_max: Size = 16 * MIB,
                least $crate::model::limits::CHUNK_BYTES + 1_024,
                "a single chunk would be too large; 513024 is the least";
            /// Largest entry, in bytes of its id, event tag, primary key and payload; never more than `message_bytes_max`, which is the
            /// default. A larger one at `/rpc` goes into quarantine, elsewhere its batch is refused.
            entry_bytes_max: Size = usize::MAX, least 1;
            /// Most bytes of entries in quarantine, of all keys together. Each counts as 64 KiB at least.
            quarantine_bytes_max: Size = 1_024 * MIB;
            /// Most bytes of entries in quarantine, of one public key.
            quarantine_key_bytes_max: Size = 256 * MIB;
            /// Most entries in one batch.
            batch_entries_max: Count = 100_000, least 1;
            /// Entries of a write at `/rpc` may refer to texts of entries before them. With these written out a write takes at most so
            /// many times the bytes that it has, and twice `message_bytes_max`; else it is refused.
            write_expansion_max: Count = 16, least 1;
            /// Longest event tag, in bytes: as long as a message, since a client that wrote a longer one would be refused for ever.
            event_bytes_max: Size = 16 * MIB, least 1;
            /// Longest primary key, in bytes: as long as a message, as with event tags.
            primary_key_bytes_max: Size = 16 * MIB, least 1;
            /// Most unfinished chunk sets on one connection.
            chunk_sets_max: Count = 8, least 1;
            /// Most bytes in unfinished chunk sets on one connection.
            chunk_set_bytes_max: Size = 32 * MIB;
            /// Over so long it is looked at whether a connection brings enough while a chunk set of its is unfinished: in memory
            /// `unfinished_rate_min`, on disk `spill_rate_min`. If not, the set is a broken one.
            chunk_set_age_max: Span = Duration::from_secs(10), least 1;
            /// So many bytes a second a connection has to bring while a set of its is unfinished on disk; what is slower loses its
            /// room and is closed.
            spill_rate_min: Size = 16 * KIB, least 1;
            /// For so long a set may be unfinished on disk, however fast it is.
            spill_age_max: Span = Duration::from_secs(4 * 3_600), least 1;
            /// Most bytes of messages, frames, chunk sets and handshakes that are not complete, of all connections together.
            /// One connection can always send what it may hold by itself: if this is less than that and a quarter,
            /// so much is the bound. Over it connections are not read from, and have their turn one after the other.
            unfinished_bytes_total_max: Size = 64 * MIB, least 1_024 * 1_024, "1MiB is the least";
            /// So many bytes a second a connection has to send of what it has begun; while others wait for room,
            /// and it holds much, 64 times as many, and 512 times before its first accepted request.
            unfinished_rate_min: Size = KIB, least 1;
            /// Over so long that is looked at.
            unfinished_grace: Span = Duration::from_secs(10), least 1;
            /// Most connections at once; further ones are refused with 503.
            connections_max: Count = 25_000, least 1;
            /// Most connections that were not accepted yet: of which no key was authorized and has a store. For one more, the one
            /// that has been there longest goes, of the address that has most of them.
            strangers_max: Count = 2_000, least 1;
            /// A connection whose request is not there after so long is closed.
            handshake_timeout: Span = Duration::from_secs(5), least 1;
            /// Most subscriptions on one connection.
            subscriptions_max: Count = 64, least 1;
            /// Most unanswered writes on one connection; at that number the server stops reading from it.
            writes_in_flight_max: Count = 4_096, least 1;
            /// Most bytes in unanswered writes on one connection; above it the server stops reading from it.
            write_bytes_in_flight_max: Size = 32 * MIB, least 1;
            /// Most bytes in unanswered writes of all connections together.
            write_bytes_in_flight_total_max: Size = 512 * MIB, least 1;
            /// Most public keys that clients have used, over all time; then no new one is given a store at its first use.
            keys_max: Count = 1_000_000, least 1;
            /// Most signing keys that are bound, over all time; then none is bound at its first use.
            identities_max: Count = 1_000_000, least 1;
            /// Most public keys that are given a store at their first use in a minute, and most signing keys that are bound at theirs:
            /// as many as there may be connections.
            newcomers_per_minute: Count = 25_000, least 1;
            /// A connection that takes no bytes for so long, while bytes are waiting for it, is closed.
            stall_timeout: Span = Duration::from_secs(30), least 1;
            /// A session that has sent nothing for so long sends a ping, so that no proxy takes its connection for idle. Zero: none.
            ping_interval: Span = Duration::from_secs(10);
            /// A connection that is no WebSocket may be silent for so long between two requests. Zero: it is closed behind each.
            keep_alive: Span = Duration::from_secs(5);
            /// A store without subscribers is closed when nothing was written for so long.
            store_idle_timeout: Span = Duration::from_secs(60);
            /// For so long an answer of the registry counts for writes; then it is asked again. A mapping that changes in the
            /// registry alone, without a word to the server, counts after this time at the latest.
            registry_answer_age_max: Span = Duration::from_secs(10);
            /// Most recent entries kept in memory for the subscribers of one store, in bytes of their records.
            recent_bytes_max: Size = MIB;
            /// Most memory for what is kept of old history for readers of compacted feeds, of all stores together, in bytes.
            compaction_bytes_max: Size = 128 * MIB;
            /// A primary key with more bytes of eligible records than this is not given to a compactor's code, but sent as
            /// it is.
            compaction_bucket_bytes_max: Size = 16 * MIB;
        }
    };
}

/// Bytes.
type Size = usize;
type Count = usize;
type Span = Duration;

const KIB: usize = 1_024;
const MIB: usize = 1_024 * KIB;

macro_rules! declare {
    ($($(#[$doc:meta])* $name:ident: $kind:ident = $default:expr $(, least $($least:expr),*)?;)*) => {
        /// What clients may make the server hold. Every field can be set in the configuration.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            $($(#[$doc])* #[doc = concat!("\n\nDefault: `", stringify!($default), "`.")] pub $name: $kind,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }
    };
}
with_limits!(declare);

impl Limits {
    /// The largest entry that is stored, in bytes of its record.
    pub fn entry_bytes(&self) -> usize {
        self.entry_bytes_max.min(self.message_bytes_max)
    }
}
