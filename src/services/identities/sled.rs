//! Bindings that last, in a [`DurableMap`].
//!
//! ```text
//! tree    identities
//! key     the public key, UTF-8
//! value   the Ed25519 public key, 32 bytes
//! ```

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Identities, IdentityError, SigningKey};
use crate::model::PublicKey;
use crate::storage::sled::{Database, DurableMap, Keyspace};

/// Bindings in a [`Database`].
pub struct SledIdentities {
    bound: DurableMap,
}

impl SledIdentities {
    /// The bindings in `database`.
    pub fn new(database: Database) -> Self {
        Self { bound: DurableMap::new(database, Keyspace::Identities) }
    }

    async fn find(&self, key: &PublicKey) -> Result<Option<SigningKey>, IdentityError> {
        let bound = self.bound.get(key.as_str()).await.map_err(IdentityError::unavailable)?;
        let malformed = |_| IdentityError::unavailable("a signing key on disk is malformed");
        bound.map(|bound| SigningKey::try_from(&*bound).map_err(malformed)).transpose()
    }

    async fn replace_once(
        &self,
        key: &PublicKey,
        signing_key: Option<&SigningKey>,
    ) -> Result<Option<SigningKey>, IdentityError> {
        let change = self.bound.change(key.as_str()).await;
        let before = self.find(key).await?;
        let changed = match signing_key {
            Some(signing_key) => change.insert(signing_key).await,
            None if before.is_some() => change.remove().await,
            None => Ok(()),
        };
        changed.map_err(IdentityError::unavailable)?;
        Ok(before)
    }

    async fn bind_once(
        &self,
        key: &PublicKey,
        signing_key: &SigningKey,
    ) -> Result<(), IdentityError> {
        let change = self.bound.change(key.as_str()).await;
        match self.find(key).await? {
            Some(bound) if bound == *signing_key => Ok(()),
            Some(_) => Err(IdentityError::BoundToAnother { key: key.clone() }),
            None => {
                let bound = change.insert(signing_key).await;
                bound.map_err(IdentityError::unavailable)
            }
        }
    }
}

impl Identities for SledIdentities {
    fn bind<'a>(
        &'a self,
        key: &'a PublicKey,
        signing_key: &'a SigningKey,
    ) -> BoxFuture<'a, Result<(), IdentityError>> {
        self.bind_once(key, signing_key).boxed()
    }

    fn get<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<SigningKey>, IdentityError>> {
        self.find(key).boxed()
    }

    fn replace<'a>(
        &'a self,
        key: &'a PublicKey,
        signing_key: Option<&'a SigningKey>,
    ) -> BoxFuture<'a, Result<Option<SigningKey>, IdentityError>> {
        self.replace_once(key, signing_key).boxed()
    }

    fn count(&self, most: usize) -> BoxFuture<'_, Result<usize, IdentityError>> {
        async move { self.bound.count(most).await.map_err(IdentityError::unavailable) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::on_sled::OnSled;

    crate::contract_tests!(identities: OnSled::<dyn Identities>::new(
        |database| Arc::new(SledIdentities::new(database))
    ));
}
