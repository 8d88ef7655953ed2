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

    async fn bind_once(
        &self,
        key: &PublicKey,
        signing_key: &SigningKey,
    ) -> Result<(), IdentityError> {
        let change = self.bound.change(key.as_str()).await;
        match self.bound.get(key.as_str()).map_err(IdentityError::unavailable)? {
            Some(bound) if bound == signing_key => Ok(()),
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
