//! What stands before a request: authorize, then resolve, then validate. Nothing else happens to it before all hold.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

use super::refusal::Refusal;
use super::shared::Shared;
use crate::actors::registry::Resolve;
use crate::actors::store::StoreHandle;
use crate::core::validate::validate_entries;
use crate::model::{Batch, PublicKey};
use crate::protocol::rpc::auth::Verified;

/// Whether `key` may append `batch`, and where: to `wanted`, if the client insists. `known` is the store it resolved to
/// before, if that still holds.
pub(crate) async fn check_write(
    shared: &Arc<Shared>,
    (key, wanted): (&PublicKey, Option<&str>),
    batch: &Batch,
    known: Option<StoreHandle>,
) -> Result<StoreHandle, Refusal> {
    guarded(AUTHORIZATION, async { shared.auth.authorize_write(key, batch).await }).await?;
    let store = match known {
        Some(store) => is_wanted(store, wanted)?,
        None => is_wanted(resolve(shared, key).await?, wanted)?,
    };
    validate_entries(batch, &shared.limits)?;
    Ok(store)
}

/// Whether `key` may read, and where: from `wanted`, if the client insists.
pub(crate) async fn check_read(
    shared: &Arc<Shared>,
    (key, wanted): (&PublicKey, Option<&str>),
) -> Result<StoreHandle, Refusal> {
    guarded(AUTHORIZATION, async { shared.auth.authorize_read(key).await }).await?;
    is_wanted(resolve(shared, key).await?, wanted)
}

/// Whether a client that has proved to hold `verified`'s signing key is taken for its public key: authorized first, then
/// bound, if no other signing key is.
pub(crate) async fn check_identity(
    shared: &Arc<Shared>,
    verified: &Verified,
) -> Result<(), Refusal> {
    let (key, signing_key) = (verified.public_key(), verified.signing_public_key());
    let authorized = async { shared.auth.authorize_identity(key, signing_key).await };
    guarded(AUTHORIZATION, authorized).await?;
    guarded("the binding of keys", async { shared.identities.bind(key, signing_key).await }).await
}

/// A client gets its key's store under the store's name alone.
fn is_wanted(store: StoreHandle, wanted: Option<&str>) -> Result<StoreHandle, Refusal> {
    match wanted {
        Some(wanted) if wanted != store.feed.store().as_str() => {
            Err(Refusal::NoSuchStore { store: wanted.into() })
        }
        Some(_) | None => Ok(store),
    }
}

async fn resolve(shared: &Arc<Shared>, key: &PublicKey) -> Result<StoreHandle, Refusal> {
    match shared.registry.send(Resolve { key: key.clone() }).await {
        Ok(resolved) => resolved.map_err(Refusal::from),
        Err(error) => Err(Refusal::Internal(error.to_string())),
    }
}

const AUTHORIZATION: &str = "authorization";

/// A question that panics, be it when it is asked or on the way to its answer, is a refusal, and takes nobody with it.
async fn guarded<T, E>(what: &str, answer: impl Future<Output = Result<T, E>>) -> Result<T, Refusal>
where
    Refusal: From<E>,
{
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(answer) => answer.map_err(Refusal::from),
        Err(_) => {
            log::error!("{what} panicked");
            Err(Refusal::Internal(format!("{what} failed unexpectedly")))
        }
    }
}
