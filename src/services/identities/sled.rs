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
        let change = self.bound.change().await;
        match self.bound.get(key.as_str()).await.map_err(IdentityError::unavailable)? {
            Some(bound) if bound == signing_key => Ok(()),
            Some(_) => Err(IdentityError::BoundToAnother { key: key.clone() }),
            None => {
                let bound = change.insert(key.as_str(), signing_key).await;
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
    use super::super::MemoryIdentities;
    use super::*;
    use crate::storage::sled::DatabaseOptions;

    async fn first_key_stays(identities: &dyn Identities) {
        let (alice, bob) = (key("alice"), key("bob"));
        assert_eq!(identities.bind(&alice, &[1; 32]).await, Ok(()));
        assert_eq!(identities.bind(&alice, &[1; 32]).await, Ok(()));
        let refused = Err(IdentityError::BoundToAnother { key: alice.clone() });
        assert_eq!(identities.bind(&alice, &[2; 32]).await, refused);
        assert_eq!(identities.bind(&bob, &[2; 32]).await, Ok(()));
    }

    fn key(name: &str) -> PublicKey {
        PublicKey::new(name).expect("a key")
    }

    #[tokio::test]
    async fn the_first_signing_key_stays_in_memory() {
        first_key_stays(&MemoryIdentities::default()).await;
    }

    #[tokio::test]
    async fn the_first_signing_key_stays_on_disk() {
        let dir = tempfile::tempdir().expect("a folder");
        let options = DatabaseOptions::default();
        let database = Database::open(dir.path(), options).expect("a database");
        first_key_stays(&SledIdentities::new(database.clone())).await;
        database.close().expect("closed");
        let database = Database::open(dir.path(), options).expect("a database");
        let identities = SledIdentities::new(database.clone());
        let refused = identities.bind(&key("alice"), &[3; 32]).await;
        assert_eq!(refused, Err(IdentityError::BoundToAnother { key: key("alice") }));
        assert_eq!(identities.bind(&key("alice"), &[1; 32]).await, Ok(()));
    }
}
