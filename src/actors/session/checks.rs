//! What stands before a request: authorize, then resolve. Nothing else happens to it before both hold.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

use super::refusal::Refusal;
use super::shared::Shared;
use crate::actors::registry::Resolve;
use crate::actors::store::StoreHandle;
use crate::model::{Batch, PublicKey};
use crate::services::AuthError;

/// Whether `key` may append `batch`, and where. `known` is the store it resolved to before, if that still holds.
pub(crate) async fn check_write(
    shared: &Arc<Shared>,
    key: &PublicKey,
    batch: &Batch,
    known: Option<StoreHandle>,
) -> Result<StoreHandle, Refusal> {
    guarded(shared.auth.authorize_write(key, batch)).await?;
    match known {
        Some(store) => Ok(store),
        None => resolve(shared, key).await,
    }
}

/// Whether `key` may read, and where.
pub(crate) async fn check_read(
    shared: &Arc<Shared>,
    key: &PublicKey,
) -> Result<StoreHandle, Refusal> {
    guarded(shared.auth.authorize_read(key)).await?;
    resolve(shared, key).await
}

async fn resolve(shared: &Arc<Shared>, key: &PublicKey) -> Result<StoreHandle, Refusal> {
    match shared.registry.send(Resolve { key: key.clone() }).await {
        Ok(resolved) => resolved.map_err(Refusal::from),
        Err(error) => Err(Refusal::Internal(error.to_string())),
    }
}

/// An authorization that panics refuses, and takes nobody with it.
async fn guarded(
    authorization: impl Future<Output = Result<(), AuthError>>,
) -> Result<(), Refusal> {
    match AssertUnwindSafe(authorization).catch_unwind().await {
        Ok(decision) => decision.map_err(Refusal::from),
        Err(_) => {
            log::error!("authorization panicked");
            Err(Refusal::Internal("authorization failed unexpectedly".to_owned()))
        }
    }
}
