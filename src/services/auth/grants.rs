//! A list of who may do what.

use std::collections::HashMap;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use crate::model::{Batch, PublicKey};
use crate::services::{Auth, AuthError, AuthReason, Claim};

/// Who a [`Grant`] is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grantee {
    /// This key.
    Key(PublicKey),
    /// Every key that no grant names.
    Anyone,
}

/// What one key, or everyone else, may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub grantee: Grantee,
    /// Whether it may append.
    pub write: bool,
    /// Whether it may subscribe.
    pub read: bool,
}

/// Two grants are for the same grantee, so which of them counts is anyone's guess.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DuplicateGrant {
    /// Both name this key.
    #[error("public key {0:?} is granted twice; join the two grants into one")]
    Key(PublicKey),
    /// Both are for everyone else.
    #[error("everyone else is granted twice; join the two grants into one")]
    Anyone,
}

/// Answers from a fixed list.
///
/// A grant that names the key is the whole answer; the one for [`Grantee::Anyone`] counts for keys without a grant of
/// their own, so a key can be given less than everyone else. A key that no grant covers is
/// [`Unauthorized`](AuthReason::Unauthorized); one that is covered but lacks the right is
/// [`Forbidden`](AuthReason::Forbidden).
#[derive(Clone, Debug, Default)]
pub struct Grants {
    keys: HashMap<PublicKey, Rights>,
    anyone: Option<Rights>,
}

#[derive(Clone, Copy, Debug)]
struct Rights {
    write: bool,
    read: bool,
}

impl Grants {
    /// The answers that `grants` add up to; an empty list refuses everyone.
    pub fn new(grants: impl IntoIterator<Item = Grant>) -> Result<Self, DuplicateGrant> {
        let mut all = Self::default();
        for Grant { grantee, write, read } in grants {
            let rights = Rights { write, read };
            match grantee {
                Grantee::Key(key) => {
                    if all.keys.insert(key.clone(), rights).is_some() {
                        return Err(DuplicateGrant::Key(key));
                    }
                }
                Grantee::Anyone => {
                    if all.anyone.replace(rights).is_some() {
                        return Err(DuplicateGrant::Anyone);
                    }
                }
            }
        }
        Ok(all)
    }

    fn check(
        &self,
        key: &PublicKey,
        what: &str,
        may: impl Fn(Rights) -> bool,
    ) -> Result<(), AuthError> {
        let refuse = |reason, message: String| AuthError {
            reason,
            key: key.clone(),
            message: message.into(),
        };
        match self.keys.get(key).copied().or(self.anyone) {
            Some(rights) if may(rights) => Ok(()),
            Some(_) => Err(refuse(AuthReason::Forbidden, format!("this key may not {what}"))),
            None => Err(refuse(AuthReason::Unauthorized, "nothing is granted to this key".into())),
        }
    }
}

impl Auth for Grants {
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        _entries: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        ready(self.check(claim.key, "write", |rights| rights.write)).boxed()
    }

    fn authorize_read<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        ready(self.check(claim.key, "read", |rights| rights.read)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::Caller;

    fn key(text: &str) -> PublicKey {
        PublicKey::new(text).expect("a public key")
    }

    fn grant(name: &str, write: bool, read: bool) -> Grant {
        let grantee = if name == "*" { Grantee::Anyone } else { Grantee::Key(key(name)) };
        Grant { grantee, write, read }
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

    #[tokio::test]
    async fn each_right_is_granted_by_itself() {
        let grants = Grants::new([
            grant("w", true, false),
            grant("r", false, true),
            grant("n", false, false),
        ])
        .expect("no duplicates");
        let forbidden = Some(AuthReason::Forbidden);
        assert_eq!(reasons(&grants, "w").await, [None, forbidden]);
        assert_eq!(reasons(&grants, "r").await, [forbidden, None]);
        assert_eq!(reasons(&grants, "n").await, [forbidden, forbidden]);
    }

    #[tokio::test]
    async fn a_key_without_a_grant_is_unauthorized() {
        let grants = Grants::new([grant("alice", true, true)]).expect("no duplicates");
        assert_eq!(reasons(&grants, "mallory").await, [Some(AuthReason::Unauthorized); 2]);
        assert_eq!(reasons(&Grants::default(), "alice").await, [Some(AuthReason::Unauthorized); 2]);
    }

    #[tokio::test]
    async fn a_grant_of_its_own_outweighs_the_one_for_everyone() {
        let grants = Grants::new([grant("*", true, true), grant("guest", false, true)])
            .expect("no duplicates");
        assert_eq!(reasons(&grants, "anybody").await, [None, None]);
        assert_eq!(reasons(&grants, "guest").await, [Some(AuthReason::Forbidden), None]);
    }

    #[test]
    fn two_grants_for_one_grantee_are_refused() {
        for name in ["alice", "*"] {
            let twice = Grants::new([grant(name, true, true), grant(name, true, false)]);
            assert!(twice.is_err(), "{name}");
        }
    }
}
