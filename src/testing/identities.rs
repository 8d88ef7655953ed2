//! What every implementation of [`Identities`] must do.

use futures_util::FutureExt;

use super::{Clause, Subject, key, racing, wait};
use crate::services::{Identities, IdentityError};

/// The contract of [`Identities`].
pub const CLAUSES: &[Clause<dyn Identities>] = crate::clauses!(identities table);

type Tested<'a> = &'a mut dyn Subject<dyn Identities>;

fn bind(identities: &dyn Identities, name: &str, signing_key: u8) -> Result<(), IdentityError> {
    wait(identities.bind(&key(name), &[signing_key; 32]))
}

fn bound_to_another(name: &str) -> Result<(), IdentityError> {
    Err(IdentityError::BoundToAnother { key: key(name) })
}

fn the_first_signing_key_stays(subject: Tested<'_>) {
    let identities = subject.service();
    for _ in 0..2 {
        assert_eq!(bind(identities, "alice", 1), Ok(()));
        assert_eq!(bind(identities, "alice", 2), bound_to_another("alice"));
    }
    // All of its bytes count.
    let mut nearly = [1; 32];
    nearly[31] = 2;
    assert_eq!(wait(identities.bind(&key("alice"), &nearly)), bound_to_another("alice"));
}

fn keys_do_not_mix(subject: Tested<'_>) {
    let identities = subject.service();
    let longest = "k".repeat(1_024);
    let names = ["alice", "alic", "alice2", "Alice", "a/b?c#d%20", "\0", "日本", &longest];
    for (signing_key, name) in (1..).zip(names) {
        assert_eq!(bind(identities, name, signing_key), Ok(()));
    }
    for (signing_key, name) in (1..).zip(names) {
        assert_eq!(bind(identities, name, signing_key), Ok(()));
        assert_eq!(bind(identities, name, 99), bound_to_another(name));
    }
    // One signing key may belong to several public keys.
    assert_eq!(bind(identities, "bob", 1), Ok(()));
}

fn of_racing_bindings_one_wins(subject: Tested<'_>) {
    let identities = subject.service();
    for round in 0..20 {
        let name = format!("key {round}");
        let answers = racing(|racer| bind(identities, &name, racer));
        let winners: Vec<_> = answers.iter().filter(|(_, answer)| answer.is_ok()).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        let lost = bound_to_another(&name);
        assert!(answers.iter().all(|(_, answer)| answer.is_ok() || *answer == lost));
        assert_eq!(bind(identities, &name, winners[0].0), Ok(()));
    }
}

fn a_dropped_binding_is_seen_by_the_next_one(subject: Tested<'_>) {
    let identities = subject.service();
    for round in 0..50 {
        let name = key(&format!("key {round}"));
        // Polled once, so that it may be in progress. Made or not made, the next answer says which, and it stays that
        // way.
        let _ = identities.bind(&name, &[1; 32]).now_or_never();
        let second = wait(identities.bind(&name, &[2; 32]));
        let kept = if second.is_ok() { 2 } else { 1 };
        assert_eq!(wait(identities.bind(&name, &[kept; 32])), Ok(()));
        assert_eq!(wait(identities.bind(&name, &[3 - kept; 32])), bound_to_another(name.as_str()));
    }
}

fn an_administrator_replaces_and_frees(subject: Tested<'_>) {
    let identities = subject.service();
    let alice = key("alice");
    let replace = |to: Option<u8>| {
        let to = to.map(|byte| [byte; 32]);
        wait(identities.replace(&alice, to.as_ref())).map(|before| before.map(|key| key[0]))
    };
    let get = || wait(identities.get(&alice)).map(|bound| bound.map(|key| key[0]));
    assert_eq!((get(), replace(None)), (Ok(None), Ok(None)));
    assert_eq!(bind(identities, "alice", 1), Ok(()));
    assert_eq!((replace(Some(2)), get()), (Ok(Some(1)), Ok(Some(2))));
    assert_eq!(bind(identities, "alice", 1), bound_to_another("alice"));
    assert_eq!((replace(None), get()), (Ok(Some(2)), Ok(None)));
    assert_eq!(bind(identities, "alice", 3), Ok(()));
    assert_eq!(wait(identities.get(&key("bob"))), Ok(None));
}

fn bindings_are_counted(subject: Tested<'_>) {
    for number in 0..5 {
        assert_eq!(bind(subject.service(), &format!("key {number}"), 1), Ok(()));
        assert_eq!(bind(subject.service(), "key 0", 1), Ok(()));
    }
    assert_eq!(wait(subject.service().replace(&key("key 3"), None)), Ok(Some([1; 32])));
    for _ in 0..2 {
        for (most, counted) in [(0, 0), (3, 3), (4, 4), (9, 4)] {
            assert_eq!(wait(subject.service().count(most)), Ok(counted));
        }
        subject.reopen();
    }
}

fn bindings_are_there_after_reopening(subject: Tested<'_>) {
    assert_eq!(bind(subject.service(), "alice", 1), Ok(()));
    subject.reopen();
    assert_eq!(bind(subject.service(), "alice", 3), bound_to_another("alice"));
    assert_eq!(bind(subject.service(), "alice", 1), Ok(()));
    assert_eq!(bind(subject.service(), "bob", 2), Ok(()));
    assert_eq!(wait(subject.service().replace(&key("bob"), None)), Ok(Some([2; 32])));
    assert_eq!(wait(subject.service().replace(&key("carol"), Some(&[4; 32]))), Ok(None));
    subject.reopen();
    assert_eq!(wait(subject.service().get(&key("bob"))), Ok(None));
    assert_eq!(wait(subject.service().get(&key("carol"))), Ok(Some([4; 32])));
}
