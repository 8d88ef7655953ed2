//! Every bound on what clients can make the server hold, with unit and default.

use std::time::Duration;

/// The greatest integer that JavaScript holds exactly, 2^53-1: no sequence, count or length in a protocol exceeds it.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;
/// Longest store id.
pub const STORE_ID_BYTES_MAX: usize = 256;
/// Longest public key.
pub const PUBLIC_KEY_BYTES_MAX: usize = 1_024;
/// Longest path, query and headers of a WebSocket handshake, together: they are kept for as long as the connection
/// lives.
pub const HANDSHAKE_BYTES_MAX: usize = 16 * 1_024;
/// A segment is closed once its records reach this size. Reading one entry means reading its segment, so larger
/// segments cost readers of few entries; smaller ones cost storage one value each.
pub const SEGMENT_BYTES_TARGET: usize = 32 * 1_024;
/// An encoded message above this size is sent in chunks of this size.
pub const CHUNK_BYTES: usize = 512_000;

/// Passes every limit to the macro `$with`: its documentation, name, kind and default, the least that works, and why
/// not less. Everything that is said about limits elsewhere is generated from this.
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
            /// Largest entry, in bytes of its id, event tag, primary key and payload; never more than
            /// `message_bytes_max`, which is the default. At `/rpc` a larger entry goes into quarantine; elsewhere its
            /// batch is refused.
            entry_bytes_max: Size = usize::MAX, least 1;
            /// Most bytes of entries in quarantine, of all keys together. Each counts as at least 64 KiB.
            quarantine_bytes_max: Size = 1_024 * MIB;
            /// Most bytes of entries in quarantine, of one public key.
            quarantine_key_bytes_max: Size = 256 * MIB;
            /// Most entries in one batch.
            batch_entries_max: Count = 100_000, least 1;
            /// Entries of a write at `/rpc` may refer to texts of earlier entries. With these written out, a write may
            /// take at most this many times its own bytes, plus twice `message_bytes_max`; otherwise it is refused.
            write_expansion_max: Count = 16, least 1;
            /// Longest event tag, in bytes: as long as a message, because a client that wrote a longer one would be
            /// refused forever.
            event_bytes_max: Size = 16 * MIB, least 1;
            /// Longest primary key, in bytes: as long as a message, as with event tags.
            primary_key_bytes_max: Size = 16 * MIB, least 1;
            /// Most unfinished chunk sets on one connection.
            chunk_sets_max: Count = 8, least 1;
            /// Most bytes in unfinished chunk sets on one connection.
            chunk_set_bytes_max: Size = 32 * MIB;
            /// While a connection has an unfinished chunk set, this is the period over which its rate is checked: in
            /// memory against `unfinished_rate_min`, on disk against `spill_rate_min`. If it is too slow, the set
            /// counts as broken.
            chunk_set_age_max: Span = Duration::from_secs(10), least 1;
            /// The bytes a second that a connection has to send while it has an unfinished set on disk; a slower one
            /// loses its space and is closed.
            spill_rate_min: Size = 16 * KIB, least 1;
            /// How long a set may be unfinished on disk, however fast it arrives.
            spill_age_max: Span = Duration::from_secs(4 * 3_600), least 1;
            /// Most bytes of incomplete messages, frames, chunk sets and handshakes, of all connections together. One
            /// connection can always send what it may hold by itself: if this limit is less than 1.25 times that, 1.25
            /// times that is the limit. Above the limit, connections are not read from and take turns.
            unfinished_bytes_total_max: Size = 64 * MIB, least 1_024 * 1_024, "1MiB is the least";
            /// The bytes a second that a connection has to send of what it has begun. While others wait for space and
            /// it holds a lot, the rate is 64 times as high, and 512 times before its first accepted request.
            unfinished_rate_min: Size = KIB, least 1;
            /// The period over which that rate is checked.
            unfinished_grace: Span = Duration::from_secs(10), least 1;
            /// Most connections at once; further ones are refused with 503.
            connections_max: Count = 25_000, least 1;
            /// Most connections that are not accepted yet: those without a key that is authorized and has a store. When
            /// one more arrives, the oldest one goes, from the address that has the most of them.
            strangers_max: Count = 2_000, least 1;
            /// Most connections over HTTP that have shown an admin token. When one more does, the one that has been idle
            /// for longest goes, from the address that has the most of them.
            admin_connections_max: Count = 1_000, least 1;
            /// A connection whose request has not arrived after this long is closed.
            handshake_timeout: Span = Duration::from_secs(5), least 1;
            /// Most subscriptions on one connection.
            subscriptions_max: Count = 64, least 1;
            /// Most unanswered writes on one connection; at that number the server stops reading from it.
            writes_in_flight_max: Count = 4_096, least 1;
            /// Most bytes in unanswered writes on one connection; above it the server stops reading from it.
            write_bytes_in_flight_max: Size = 32 * MIB, least 1;
            /// Most bytes in unanswered writes of all connections together.
            write_bytes_in_flight_total_max: Size = 512 * MIB, least 1;
            /// Most public keys that clients have ever used; after that, no new key gets a store at its first use.
            keys_max: Count = 1_000_000, least 1;
            /// Most signing keys that are bound, ever; after that, none is bound at its first use.
            identities_max: Count = 1_000_000, least 1;
            /// Most public keys that get a store at their first use in a minute, and most signing keys that are bound
            /// at theirs: as many as there may be connections.
            newcomers_per_minute: Count = 25_000, least 1;
            /// A connection that takes no bytes for this long, while bytes are waiting for it, is closed.
            stall_timeout: Span = Duration::from_secs(30), least 1;
            /// A session that has sent nothing for this long sends a ping, so that no proxy considers its connection
            /// idle. Zero: none.
            ping_interval: Span = Duration::from_secs(10);
            /// How long a connection that is not a WebSocket may be silent between two requests. Zero: it is closed
            /// after each.
            keep_alive: Span = Duration::from_secs(5);
            /// A store without subscribers is closed when nothing has been written for this long.
            store_idle_timeout: Span = Duration::from_secs(60);
            /// How long an answer of the registry counts for writes; then it is asked again. A mapping that changes
            /// only in the registry, without the server being told, takes effect after this time at the latest.
            registry_answer_age_max: Span = Duration::from_secs(10);
            /// Most recent entries kept in memory for the subscribers of one store, in bytes of their records.
            recent_bytes_max: Size = MIB;
            /// Most memory for old history that is kept for readers of compacted feeds, of all stores together, in
            /// bytes.
            compaction_bytes_max: Size = 128 * MIB;
            /// A primary key with more bytes of eligible records than this is not given to a compactor's code but sent
            /// as it is.
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
