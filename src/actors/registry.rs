//! The RegistryActor: from public keys to stores, for everybody in this process.
//!
//! Keeps: a registry that is slow, or panics, delays nobody who does not ask it; a key that was used with a store is served from
//! that one or not at all, whatever the registry says (`docs/KEYS.md`); a removed key ends its live subscriptions. Leaves out:
//! the mapping itself (`services::StoreRegistry`), what is noted of used keys (`storage`), and how a store is reached (`stores`).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::FutureExt;
use tokio::time::Instant;

use super::connections::Connections;
use super::guard::guarded;
use super::open::OpenStores;
use super::resolved::Resolved;
use super::stores::{Stores, unavailable};
use crate::model::{Entry, PublicKey, StoreId};
use crate::processing::{WriteError, WriteOutcome};
use crate::services::{RegistryError, StoreRegistry};
use crate::storage::{Storage, StorageError};

/// Which store does this key have?
#[derive(Message)]
#[rtype(result = "Result<StoreId, RegistryError>")]
pub(crate) struct Resolve {
    pub(crate) key: PublicKey,
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

/// Removes the mapping of a key, durably, and ends its live subscriptions; tells which store it had. It can be assigned to that
/// one again, and to no other before a [`Release`].
#[derive(Message)]
#[rtype(result = "Result<StoreId, RegistryError>")]
pub struct Remove {
    /// The key.
    pub public_key: PublicKey,
}

/// Forgets which store a key was used with, durably, so that it can be given another one; tells which it was, if it was used.
/// To be asked for when no client has anything left of that store.
#[derive(Message)]
#[rtype(result = "Result<Option<StoreId>, RegistryError>")]
pub struct Release {
    /// The key.
    pub public_key: PublicKey,
}

/// Appends entries of the server's own to a store: validated and broadcast like any others, but neither authorized nor
/// resolved.
#[derive(Message)]
#[rtype(result = "Result<WriteOutcome, WriteError>")]
pub struct AppendFromServer {
    /// The store, which need not exist before.
    pub store_id: StoreId,
    /// Appended as one batch, whole or not at all.
    pub entries: Vec<Entry>,
    /// Whether handlers and reactivity run on them; kept with the entries.
    pub run_handlers: bool,
}

/// So many keys that do not move are remembered to have been told of.
const TOLD_MAX: usize = 10_000;

/// The log hears no more often than this that the registry does not answer.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// What the log was told: clients whose key is not served ask again and again.
#[derive(Default)]
struct Told {
    moved: HashSet<PublicKey>,
    unavailable: Option<Instant>,
}

/// Resolves keys; takes [`Assign`], [`Remove`], [`Release`] and [`AppendFromServer`] from code in this process.
pub struct RegistryActor {
    keys: Keys,
    open: Arc<OpenStores>,
    connections: Arc<Connections>,
    resolved: Arc<Resolved>,
    told: Told,
}

impl RegistryActor {
    pub(crate) fn new(
        keys: Keys,
        open: Arc<OpenStores>,
        connections: Arc<Connections>,
        resolved: Arc<Resolved>,
    ) -> Self {
        Self { keys, open, connections, resolved, told: Told::default() }
    }

    /// What was said of `key` does not count any more.
    fn key_changed(&mut self, key: &PublicKey) {
        self.told.moved.remove(key);
        // First this, then the news: a session that hears of it resolves afresh.
        self.resolved.key_removed();
        self.connections.key_removed(key);
    }

    fn tell_log(&mut self, error: &RegistryError) {
        if self.told.is_news(error, Instant::now()) {
            log::warn!("a client is refused: {error}");
        }
    }
}

impl Told {
    /// Whether the log has to hear of `error`, of which the client is not told all.
    fn is_news(&mut self, error: &RegistryError, now: Instant) -> bool {
        match error {
            RegistryError::NotMapped { .. } => false,
            RegistryError::Moved { key, .. } | RegistryError::AlreadyAssigned { key, .. } => {
                if self.moved.len() >= TOLD_MAX {
                    self.moved.clear();
                }
                self.moved.insert(key.clone())
            }
            RegistryError::Unavailable { .. } => {
                let is_news = self.unavailable.is_none_or(|told| now - told >= TOLD_EVERY);
                if is_news {
                    self.unavailable = Some(now);
                }
                is_news
            }
        }
    }
}

/// What is asked about keys: the registry, and what is noted of those that were used.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) registry: Arc<dyn StoreRegistry>,
    pub(crate) storage: Arc<dyn Storage>,
}

impl Keys {
    async fn resolve(self, key: PublicKey) -> Result<StoreId, RegistryError> {
        let used = self.storage.used_keys();
        let noted = used.get(&key).map_err(|error| not_noted(&key, &error))?;
        let (store, noted) = match noted {
            // Of a key that was used nothing new is made: a registry that assigns stores by itself does not get to.
            Some(noted) => (self.registry.look_up(&key).await?, noted),
            None => {
                let store = self.registry.resolve(&key).await?;
                let noted = used.note(&key, &store).await;
                (store, noted.map_err(|error| not_noted(&key, &error))?)
            }
        };
        same_store(key, store, noted)
    }

    async fn assign(self, key: PublicKey, store: StoreId) -> Result<(), RegistryError> {
        let noted = self.storage.used_keys().get(&key);
        if let Some(noted) = noted.map_err(|error| not_noted(&key, &error))? {
            same_store(key.clone(), store.clone(), noted)?;
        }
        self.registry.assign(&key, &store).await
    }

    async fn remove(self, key: PublicKey) -> Result<StoreId, RegistryError> {
        let store = self.registry.remove(&key).await?;
        // It may have been used before uses were noted. What was noted stays, and a key that cannot be noted is removed all the same.
        if let Err(error) = self.storage.used_keys().note(&key, &store).await {
            log::warn!("public key {key:?} was removed, its store {store:?} is not noted: {error}");
        }
        Ok(store)
    }

    async fn release(self, key: PublicKey) -> Result<Option<StoreId>, RegistryError> {
        let released = self.storage.used_keys().release(&key).await;
        released.map_err(|error| not_noted(&key, &error))
    }
}

/// `store`, if that is the one that the key was used with.
fn same_store(key: PublicKey, store: StoreId, noted: StoreId) -> Result<StoreId, RegistryError> {
    if store == noted { Ok(store) } else { Err(RegistryError::Moved { key, store: noted }) }
}

fn not_noted(key: &PublicKey, error: &StorageError) -> RegistryError {
    RegistryError::unavailable(Some(key), error)
}

impl Actor for RegistryActor {
    type Context = Context<Self>;
}

impl Handler<Resolve> for RegistryActor {
    type Result = ResponseActFuture<Self, Result<StoreId, RegistryError>>;

    fn handle(&mut self, Resolve { key }: Resolve, _: &mut Context<Self>) -> Self::Result {
        let resolved = ask(self.keys.clone().resolve(key)).into_actor(self);
        Box::pin(
            resolved.map(|resolved, actor, _| resolved.inspect_err(|error| actor.tell_log(error))),
        )
    }
}

impl Handler<Assign> for RegistryActor {
    type Result = ResponseFuture<Result<(), RegistryError>>;

    fn handle(&mut self, assign: Assign, _: &mut Context<Self>) -> Self::Result {
        ask(self.keys.clone().assign(assign.public_key, assign.store_id)).boxed()
    }
}

impl Handler<Remove> for RegistryActor {
    type Result = ResponseActFuture<Self, Result<StoreId, RegistryError>>;

    fn handle(
        &mut self,
        Remove { public_key: key }: Remove,
        _: &mut Context<Self>,
    ) -> Self::Result {
        let removed = ask(self.keys.clone().remove(key.clone())).into_actor(self);
        Box::pin(removed.map(move |removed, actor, _| removed.inspect(|_| actor.key_changed(&key))))
    }
}

impl Handler<Release> for RegistryActor {
    type Result = ResponseActFuture<Self, Result<Option<StoreId>, RegistryError>>;

    fn handle(
        &mut self,
        Release { public_key: key }: Release,
        _: &mut Context<Self>,
    ) -> Self::Result {
        let released = ask(self.keys.clone().release(key.clone())).into_actor(self);
        Box::pin(
            released.map(move |released, actor, _| released.inspect(|_| actor.key_changed(&key))),
        )
    }
}

impl Handler<AppendFromServer> for RegistryActor {
    type Result = ResponseFuture<Result<WriteOutcome, WriteError>>;

    fn handle(&mut self, write: AppendFromServer, ctx: &mut Context<Self>) -> Self::Result {
        let stores = Stores::new(ctx.address(), self.open.clone());
        async move { stores.write(write).await }.boxed()
    }
}

/// A registry that panics is unavailable; it does not take the actor with it.
async fn ask<T>(
    answer: impl Future<Output = Result<T, RegistryError>>,
) -> Result<T, RegistryError> {
    guarded("the registry", answer).await.unwrap_or_else(|panicked| Err(unavailable(panicked)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{key, store};

    #[test]
    fn the_log_hears_of_a_key_once_and_of_a_registry_that_is_down_once_a_second() {
        let mut told = Told::default();
        let start = Instant::now();
        let moved = |name| RegistryError::Moved { key: key(name), store: store("team") };
        for (name, is_news) in [("alice", true), ("alice", false), ("bob", true), ("alice", false)]
        {
            assert_eq!(told.is_news(&moved(name), start), is_news, "{name}");
        }
        assert!(!told.is_news(&RegistryError::not_mapped(&key("carol")), start));
        for (millis, is_news) in
            [(0, true), (1, false), (999, false), (1_000, true), (1_999, false)]
        {
            let error = RegistryError::unavailable(None, "down");
            let now = start + Duration::from_millis(millis);
            assert_eq!(told.is_news(&error, now), is_news, "{millis}");
        }
    }
}
