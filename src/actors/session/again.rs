//! Checks lasting permissions again: a subscription, when answers of `Auth` may have changed, or when its answer
//! expires.
//!
//! Keeps: the session does not wait for the answer, and continues meanwhile; whoever is refused then gets the refusal
//! that a new request would get. If answers change while a question is in progress, it is followed by another one, so
//! that a slow `Auth` is asked one thing at a time. Leaves out: when answers change (`Connections`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use actix_http::ws::CloseCode;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::time::Sleep;

use super::checks::may_go_on_reading;
use super::clock::Clock;
use super::refusal::Refusal;
use super::shared::Shared;
use super::wire::{Names, Wire};
use super::{Life, Session};
use crate::actors::access::Allowed;
use crate::model::StoreId;
use crate::services::Caller;

/// What a session keeps for asking again.
#[derive(Default)]
pub(super) struct Again {
    /// The number of changes that were handled.
    changes: u64,
    /// A question is in progress, or due.
    is_due: bool,
    /// The earliest expiry may have changed.
    ends_changed: bool,
    /// The earliest expiry.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Again {
    /// A subscription began with this answer.
    pub(super) fn begun(&mut self, allowed: Allowed) {
        self.ends_changed |= allowed.until().is_some();
    }

    /// Whether the earliest expiry has come. Wakes the task then.
    fn has_ended(&mut self, cx: &mut Context<'_>) -> bool {
        let ended = |timer: &mut Pin<Box<Sleep>>| timer.as_mut().poll(cx).is_ready();
        self.timer.take_if(ended).is_some()
    }
}

/// The permission of a subscription, and what is needed to check it again.
pub(super) struct Access {
    names: Names,
    allowed: Allowed,
    asking: Option<LocalBoxFuture<'static, Result<Allowed, Refusal>>>,
}

impl Access {
    pub(super) fn new(names: Names, allowed: Allowed) -> Self {
        Self { names, allowed, asking: None }
    }

    /// Asks if the answer does not count after this many `changes`; ready once there is one that does.
    fn poll(
        &mut self,
        (shared, caller, store): (&Arc<Shared>, &Caller, &StoreId),
        changes: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Refusal>> {
        loop {
            if let Some(asking) = &mut self.asking {
                let answer = ready!(asking.poll_unpin(cx));
                self.asking = None;
                self.allowed = answer?;
            }
            if self.allowed.counts(changes, Clock::now()) {
                return Poll::Ready(Ok(()));
            }
            let (shared, caller) = (shared.clone(), caller.clone());
            let (names, store) = (self.names.clone(), store.clone());
            let asking = async move { may_go_on_reading(&shared, &caller, &names, &store).await };
            self.asking = Some(Box::pin(asking));
        }
    }
}

impl<W: Wire> Session<W> {
    /// Checks again the subscriptions whose answers no longer count, and ends those that are refused.
    pub(super) fn ask_again(&mut self, cx: &mut Context<'_>) {
        let again = &mut self.again;
        let changes = self.shared.connections.access_changes();
        if changes != again.changes {
            again.changes = changes;
            again.is_due = true;
            self.limits = self.shared.limits.get();
            self.pipeline.check_again();
            if let Err(revoked) = self.shared.revocations.check_caller(self.pipeline.caller()) {
                return self.finish_revoked(&revoked.into());
            }
        }
        if !again.has_ended(cx) && !again.is_due {
            return;
        }
        again.is_due = false;
        again.ends_changed = true;
        let mut refused = Vec::new();
        for sub in self.core.subscriptions_mut() {
            let (id, store) = (sub.id(), sub.store().clone());
            let of = (&self.shared, self.pipeline.caller(), &store);
            // Whatever is in progress: a revocation takes effect without an answer.
            if let Err(revoked) = self.shared.revocations.check_key(sub.key()) {
                refused.push((id, revoked.into()));
                continue;
            }
            match sub.delivery.access.poll(of, changes, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(refusal)) => refused.push((id, refusal)),
                Poll::Pending => again.is_due = true,
            }
        }
        for (id, refusal) in refused {
            if let Some(sub) = self.core.unsubscribe(id) {
                self.end_subscription(sub, &refusal);
            }
        }
    }

    /// The caller is revoked: nothing further is read or sent, and what is in progress is answered.
    fn finish_revoked(&mut self, refusal: &Refusal) {
        while let Some(sub) = self.core.subscriptions().first() {
            let id = sub.id();
            let Some(sub) = self.core.unsubscribe(id) else { break };
            self.end_subscription(sub, refusal);
        }
        self.life = Life::Finishing(CloseCode::Policy, refusal.told());
    }

    /// Makes the session run when the next answer expires.
    pub(super) fn wait_for_ends(&mut self, cx: &mut Context<'_>) {
        if !std::mem::take(&mut self.again.ends_changed) {
            return;
        }
        let subscriptions = self.core.subscriptions().iter();
        // For one that is being checked, its answer matters, not the expiry.
        let settled =
            subscriptions.map(|sub| &sub.delivery.access).filter(|at| at.asking.is_none());
        let next: Option<Instant> = settled.filter_map(|access| access.allowed.until()).min();
        self.again.timer = next.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
        if self.again.has_ended(cx) {
            self.again.is_due = true;
            cx.waker().wake_by_ref();
        }
    }
}
