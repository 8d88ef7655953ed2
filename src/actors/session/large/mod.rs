//! Large writes of a connection: too large for one batch, so they are first checked to the end, and then stored in
//! pieces.
//!
//! ```text
//!   Opening ──► Checking ──► Held ──► Reading ⇄ Again ──► Ending
//!   its turn    every piece  if a     a piece   if what    the last
//!   among all   is allowed   quota    is read,  it was     piece is
//!               and valid    is used  and sent  allowed    stored and
//!                            up                 may have   acknowledged
//!                                               changed
//! ```
//!
//! Keeps: no piece is stored before all of them were found to be allowed and valid; an entry that is too large is put
//! aside in its turn, which takes the time of a read; pieces are stored in order, at most two at a time; only a few
//! large writes of all connections have a turn at the same time, because each takes memory for a piece and for its
//! acknowledgements; a session continues with everything else meanwhile. If a connection ends, the rest of its large
//! write is lost: the client sends all of it again, and what is already stored is a duplicate.

mod check;
mod read;

use std::collections::VecDeque;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::sync::OwnedSemaphorePermit;

use self::check::{Checked, Checker, Good, check_all};
use self::read::{Read, first, next, open, put_aside, turn};
use super::Session;
use super::refusal::Refusal;
use super::wire::{Broken, LargeWrite, Names, Wire, Write};
use crate::actors::complaints::Complaint;
use crate::actors::quarantine::AsideError;
use crate::actors::spill::Counted;
use crate::actors::store::StoreHandle;
use crate::actors::trace::Trace;
use crate::protocol::rpc::large;
use crate::protocol::rpc::large::EntriesPiece;

/// How many large writes have a turn at the same time, of all connections.
pub(crate) const TURNS: usize = 2;

/// Most pieces of one large write that may be on their way to its store.
const PIECES_IN_FLIGHT_MAX: usize = 2;

type Step<T> = LocalBoxFuture<'static, Result<T, Refusal>>;

/// The large writes of a session.
pub(super) struct Larges<W: Wire> {
    waiting: VecDeque<(LargeWrite<W>, Counted)>,
    /// Boxed, because there are many sessions and few have one.
    current: Option<Box<Large<W>>>,
    /// Unanswered pieces.
    in_flight: usize,
    /// Turns that end when the socket has taken what was sent last.
    sent: Option<OwnedSemaphorePermit>,
}

/// The large write that has its turn, or is next.
struct Large<W: Wire> {
    tag: W::Large,
    stage: Stage,
    turn: Option<OwnedSemaphorePermit>,
    _memory: Counted,
}

enum Stage {
    Opening(Step<(large::LargeWrite, OwnedSemaphorePermit)>),
    Checking(Names, Step<Good>),
    /// Without a turn, until the quotas allow it and it has a turn again.
    Held(Names, Checked, large::LargeWrite, Step<OwnedSemaphorePermit>),
    Reading(Names, Checked, Step<Read>),
    /// A piece is being checked once more.
    Again(Names, Read, Step<Checked>),
    /// Nothing is left to read, since this time.
    Ending(u64),
}

impl<W: Wire> Default for Larges<W> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), current: None, in_flight: 0, sent: None }
    }
}

impl<W: Wire> Larges<W> {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.current.is_none() && self.in_flight == 0
    }

    /// What they hold in memory.
    pub(super) fn bytes(&self) -> usize {
        self.waiting.iter().map(|(large, _)| large.memory_bytes).sum()
    }

    /// The socket has taken what was sent.
    pub(super) fn drained(&mut self) {
        self.sent = None;
    }

    /// A piece was answered.
    pub(super) fn piece_answered(&mut self, is_stored: bool, now_millis: u64) {
        self.in_flight -= 1;
        if let Some(large) = &mut self.current
            && (!is_stored || matches!(large.stage, Stage::Ending(_)))
        {
            large.stage = Stage::Ending(now_millis);
        }
    }
}

impl<W: Wire> Session<W> {
    pub(super) fn take_large(&mut self, large: LargeWrite<W>) {
        let memory = Counted::new(&self.shared.write_bytes_in_flight, large.memory_bytes);
        self.larges.waiting.push_back((large, memory));
    }

    /// Advances large writes as far as possible without waiting.
    pub(super) fn advance_larges(&mut self, cx: &mut Context<'_>) {
        if let Some(large) = self.wire.poll_large(cx, &mut self.out) {
            self.take_large(large);
            cx.waker().wake_by_ref();
        }
        while let Some(mut large) = self.larges.current.take().or_else(|| self.next_large()) {
            let (stage, goes_on) = self.advance(&mut large, cx);
            match stage {
                Some(stage) => {
                    large.stage = stage;
                    self.larges.current = Some(large);
                }
                None => self.end_turn(large.turn.take(), cx),
            }
            if !goes_on {
                return;
            }
        }
    }

    /// After everything was sent: ends the turn of an answered large write.
    pub(super) fn end_large(&mut self, cx: &Context<'_>) {
        let (wire, idle) = (&self.wire, self.larges.in_flight == 0);
        let is_over = |large: &mut Box<Large<W>>| {
            idle && matches!(large.stage, Stage::Ending(_)) && wire.is_answered(&large.tag)
        };
        if let Some(large) = self.larges.current.take_if(is_over) {
            self.end_turn(large.turn, cx);
        }
    }

    /// The acknowledgements may be as large as a message: the turn ends once the socket has taken them, and then the
    /// session runs again.
    fn end_turn(&mut self, turn: Option<OwnedSemaphorePermit>, cx: &Context<'_>) {
        if turn.is_some() || !self.larges.waiting.is_empty() {
            self.larges.sent = turn;
            cx.waker().wake_by_ref();
        }
    }

    fn next_large(&mut self) -> Option<Box<Large<W>>> {
        let (LargeWrite { tag, source, .. }, memory) = self.larges.waiting.pop_front()?;
        let stage = Stage::Opening(open(self.shared.clone(), source).boxed_local());
        Some(Box::new(Large { tag, stage, turn: None, _memory: memory }))
    }

    /// One step; returns the next stage, `None` after the last one, and whether to continue at once.
    fn advance(&mut self, large: &mut Large<W>, cx: &mut Context<'_>) -> (Option<Stage>, bool) {
        let stage = std::mem::replace(&mut large.stage, Stage::Ending(self.clock.now_millis()));
        let next = match stage {
            Stage::Opening(mut step) => match step.poll_unpin(cx) {
                Poll::Pending => return (Some(Stage::Opening(step)), false),
                Poll::Ready(Ok((write, turn))) => {
                    large.turn = Some(turn);
                    let names = (&*write.public_key, &*write.store_id);
                    let names = self.wire.large_names(&large.tag, names, &mut self.out);
                    Ok(names.map(|names| self.checking(names, write)))
                }
                Poll::Ready(Err(refusal)) => Err(refusal),
            },
            Stage::Checking(names, mut step) => match step.poll_unpin(cx) {
                Poll::Pending => return (Some(Stage::Checking(names, step)), false),
                Poll::Ready(Ok(good)) => self.hold(large, names, good).map(Some),
                Poll::Ready(Err(refusal)) => Err(refusal),
            },
            Stage::Held(names, checked, write, mut step) => match step.poll_unpin(cx) {
                Poll::Pending => return (Some(Stage::Held(names, checked, write, step)), false),
                Poll::Ready(Ok(turn)) => {
                    large.turn = Some(turn);
                    Ok(Some(self.reading(names, checked, write)))
                }
                Poll::Ready(Err(refusal)) => Err(refusal),
            },
            Stage::Reading(names, checked, step) if self.is_full_of_pieces() => {
                return (Some(Stage::Reading(names, checked, step)), false);
            }
            Stage::Reading(names, checked, mut step) => match step.poll_unpin(cx) {
                Poll::Pending => return (Some(Stage::Reading(names, checked, step)), false),
                Poll::Ready(Ok(read)) if self.counts(&names, &checked) => {
                    Ok(Some(self.send_piece(&large.tag, names, checked, read)))
                }
                Poll::Ready(Ok(read)) => Ok(Some(self.again(names, read))),
                Poll::Ready(Err(refusal)) => Err(refusal),
            },
            Stage::Again(names, read, mut step) => match step.poll_unpin(cx) {
                Poll::Pending => return (Some(Stage::Again(names, read, step)), false),
                Poll::Ready(Ok(checked)) => {
                    Ok(Some(self.send_piece(&large.tag, names, checked, read)))
                }
                Poll::Ready(Err(refusal)) => Err(refusal),
            },
            Stage::Ending(since) => {
                if self.larges.in_flight == 0 && self.wire.is_answered(&large.tag) {
                    return (None, true);
                }
                return (Some(Stage::Ending(since)), false);
            }
        };
        match next {
            Ok(stage) => (stage, true),
            Err(refusal) => {
                self.log_refusal("large write refused", &refusal);
                if let Refusal::Aside(AsideError::Full { id, setting, .. }) = &refusal {
                    self.complain(&Complaint::once(format!("{id} {setting}"), refusal.to_string()));
                }
                self.wire.large_refused(&large.tag, &refusal, &mut self.out);
                (Some(Stage::Ending(self.clock.now_millis())), true)
            }
        }
    }

    /// An answer wakes the session, or the timer if all connections are full.
    fn is_full_of_pieces(&self) -> bool {
        self.larges.in_flight >= PIECES_IN_FLIGHT_MAX || self.shared.is_full(&self.limits)
    }

    fn checking(&self, names: Names, write: large::LargeWrite) -> Stage {
        let (shared, caller) = (self.shared.clone(), self.pipeline.caller().clone());
        let checks = check_all(shared, caller, names.clone(), write);
        Stage::Checking(names, checks.boxed_local())
    }

    /// Takes it from the quotas, counted by what is stored. Others may have its turn while it waits for that.
    fn hold(
        &mut self,
        large: &mut Large<W>,
        names: Names,
        Good { checked, write, bytes }: Good,
    ) -> Result<Stage, Refusal> {
        let wait = self.take_large_from_quotas(&names.key, &checked.store, bytes)?;
        if wait.is_zero() {
            return Ok(self.reading(names, checked, write));
        }
        large.turn = None;
        let shared = self.shared.clone();
        let held = async move {
            tokio::time::sleep(wait).await;
            turn(&shared).await
        };
        Ok(Stage::Held(names, checked, write, held.boxed_local()))
    }

    fn reading(&self, names: Names, checked: Checked, write: large::LargeWrite) -> Stage {
        let read = first(write, self.limits.clone());
        Stage::Reading(names, checked, read.boxed_local())
    }

    /// Whether the permissions that were found still count.
    fn counts(&self, names: &Names, checked: &Checked) -> bool {
        let same = |store: StoreHandle| store.is(&checked.store);
        self.shared.connections.access_changes() == checked.changes
            && self.known_store(names).1.is_some_and(same)
    }

    fn again(&self, names: Names, read: Read) -> Stage {
        let (shared, caller) = (self.shared.clone(), self.pipeline.caller().clone());
        let (asked_names, piece) = (names.clone(), read.1.clone());
        let check = async move {
            let checker = Checker { shared: &shared, caller: &caller, names: &asked_names };
            checker.first(&piece).await
        };
        Stage::Again(names, read, check.boxed_local())
    }

    fn send_piece(&mut self, tag: &W::Large, names: Names, checked: Checked, read: Read) -> Stage {
        if let Some(entry) = read.1.too_large.clone() {
            let (key, store) = (names.key.clone(), checked.store.feed.store().clone());
            let put = put_aside(self.shared.clone(), key, store, read, entry);
            return Stage::Reading(names, checked, put.boxed_local());
        }
        let Read(entries, EntriesPiece { batch, is_last, .. }) = read;
        let tag = self.wire.piece(tag, &batch, is_last);
        self.larges.in_flight += 1;
        let (names_of, trace) = (names.clone(), Trace::default());
        let write = Write { tag, names: names_of, batch, trace };
        self.take_piece(write, checked.store.clone(), checked.heard);
        if is_last {
            return Stage::Ending(self.clock.now_millis());
        }
        let limits = self.limits.clone();
        let read = async move { next(entries, limits).await };
        Stage::Reading(names, checked, read.boxed_local())
    }

    /// A client that does not read its feed never gets to its acknowledgement either; then it must not hold up others.
    pub(super) fn check_large(&mut self) {
        let Some(Stage::Ending(since)) = self.larges.current.as_ref().map(|large| &large.stage)
        else {
            return;
        };
        let waited = self.clock.now_millis().saturating_sub(*since);
        let is_stored = self.larges.in_flight == 0;
        if is_stored && u128::from(waited) > self.limits.stall_timeout.as_millis() {
            self.break_off(Broken {
                code: actix_http::ws::CloseCode::Policy,
                message: "a large write is stored, and cannot be acknowledged before the feed"
                    .to_owned(),
            });
        }
    }

    /// Whether a large write only waits for its acknowledgement.
    pub(super) fn is_ending_large(&self) -> bool {
        self.larges.current.as_ref().is_some_and(|large| matches!(large.stage, Stage::Ending(_)))
    }
}
