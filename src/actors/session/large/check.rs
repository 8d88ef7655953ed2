//! Whether all of a large write may be stored.

use std::sync::Arc;

use super::read::{Read, begin, next};
use crate::actors::session::Clock;
use crate::actors::session::checks::{is_allowed, is_proved, is_still_unbound, may_write};
use crate::actors::session::refusal::Refusal;
use crate::actors::session::shared::Shared;
use crate::actors::session::wire::Names;
use crate::actors::store::StoreHandle;
use crate::core::validate::{EntryFault, InvalidBatch};
use crate::protocol::rpc::BatchFault;
use crate::protocol::rpc::large::{EntriesPiece, LargeEntry, LargeError, LargeWrite};
use crate::services::Caller;
use crate::storage::Heard;

/// A write that may be stored.
pub(super) struct Good {
    pub(super) checked: Checked,
    pub(super) write: LargeWrite,
    /// The bytes of its records, written out.
    pub(super) bytes: u64,
}

/// Where the write goes, and how often permissions had changed when that was checked.
pub(super) struct Checked {
    pub(super) store: StoreHandle,
    pub(super) changes: u64,
    /// What the storage had heard of then.
    pub(super) heard: Option<Heard>,
}

/// Whether all pieces may be stored, and where.
pub(super) async fn check_all(
    shared: Arc<Shared>,
    caller: Caller,
    names: Names,
    write: LargeWrite,
) -> Result<Good, Refusal> {
    let (write, Read(mut entries, mut piece)) = begin(write, shared.limits.get()).await?;
    let checker = Checker { shared: &shared, caller: &caller, names: &names };
    let checked = checker.first(&piece).await?;
    let mut aside = checker.has_room(&checked.store, piece.too_large.as_ref(), 0)?;
    while !piece.is_last {
        Read(entries, piece) = next(entries, shared.limits.get()).await?;
        checker.in_time(checker.allowed(&piece, Some(checked.store.clone()))).await?;
        aside = checker.has_room(&checked.store, piece.too_large.as_ref(), aside)?;
    }
    Ok(Good { checked, write, bytes: piece.bytes_so_far })
}

pub(super) struct Checker<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) caller: &'a Caller,
    pub(super) names: &'a Names,
}

impl Checker<'_> {
    /// Whether the key may write these, and where.
    pub(super) async fn first(&self, piece: &EntriesPiece) -> Result<Checked, Refusal> {
        let Self { shared, names, .. } = self;
        // Read before asking: answers from before a later change must not count.
        let (heard, changes) = (shared.stores.heard(), shared.connections.access_changes());
        let asked = shared.resolved.asking(Clock::now());
        let store = self.in_time(async {
            is_proved(shared, names).await?;
            let store = self.allowed(piece, None).await?;
            is_still_unbound(shared, names, true).await.map(|()| store)
        });
        let store = store.await?;
        shared.resolved.remember(&names.key, &store, asked, names.proof);
        Ok(Checked { store, changes, heard })
    }

    /// Whether the key may write these, and they can be stored or put aside.
    async fn allowed(
        &self,
        piece: &EntriesPiece,
        known: Option<StoreHandle>,
    ) -> Result<StoreHandle, Refusal> {
        let Self { shared, caller, names } = self;
        let EntriesPiece { batch, too_large, .. } = piece;
        match too_large {
            None => may_write(shared, caller, names, batch, known).await,
            Some(entry) if entry.lengths()[0] == 0 => {
                let (slot, id, fault) = (entry.slot, entry.id, EntryFault::EventEmpty);
                Err(InvalidBatch::Entry { slot, id, fault }.into())
            }
            Some(_) => is_allowed(shared, caller, names, batch, known).await,
        }
    }

    /// Whether an entry that is too large can be put aside, together with what those `before` it count; returns the new
    /// total.
    fn has_room(
        &self,
        store: &StoreHandle,
        entry: Option<&LargeEntry>,
        before: u64,
    ) -> Result<u64, Refusal> {
        let Self { shared, names, .. } = self;
        let Some(entry) = entry else { return Ok(before) };
        let Some(aside) = &shared.aside else {
            let (slot, bytes_max) = (entry.slot, shared.limits.get().entry_bytes());
            let fault = BatchFault::EntryTooLarge { slot, bytes: entry.bytes(), bytes_max };
            return Err(LargeError::from(fault).into());
        };
        Ok(aside.check(&names.key, store.feed.store(), entry, before)?)
    }

    /// Others wait for the turn: the code that is asked must not keep it forever.
    async fn in_time<T>(
        &self,
        asked: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        match tokio::time::timeout(self.shared.limits.get().stall_timeout, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                Err(Refusal::Internal("the authorization of a large write took too long".into()))
            }
        }
    }
}
