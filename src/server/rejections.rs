//! Logs who was refused at the handshake: one line for many, because a refused client is back within a second.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::seldom::Seldom;
use crate::services::{Caller, Rejected};

/// The handshakes refused since the last line.
pub(super) struct Rejections(Seldom);

impl Default for Rejections {
    fn default() -> Self {
        Self(Seldom::every(Duration::from_secs(1)))
    }
}

impl Rejections {
    /// Logs that `caller` was refused, or counts it for the next line.
    pub(super) fn log(&self, caller: &Caller, rejected: &Rejected) {
        log::debug!("{caller:?} is not let in: {rejected}");
        let Some(unsaid) = self.0.next_line(Instant::now().into_std()) else { return };
        let address = caller.address().map_or_else(|| "?".to_owned(), |at| at.to_string());
        let path = caller.path();
        log::info!(
            connection:% = address, error = "rejected";
            "{address} is not let in at {path:?}: {rejected} ({unsaid} more since the last such line)"
        );
    }
}
