//! What every registry must do, as one suite. A claim is a function; [`keeps`] runs them all.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::model::{PublicKey, StoreId};
use crate::services::{RegistryError, StoreRegistry};

pub(in crate::services) fn key(text: &str) -> PublicKey {
    PublicKey::new(text).expect("a public key")
}

pub(in crate::services) fn store(text: &str) -> StoreId {
    StoreId::new(text).expect("a store id")
}

/// Runs the suite, each claim on a fresh registry without mappings.
pub(in crate::services) async fn keeps<F>(make: impl Fn() -> F)
where
    F: Future<Output = Arc<dyn StoreRegistry>>,
{
    nothing_derives_a_store_from_a_key(&*make().await).await;
    an_assignment_holds_and_may_be_repeated(&*make().await).await;
    a_key_never_moves_by_assignment(&*make().await).await;
    many_keys_share_a_store(&*make().await).await;
    removing_tells_the_store_and_frees_the_key(&*make().await).await;
    lists_come_in_pages_in_key_order(&*make().await).await;
    names_are_taken_as_they_are(&*make().await).await;
    of_racing_assignments_one_wins(make().await).await;
}

fn not_mapped(text: &str) -> RegistryError {
    RegistryError::NotMapped { key: key(text) }
}

async fn nothing_derives_a_store_from_a_key(registry: &dyn StoreRegistry) {
    assert_eq!(registry.resolve(&key("alice")).await, Err(not_mapped("alice")));
    assert_eq!(registry.remove(&key("alice")).await, Err(not_mapped("alice")));
    assert_eq!(registry.list(None, 10).await, Ok(vec![]));
    // Asking left nothing behind.
    assert_eq!(registry.resolve(&key("alice")).await, Err(not_mapped("alice")));
}

async fn an_assignment_holds_and_may_be_repeated(registry: &dyn StoreRegistry) {
    for _ in 0..2 {
        assert_eq!(registry.assign(&key("alice"), &store("team")).await, Ok(()));
        assert_eq!(registry.resolve(&key("alice")).await, Ok(store("team")));
    }
    assert_eq!(registry.resolve(&key("alic")).await, Err(not_mapped("alic")));
    assert_eq!(registry.resolve(&key("alice2")).await, Err(not_mapped("alice2")));
}

async fn a_key_never_moves_by_assignment(registry: &dyn StoreRegistry) {
    registry.assign(&key("alice"), &store("team")).await.expect("a free key");
    assert_eq!(
        registry.assign(&key("alice"), &store("other")).await,
        Err(RegistryError::AlreadyAssigned { key: key("alice"), store: store("team") })
    );
    assert_eq!(registry.resolve(&key("alice")).await, Ok(store("team")));
}

async fn many_keys_share_a_store(registry: &dyn StoreRegistry) {
    for name in ["alice", "bob"] {
        registry.assign(&key(name), &store("team")).await.expect("a free key");
    }
    for name in ["alice", "bob"] {
        assert_eq!(registry.resolve(&key(name)).await, Ok(store("team")));
    }
}

async fn removing_tells_the_store_and_frees_the_key(registry: &dyn StoreRegistry) {
    for name in ["alice", "bob"] {
        registry.assign(&key(name), &store("team")).await.expect("a free key");
    }
    assert_eq!(registry.remove(&key("alice")).await, Ok(store("team")));
    assert_eq!(registry.remove(&key("alice")).await, Err(not_mapped("alice")));
    assert_eq!(registry.resolve(&key("alice")).await, Err(not_mapped("alice")));
    assert_eq!(registry.resolve(&key("bob")).await, Ok(store("team")));
    assert_eq!(registry.assign(&key("alice"), &store("other")).await, Ok(()));
    assert_eq!(registry.resolve(&key("alice")).await, Ok(store("other")));
}

async fn lists_come_in_pages_in_key_order(registry: &dyn StoreRegistry) {
    let names = ["a", "aa", "b", "z", "ä", "日本", "🦀"];
    for name in names.iter().rev() {
        registry.assign(&key(name), &store(&format!("of {name}"))).await.expect("a free key");
    }
    for count in [1, 2, 3, 100] {
        let mut listed = Vec::new();
        loop {
            let after = listed.last().map(|(key, _): &(PublicKey, StoreId)| key.clone());
            let page = registry.list(after.as_ref(), count).await.expect("a page");
            assert!(page.len() <= count);
            assert!(page.iter().all(|(key, _)| Some(key) > after.as_ref()), "pages overlap");
            if page.is_empty() {
                break;
            }
            listed.extend(page);
        }
        let expected: Vec<_> =
            names.iter().map(|name| (key(name), store(&format!("of {name}")))).collect();
        assert_eq!(listed, expected, "pages of {count}");
    }
    assert_eq!(registry.list(None, 0).await, Ok(vec![]));
    let from_the_middle = registry.list(Some(&key("bb")), 1).await;
    assert_eq!(
        from_the_middle,
        Ok(vec![(key("z"), store("of z"))]),
        "after a key that is not there"
    );
}

async fn names_are_taken_as_they_are(registry: &dyn StoreRegistry) {
    let (longest_key, longest_store) = ("k".repeat(1_024), "s".repeat(256));
    let pairs = [("a/b?c#d%20", "x y"), ("\0", "\u{feff}"), (&*longest_key, &*longest_store)];
    for (name, of) in pairs {
        registry.assign(&key(name), &store(of)).await.expect("a free key");
        assert_eq!(registry.resolve(&key(name)).await, Ok(store(of)));
    }
    assert_eq!(registry.list(None, 10).await.map(|page| page.len()), Ok(pairs.len()));
}

async fn of_racing_assignments_one_wins(registry: Arc<dyn StoreRegistry>) {
    for round in 0..20 {
        let name = format!("key {round}");
        let threads = (0..4).map(|racer| {
            let (registry, name) = (registry.clone(), name.clone());
            tokio::task::spawn_blocking(move || {
                let racing = async {
                    (racer, registry.assign(&key(&name), &store(&format!("{racer}"))).await)
                };
                tokio::runtime::Handle::current().block_on(racing)
            })
        });
        let answers: Vec<_> =
            join_all(threads).await.into_iter().map(|answer| answer.expect("no panic")).collect();
        let winners: Vec<_> = answers.iter().filter(|(_, answer)| answer.is_ok()).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        let won = store(&winners[0].0.to_string());
        for (_, answer) in answers.iter().filter(|(_, answer)| answer.is_err()) {
            let refused = RegistryError::AlreadyAssigned { key: key(&name), store: won.clone() };
            assert_eq!(answer, &Err(refused));
        }
        assert_eq!(registry.resolve(&key(&name)).await, Ok(won));
    }
}
