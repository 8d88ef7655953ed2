//! Bindings for tests, and for servers whose storage is memory.

use std::collections::HashMap;

use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::{Identities, IdentityError, SigningKey};
use crate::model::PublicKey;

/// Bindings that live as long as the process.
#[derive(Debug, Default)]
pub struct MemoryIdentities {
    bound: Mutex<HashMap<PublicKey, SigningKey>>,
}

impl Identities for MemoryIdentities {
    fn bind<'a>(
        &'a self,
        key: &'a PublicKey,
        signing_key: &'a SigningKey,
    ) -> BoxFuture<'a, Result<(), IdentityError>> {
        let bound = *self.bound.lock().entry(key.clone()).or_insert(*signing_key);
        let matches = bound == *signing_key;
        let other = || IdentityError::BoundToAnother { key: key.clone() };
        Box::pin(ready(matches.then_some(()).ok_or_else(other)))
    }

    fn get<'a>(
        &'a self,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Option<SigningKey>, IdentityError>> {
        Box::pin(ready(Ok(self.bound.lock().get(key).copied())))
    }

    fn replace<'a>(
        &'a self,
        key: &'a PublicKey,
        signing_key: Option<&'a SigningKey>,
    ) -> BoxFuture<'a, Result<Option<SigningKey>, IdentityError>> {
        let mut bound = self.bound.lock();
        let before = match signing_key {
            Some(signing_key) => bound.insert(key.clone(), *signing_key),
            None => bound.remove(key),
        };
        Box::pin(ready(Ok(before)))
    }

    fn count(&self, most: usize) -> BoxFuture<'_, Result<usize, IdentityError>> {
        Box::pin(ready(Ok(self.bound.lock().len().min(most))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    crate::contract_tests!(identities: Arc::new(MemoryIdentities::default()) as Arc<dyn Identities>);
}
