//! The mappings that the configuration requires of the registry.

use eventlog_server::model::{PublicKey, StoreId};
use eventlog_server::server::Server;
use eventlog_server::services::identities::SigningKey;
use eventlog_server::services::{IdentityError, RegistryError};

use crate::config::Assignment;

/// A mapping of the configuration cannot be made. The earlier ones were made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum AssignError {
    /// The key has, or had, another store.
    #[error(
        "[[assign]] maps {key:?} to {wanted:?}, but it belongs to {store:?}, where its events are. A key \
         does not move: correct the configuration, or give its clients a new key. If no device has anything \
         of this key, remove the [[assign]], start the server, and free the key with `eventlog-server keys \
         remove` and `keys release`"
    )]
    Elsewhere {
        /// The key.
        key: PublicKey,
        /// The store of the configuration.
        wanted: StoreId,
        /// The store it has.
        store: StoreId,
    },
    /// The registry does not answer.
    #[error(transparent)]
    Registry(RegistryError),
    /// The key has another signing key.
    #[error(
        "the configuration pins a signing key to {key:?}, which has another one; correct the configuration, \
         or start without that line and free the key with `eventlog-server keys unpin`"
    )]
    BoundToAnother {
        /// The key.
        key: PublicKey,
    },
    /// The bindings do not answer.
    #[error(transparent)]
    Identity(IdentityError),
}

/// Makes each mapping, durably; an existing one is fine.
pub(super) async fn assign_all(
    server: &Server,
    assignments: &[Assignment],
) -> Result<(), AssignError> {
    for Assignment { public_key, store_id, signing_key: _ } in assignments {
        let assigned = server.assign(public_key.clone(), store_id.clone()).await;
        assigned.map_err(|error| match error {
            RegistryError::AlreadyAssigned { key, store } | RegistryError::Moved { key, store } => {
                AssignError::Elsewhere { key, wanted: store_id.clone(), store }
            }
            error @ (RegistryError::NotMapped { .. } | RegistryError::Unavailable { .. }) => {
                AssignError::Registry(error)
            }
        })?;
    }
    Ok(())
}

/// Binds each signing key, durably; one that is already bound is fine.
pub(super) async fn pin_all(
    server: &Server,
    pinned: &[(PublicKey, SigningKey)],
) -> Result<(), AssignError> {
    for (key, signing_key) in pinned {
        let bound = server.bind(key, signing_key).await;
        bound.map_err(|error| match error {
            IdentityError::BoundToAnother { key } => AssignError::BoundToAnother { key },
            error => AssignError::Identity(error),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use eventlog_server::services::StoreRegistry;
    use eventlog_server::services::auth::AllowAll;
    use eventlog_server::services::registry::MemoryRegistry;
    use eventlog_server::storage::memory::MemoryStorage;

    use super::*;

    fn assignment(key: &str, store: &str) -> Assignment {
        Assignment {
            public_key: PublicKey::new(key).expect("a key"),
            store_id: StoreId::new(store).expect("a store"),
            signing_key: None,
        }
    }

    fn server() -> (Server, Arc<MemoryRegistry>) {
        let registry = Arc::new(MemoryRegistry::new());
        let storage = Arc::new(MemoryStorage::new());
        let server = Server::builder(storage, registry.clone(), Arc::new(AllowAll)).start();
        (server.expect("it starts"), registry)
    }

    #[tokio::test]
    async fn what_is_wanted_is_there_afterwards_and_again_after_a_restart() {
        let (server, registry) = server();
        let wanted = [assignment("alice", "team"), assignment("bob", "team")];
        for _ in 0..2 {
            assert_eq!(assign_all(&server, &wanted).await, Ok(()));
        }
        let listed = registry.list(None, 9).await.expect("a page");
        assert_eq!(listed.len(), 2);
    }

    #[tokio::test]
    async fn a_key_that_is_elsewhere_is_an_error_that_names_both_stores() {
        let (server, registry) = server();
        let alice = PublicKey::new("alice").expect("a key");
        assign_all(&server, &[assignment("alice", "team")]).await.expect("a free key");
        for is_removed in [false, true] {
            if is_removed {
                server.remove(alice.clone()).await.expect("it is there");
            }
            let moved = assign_all(&server, &[assignment("alice", "other")]).await;
            let message = moved.expect_err("refused").to_string();
            let named = ["alice", "team", "other"].iter().all(|name| message.contains(name));
            assert!(named, "{message}");
        }
        assign_all(&server, &[assignment("alice", "team")]).await.expect("its own store");
        assert_eq!(
            registry.resolve(&alice).await.map(|store| store.to_string()),
            Ok("team".into())
        );
    }
}
