//! No traces: everything here compiles to nothing.

use super::Step;
use crate::model::{Sequence, StoreId};
use crate::storage::StoreLog;

/// When something began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment(());

impl Moment {
    pub(crate) const fn now() -> Self {
        Self(())
    }
}

/// The trace of a write, which is always empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(());

#[allow(clippy::unused_self, reason = "traces that exist have the same methods")]
impl Trace {
    pub(crate) const fn begin(_: Moment) -> Self {
        Self(())
    }

    pub(crate) const fn is_traced(&self) -> bool {
        false
    }

    pub(crate) const fn about(&self, _: &StoreId, _: (usize, usize)) {}

    pub(crate) const fn reached(&self, _: Step) {}
}

/// The writes with these traces are durable, up to this entry of the log.
pub(crate) const fn committed(_: &[Trace], _: &dyn StoreLog, _: Option<Sequence>) {}
