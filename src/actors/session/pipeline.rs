//! The way of a request, from the wire until it is sent to a store, has become a subscription, or is refused.
//!
//! ```text
//!   wire ──► Received ──► Checking ──► Ready ──► a write joins those that this poll sends to its store (`writes`)
//!               ▲            │ ▲         │       a subscription begins (`subscriptions`)
//!               │            └─┘         │       a key counts as proved (`wire`)
//!               │      may have to wait  │       what is refused is answered
//!               └── its key was removed, rights have changed, or its store closed, meanwhile
//! ```
//!
//! Keeps: a connection's requests are taken one after the other, so its writes reach a store in the order in which they
//! came: the next one is `Received` when the last one is done. Most complete all stages within one poll. A request is
//! moved from stage to stage; its batch is never copied. Leaves out: what is checked (`checks`), how requests are
//! encoded (`wire`).

use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::checks::{is_proved, is_still_unbound, may_be, may_read, may_write};
use super::clock::Clock;
use super::refusal::Refusal;
use super::wire::{Identify, LargeWrite, Names, Request, Subscribe, Wire, Write};
use super::{Ctx, OUT_BYTES_PER_POLL, Session};
use crate::actors::access::Allowed;
use crate::actors::resolved::{self, Found};
use crate::actors::store::{StoreHandle, WeakStoreHandle};
use crate::actors::trace::{Step, Trace};
use crate::model::PublicKey;
use crate::services::Caller;
use crate::storage::Heard;

/// Most messages that a poll takes before the thread's other connections have their turn.
const MESSAGES_PER_POLL: usize = 512;
/// The same for a connection that is not accepted yet.
const STRANGER_MESSAGES_PER_POLL: usize = 16;

/// A correct proof by a stranger counts as this many messages: its signature was checked.
const PROOF_COSTS: u64 = 5;

/// How far a request has come.
enum Stage<W: Wire> {
    /// It is decoded.
    Received(Request<W>),
    /// Its checks are in progress, and own the request.
    Checking(Checking<W>),
    /// All checks have answered.
    Ready(Checked<W>),
}

/// A request that is being checked.
struct Checking<W: Wire> {
    checks: LocalBoxFuture<'static, Checked<W>>,
    /// The size of the request.
    bytes: usize,
    /// A key was removed meanwhile, or permissions have changed: a permission no longer counts.
    void: bool,
}

/// A request with the result of its checks.
enum Checked<W: Wire> {
    Write(Write<W>, Asked, Result<StoreHandle, Refusal>),
    /// It has waited until the quotas let it continue.
    Held(Write<W>, StoreHandle, Option<Heard>),
    Subscribe(Subscribe<W>, Result<(StoreHandle, Allowed), Refusal>),
    Identify(Identify<W>, Result<(), Refusal>),
    /// Needs no checks.
    Unsubscribe(PublicKey),
    /// Has checks of its own.
    WriteLarge(LargeWrite<W>),
}

/// How the store of a write's key was found.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// When it was asked for.
    when: resolved::Asked,
    /// Whether all sessions already share it.
    remembered: bool,
    /// Whether the key's proof was checked since then: by this session, or by another one that has the same proof.
    proved: bool,
    /// What the storage had heard of before.
    pub(super) heard: Option<Heard>,
}

/// The store of a key, for as long as the registry's answer counts.
struct ResolvedKey {
    key: PublicKey,
    /// Weak, because a silent connection must not keep a closed store in memory.
    store: WeakStoreHandle,
    asked: resolved::Asked,
}

/// What a session keeps between requests.
pub(super) struct Pipeline<W: Wire> {
    caller: Caller,
    /// The request whose checks have to wait; the next one waits as well.
    waiting: Option<Checking<W>>,
    /// The key of consecutive writes, and its store.
    known: Option<ResolvedKey>,
}

impl<W: Wire> Pipeline<W> {
    pub(super) fn new(caller: Caller) -> Self {
        Self { caller, waiting: None, known: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_none()
    }

    /// The size of the waiting request.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// Who asks.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// A key was removed from the registry, or permissions have changed, whoever is concerned: checking again costs
    /// little and is rare.
    pub(super) fn check_again(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.void = true;
        }
    }

    /// A store was closed.
    pub(super) fn forget_store(&mut self) {
        self.known = None;
    }
}

impl<W: Wire> Checking<W> {
    fn new(bytes: usize, checks: impl Future<Output = Checked<W>> + 'static) -> Self {
        Self { checks: Box::pin(checks), bytes, void: false }
    }
}

impl<W: Wire> Checked<W> {
    /// A permission from outdated checks has to be checked again; a refusal stands.
    fn again(self) -> Stage<W> {
        match self {
            Self::Write(write, _, Ok(_)) | Self::Held(write, ..) => {
                Stage::Received(Request::Write(write))
            }
            Self::Subscribe(subscribe, Ok(_)) => Stage::Received(Request::Subscribe(subscribe)),
            Self::Write(_, _, Err(_))
            | Self::Subscribe(_, Err(_))
            | Self::Identify(..)
            | Self::Unsubscribe(_)
            | Self::WriteLarge(_) => Stage::Ready(self),
        }
    }
}

impl<W: Wire> Session<W> {
    /// Takes requests until one has to wait, a limit is reached, or nothing more is there.
    pub(super) fn read(&mut self, ctx: &mut Ctx<W>, cx: &mut Context<'_>) {
        let mut messages = 0;
        let messages_max =
            if self.is_stranger() { STRANGER_MESSAGES_PER_POLL } else { MESSAGES_PER_POLL };
        while !self.life.is_over() && self.out.bytes() < OUT_BYTES_PER_POLL {
            // The waiting request goes before all others, even where nothing more may be taken: the client may be
            // waiting for its answer.
            let stage = if let Some(waiting) = self.pipeline.waiting.take() {
                Stage::Checking(waiting)
            } else if self.is_full() {
                // No waker: an answer to one of the writes wakes the session, or the timer if all connections are full.
                return;
            } else {
                // What the wire still has of its last message goes before the next one, which would replace it.
                let now = self.clock.now_millis();
                let limits = &self.limits;
                let subscriptions = self.core.subscriptions_mut();
                match self.wire.next_request(limits, now, subscriptions, &mut self.out) {
                    Ok(Some(mut request)) => {
                        if let Request::Write(write) = &mut request {
                            write.trace = Trace::begin(self.received);
                            write.trace.reached(Step::Decoded);
                        }
                        Stage::Received(request)
                    }
                    // It may have more, which goes when there is space for its answers.
                    Ok(None) if self.out.bytes() >= OUT_BYTES_PER_POLL => return,
                    Ok(None) if messages == messages_max => return cx.waker().wake_by_ref(),
                    // No waker: the session continues when its next turn begins.
                    Ok(None) if self.turn.is_over() => return,
                    Ok(None) => {
                        messages += 1;
                        if self.read_message(ctx, cx) {
                            continue;
                        }
                        self.used.is_read_up();
                        return;
                    }
                    Err(broken) => return self.break_off(broken),
                }
            };
            if !self.take_through(stage, cx) {
                return;
            }
        }
    }

    /// Takes a request through its stages; `false` if it has to wait.
    fn take_through(&mut self, mut stage: Stage<W>, cx: &mut Context<'_>) -> bool {
        loop {
            stage = match stage {
                Stage::Received(request) => self.check(request),
                Stage::Checking(mut checking) => match checking.checks.poll_unpin(cx) {
                    Poll::Pending => {
                        self.pipeline.waiting = Some(checking);
                        return false;
                    }
                    Poll::Ready(checked) if checking.void => checked.again(),
                    Poll::Ready(checked) => Stage::Ready(checked),
                },
                Stage::Ready(checked) => match self.carry_out(checked) {
                    Some(stage) => stage,
                    None => return true,
                },
            }
        }
    }

    /// Starts to check whether a request is allowed.
    fn check(&mut self, request: Request<W>) -> Stage<W> {
        let (shared, caller) = (self.shared.clone(), self.pipeline.caller.clone());
        Stage::Checking(match request {
            Request::Write(write) => {
                let (asked, known) = self.known_store(&write.names);
                Checking::new(write.batch.bytes(), async move {
                    let (names, batch) = (&write.names, &write.batch);
                    let store = async {
                        if !asked.proved {
                            is_proved(&shared, names).await?;
                        }
                        let is_new = known.is_none();
                        let store = may_write(&shared, &caller, names, batch, known).await?;
                        is_still_unbound(&shared, names, is_new).await.map(|()| store)
                    };
                    let store = store.await;
                    Checked::Write(write, asked, store)
                })
            }
            Request::Subscribe(subscribe) => Checking::new(0, async move {
                let store = match is_proved(&shared, &subscribe.names).await {
                    Ok(()) => may_read(&shared, &caller, &subscribe.names).await,
                    Err(refusal) => Err(refusal),
                };
                Checked::Subscribe(subscribe, store)
            }),
            Request::Identify(identify) => Checking::new(0, async move {
                let Identify { key, signing_key, .. } = &identify;
                let outcome = may_be(&shared, &caller, key, signing_key).await;
                Checked::Identify(identify, outcome)
            }),
            Request::Unsubscribe { key } => return Stage::Ready(Checked::Unsubscribe(key)),
            Request::WriteLarge(large) => return Stage::Ready(Checked::WriteLarge(large)),
        })
    }

    /// The store of a write's key, if it was resolved before.
    pub(super) fn known_store(&self, names: &Names) -> (Asked, Option<StoreHandle>) {
        // Before the key is resolved: an answer from before a later removal must not count.
        let heard = self.shared.stores.heard();
        let resolved = &self.shared.resolved;
        let (key, now) = (&names.key, resolved.asking(Clock::now()));
        let own = self.pipeline.known.as_ref();
        let own = own.filter(|known| resolved.counts(known.asked, now) && known.key == *key);
        if let Some(known) = own
            && let Some(store) = known.store.upgrade()
        {
            let asked = Asked { when: known.asked, remembered: true, proved: true, heard };
            return (asked, Some(store));
        }
        match resolved.get(key, now) {
            Some(Found { store, asked, bound }) => {
                let proved = bound == names.proof;
                (Asked { when: asked, remembered: proved, proved, heard }, Some(store))
            }
            None => (Asked { when: now, remembered: false, proved: false, heard }, None),
        }
    }

    fn remember(&mut self, names: &Names, store: &StoreHandle, asked: Asked) {
        let (Asked { when: asked, remembered, .. }, key) = (asked, &names.key);
        let same = |known: &ResolvedKey| known.asked == asked && known.store.is(store);
        if self.pipeline.known.as_ref().is_some_and(|known| same(known) && known.key == *key) {
            return;
        }
        if !remembered {
            self.shared.resolved.remember(key, store, asked, names.proof);
        }
        // Only for a key that is written to twice in a row: with many keys, each would replace another.
        if self.writes.last_goes_to(store) {
            self.pipeline.known =
                Some(ResolvedKey { key: key.clone(), store: store.downgrade(), asked });
        }
    }

    /// Does what a request asks for, or refuses it. Returns it if it has to wait, or to be checked again.
    fn carry_out(&mut self, checked: Checked<W>) -> Option<Stage<W>> {
        match checked {
            Checked::Write(write, asked, Ok(store)) => {
                self.accepted();
                self.remember(&write.names, &store, asked);
                match self.take_from_quotas(&write.names.key, &store, write.batch.bytes()) {
                    Ok(Duration::ZERO) => self.take_write(write, store, asked.heard),
                    Ok(wait) => {
                        return Some(Stage::Checking(Checking::new(
                            write.batch.bytes(),
                            async move {
                                tokio::time::sleep(wait).await;
                                Checked::Held(write, store, asked.heard)
                            },
                        )));
                    }
                    Err(refusal) => self.refuse_write(write.tag, &refusal),
                }
            }
            Checked::Held(write, store, heard) => self.take_write(write, store, heard),
            Checked::Write(write, _, Err(refusal)) => self.refuse_write(write.tag, &refusal),
            Checked::Subscribe(subscribe, Ok((store, allowed))) => {
                self.accepted();
                let again = self.subscribe(subscribe, &store, allowed).map(Request::Subscribe);
                return again.map(Stage::Received);
            }
            Checked::Subscribe(subscribe, Err(refusal)) => {
                self.refuse_subscription(subscribe.tag, &refusal);
            }
            Checked::Identify(identify, outcome) => {
                self.lead_to_nothing(false, PROOF_COSTS);
                self.wire.identified(identify, outcome, &mut self.out);
            }
            Checked::WriteLarge(large) => self.take_large(large),
            Checked::Unsubscribe(key) => {
                if let Some(sub) = self.core.unsubscribe_key(&key) {
                    self.ended(sub);
                }
            }
        }
        None
    }
}
