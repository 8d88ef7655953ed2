//! Writes that were allowed before keys or rights changed, and are not stored yet.
//!
//! Keeps: they are checked again in their place, so that the writes of a connection stay in order; what is not allowed any more
//! is refused, and everything else is stored; the store waits a bounded time for that. Leaves out: what is checked
//! (`permit`), and how an append is refused that was allowed too long ago (`storage`).

use std::time::Duration;

use actix::prelude::*;
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::{REOPENING, StoreActor, refuse};
use crate::actors::reply::{Reply, WriteFailure};
use crate::core::store::{Write, WriteGroup};
use crate::model::{Sequence, StoreId};
use crate::storage::{AppendError, Heard};

/// How many writes of a store are checked again at the same time.
const AT_ONCE: usize = 32;
/// How long a store waits for that. A write whose check takes longer is refused: it may be tried again.
const WAIT_MAX: Duration = Duration::from_secs(2);

const NOT_CHECKED: &str = "keys or rights have changed meanwhile, try again";

impl StoreActor {
    /// What the storage had heard of when all of the group was allowed. `None` if some of it has to be checked again.
    pub(super) fn heard_by(&self, group: &WriteGroup<Reply>) -> Option<Heard> {
        let Some(heard) = self.deps.storage.heard() else { return Some(Heard::default()) };
        let counts = |reply: &Reply| reply.permit().is_none_or(|permit| permit.heard() == heard);
        group.replies().all(counts).then_some(heard)
    }

    /// Places a group. If all of it is known, nothing is appended, and so the storage is asked whether it is still allowed. Later
    /// groups wait.
    pub(super) fn place_allowed(
        &mut self,
        group: WriteGroup<Reply>,
        known: Vec<Option<Sequence>>,
        heard: Heard,
        ctx: &mut Context<Self>,
    ) {
        if self.deps.storage.heard().is_none() || known.iter().any(Option::is_none) {
            return self.place_freely(group, &known, heard, ctx);
        }
        let (asked, generation) = (self.log.still_allowed(heard), self.generation);
        ctx.spawn(asked.into_actor(self).map(move |asked, actor, ctx| {
            let Some(group) = actor.still_due(group, generation, ctx) else { return };
            match asked {
                Ok(()) => actor.place_freely(group, &known, heard, ctx),
                Err(AppendError::Stale) => actor.core.put_back(group),
                Err(error) => actor.refuse_group(group, &error.to_string()),
            }
            actor.advance(ctx);
        }));
    }

    /// The group for which something was asked; `None` if it is refused now, or waits again.
    pub(super) fn still_due(
        &mut self,
        group: WriteGroup<Reply>,
        generation: u64,
        ctx: &mut Context<Self>,
    ) -> Option<WriteGroup<Reply>> {
        if generation != self.generation {
            refuse(group.into_replies(), &WriteFailure::Definite(REOPENING.into()));
            return None;
        }
        if self.unplaces() {
            self.core.put_back(group);
            self.unplace_if_due(ctx);
            return None;
        }
        Some(group)
    }

    /// Refuses a group that was to be placed.
    pub(super) fn refuse_group(&mut self, group: WriteGroup<Reply>, cause: &str) {
        self.core.cancel_group();
        refuse(group.into_replies(), &WriteFailure::Definite(cause.into()));
    }

    /// Checks a group again. What is still allowed waits again, before all others.
    pub(super) fn check_again(&mut self, group: WriteGroup<Reply>, ctx: &mut Context<Self>) {
        let (generation, heard) = (self.generation, self.deps.storage.heard().unwrap_or_default());
        let checked = check_all(group.into_writes(), heard, self.store().clone());
        ctx.spawn(checked.into_actor(self).map(move |(writes, refused), actor, ctx| {
            for (reply, failure) in refused {
                reply.fail(failure);
            }
            let group = WriteGroup::of(writes);
            if generation != actor.generation {
                refuse(group.into_replies(), &WriteFailure::Definite(REOPENING.into()));
                return;
            }
            actor.core.put_back(group);
            if actor.unplaces() {
                actor.unplace_if_due(ctx);
            } else {
                actor.advance(ctx);
            }
        }));
    }
}

type Refused = Vec<(Reply, WriteFailure)>;

/// Those of the writes that are still allowed, in their order, and the others.
async fn check_all(
    writes: Vec<Write<Reply>>,
    heard: Heard,
    store: StoreId,
) -> (Vec<Write<Reply>>, Refused) {
    let until = Instant::now() + WAIT_MAX;
    let checks = stream::iter(writes).map(|write| check(write, heard, until, &store));
    let mut checks = checks.buffered(AT_ONCE);
    let (mut allowed, mut refused) = (Vec::new(), Refused::new());
    while let Some(checked) = checks.next().await {
        match checked {
            Ok(write) => allowed.push(write),
            Err(failed) => refused.push(failed),
        }
    }
    (allowed, refused)
}

async fn check(
    mut write: Write<Reply>,
    heard: Heard,
    until: Instant,
    store: &StoreId,
) -> Result<Write<Reply>, (Reply, WriteFailure)> {
    let Some(permit) = write.reply.permit_mut().filter(|permit| permit.heard() != heard) else {
        return Ok(write);
    };
    let checked = tokio::time::timeout_at(until, permit.check_again(&write.batch, store)).await;
    let failure = match checked {
        Ok(Some(Ok(()))) => return Ok(write),
        Ok(Some(Err(refusal))) => WriteFailure::Refused(Box::new(refusal)),
        Ok(None) | Err(_) => WriteFailure::Definite(NOT_CHECKED.into()),
    };
    Err((write.reply, failure))
}
