//! Counters of the processing, for metrics.

use std::sync::atomic::AtomicU64;

/// How entries fared since the server started. Every processed entry counts once, in one of them.
#[derive(Debug, Default)]
pub struct ProcessingStats {
    /// A handler succeeded.
    pub handled: AtomicU64,
    /// A handler gave an error back.
    pub failed: AtomicU64,
    /// A handler panicked.
    pub panicked: AtomicU64,
    /// The payload did not decode.
    pub undecodable: AtomicU64,
    /// No handler has the event.
    pub unhandled: AtomicU64,
    /// Written not to run handlers.
    pub skipped: AtomicU64,
}
