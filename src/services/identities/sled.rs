//! Bindings that last.
//!
//! ```text
//! tree    identities
//! key     the public key, UTF-8
//! value   the Ed25519 public key, 32 bytes
//! ```

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::Mutex;

use super::{Identities, IdentityError, SigningKey};
use crate::model::PublicKey;
use crate::storage::AppendError;
use crate::storage::sled::{Database, Keyspace, Ops};

type Binding = Shared<BoxFuture<'static, Result<(), AppendError>>>;

/// Bindings in a [`Database`].
pub struct SledIdentities {
    database: Database,
    /// The binding that may not be durable yet. Whoever comes waits for it, so that no answer rests on what a power cut
    /// could take back; it stays here if the call that made it is dropped.
    under_way: Mutex<Option<Binding>>,
}

impl SledIdentities {
    /// The bindings in `database`.
    pub fn new(database: Database) -> Self {
        Self { database, under_way: Mutex::new(None) }
    }

    async fn bind_once(
        &self,
        key: &PublicKey,
        signing_key: &SigningKey,
    ) -> Result<(), IdentityError> {
        let mut under_way = self.under_way.lock().await;
        if let Some(binding) = &*under_way {
            // Its failure is the business of whoever asked for it; the tree shows what came of it.
            let _ = binding.clone().await;
            *under_way = None;
        }
        let tree = self.database.tree(Keyspace::Identities).map_err(|e| unavailable(&e))?;
        let bound = tree.get(key.as_str()).map_err(|e| unavailable(&e))?;
        match bound {
            Some(bound) if bound == signing_key => return Ok(()),
            Some(_) => return Err(IdentityError::BoundToAnother { key: key.clone() }),
            None => {}
        }
        let mut ops = Ops::default();
        ops.insert(key.as_str(), signing_key);
        let binding = self.database.commit(Keyspace::Identities, ops).boxed().shared();
        *under_way = Some(binding.clone());
        let bound = binding.await.map_err(|e| unavailable(&e));
        *under_way = None;
        bound
    }
}

fn unavailable(cause: &dyn std::fmt::Display) -> IdentityError {
    IdentityError::Unavailable { message: cause.to_string().into() }
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
