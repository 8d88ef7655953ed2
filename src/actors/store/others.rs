//! A store that other servers append to as well, on the same storage.
//!
//! Keeps: what others appended is shown in its place, before anything of ours after it; a write that was overtaken is
//! placed again, in its order, and not refused; nobody is overtaken forever, because from the second time on the store
//! is locked before anything is placed. Leaves out: who appends first (`storage` decides), and a storage that only this
//! server uses: none of this runs there.

use actix::prelude::*;
use futures_util::stream;

use super::{REOPENING, StoreActor, refuse, room};
use crate::actors::reply::WriteFailure;
use crate::model::Sequence;
use crate::storage::{CaughtUp, Locked};

/// How many groups are placed under the lock once a store was overtaken: others that have just written to it will write
/// again.
const LOCKED_GROUPS: u32 = 16;

/// What a store knows about others that append to it.
#[derive(Default)]
pub(super) struct Others {
    /// How many groups are still placed under the lock.
    pub(super) locked_groups: u32,
    /// Counts how often placed groups were taken back: an answer about groups placed earlier is void.
    pub(super) attempt: u64,
    /// Placed groups are to be taken back once the ids of the next one have been looked up.
    unplaces: bool,
    /// Whether the log is catching up with others.
    pub(super) catching_up: bool,
    /// The last reported head.
    heard: Sequence,
    /// [`StoreLog::erasures`](crate::storage::StoreLog::erasures) when what is shown from memory was last dropped because of
    /// them.
    erasures: u64,
    following: Option<SpawnHandle>,
}

impl StoreActor {
    /// Follows what the log hears from others.
    pub(super) fn follow(&mut self, ctx: &mut Context<Self>) {
        if let Some(earlier) = self.others.following.take() {
            ctx.cancel_future(earlier);
        }
        let Some(heads) = self.log.follow() else { return };
        self.core.set_shared();
        let heard = stream::unfold(heads, |mut heads| async move {
            heads.changed().await.ok()?;
            let head = *heads.borrow_and_update();
            Some((head, heads))
        });
        self.others.following = Some(ctx.add_stream(heard));
    }

    /// The placed groups were not appended: they are placed again.
    pub(super) fn overtaken(&mut self, ctx: &mut Context<Self>) {
        log::debug!(store:% = self.store(); "store {}: another server was faster", self.store());
        self.others.locked_groups = LOCKED_GROUPS;
        self.take_back(ctx);
    }

    /// The placed groups were not appended, because keys or rights have changed: they are checked again.
    pub(super) fn stale(&mut self, ctx: &mut Context<Self>) {
        log::debug!(store:% = self.store(); "store {}: keys or rights have changed", self.store());
        self.take_back(ctx);
    }

    fn take_back(&mut self, ctx: &mut Context<Self>) {
        self.others.attempt += 1;
        self.others.unplaces = true;
        self.unplace_if_due(ctx);
    }

    /// Takes back what is placed, if that is due, unless the ids of a group are being looked up.
    pub(super) fn unplace_if_due(&mut self, ctx: &mut Context<Self>) {
        if self.others.unplaces && !self.core.is_placing() {
            self.others.unplaces = false;
            self.core.unplace();
            if self.others.locked_groups == 0 {
                self.go_on();
            }
            self.advance(ctx);
        }
    }

    /// Continues behind what is shown, if nothing else was appended; otherwise the next group is placed under the lock.
    fn go_on(&mut self) {
        if self.log.head() == self.feed.head() && self.log.go_on() {
            self.core.resume(self.feed.head());
            self.core.set_room(room(&self.deps, self.store(), &*self.log));
        } else {
            self.others.locked_groups = 1;
        }
    }

    /// Whether a group whose ids were looked up has to wait again.
    pub(super) const fn unplaces(&self) -> bool {
        self.others.unplaces
    }

    /// After a failure everything is refused: there is nothing to take back.
    pub(super) fn forget_others(&mut self) {
        self.others.unplaces = false;
        self.others.locked_groups = 0;
    }

    /// Places the next group under the store's lock, once nothing else is in progress.
    pub(super) fn place_locked(&mut self, ctx: &mut Context<Self>) {
        if self.core.has_placed() {
            return;
        }
        let Some(group) = self.core.take_group() else { return };
        let Some(heard) = self.heard_by(&group) else { return self.check_again(group, ctx) };
        let (generation, erasures) = (self.generation, self.log.erasures());
        let locked = self.log.lock(self.feed.head(), group.ids());
        ctx.spawn(locked.into_actor(self).map(move |locked, actor, ctx| match locked {
            _ if generation != actor.generation => {
                refuse(group.into_replies(), &WriteFailure::Definite(REOPENING.into()));
            }
            Ok(Locked { caught_up, known, append }) => {
                actor.show_others(caught_up, erasures);
                if known.iter().all(Option::is_some) {
                    // Nothing is appended: others may go on.
                    drop(append);
                    actor.place_allowed(group, known, heard, ctx);
                } else {
                    actor.place(group, &known, move |segments| append(segments, heard), ctx);
                }
                actor.advance(ctx);
            }
            Err(error) => {
                log::error!(store:% = actor.store(); "store {}: it cannot be locked: {error}", actor.store());
                actor.refuse_group(group, &error.to_string());
                actor.advance(ctx);
            }
        }));
    }

    /// Catches up with others if they are ahead, unless something is in progress: that is overtaken then, and catches
    /// up by itself.
    pub(super) fn catch_up(&mut self, ctx: &mut Context<Self>) {
        let is_behind = self.others.heard > self.feed.head();
        if !is_behind || self.others.catching_up || self.reopening || !self.core.is_idle() {
            return;
        }
        self.others.catching_up = true;
        let (generation, heard) = (self.generation, self.others.heard);
        let erasures = self.log.erasures();
        let caught_up = self.log.catch_up(self.feed.head());
        ctx.spawn(caught_up.into_actor(self).map(move |caught_up, actor, ctx| {
            actor.others.catching_up = false;
            match caught_up {
                _ if generation != actor.generation => {}
                Ok(caught_up) => actor.show_others(caught_up, erasures),
                // It will be reported again before long.
                Err(error) => {
                    log::warn!(store:% = actor.store(); "store {}: what others wrote cannot be read: {error}", actor.store());
                }
            }
            // Whatever was found: do not ask for the same head again before it is reported again.
            if actor.others.heard == heard {
                actor.others.heard = actor.feed.head();
            }
            actor.advance(ctx);
        }));
    }

    /// Shows what others appended, and continues after it. It was read after so many `erasures`: if there are more by now, it may
    /// have something that was erased.
    fn show_others(&mut self, CaughtUp { head, between }: CaughtUp, erasures: u64) {
        if head > self.feed.head() {
            if between.is_empty() || erasures != self.log.erasures() {
                self.feed.move_on(head);
            } else {
                self.feed.publish(between);
            }
            self.feed.wake();
        }
        self.core.resume(head);
        self.core.set_room(room(&self.deps, self.store(), &*self.log));
    }
}

impl StreamHandler<Sequence> for StoreActor {
    fn handle(&mut self, head: Sequence, ctx: &mut Context<Self>) {
        self.others.heard = self.others.heard.max(head);
        let erasures = self.log.erasures();
        if std::mem::replace(&mut self.others.erasures, erasures) != erasures {
            self.feed.forget();
        }
        self.catch_up(ctx);
    }

    /// Nothing is reported any more on a log that was replaced.
    fn finished(&mut self, _: &mut Context<Self>) {}
}
