//! What a server keeps for those who look at it.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::overview::History;
use super::sse::STREAMS_MAX;

/// All of it is bounded, and in memory.
pub(super) struct Looking {
    #[cfg(feature = "console")]
    pub(super) sessions: super::console::Sessions,
    pub(super) history: History,
    /// As many as streams may be open besides.
    pub(super) streams: Arc<Semaphore>,
}

impl Default for Looking {
    fn default() -> Self {
        Self {
            #[cfg(feature = "console")]
            sessions: super::console::Sessions::default(),
            history: History::default(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }
}
