//! What a caller may do who is known by more than a key: with which keys, in which stores, with which events.
//!
//! Keeps: what is not named is not allowed. Leaves out: where this comes from, and whether it can be trusted (`jwt`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::glob::glob_matches;
use crate::model::{Batch, PublicKey, StoreId};
use crate::services::identities::SigningKey;
use crate::services::{AuthError, AuthReason};

/// What a caller may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The public keys that the caller may use; a `*` in one stands for any text.
    pub keys: Vec<Box<str>>,
    /// Which stores these keys have; where nothing is said, the registry decides.
    pub stores: PerKey<StoreId>,
    /// Which signing keys may be bound to them.
    pub signing_keys: PerKey<SigningKey>,
    /// Whether the caller may subscribe.
    pub read: bool,
    /// Whether the caller may append.
    pub write: bool,
    /// The events that the caller may append, with `*` as in keys; `None` for all.
    pub events: Option<Vec<Box<str>>>,
}

/// A value for the keys of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PerKey<T> {
    /// No value.
    Unsaid,
    /// The same value for all of them.
    One(T),
    /// A value for each of these keys, and none for others.
    Each(BTreeMap<PublicKey, T>),
}

impl<T> PerKey<T> {
    /// The value for `key`.
    pub fn of(&self, key: &PublicKey) -> Option<&T> {
        match self {
            Self::Unsaid => None,
            Self::One(value) => Some(value),
            Self::Each(values) => values.get(key),
        }
    }
}

impl Rights {
    /// Whether the caller may use `key`.
    pub fn check_key(&self, key: &PublicKey) -> Result<(), AuthError> {
        if matches_any(&self.keys, key.as_str()) {
            return Ok(());
        }
        Err(forbidden(key, "you may not use this public key"))
    }

    /// Whether the caller may subscribe with `key`.
    pub fn check_read(&self, key: &PublicKey) -> Result<(), AuthError> {
        self.check_key(key)?;
        if self.read { Ok(()) } else { Err(forbidden(key, "you may not read")) }
    }

    /// Whether the caller may append `entries` with `key`.
    pub fn check_write(&self, key: &PublicKey, entries: &Batch) -> Result<(), AuthError> {
        self.check_key(key)?;
        if !self.write {
            return Err(forbidden(key, "you may not write"));
        }
        let Some(events) = &self.events else { return Ok(()) };
        let refused = entries.slots().find(|(_, e)| !matches_any(events, e.event));
        refused.map_or(Ok(()), |(slot, entry)| {
            let id = entry.id;
            Err(forbidden(key, format!("entry {slot} ({id}): you may not write this event")))
        })
    }
}

pub(super) fn matches_any(patterns: &[Box<str>], text: &str) -> bool {
    patterns.iter().any(|pattern| glob_matches(pattern, text))
}

fn forbidden(key: &PublicKey, message: impl Into<Arc<str>>) -> AuthError {
    AuthError { reason: AuthReason::Forbidden, key: key.clone(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EntryId, EntryRef};
    use crate::testing::{key, store};

    fn batch_of(events: &[&str]) -> Batch {
        let id = EntryId::now();
        Batch::from_entries(events.iter().map(|event| EntryRef {
            id,
            event,
            primary_key: "",
            payload: b"",
        }))
    }

    fn rights() -> Rights {
        Rights {
            keys: vec!["alice".into(), "phone-*".into()],
            stores: PerKey::Unsaid,
            signing_keys: PerKey::Unsaid,
            read: true,
            write: true,
            events: None,
        }
    }

    #[test]
    fn keys_that_are_not_named_may_do_nothing() {
        let rights = rights();
        for name in ["alice", "phone-", "phone-1"] {
            assert_eq!(rights.check_key(&key(name)), Ok(()), "{name}");
        }
        let none = Rights { keys: Vec::new(), ..rights.clone() };
        for (rights, name) in [(&rights, "alice2"), (&rights, "phone"), (&none, "alice")] {
            let batch = batch_of(&["E"]);
            assert!(rights.check_key(&key(name)).is_err(), "{name}");
            assert!(rights.check_read(&key(name)).is_err(), "{name}");
            assert!(rights.check_write(&key(name), &batch).is_err(), "{name}");
        }
    }

    #[test]
    fn reading_and_writing_are_apart() {
        let alice = key("alice");
        let reader = Rights { write: false, ..rights() };
        let writer = Rights { read: false, ..rights() };
        let batch = batch_of(&["E"]);
        assert!(reader.check_read(&alice).is_ok() && reader.check_write(&alice, &batch).is_err());
        assert!(writer.check_read(&alice).is_err() && writer.check_write(&alice, &batch).is_ok());
    }

    #[test]
    fn an_event_that_may_not_be_written_is_named_and_may_be_read() {
        let rights = Rights { events: Some(vec!["Todo*".into()]), ..rights() };
        let alice = key("alice");
        assert_eq!(rights.check_write(&alice, &batch_of(&["TodoAdded", "Todo"])), Ok(()));
        let refused = rights.check_write(&alice, &batch_of(&["Todo", "Note"]));
        assert!(refused.expect_err("refused").message.starts_with("entry 1 ("));
        let mut piece = Batch::beginning_at(100);
        batch_of(&["Todo", "Note"]).iter().for_each(|entry| piece.push(&entry));
        let refused = rights.check_write(&alice, &piece);
        assert!(refused.expect_err("refused").message.starts_with("entry 101 ("));
        assert_eq!(rights.check_read(&alice), Ok(()));
    }

    #[test]
    fn the_same_is_said_of_all_keys_or_of_each_its_own() {
        assert_eq!(PerKey::One(store("team")).of(&key("any")), Some(&store("team")));
        let each = PerKey::Each([(key("alice"), store("den"))].into());
        assert_eq!(each.of(&key("alice")), Some(&store("den")));
        assert_eq!(each.of(&key("phone-1")), None);
        assert_eq!(PerKey::<StoreId>::Unsaid.of(&key("alice")), None);
    }
}
