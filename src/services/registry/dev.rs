//! The registry behind `--dev`: all unassigned keys get the same store, so that trying things out takes no setup.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::model::{PublicKey, StoreId};
use crate::services::{RegistryError, StoreRegistry};

/// The name of the store that `--dev` gives to unknown keys.
pub const DEV_STORE: &str = "default";

/// Asks another registry, and if that has no store for a key, assigns one, durably. Everything else passes through.
///
/// It is the only place where a mapping is created without anybody asking for it. Anyone who reaches the server can
/// make it grow, one mapping per key: not for production.
pub struct DevRegistry {
    inner: Arc<dyn StoreRegistry>,
    store: StoreId,
}

impl DevRegistry {
    /// Unknown keys of `inner` go to `store`.
    pub fn new(inner: Arc<dyn StoreRegistry>, store: StoreId) -> Self {
        Self { inner, store }
    }

    async fn resolve_or_assign(&self, key: &PublicKey) -> Result<StoreId, RegistryError> {
        match self.inner.resolve(key).await {
            Err(RegistryError::NotMapped { .. }) => {}
            answer => return answer,
        }
        match self.inner.assign(key, &self.store).await {
            Ok(()) => Ok(self.store.clone()),
            // Somebody assigned it between the two calls; theirs counts.
            Err(RegistryError::AlreadyAssigned { store, .. }) => Ok(store),
            Err(error) => Err(error),
        }
    }
}

impl StoreRegistry for DevRegistry {
    fn resolve<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        Box::pin(self.resolve_or_assign(key))
    }

    fn look_up<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        self.inner.look_up(key)
    }

    fn assign<'a>(
        &'a self,
        key: &'a PublicKey,
        store: &'a StoreId,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        self.inner.assign(key, store)
    }

    fn remove<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        self.inner.remove(key)
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a PublicKey>,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<(PublicKey, StoreId)>, RegistryError>> {
        self.inner.list(after, count)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::MemoryRegistry;
    use super::*;
    use crate::testing::{key, store};

    fn dev(inner: &Arc<dyn StoreRegistry>) -> DevRegistry {
        DevRegistry::new(inner.clone(), store(DEV_STORE))
    }

    #[tokio::test]
    async fn an_unknown_key_is_assigned_where_it_lasts() {
        let inner: Arc<dyn StoreRegistry> = Arc::new(MemoryRegistry::new());
        let looked_up = dev(&inner).look_up(&key("alice")).await;
        assert!(matches!(looked_up, Err(RegistryError::NotMapped { .. })));
        assert_eq!(inner.list(None, 9).await, Ok(vec![]));
        assert_eq!(dev(&inner).resolve(&key("alice")).await, Ok(store("default")));
        assert_eq!(dev(&inner).look_up(&key("alice")).await, Ok(store("default")));
        assert_eq!(inner.resolve(&key("alice")).await, Ok(store("default")));
    }

    #[tokio::test]
    async fn a_known_key_keeps_its_store() {
        let inner: Arc<dyn StoreRegistry> = Arc::new(MemoryRegistry::new());
        inner.assign(&key("alice"), &store("team")).await.expect("a free key");
        assert_eq!(dev(&inner).resolve(&key("alice")).await, Ok(store("team")));
        let refused = dev(&inner).assign(&key("alice"), &store("default")).await;
        assert!(matches!(refused, Err(RegistryError::AlreadyAssigned { .. })));
    }

    /// Answers like a registry in which somebody else assigns the key right after it was found unmapped.
    struct Overtaken(MemoryRegistry);

    impl StoreRegistry for Overtaken {
        fn resolve<'a>(
            &'a self,
            key: &'a PublicKey,
        ) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
            async move {
                let answer = self.0.resolve(key).await;
                self.0.assign(key, &store("theirs")).await?;
                answer
            }
            .boxed()
        }

        fn assign<'a>(
            &'a self,
            key: &'a PublicKey,
            store: &'a StoreId,
        ) -> BoxFuture<'a, Result<(), RegistryError>> {
            self.0.assign(key, store)
        }

        fn remove<'a>(
            &'a self,
            key: &'a PublicKey,
        ) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
            self.0.remove(key)
        }

        fn list<'a>(
            &'a self,
            after: Option<&'a PublicKey>,
            count: usize,
        ) -> BoxFuture<'a, Result<Vec<(PublicKey, StoreId)>, RegistryError>> {
            self.0.list(after, count)
        }
    }

    #[tokio::test]
    async fn an_assignment_that_came_first_holds() {
        let inner: Arc<dyn StoreRegistry> = Arc::new(Overtaken(MemoryRegistry::new()));
        assert_eq!(dev(&inner).resolve(&key("alice")).await, Ok(store("theirs")));
    }
}
