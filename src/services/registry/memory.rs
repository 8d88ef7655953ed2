//! A registry that forgets everything when the process ends, for tests and examples.

use std::collections::BTreeMap;
use std::ops::Bound;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::RwLock;

use crate::model::{PublicKey, StoreId};
use crate::services::{RegistryError, StoreRegistry};

/// Mappings in memory. Its futures are ready at once, so dropping one changes nothing.
#[derive(Debug, Default)]
pub struct MemoryRegistry {
    stores: RwLock<BTreeMap<PublicKey, StoreId>>,
}

impl MemoryRegistry {
    /// A registry without mappings.
    pub fn new() -> Self {
        Self::default()
    }

    fn find(&self, key: &PublicKey) -> Result<StoreId, RegistryError> {
        self.stores.read().get(key).cloned().ok_or_else(|| RegistryError::not_mapped(key))
    }

    fn insert(&self, key: &PublicKey, store: &StoreId) -> Result<(), RegistryError> {
        let mut stores = self.stores.write();
        match stores.get(key) {
            Some(other) if other != store => {
                Err(RegistryError::AlreadyAssigned { key: key.clone(), store: other.clone() })
            }
            Some(_) => Ok(()),
            None => {
                stores.insert(key.clone(), store.clone());
                Ok(())
            }
        }
    }

    fn page(&self, after: Option<&PublicKey>, count: usize) -> Vec<(PublicKey, StoreId)> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let stores = self.stores.read();
        let page = stores.range::<PublicKey, _>((after, Bound::Unbounded)).take(count);
        page.map(|(key, store)| (key.clone(), store.clone())).collect()
    }
}

impl StoreRegistry for MemoryRegistry {
    fn resolve<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        ready(self.find(key)).boxed()
    }

    fn assign<'a>(
        &'a self,
        key: &'a PublicKey,
        store: &'a StoreId,
    ) -> BoxFuture<'a, Result<(), RegistryError>> {
        ready(self.insert(key, store)).boxed()
    }

    fn remove<'a>(&'a self, key: &'a PublicKey) -> BoxFuture<'a, Result<StoreId, RegistryError>> {
        ready(self.stores.write().remove(key).ok_or_else(|| RegistryError::not_mapped(key))).boxed()
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a PublicKey>,
        count: usize,
    ) -> BoxFuture<'a, Result<Vec<(PublicKey, StoreId)>, RegistryError>> {
        ready(Ok(self.page(after, count))).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    crate::contract_tests!(registry: Arc::new(MemoryRegistry::new()) as Arc<dyn StoreRegistry>);
}
