//! The limits of a server, which an administrator may change while it runs.
//!
//! Keeps: whoever takes them has limits that belong together, whatever changes meanwhile. A session takes them when it
//! begins, and again when it is told of a change. Leaves out: what keeps a part of them elsewhere (`Server::set_limits`
//! tells it).

use std::sync::Arc;

use parking_lot::RwLock;

use crate::model::Limits;

/// The limits that count now.
pub(crate) struct LiveLimits(RwLock<Arc<Limits>>);

impl LiveLimits {
    pub(crate) fn new(limits: Limits) -> Self {
        Self(RwLock::new(Arc::new(limits)))
    }

    /// The limits of this moment.
    pub(crate) fn get(&self) -> Arc<Limits> {
        self.0.read().clone()
    }

    /// Counts for whoever takes them from now on.
    pub(crate) fn set(&self, limits: Limits) {
        *self.0.write() = Arc::new(limits);
    }
}
