//! The mappings that the configuration wants the registry to have.

use eventlog_server::model::{PublicKey, StoreId};
use eventlog_server::services::{RegistryError, StoreRegistry};

use crate::config::Assignment;

/// A mapping of the configuration cannot be made. Those before it were.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum AssignError {
    /// The key has another store.
    #[error(
        "[[assign]] maps {key:?} to {wanted:?}, and the registry has it at {store:?}, where its events are. \
         Correct the configuration; or take the [[assign]] out, start, and move the key with \
         `eventlog-server keys remove` and `keys assign`"
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
}

/// Makes each mapping, durably; one that is there already is fine.
pub(super) async fn assign_all(
    registry: &dyn StoreRegistry,
    assignments: &[Assignment],
) -> Result<(), AssignError> {
    for Assignment { public_key, store_id } in assignments {
        let assigned = registry.assign(public_key, store_id).await;
        assigned.map_err(|error| match error {
            RegistryError::AlreadyAssigned { key, store } => {
                AssignError::Elsewhere { key, wanted: store_id.clone(), store }
            }
            error @ (RegistryError::NotMapped { .. } | RegistryError::Unavailable { .. }) => {
                AssignError::Registry(error)
            }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use eventlog_server::services::registry::MemoryRegistry;

    use super::*;

    fn assignment(key: &str, store: &str) -> Assignment {
        Assignment {
            public_key: PublicKey::new(key).expect("a key"),
            store_id: StoreId::new(store).expect("a store"),
        }
    }

    #[tokio::test]
    async fn what_is_wanted_is_there_afterwards_and_again_after_a_restart() {
        let registry = MemoryRegistry::new();
        let wanted = [assignment("alice", "team"), assignment("bob", "team")];
        for _ in 0..2 {
            assert_eq!(assign_all(&registry, &wanted).await, Ok(()));
        }
        let listed = registry.list(None, 9).await.expect("a page");
        assert_eq!(listed.len(), 2);
    }

    #[tokio::test]
    async fn a_key_that_is_elsewhere_is_an_error_that_names_both_stores() {
        let registry = MemoryRegistry::new();
        assign_all(&registry, &[assignment("alice", "team")]).await.expect("a free key");
        let moved = assign_all(&registry, &[assignment("alice", "other")]).await;
        let message = moved.expect_err("refused").to_string();
        assert!(["alice", "team", "other"].iter().all(|name| message.contains(name)), "{message}");
        let alice = PublicKey::new("alice").expect("a key");
        assert_eq!(
            registry.resolve(&alice).await.map(|store| store.to_string()),
            Ok("team".into())
        );
    }
}
