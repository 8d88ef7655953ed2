//! The checks before a request: revocations, authorization, resolving, validation. Nothing else happens to it before
//! all of them pass.

use std::sync::Arc;

use super::clock::Clock;
use super::refusal::Refusal;
use super::shared::Shared;
use super::wire::Names;
use crate::actors::access::Allowed;
use crate::actors::complaints::not_pinned;
use crate::actors::guard::guarded;
use crate::actors::newcomers::Entered;
use crate::actors::registry::Said;
use crate::actors::store::StoreHandle;
use crate::core::validate::validate_entries;
use crate::model::{Batch, PublicKey, StoreId};
use crate::services::identities::{BindPolicy, IdentityError, SigningKey, signing_key_to_hex};
use crate::services::{AuthError, Caller, Claim};

/// Whether `caller` may append `batch`, and where. `known` is the store that its key resolved to earlier, if that is
/// still valid.
pub(crate) async fn may_write(
    shared: &Arc<Shared>,
    caller: &Caller,
    names: &Names,
    batch: &Batch,
    known: Option<StoreHandle>,
) -> Result<StoreHandle, Refusal> {
    let store = is_allowed(shared, caller, names, batch, known).await?;
    validate_entries(batch, &shared.limits.get())?;
    Ok(store)
}

/// Like [`may_write`], without checking that the entries can be stored.
pub(crate) async fn is_allowed(
    shared: &Arc<Shared>,
    caller: &Caller,
    names: &Names,
    batch: &Batch,
    known: Option<StoreHandle>,
) -> Result<StoreHandle, Refusal> {
    let claim = names.claim(caller);
    shared.revocations.check(claim)?;
    let authorized = async { shared.auth.authorize_write(claim, batch).await };
    let said = ask(AUTHORIZATION, and_store(shared, claim, authorized)).await?;
    let store = match known {
        Some(store) => is_said(store, names, said.as_ref())?,
        None => shared.stores.resolve(&names.key, said).await?,
    };
    // Checked last, because the answers above may have taken their time: what passes here goes to its store.
    shared.revocations.check(claim)?;
    is_wanted(store, names.store.as_deref())
}

/// Whether `caller` may read, from which store, and for how long that counts.
pub(crate) async fn may_read(
    shared: &Arc<Shared>,
    caller: &Caller,
    names: &Names,
) -> Result<(StoreHandle, Allowed), Refusal> {
    let (said, allowed) = authorize_read(shared, caller, names).await?;
    let store = shared.stores.resolve(&names.key, said).await?;
    Ok((is_wanted(store, names.store.as_deref())?, allowed))
}

/// Whether `caller`, who is reading `store`, may continue. The registry is not asked: it reports by itself when a key
/// loses its store.
pub(crate) async fn may_go_on_reading(
    shared: &Arc<Shared>,
    caller: &Caller,
    names: &Names,
    store: &StoreId,
) -> Result<Allowed, Refusal> {
    let (said, allowed) = authorize_read(shared, caller, names).await?;
    Said::check(said.as_ref(), &names.key, store)?;
    Ok(allowed)
}

async fn authorize_read(
    shared: &Arc<Shared>,
    caller: &Caller,
    names: &Names,
) -> Result<(Option<Said>, Allowed), Refusal> {
    let claim = names.claim(caller);
    // Read before asking: an answer from before a later change must not count.
    let changes = shared.connections.access_changes();
    let authorized = async {
        let allowed = async { shared.auth.authorize_read(claim).await };
        let said = and_store(shared, claim, allowed).await?;
        Ok::<_, Refusal>((said, shared.auth.holds_until(claim)))
    };
    shared.revocations.check(claim)?;
    let (said, until) = ask(AUTHORIZATION, authorized).await?;
    Ok((said, Allowed::new(changes, Clock::now(), until)))
}

/// Whether `caller`, who has proved to hold `signing_key`, may be `key`: authorized first, then bound, if no other
/// signing key is.
pub(crate) async fn may_be(
    shared: &Arc<Shared>,
    caller: &Caller,
    key: &PublicKey,
    signing_key: &SigningKey,
) -> Result<(), Refusal> {
    let claim = Claim { caller, key, proof: Some(signing_key) };
    shared.revocations.check(claim)?;
    let authorized = async {
        shared.auth.authorize_identity(claim).await?;
        check_subject(shared, claim)?;
        Ok::<_, Refusal>(shared.auth.signing_key_of(claim))
    };
    let named = ask(AUTHORIZATION, authorized).await?;
    // Again, because the answer may have taken its time, and a binding is for good.
    shared.revocations.check(claim)?;
    let hex = || signing_key_to_hex(signing_key).into();
    if named.is_some_and(|named| named != *signing_key) {
        return Err(Refusal::NotNamed { signing_key: hex() });
    }
    if ask(BINDING, async { shared.identities.get(key).await }).await?.is_some() {
        return ask(BINDING, async { shared.identities.bind(key, signing_key).await }).await;
    }
    match shared.bind_policy {
        BindPolicy::Pinned => {
            shared.complaints.log(&not_pinned(key, caller, signing_key));
            Err(Refusal::NotPinned { signing_key: hex() })
        }
        BindPolicy::Named if named.is_none() => Err(Refusal::NotNamed { signing_key: hex() }),
        BindPolicy::FirstUse | BindPolicy::Named => {
            let entered = may_enter(shared, key).await?;
            ask(BINDING, async { shared.identities.bind(key, signing_key).await }).await?;
            entered.map_or_else(|| shared.new_identities.came(), Entered::keep);
            // From here on the key needs its proof, also where it was used without one. Hardly any was, and it takes
            // one notice to every connection.
            if shared.keeps_proof && shared.stores.was_used(key).await {
                shared.resolved.key_removed();
                shared.connections.key_removed(key);
            }
            Ok(())
        }
    }
}

/// Whether one more signing key may be bound at its first use; `None` if that is not limited, because the public key
/// has a store.
async fn may_enter<'a>(
    shared: &'a Arc<Shared>,
    key: &PublicKey,
) -> Result<Option<Entered<'a>>, Refusal> {
    let now = Clock::now();
    let count = |most| shared.identities.count(most);
    let entered = async { shared.new_identities.enter(key, now, count).await };
    match ask(BINDING, entered).await? {
        Ok(entered) => Ok(Some(entered)),
        Err(too_many) => match ask(REGISTRY, async { shared.registry.look_up(key).await }).await {
            Ok(_) => Ok(None),
            Err(_) => Err(shared.new_identities.refuse(key, too_many, now).into()),
        },
    }
}

/// Whether the key of a request is proved as far as necessary: if it has a signing key, with that one. An administrator
/// may have changed it since the connection proved it.
pub(crate) async fn is_proved(shared: &Arc<Shared>, names: &Names) -> Result<(), Refusal> {
    if names.proof.is_none() && !shared.keeps_proof {
        return Ok(());
    }
    let bound = ask(BINDING, async { shared.identities.get(&names.key).await }).await?;
    match (bound, names.proof) {
        (None, None) => Ok(()),
        (Some(bound), Some(proof)) if bound == proof => Ok(()),
        (Some(_), None) => Err(Refusal::NeedsProof),
        (_, Some(_)) => Err(IdentityError::BoundToAnother { key: names.key.clone() }.into()),
    }
}

/// Whether a key without a signing key, which may be used for the first time if it `is_new` here, still has none.
/// Whoever binds one tells the connections only if the key was used: so it is noted first that it is used, and then
/// looked up once more, before the answer is remembered.
pub(crate) async fn is_still_unbound(
    shared: &Arc<Shared>,
    names: &Names,
    is_new: bool,
) -> Result<(), Refusal> {
    if is_new && names.proof.is_none() { is_proved(shared, names).await } else { Ok(()) }
}

/// The store of the key according to the caller's proof, once it is authorized.
async fn and_store(
    shared: &Arc<Shared>,
    claim: Claim<'_>,
    authorized: impl Future<Output = Result<(), AuthError>>,
) -> Result<Option<Said>, Refusal> {
    authorized.await?;
    check_subject(shared, claim)?;
    let store = shared.auth.store_of(claim);
    let subject = || shared.auth.subject_of(claim).as_deref().map(Box::from);
    Ok(store.map(|store| Said { store, subject: subject() }))
}

/// Whether the caller is revoked under the identity that they have with this key, once that is known.
fn check_subject(shared: &Shared, claim: Claim<'_>) -> Result<(), Refusal> {
    if !shared.revocations.is_empty()
        && let Some(subject) = shared.auth.subject_of(claim)
    {
        shared.revocations.check_subject(&subject)?;
    }
    Ok(())
}

/// A store that is already known has to be the one that the caller's proof names, if it names one.
fn is_said(store: StoreHandle, names: &Names, said: Option<&Said>) -> Result<StoreHandle, Refusal> {
    Said::check(said, &names.key, store.feed.store())?;
    Ok(store)
}

/// A client gets its key's store only under the store's own name.
fn is_wanted(store: StoreHandle, wanted: Option<&str>) -> Result<StoreHandle, Refusal> {
    match wanted {
        Some(wanted) if wanted != store.feed.store().as_str() => {
            Err(Refusal::NoSuchStore { store: wanted.into() })
        }
        Some(_) | None => Ok(store),
    }
}

const AUTHORIZATION: &str = "authorization";
const BINDING: &str = "the binding of keys";
const REGISTRY: &str = "the registry";

/// A question that panics counts as a refusal.
async fn ask<T, E>(
    what: &'static str,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, Refusal>
where
    Refusal: From<E>,
{
    Ok(guarded(what, answer).await??)
}
