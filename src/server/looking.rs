//! What a server keeps in memory for observers.

use super::overview::History;
use super::sorted::Sorting;

/// All of this is bounded.
#[derive(Default)]
pub(super) struct Looking {
    #[cfg(feature = "console")]
    pub(super) sessions: super::console::Sessions,
    pub(super) history: History,
    pub(super) sorting: Sorting,
}
