//! The RegistryActor: from public keys to stores, for all of this process.
//!
//! Keeps: a registry that is slow or panics delays only those who ask it; a key that was used with a store is served
//! from that store or not at all, whatever the registry says (`docs/KEYS.md`); removing a key ends its live
//! subscriptions. Leaves out: the mapping itself (`services::StoreRegistry`), the record of used keys (`storage`), and
//! how a store is reached (`stores`).

mod keys;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::FutureExt;
use tokio::time::Instant;

pub(crate) use self::keys::Keys;
use super::audit::{self, By};
use super::connections::Connections;
use super::guard::guarded;
use super::open::OpenStores;
use super::resolved::Resolved;
use super::stores::{ResolveError, Stores, unavailable};
use crate::model::seldom::Seldom;
use crate::model::{Entry, PublicKey, StoreId};
use crate::processing::{WriteError, WriteOutcome};
use crate::services::RegistryError;

/// Which store does this key have?
#[derive(Message)]
#[rtype(result = "Result<StoreId, ResolveError>")]
pub(crate) struct Resolve {
    pub(crate) key: PublicKey,
    /// What the caller's proof says about it. A key that has no store, and never had one, is assigned this one.
    pub(crate) said: Option<Said>,
}

/// The store of a key according to the proof of who the caller is.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) store: StoreId,
    /// Who the caller is, for the log.
    pub(crate) subject: Option<Box<str>>,
}

impl Said {
    /// A store that the proof names has to be the one that the key has.
    pub(crate) fn check(
        said: Option<&Self>,
        key: &PublicKey,
        store: &StoreId,
    ) -> Result<(), RegistryError> {
        match said {
            Some(said) if said.store != *store => {
                Err(RegistryError::AlreadyAssigned { key: key.clone(), store: store.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Maps a key to a store, durably. A key that was used with another store before is refused.
#[derive(Message)]
#[rtype(result = "Result<(), RegistryError>")]
pub struct Assign {
    /// The key.
    pub public_key: PublicKey,
    /// The store it gets.
    pub store_id: StoreId,
}

/// Removes the mapping of a key, durably, and ends its live subscriptions; returns the store that it had. It can be
/// assigned to that store again, and to no other before a [`Release`].
#[derive(Message)]
#[rtype(result = "Result<StoreId, RegistryError>")]
pub struct Remove {
    /// The key.
    pub public_key: PublicKey,
}

/// Forgets which store a key was used with, durably, so that it can be given another one; returns the store if the key
/// was used. To be used when no client has any data of that store left.
#[derive(Message)]
#[rtype(result = "Result<Option<StoreId>, RegistryError>")]
pub struct Release {
    /// The key.
    pub public_key: PublicKey,
}

/// Gives a key another store, durably, and ends its live subscriptions: a [`Remove`], an [`Assign`] and a [`Release`], to
/// be used when no client has any data of the first store left. While it is done the key is refused. If it is not done to
/// the end, the key is refused until it is moved again, or keeps its store.
#[derive(Message)]
#[rtype(result = "Result<(), RegistryError>")]
pub(crate) struct Move {
    pub(crate) public_key: PublicKey,
    pub(crate) to: StoreId,
}

/// Appends the server's own entries to a store: validated and broadcast like any others, but neither authorized nor
/// resolved.
#[derive(Message)]
#[rtype(result = "Result<WriteOutcome, WriteError>")]
pub struct AppendFromServer {
    /// The store; it does not have to exist yet.
    pub store_id: StoreId,
    /// Appended as one batch, all or nothing.
    pub entries: Vec<Entry>,
    /// Whether handlers and reactivity run on them; kept with the entries.
    pub run_handlers: bool,
}

/// How many keys are remembered to have lost their store.
const LOST_MAX: usize = 10_000;

/// How often at most the log says that the registry does not answer, or that a caller claims a different store from the
/// key's.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Resolves keys; takes [`Assign`], [`Remove`], [`Release`] and [`AppendFromServer`] from code in this process.
pub struct RegistryActor {
    keys: Keys,
    open: Arc<OpenStores>,
    connections: Arc<Connections>,
    resolved: Arc<Resolved>,
    lost: LostKeys,
    unanswered: Seldom,
    contradicted: Seldom,
}

/// One of the messages above, sent on behalf of somebody outside this process.
#[derive(Message)]
#[rtype(result = "M::Result")]
pub(crate) struct Change<M: Message<Result: 'static>> {
    pub(crate) by: By,
    pub(crate) message: M,
}

/// Keys that were used, and now have no store or another one: everybody was told. Their clients ask again and again.
#[derive(Default)]
struct LostKeys(HashSet<PublicKey>);

impl LostKeys {
    /// Whether this is new for `key`. If there are too many, it is not: otherwise a one-time action would be repeated
    /// again and again.
    fn add(&mut self, key: &PublicKey) -> bool {
        self.0.len() < LOST_MAX && self.0.insert(key.clone())
    }
}

impl RegistryActor {
    pub(crate) fn new(
        keys: Keys,
        open: Arc<OpenStores>,
        connections: Arc<Connections>,
        resolved: Arc<Resolved>,
    ) -> Self {
        let lost = LostKeys::default();
        let [unanswered, contradicted] = [(); 2].map(|()| Seldom::every(TOLD_EVERY));
        Self { keys, open, connections, resolved, lost, unanswered, contradicted }
    }

    /// What was said about `key` no longer counts.
    fn key_changed(&self, key: &PublicKey) {
        // This comes before the news: a session that hears of it resolves afresh.
        self.resolved.key_removed();
        self.connections.key_removed(key);
    }

    /// The application's own registry changes without notice: its answer may be the first sign that a key has lost its
    /// store. Then all subscriptions with the key end.
    fn notice(&mut self, key: &PublicKey, answer: &Result<StoreId, ResolveError>, is_used: bool) {
        let answer = match answer {
            Ok(store) => Ok(store),
            Err(ResolveError::Registry(error)) => Err(error),
            Err(ResolveError::TooMany(_) | ResolveError::Storage(_)) => return,
        };
        match answer {
            Ok(_) => {
                self.lost.0.remove(key);
            }
            Err(error @ RegistryError::Unavailable { .. }) => {
                if let Some(unsaid) = self.unanswered.next_line(Instant::now().into_std()) {
                    log::warn!(
                        "clients are refused: {error} ({unsaid} more since the last such line)"
                    );
                }
            }
            // The caller's proof names another store: that concerns nobody else.
            Err(error @ RegistryError::AlreadyAssigned { .. }) => {
                if let Some(unsaid) = self.contradicted.next_line(Instant::now().into_std()) {
                    log::info!(
                        "a client is refused because its token or answer names another store: {error} \
                         ({unsaid} more since the last such line)"
                    );
                }
            }
            Err(error) => {
                if is_used && self.lost.add(key) {
                    log::warn!("clients are refused: {error}");
                    self.key_changed(key);
                }
            }
        }
    }
}

impl Actor for RegistryActor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        let keys = self.keys.clone();
        actix::spawn(async move {
            if let Err(error) = keys.count().await {
                log::warn!("the used keys cannot be counted yet: {error}");
            }
        });
    }
}

impl Handler<Resolve> for RegistryActor {
    type Result = ResponseActFuture<Self, Result<StoreId, ResolveError>>;

    fn handle(&mut self, Resolve { key, said }: Resolve, _: &mut Context<Self>) -> Self::Result {
        let (keys, asked) = (self.keys.clone(), key.clone());
        let resolved = async move {
            let resolved = ask(keys.clone().resolve(asked.clone(), said)).await;
            let is_used = resolved.is_err() && keys.is_used(&asked).await;
            (resolved, is_used)
        };
        Box::pin(resolved.into_actor(self).map(move |(resolved, is_used), actor, _| {
            actor.notice(&key, &resolved, is_used);
            resolved
        }))
    }
}

impl Handler<Change<Assign>> for RegistryActor {
    type Result = ResponseFuture<Result<(), RegistryError>>;

    fn handle(&mut self, assign: Change<Assign>, _: &mut Context<Self>) -> Self::Result {
        let Change { by, message: Assign { public_key: key, store_id: store } } = assign;
        let keys = self.keys.clone();
        let assigned = async move {
            // If it is already so, nobody has changed anything: a configuration says it at each start.
            let is_so = keys.registry.look_up(&key).await.is_ok_and(|had| had == store);
            keys.assign(key.clone(), store.clone()).await?;
            if !is_so {
                audit::note(
                    &by,
                    format_args!("action=assign key={} store={store:?}", key.in_log()),
                );
            }
            Ok(())
        };
        ask(assigned).boxed()
    }
}

impl Handler<Change<Remove>> for RegistryActor {
    type Result = ResponseActFuture<Self, Result<StoreId, RegistryError>>;

    fn handle(&mut self, remove: Change<Remove>, _: &mut Context<Self>) -> Self::Result {
        let Change { by, message: Remove { public_key: key } } = remove;
        let removed = ask(self.keys.clone().remove(key.clone())).into_actor(self);
        Box::pin(removed.map(move |removed, actor, _| {
            removed.inspect(|store| {
                audit::note(
                    &by,
                    format_args!("action=remove key={} store={store:?}", key.in_log()),
                );
                actor.lost.add(&key);
                actor.key_changed(&key);
            })
        }))
    }
}

impl Handler<Change<Move>> for RegistryActor {
    type Result = ResponseActFuture<Self, Result<(), RegistryError>>;

    fn handle(&mut self, change: Change<Move>, _: &mut Context<Self>) -> Self::Result {
        let Change { by, message: Move { public_key: key, to } } = change;
        let moved = ask(self.keys.clone().move_key(key.clone(), to.clone())).into_actor(self);
        Box::pin(moved.map(move |moved, actor, _| {
            // Also if only a part of it was done.
            actor.lost.add(&key);
            actor.key_changed(&key);
            moved.inspect(|()| {
                audit::note(&by, format_args!("action=move key={} store={to:?}", key.in_log()));
            })
        }))
    }
}

impl Handler<Change<Release>> for RegistryActor {
    type Result = ResponseActFuture<Self, Result<Option<StoreId>, RegistryError>>;

    fn handle(&mut self, release: Change<Release>, _: &mut Context<Self>) -> Self::Result {
        let Change { by, message: Release { public_key: key } } = release;
        let released = ask(self.keys.clone().release(key.clone())).into_actor(self);
        Box::pin(released.map(move |released, actor, _| {
            released.inspect(|store| {
                if let Some(store) = store {
                    audit::note(
                        &by,
                        format_args!("action=release key={} store={store:?}", key.in_log()),
                    );
                }
                actor.key_changed(&key);
            })
        }))
    }
}

/// Messages that code in this process sends.
macro_rules! from_this_process {
    ($($message:ty => $result:ty,)*) => {$(
        impl Handler<$message> for RegistryActor {
            type Result = $result;

            fn handle(&mut self, message: $message, ctx: &mut Context<Self>) -> Self::Result {
                self.handle(Change { by: By::Process, message }, ctx)
            }
        }
    )*};
}
from_this_process! {
    Assign => ResponseFuture<Result<(), RegistryError>>,
    Remove => ResponseActFuture<Self, Result<StoreId, RegistryError>>,
    Release => ResponseActFuture<Self, Result<Option<StoreId>, RegistryError>>,
}

impl Handler<AppendFromServer> for RegistryActor {
    type Result = ResponseFuture<Result<WriteOutcome, WriteError>>;

    fn handle(&mut self, write: AppendFromServer, ctx: &mut Context<Self>) -> Self::Result {
        let stores = Stores::new(ctx.address(), self.open.clone());
        async move { stores.write(write).await }.boxed()
    }
}

/// A registry that panics counts as unavailable; it does not take the actor down with it.
async fn ask<T, E: From<RegistryError>>(
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let answer = guarded("the registry", answer).await;
    answer.unwrap_or_else(|panicked| Err(unavailable(panicked).into()))
}
