//! What a client's write was allowed with, so that it can be checked again before it is stored.
//!
//! Keeps: a write that waits while its key is removed or moved, or somebody is revoked, at any server on the same storage, is
//! stored only if all its checks pass again. Leaves out: when that is due (`store::stale`), and storages of only one
//! server: their writes have none of this.

use std::sync::Arc;

use tokio::time::Instant;

use super::session::checks::{is_allowed, is_proved, is_still_unbound};
use super::session::refusal::Refusal;
use super::session::shared::Shared;
use super::session::wire::Names;
use crate::actors::resolved::Found;
use crate::model::{Batch, StoreId};
use crate::services::Caller;
use crate::storage::Heard;

/// How often a write is checked again. A store must not wait for ever if keys change all the time.
const AGAIN_MAX: u32 = 8;

/// See the module's description.
pub(crate) struct Permit {
    heard: Heard,
    again: u32,
    shared: Arc<Shared>,
    caller: Caller,
    names: Names,
}

impl Permit {
    /// The permit of a write with these names, which was checked since the storage had `heard` of the last change.
    pub(crate) fn new(heard: Heard, shared: Arc<Shared>, caller: Caller, names: Names) -> Self {
        Self { heard, again: 0, shared, caller, names }
    }

    /// What the storage had heard of when the write was allowed.
    pub(crate) const fn heard(&self) -> Heard {
        self.heard
    }

    /// Checks once more whether `batch` may be written to `store`. `None` if that was done too often.
    pub(crate) async fn check_again(
        &mut self,
        batch: &Batch,
        store: &StoreId,
    ) -> Option<Result<(), Refusal>> {
        self.again += 1;
        if self.again > AGAIN_MAX {
            return None;
        }
        let checked = self.check(batch, store).await;
        Some(checked.map(|heard| self.heard = heard))
    }

    async fn check(&self, batch: &Batch, store: &StoreId) -> Result<Heard, Refusal> {
        let Self { shared, caller, names, .. } = self;
        // Before anything is asked: an answer from before a later change must not count.
        let heard = shared.stores.heard().unwrap_or_default();
        let asked = shared.resolved.asking(Instant::now().into_std());
        let found = shared.resolved.get(&names.key, asked);
        let is_proof_known = |found: &Found<_>| found.bound == names.proof;
        if !found.as_ref().is_some_and(is_proof_known) {
            is_proved(shared, names).await?;
        }
        let known = found.map(|found| found.store);
        let is_new = known.is_none();
        let found = is_allowed(shared, caller, names, batch, known).await?;
        is_still_unbound(shared, names, is_new).await?;
        if is_new {
            shared.resolved.remember(&names.key, &found, asked, names.proof);
        }
        if found.feed.store() == store { Ok(heard) } else { Err(Refusal::KeyRemoved) }
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit").field("heard", &self.heard).finish_non_exhaustive()
    }
}
