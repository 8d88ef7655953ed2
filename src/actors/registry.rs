//! The RegistryActor: from public keys to stores, for everybody in this process.
//!
//! Keeps: a registry that is slow, or panics, delays nobody who does not ask it; a removed key ends its live
//! subscriptions. Leaves out: the mapping itself (`services::StoreRegistry`), and how a store is reached (`stores`).

use std::sync::Arc;

use actix::prelude::*;
use futures_util::FutureExt;

use super::connections::Connections;
use super::guard::guarded;
use super::open::OpenStores;
use super::resolved::Resolved;
use super::stores::{Stores, unavailable};
use crate::model::{Entry, PublicKey, StoreId};
use crate::processing::{WriteError, WriteOutcome};
use crate::services::{RegistryError, StoreRegistry};

/// Which store does this key have?
#[derive(Message)]
#[rtype(result = "Result<StoreId, RegistryError>")]
pub(crate) struct Resolve {
    pub(crate) key: PublicKey,
}

/// Maps a key to a store, durably.
#[derive(Message)]
#[rtype(result = "Result<(), RegistryError>")]
pub struct Assign {
    /// The key.
    pub public_key: PublicKey,
    /// The store it gets.
    pub store_id: StoreId,
}

/// Removes the mapping of a key, durably, and ends its live subscriptions; tells which store it had.
#[derive(Message)]
#[rtype(result = "Result<StoreId, RegistryError>")]
pub struct Remove {
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

/// Resolves keys; takes [`Assign`], [`Remove`] and [`AppendFromServer`] from code in this process.
pub struct RegistryActor {
    pub(crate) registry: Arc<dyn StoreRegistry>,
    pub(crate) open: Arc<OpenStores>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) resolved: Arc<Resolved>,
}

impl Actor for RegistryActor {
    type Context = Context<Self>;
}

impl Handler<Resolve> for RegistryActor {
    type Result = ResponseFuture<Result<StoreId, RegistryError>>;

    fn handle(&mut self, Resolve { key }: Resolve, _: &mut Context<Self>) -> Self::Result {
        let registry = self.registry.clone();
        ask(async move { registry.resolve(&key).await }).boxed()
    }
}

impl Handler<Assign> for RegistryActor {
    type Result = ResponseFuture<Result<(), RegistryError>>;

    fn handle(&mut self, assign: Assign, _: &mut Context<Self>) -> Self::Result {
        let registry = self.registry.clone();
        ask(async move { registry.assign(&assign.public_key, &assign.store_id).await }).boxed()
    }
}

impl Handler<Remove> for RegistryActor {
    type Result = ResponseActFuture<Self, Result<StoreId, RegistryError>>;

    fn handle(&mut self, Remove { public_key }: Remove, _: &mut Context<Self>) -> Self::Result {
        let (registry, key) = (self.registry.clone(), public_key.clone());
        let removed = ask(async move { registry.remove(&key).await });
        Box::pin(removed.into_actor(self).map(move |removed, actor, _| {
            if removed.is_ok() {
                // First this, then the news: a session that hears of it resolves afresh.
                actor.resolved.key_removed();
                actor.connections.key_removed(&public_key);
            }
            removed
        }))
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
