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
/// A segment is closed once its records reach this size. Larger values would share sled's pages badly (items
/// above some 128 KiB become files of their own); smaller ones cost an insert each.
pub const SEGMENT_BYTES_TARGET: usize = 32 * 1_024;
/// An encoded message above this size travels in chunks of this size.
pub const CHUNK_BYTES: usize = 512_000;

/// What clients may make the server hold. Every field can be set in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest WebSocket frame, in bytes. Larger ones are refused at their header.
    pub frame_bytes_max: usize,
    /// Largest message, joined from frames or chunks, in bytes.
    pub message_bytes_max: usize,
    /// Most entries in one batch.
    pub batch_entries_max: usize,
    /// Longest event tag, in bytes.
    pub event_bytes_max: usize,
    /// Longest primary key, in bytes.
    pub primary_key_bytes_max: usize,
    /// Most unfinished chunk sets on one connection.
    pub chunk_sets_max: usize,
    /// Most bytes in unfinished chunk sets on one connection.
    pub chunk_set_bytes_max: usize,
    /// An unfinished chunk set older than this is a broken one.
    pub chunk_set_age_max: Duration,
    /// Most connections at once; further ones are refused with 503.
    pub connections_max: usize,
    /// Most subscriptions on one connection.
    pub subscriptions_max: usize,
    /// Most unanswered writes on one connection; at that number the server stops reading from it.
    pub writes_in_flight_max: usize,
    /// Most bytes in unanswered writes on one connection; above it the server stops reading from it.
    pub write_bytes_in_flight_max: usize,
    /// Most bytes in unanswered writes of all connections together.
    pub write_bytes_in_flight_total_max: usize,
    /// A connection that takes no bytes for so long, while bytes are waiting for it, is closed.
    pub stall_timeout: Duration,
    /// A store without subscribers is closed when nothing was written for so long.
    pub store_idle_timeout: Duration,
    /// Most recent entries kept in memory for the subscribers of one store, in bytes of their records.
    pub recent_bytes_max: usize,
    /// Most memory for what is kept of old history for readers of compacted feeds, of all stores together, in bytes.
    pub compaction_bytes_max: usize,
    /// A primary key with more bytes of eligible records than this is not given to a compactor's code, but sent as
    /// it is.
    pub compaction_bucket_bytes_max: usize,
}

const KIB: usize = 1_024;
const MIB: usize = 1_024 * KIB;

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: MIB,
            message_bytes_max: 16 * MIB,
            batch_entries_max: 100_000,
            event_bytes_max: KIB,
            primary_key_bytes_max: 4 * KIB,
            chunk_sets_max: 8,
            chunk_set_bytes_max: 32 * MIB,
            chunk_set_age_max: Duration::from_secs(10),
            connections_max: 25_000,
            subscriptions_max: 64,
            writes_in_flight_max: 4_096,
            write_bytes_in_flight_max: 32 * MIB,
            write_bytes_in_flight_total_max: 512 * MIB,
            stall_timeout: Duration::from_secs(30),
            store_idle_timeout: Duration::from_secs(60),
            recent_bytes_max: MIB,
            compaction_bytes_max: 128 * MIB,
            compaction_bucket_bytes_max: 16 * MIB,
        }
    }
}
