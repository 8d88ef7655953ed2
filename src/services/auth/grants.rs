//! A list of who may do what, which can change while the server runs.
//!
//! Keeps: there are two sets: the one that the server was started with, and the one that administrators set while it
//! runs. For the same grantee the latter counts. Leaves out: where either is kept (`server::grants`, the binary's
//! configuration).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::rights::matches_any;
use crate::model::glob::glob_matches;
use crate::model::{Batch, PublicKey};
use crate::services::{Auth, AuthError, AuthReason, Claim};

/// What one key may do, or all keys that match a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// The grantee; a `*` stands for any text.
    pub public_key: PublicKey,
    /// Whether they may append.
    pub write: bool,
    /// Whether they may subscribe.
    pub read: bool,
    /// The events that they may append, with `*` as in keys; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<Box<str>>>,
}

/// Two grants are for the same grantee, so it is ambiguous which of them counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("public key {0:?} has two grants; join them into one")]
pub struct DuplicateGrant(pub PublicKey);

/// Where a grant comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GrantSource {
    /// The server was started with it, or read it when it reloaded its configuration.
    Configuration,
    /// An administrator set it while the server ran.
    Api,
}

/// A grant as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedGrant {
    /// The grant.
    pub grant: Grant,
    /// Where it comes from.
    pub source: GrantSource,
    /// Whether it counts: a grant of the configuration does not if there is one from the API for the same grantee.
    pub counts: bool,
}

/// Answers from a list.
///
/// A grant that names the key is the whole answer. Otherwise a grant whose pattern matches counts; of several, the one
/// with the most characters besides `*` (of two with equally many, the first in byte order). So a key can be given less
/// than everyone else. A key that no grant covers is [`Unauthorized`](AuthReason::Unauthorized); one that is covered
/// but lacks the right is [`Forbidden`](AuthReason::Forbidden).
#[derive(Debug, Default)]
pub struct Grants(RwLock<Sets>);

#[derive(Debug, Default)]
struct Sets {
    configured: Set,
    set: Set,
}

#[derive(Debug, Default)]
struct Set {
    names: BTreeMap<PublicKey, Grant>,
    patterns: BTreeMap<Form, Grant>,
}

/// A pattern; the narrower ones come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Form(Reverse<usize>, PublicKey);

impl Form {
    /// `None` if it is a name and not a pattern.
    fn of(key: &PublicKey) -> Option<Self> {
        let letters = key.as_str().chars().filter(|letter| *letter != '*').count();
        key.as_str().contains('*').then(|| Self(Reverse(letters), key.clone()))
    }
}

impl Set {
    /// The grant for exactly this grantee.
    fn of(&self, grantee: &PublicKey) -> Option<&Grant> {
        match Form::of(grantee) {
            Some(form) => self.patterns.get(&form),
            None => self.names.get(grantee),
        }
    }

    fn insert(&mut self, grant: Grant) -> Option<Grant> {
        match Form::of(&grant.public_key) {
            Some(form) => self.patterns.insert(form, grant),
            None => self.names.insert(grant.public_key.clone(), grant),
        }
    }

    fn remove(&mut self, grantee: &PublicKey) -> Option<Grant> {
        match Form::of(grantee) {
            Some(form) => self.patterns.remove(&form),
            None => self.names.remove(grantee),
        }
    }

    fn narrowest(&self, key: &PublicKey) -> Option<(&Form, &Grant)> {
        self.patterns.iter().find(|(Form(_, form), _)| glob_matches(form.as_str(), key.as_str()))
    }

    fn all(&self) -> impl Iterator<Item = &Grant> {
        self.names.values().chain(self.patterns.values())
    }
}

impl Sets {
    /// The grant that counts for `key`.
    fn find(&self, key: &PublicKey) -> Option<&Grant> {
        let named = self.set.names.get(key).or_else(|| self.configured.names.get(key));
        named.or_else(|| match (self.set.narrowest(key), self.configured.narrowest(key)) {
            // For the same pattern, the grant that was set counts.
            (Some((set, grant)), Some((configured, _))) if set <= configured => Some(grant),
            (set, configured) => configured.or(set).map(|(_, grant)| grant),
        })
    }
}

impl Grants {
    /// Answers according to `grants`; an empty list refuses everyone.
    pub fn new(grants: impl IntoIterator<Item = Grant>) -> Result<Self, DuplicateGrant> {
        let all = Self::default();
        all.replace(grants)?;
        Ok(all)
    }

    /// Replaces the grants that the server was started with; on an error they stay as they are. Afterwards
    /// [`Server::access_changed`](crate::server::Server::access_changed) has to be called.
    pub fn replace(&self, grants: impl IntoIterator<Item = Grant>) -> Result<(), DuplicateGrant> {
        let mut configured = Set::default();
        for grant in grants {
            let grantee = grant.public_key.clone();
            if configured.insert(grant).is_some() {
                return Err(DuplicateGrant(grantee));
            }
        }
        self.0.write().configured = configured;
        Ok(())
    }

    /// Applies the grant that is `kept` for this grantee, or its absence, beside those that the server was started
    /// with. Of two calls at the same time, the last one reads last.
    pub(crate) fn set_as(&self, grantee: &PublicKey, kept: impl FnOnce() -> Option<Arc<Grant>>) {
        let mut sets = self.0.write();
        match kept() {
            Some(grant) => sets.set.insert(Grant::clone(&grant)),
            None => sets.set.remove(grantee),
        };
    }

    /// At most `count` grants (but up to two if `count` is smaller) from both sources for grantees after `after`, in
    /// the order of their names. For the same grantee, the one from the API comes first. An empty result means that
    /// there are no more.
    pub fn list(&self, after: Option<&PublicKey>, count: usize) -> Vec<ListedGrant> {
        let count = count.max(2);
        let sets = self.0.read();
        let is_behind = |grant: &&Grant| after.is_none_or(|after| grant.public_key > *after);
        let set = sets.set.all().filter(is_behind).map(|grant| ListedGrant {
            grant: grant.clone(),
            source: GrantSource::Api,
            counts: true,
        });
        let configured = sets.configured.all().filter(is_behind).map(|grant| ListedGrant {
            grant: grant.clone(),
            source: GrantSource::Configuration,
            counts: sets.set.of(&grant.public_key).is_none(),
        });
        let mut all: Vec<_> = set.chain(configured).collect();
        all.sort_by(|one, other| one.grant.public_key.cmp(&other.grant.public_key));
        // The two grants of one grantee stay together.
        let cut = all.get(count).map(|next| next.grant.public_key.clone());
        all.truncate(count);
        all.pop_if(|last| Some(&last.grant.public_key) == cut.as_ref());
        all
    }

    fn check(
        &self,
        key: &PublicKey,
        what: &str,
        may: impl Fn(&Grant) -> bool,
    ) -> Result<(), AuthError> {
        match self.0.read().find(key) {
            Some(grant) if may(grant) => Ok(()),
            Some(_) => Err(refuse(key, AuthReason::Forbidden, &format!("this key may not {what}"))),
            None => Err(refuse(key, AuthReason::Unauthorized, "this key has no grant")),
        }
    }

    fn check_events(&self, key: &PublicKey, entries: &Batch) -> Result<(), AuthError> {
        let sets = self.0.read();
        let events = sets.find(key).and_then(|grant| grant.events.as_ref());
        let Some(events) = events else { return Ok(()) };
        let refused = entries.slots().find(|(_, e)| !matches_any(events, e.event));
        refused.map_or(Ok(()), |(slot, entry)| {
            let what = format!("entry {slot} ({}): this key may not write this event", entry.id);
            Err(refuse(key, AuthReason::Forbidden, &what))
        })
    }
}

fn refuse(key: &PublicKey, reason: AuthReason, message: &str) -> AuthError {
    AuthError { reason, key: key.clone(), message: message.into() }
}

impl Auth for Grants {
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        entries: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        let allowed = self.check(claim.key, "write", |grant| grant.write);
        ready(allowed.and_then(|()| self.check_events(claim.key, entries))).boxed()
    }

    fn authorize_read<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        ready(self.check(claim.key, "read", |grant| grant.read)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EntryId, EntryRef};
    use crate::services::Caller;
    use crate::testing::key;

    fn grant(name: &str, write: bool, read: bool) -> Grant {
        Grant { public_key: key(name), write, read, events: None }
    }

    fn set_in(grants: &Grants, grant: &Grant) {
        grants.set_as(&grant.public_key, || Some(Arc::new(grant.clone())));
    }

    fn batch_of(events: &[&str]) -> Batch {
        let id = EntryId::now();
        let entries = events.iter().map(|event| (id, *event));
        Batch::from_entries(entries.map(|(id, event)| EntryRef {
            id,
            event,
            primary_key: "",
            payload: b"",
        }))
    }

    async fn reasons(grants: &Grants, name: &str) -> [Option<AuthReason>; 2] {
        let (caller, name) = (Caller::default(), key(name));
        let claim = Claim { caller: &caller, key: &name, proof: None };
        let write = grants.authorize_write(claim, &Batch::default()).await;
        let read = grants.authorize_read(claim).await;
        [write, read].map(|answer| {
            let error = answer.err()?;
            assert_eq!(error.key, name);
            Some(error.reason)
        })
    }

    const NO: Option<AuthReason> = Some(AuthReason::Forbidden);

    #[tokio::test]
    async fn each_right_is_granted_by_itself() {
        let grants = Grants::new([
            grant("w", true, false),
            grant("r", false, true),
            grant("n", false, false),
        ])
        .expect("no duplicates");
        assert_eq!(reasons(&grants, "w").await, [None, NO]);
        assert_eq!(reasons(&grants, "r").await, [NO, None]);
        assert_eq!(reasons(&grants, "n").await, [NO, NO]);
    }

    #[tokio::test]
    async fn a_key_without_a_grant_is_unauthorized() {
        let grants = Grants::new([grant("alice", true, true)]).expect("no duplicates");
        assert_eq!(reasons(&grants, "mallory").await, [Some(AuthReason::Unauthorized); 2]);
        assert_eq!(reasons(&Grants::default(), "alice").await, [Some(AuthReason::Unauthorized); 2]);
    }

    #[tokio::test]
    async fn the_narrowest_grant_counts_whichever_set_it_is_in() {
        let all =
            [grant("*", false, true), grant("phone-*", true, false), grant("phone-7", true, true)];
        for in_api in 0..8 {
            let grants = Grants::default();
            let is_set = |at: usize| in_api >> at & 1 == 1;
            let set = all.iter().enumerate().filter(|(at, _)| is_set(*at));
            set.for_each(|(_, grant)| set_in(&grants, grant));
            let configured = all.iter().enumerate().filter(|(at, _)| !is_set(*at));
            grants.replace(configured.map(|(_, grant)| grant.clone())).expect("no duplicates");
            assert_eq!(reasons(&grants, "anybody").await, [NO, None], "{in_api}");
            assert_eq!(reasons(&grants, "phone-").await, [None, NO], "{in_api}");
            assert_eq!(reasons(&grants, "phone-7").await, [None, None], "{in_api}");
        }
    }

    #[tokio::test]
    async fn for_one_grantee_what_was_set_counts_and_a_reload_replaces_the_rest() {
        for (name, who) in [("alice", "alice"), ("a*", "abc"), ("*", "anybody")] {
            let grants = Grants::new([grant(name, true, true)]).expect("no duplicates");
            set_in(&grants, &grant(name, false, true));
            assert_eq!(reasons(&grants, who).await, [NO, None], "{name}");
            let listed = grants.list(None, 9);
            let seen: Vec<_> = listed.iter().map(|one| (one.source, one.counts)).collect();
            assert_eq!(seen, [(GrantSource::Api, true), (GrantSource::Configuration, false)]);
            grants.replace([]).expect("no duplicates");
            assert_eq!(reasons(&grants, who).await, [NO, None], "{name}");
            grants.replace([grant(name, true, false)]).expect("no duplicates");
            grants.set_as(&key(name), || None);
            assert_eq!(reasons(&grants, who).await, [None, NO], "{name}");
        }
    }

    #[tokio::test]
    async fn an_event_that_may_not_be_written_is_named_and_may_be_read() {
        let events = Some(vec!["Todo*".into()]);
        let grants =
            Grants::new([Grant { events, ..grant("*", true, true) }]).expect("no duplicates");
        let (caller, alice) = (Caller::default(), key("alice"));
        let claim = Claim { caller: &caller, key: &alice, proof: None };
        assert_eq!(grants.authorize_write(claim, &batch_of(&["TodoAdded", "Todo"])).await, Ok(()));
        let refused = grants.authorize_write(claim, &batch_of(&["Todo", "Note"])).await;
        let refused = refused.expect_err("refused");
        assert_eq!(refused.reason, AuthReason::Forbidden);
        assert!(refused.message.starts_with("entry 1 ("), "{refused}");
        assert_eq!(grants.authorize_read(claim).await, Ok(()));
    }

    #[test]
    fn two_grants_for_one_grantee_are_refused_and_change_nothing() {
        for name in ["alice", "a*", "*"] {
            let twice = [grant(name, true, true), grant(name, true, false)];
            assert!(Grants::new(twice.clone()).is_err(), "{name}");
            let grants = Grants::new([grant("bob", true, true)]).expect("no duplicates");
            assert_eq!(grants.replace(twice), Err(DuplicateGrant(key(name))));
            assert_eq!(grants.list(None, 9).len(), 1);
        }
    }

    #[test]
    fn lists_come_in_pages_that_part_no_grantee() {
        let grants = Grants::new(["a", "b", "c*", "d"].map(|name| grant(name, true, true)));
        let grants = grants.expect("no duplicates");
        ["b", "c*", "e"].iter().for_each(|name| set_in(&grants, &grant(name, true, true)));
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let page = grants.list(after.as_ref(), 2);
            let Some(last) = page.last() else { break };
            after = Some(last.grant.public_key.clone());
            found
                .extend(page.into_iter().map(|one| (one.grant.public_key.to_string(), one.counts)));
        }
        let expected = [
            ("a", true),
            ("b", true),
            ("b", false),
            ("c*", true),
            ("c*", false),
            ("d", true),
            ("e", true),
        ];
        assert_eq!(found, expected.map(|(name, counts)| (name.to_owned(), counts)));
    }
}
