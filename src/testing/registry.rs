//! What every [`StoreRegistry`] must do.

use futures_util::FutureExt;

use super::{Clause, Subject, key, racing, store, wait};
use crate::model::{PublicKey, StoreId};
use crate::services::{RegistryError, StoreRegistry};

/// The contract of [`StoreRegistry`].
pub const CLAUSES: &[Clause<dyn StoreRegistry>] = crate::clauses!(registry table);

type Tested<'a> = &'a mut dyn Subject<dyn StoreRegistry>;

fn not_mapped(text: &str) -> RegistryError {
    RegistryError::NotMapped { key: key(text) }
}

fn nothing_derives_a_store_from_a_key(subject: Tested<'_>) {
    let registry = subject.service();
    assert_eq!(wait(registry.resolve(&key("alice"))), Err(not_mapped("alice")));
    assert_eq!(wait(registry.look_up(&key("alice"))), Err(not_mapped("alice")));
    assert_eq!(wait(registry.remove(&key("alice"))), Err(not_mapped("alice")));
    assert_eq!(wait(registry.list(None, 10)), Ok(vec![]));
    // Asking left nothing behind.
    assert_eq!(wait(registry.resolve(&key("alice"))), Err(not_mapped("alice")));
}

fn an_assignment_holds_and_may_be_repeated(subject: Tested<'_>) {
    let registry = subject.service();
    for _ in 0..2 {
        assert_eq!(wait(registry.assign(&key("alice"), &store("team"))), Ok(()));
        assert_eq!(wait(registry.resolve(&key("alice"))), Ok(store("team")));
        assert_eq!(wait(registry.look_up(&key("alice"))), Ok(store("team")));
    }
    assert_eq!(wait(registry.resolve(&key("alic"))), Err(not_mapped("alic")));
    assert_eq!(wait(registry.resolve(&key("alice2"))), Err(not_mapped("alice2")));
}

fn a_key_never_moves_by_assignment(subject: Tested<'_>) {
    let registry = subject.service();
    wait(registry.assign(&key("alice"), &store("team"))).expect("a free key");
    assert_eq!(
        wait(registry.assign(&key("alice"), &store("other"))),
        Err(RegistryError::AlreadyAssigned { key: key("alice"), store: store("team") })
    );
    assert_eq!(wait(registry.resolve(&key("alice"))), Ok(store("team")));
}

fn many_keys_share_a_store(subject: Tested<'_>) {
    let registry = subject.service();
    for name in ["alice", "bob"] {
        wait(registry.assign(&key(name), &store("team"))).expect("a free key");
    }
    for name in ["alice", "bob"] {
        assert_eq!(wait(registry.resolve(&key(name))), Ok(store("team")));
    }
}

fn removing_tells_the_store_and_frees_the_key(subject: Tested<'_>) {
    let registry = subject.service();
    for name in ["alice", "bob"] {
        wait(registry.assign(&key(name), &store("team"))).expect("a free key");
    }
    assert_eq!(wait(registry.remove(&key("alice"))), Ok(store("team")));
    assert_eq!(wait(registry.remove(&key("alice"))), Err(not_mapped("alice")));
    assert_eq!(wait(registry.resolve(&key("alice"))), Err(not_mapped("alice")));
    assert_eq!(wait(registry.resolve(&key("bob"))), Ok(store("team")));
    assert_eq!(wait(registry.assign(&key("alice"), &store("other"))), Ok(()));
    assert_eq!(wait(registry.resolve(&key("alice"))), Ok(store("other")));
}

fn lists_come_in_pages_in_key_order(subject: Tested<'_>) {
    let registry = subject.service();
    let names = ["a", "aa", "b", "z", "ä", "日本", "🦀"];
    for name in names.iter().rev() {
        wait(registry.assign(&key(name), &store(&format!("of {name}")))).expect("a free key");
    }
    for count in [1, 2, 3, 100] {
        let mut listed = Vec::new();
        loop {
            let after = listed.last().map(|(key, _): &(PublicKey, StoreId)| key.clone());
            let page = wait(registry.list(after.as_ref(), count)).expect("a page");
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
    assert_eq!(wait(registry.list(None, 0)), Ok(vec![]));
    let from_the_middle = wait(registry.list(Some(&key("bb")), 1));
    assert_eq!(
        from_the_middle,
        Ok(vec![(key("z"), store("of z"))]),
        "after a key that is not there"
    );
}

fn names_are_taken_as_they_are(subject: Tested<'_>) {
    let registry = subject.service();
    let (longest_key, longest_store) = ("k".repeat(1_024), "s".repeat(256));
    let pairs = [("a/b?c#d%20", "x y"), ("\0", "\u{feff}"), (&*longest_key, &*longest_store)];
    for (name, of) in pairs {
        wait(registry.assign(&key(name), &store(of))).expect("a free key");
        assert_eq!(wait(registry.resolve(&key(name))), Ok(store(of)));
    }
    assert_eq!(wait(registry.list(None, 10)).map(|page| page.len()), Ok(pairs.len()));
}

fn of_racing_assignments_one_wins(subject: Tested<'_>) {
    let registry = subject.service();
    for round in 0..20 {
        let name = key(&format!("key {round}"));
        let answers = racing(|racer| wait(registry.assign(&name, &store(&racer.to_string()))));
        let winners: Vec<_> = answers.iter().filter(|(_, answer)| answer.is_ok()).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        let won = store(&winners[0].0.to_string());
        let lost = Err(RegistryError::AlreadyAssigned { key: name.clone(), store: won.clone() });
        assert!(answers.iter().all(|(_, answer)| answer.is_ok() || *answer == lost));
        assert_eq!(wait(registry.resolve(&name)), Ok(won));
    }
}

fn a_dropped_assignment_is_seen_by_the_next_one(subject: Tested<'_>) {
    let registry = subject.service();
    for round in 0..50 {
        let name = key(&format!("key {round}"));
        // Polled once, so that it may be in progress. Made or not made, the next answer says which, and it stays that
        // way.
        let _ = registry.assign(&name, &store("first")).now_or_never();
        let kept = match wait(registry.assign(&name, &store("second"))) {
            Err(RegistryError::AlreadyAssigned { store, .. }) => store,
            answer => answer.map(|()| store("second")).expect("assigned"),
        };
        assert_eq!(wait(registry.resolve(&name)), Ok(kept.clone()));
        assert_eq!(wait(registry.assign(&name, &kept)), Ok(()));
    }
}

fn mappings_are_there_after_reopening(subject: Tested<'_>) {
    for name in ["alice", "bob"] {
        wait(subject.service().assign(&key(name), &store("team"))).expect("a free key");
    }
    wait(subject.service().remove(&key("bob"))).expect("it is there");
    subject.reopen();
    let listed = wait(subject.service().list(None, 9));
    assert_eq!(listed, Ok(vec![(key("alice"), store("team"))]));
}
