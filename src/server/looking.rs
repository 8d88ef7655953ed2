//! What a server keeps for those who look at it.

use super::overview::History;

/// All of it is bounded, and in memory.
#[derive(Default)]
pub(super) struct Looking {
    #[cfg(feature = "console")]
    pub(super) sessions: super::console::Sessions,
    pub(super) history: History,
}
