//! Which signing key a public key has, as administrators see and change it.
//!
//! Keeps: whoever proved an earlier signing key is refused as soon as another one may have been bound, even if nobody
//! waits for the answer any more. Leaves out: clients that bind their own (`actors::session::checks`).

use super::handle::Server;
use crate::actors::audit::{self, By};
use crate::model::PublicKey;
use crate::services::identities::{IdentityError, SigningKey, signing_key_to_hex};

impl Server {
    /// The signing key that is bound to a public key.
    pub async fn signing_key(&self, key: &PublicKey) -> Result<Option<SigningKey>, IdentityError> {
        self.inner().shared.identities.get(key).await
    }

    /// Binds `signing_key` to `key` if it has none yet, durably; an error if it has another one. If the future is
    /// dropped, binding continues anyway.
    pub async fn bind(
        &self,
        key: &PublicKey,
        signing_key: &SigningKey,
    ) -> Result<(), IdentityError> {
        self.bind_by(&By::Process, key, signing_key).await
    }

    /// Binds `signing_key` to `key`, durably, whatever was bound before; returns the previous one. Whoever has proved
    /// another key is refused from now on. If the future is dropped, the change continues anyway.
    pub async fn pin(
        &self,
        key: &PublicKey,
        signing_key: &SigningKey,
    ) -> Result<Option<SigningKey>, IdentityError> {
        self.pin_by(&By::Process, key, Some(signing_key)).await
    }

    /// Removes the signing key of `key`, durably; returns it. The next one is bound as
    /// [`BindPolicy`](crate::services::identities::BindPolicy) says. If the future is dropped, the change continues
    /// anyway.
    pub async fn unpin(&self, key: &PublicKey) -> Result<Option<SigningKey>, IdentityError> {
        self.pin_by(&By::Process, key, None).await
    }

    pub(super) async fn bind_by(
        &self,
        by: &By,
        key: &PublicKey,
        signing_key: &SigningKey,
    ) -> Result<(), IdentityError> {
        let (server, by, key, signing_key) = (self.clone(), by.clone(), key.clone(), *signing_key);
        to_its_end(async move {
            let identities = &server.inner().shared.identities;
            let is_so = identities.get(&key).await?.as_ref() == Some(&signing_key);
            let bound = identities.bind(&key, &signing_key).await;
            server.signing_key_changed(&key);
            bound?;
            if !is_so {
                let (hex, shown) = (signing_key_to_hex(&signing_key), key.in_log());
                let what = format_args!("action=pin key={shown} signing_key={hex} before=none");
                audit::note(&by, what);
            }
            Ok(())
        })
        .await
    }

    /// Binds `signing_key` to `key`, or unbinds it.
    pub(super) async fn pin_by(
        &self,
        by: &By,
        key: &PublicKey,
        signing_key: Option<&SigningKey>,
    ) -> Result<Option<SigningKey>, IdentityError> {
        let (server, by) = (self.clone(), by.clone());
        let (key, signing_key) = (key.clone(), signing_key.copied());
        to_its_end(async move {
            let identities = &server.inner().shared.identities;
            let replaced = identities.replace(&key, signing_key.as_ref()).await;
            // Even if that failed: it may have been replaced.
            server.signing_key_changed(&key);
            let before = replaced?;
            note(&by, &key, signing_key.as_ref(), before.as_ref());
            Ok(before)
        })
        .await
    }

    /// Proofs for `key` no longer count.
    fn signing_key_changed(&self, key: &PublicKey) {
        let shared = &self.inner().shared;
        shared.resolved.key_removed();
        shared.connections.key_removed(key);
    }
}

fn note(by: &By, key: &PublicKey, now: Option<&SigningKey>, before: Option<&SigningKey>) {
    let hex = |key: Option<&SigningKey>| key.map_or_else(|| "none".to_owned(), signing_key_to_hex);
    let (shown, before_hex) = (key.in_log(), hex(before));
    match now {
        Some(_) => {
            let hex = hex(now);
            let what = format_args!("action=pin key={shown} signing_key={hex} before={before_hex}");
            audit::note(by, what);
        }
        None if before.is_some() => {
            audit::note(by, format_args!("action=unpin key={shown} before={before_hex}"));
        }
        None => {}
    }
}

/// Carries out `change` completely, even if the caller stops waiting.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, IdentityError>> + Send + 'static,
) -> Result<T, IdentityError> {
    let done = tokio::spawn(change).await;
    done.unwrap_or_else(|gone| Err(IdentityError::unavailable(gone)))
}
