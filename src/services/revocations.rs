//! Who is shut out: a public key, a user or a token, whatever `Auth` says.
//!
//! Keeps: a revocation is durable, and is checked at each handshake and with each request. Leaves out: how sessions end
//! (`actors::session`).

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::records::{Kept, Records, RecordsUnavailable};
use super::{Caller, Claim, Rejected};
use crate::model::PublicKey;

/// The maximum length of a revoked subject, of a token id and of a reason, in bytes.
pub const REVOKED_BYTES_MAX: usize = 1_024;

/// Who is locked out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Revoked {
    /// Everybody who names this public key.
    PublicKey(PublicKey),
    /// Everybody with this subject: [`Verified::subject`](super::Verified::subject), or what
    /// [`Auth::subject_of`](super::Auth::subject_of) returns.
    Subject(Box<str>),
    /// Whoever shows this token: [`Verified::token_id`](super::Verified::token_id).
    TokenId(Box<str>),
}

impl Revoked {
    /// Its name among revocations: `key:alice`, `subject:ann`, `token-id:…`.
    pub fn id(&self) -> String {
        match self {
            Self::PublicKey(key) => id(KEY, key.as_str()),
            Self::Subject(subject) => id(SUBJECT, subject),
            Self::TokenId(token_id) => id(TOKEN_ID, token_id),
        }
    }
}

const KEY: &str = "key";
const SUBJECT: &str = "subject";
const TOKEN_ID: &str = "token-id";

fn id(kind: &str, name: &str) -> String {
    format!("{kind}:{name}")
}

/// Says that somebody is shut out. There is at most one for each key, subject and token id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revocation {
    /// Who.
    #[serde(flatten)]
    pub revoked: Revoked,
    /// Until when, in seconds; `None` until it is lifted. For a token, its own expiry is best.
    #[serde(with = "seconds", default, skip_serializing_if = "Option::is_none")]
    pub until: Option<SystemTime>,
    /// Why, as the client is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<str>>,
}

impl Revocation {
    /// Until it is lifted, without a reason for the client.
    pub fn new(revoked: Revoked) -> Self {
        Self { revoked, until: None, reason: None }
    }

    fn is_over(&self, now: SystemTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Checks that it can be stored.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let long = |text: &str| text.len() > REVOKED_BYTES_MAX;
        match &self.revoked {
            Revoked::Subject(text) | Revoked::TokenId(text) if text.is_empty() => {
                Err("the subject or token id is empty")
            }
            Revoked::Subject(text) | Revoked::TokenId(text) if long(text) => {
                Err("the subject or token id is longer than 1,024 bytes")
            }
            _ if self.reason.as_deref().is_some_and(long) => {
                Err("the reason is longer than 1,024 bytes")
            }
            Revoked::PublicKey(_) | Revoked::Subject(_) | Revoked::TokenId(_) => Ok(()),
        }
    }
}

/// Somebody is shut out; this is what they are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsRevoked {
    what: &'static str,
    reason: Option<Box<str>>,
}

impl fmt::Display for IsRevoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revoked: {}", self.told())
    }
}

impl std::error::Error for IsRevoked {}

impl From<IsRevoked> for Rejected {
    fn from(revoked: IsRevoked) -> Self {
        Self::new("revoked", revoked.told())
    }
}

impl IsRevoked {
    /// The text after the word `revoked`.
    fn told(&self) -> String {
        let reason = self.reason.iter().map(|reason| format!(": {reason}"));
        format!("this {} was revoked{}", self.what, reason.collect::<String>())
    }
}

/// All revocations of a server.
pub(crate) struct Revocations {
    pub(crate) kept: Arc<Kept<Revocation>>,
    /// The earliest time at which one of them can expire.
    next_end: Mutex<Option<SystemTime>>,
}

impl Revocations {
    pub(crate) fn new(records: Arc<dyn Records>) -> Self {
        let kept = Arc::new(Kept::new(records, "revocation", "all connections are refused"));
        Self { kept, next_end: Mutex::new(Some(UNIX_EPOCH)) }
    }

    /// Whether nobody is shut out; costs nothing to know.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether the caller is shut out.
    pub(crate) fn check_caller(&self, caller: &Caller) -> Result<(), IsRevoked> {
        let Some(verified) = caller.verified().filter(|_| !self.is_empty()) else { return Ok(()) };
        verified.subject.as_deref().map_or(Ok(()), |subject| self.check_subject(subject))?;
        let token_id = verified.token_id.as_deref();
        token_id.map_or(Ok(()), |token_id| self.find("token", &id(TOKEN_ID, token_id)))
    }

    /// Whether the caller or the key that they name is shut out.
    pub(crate) fn check(&self, claim: Claim<'_>) -> Result<(), IsRevoked> {
        if self.is_empty() {
            return Ok(());
        }
        self.check_caller(claim.caller)?;
        self.check_key(claim.key)
    }

    pub(crate) fn check_key(&self, key: &PublicKey) -> Result<(), IsRevoked> {
        self.find("public key", &id(KEY, key.as_str()))
    }

    pub(crate) fn check_subject(&self, subject: &str) -> Result<(), IsRevoked> {
        self.find("user", &id(SUBJECT, subject))
    }

    fn find(&self, what: &'static str, id: &str) -> Result<(), IsRevoked> {
        match self.kept.get(id).filter(|revocation| !revocation.is_over(now())) {
            Some(revocation) => Err(IsRevoked { what, reason: revocation.reason.clone() }),
            None => Ok(()),
        }
    }

    /// Shuts somebody out, durably. The caller must run it to completion.
    pub(crate) async fn add(&self, revocation: Revocation) -> Result<(), RecordsUnavailable> {
        let (id, until) = (revocation.revoked.id(), revocation.until);
        self.kept.set(&id, revocation).await?;
        let is_due = {
            let mut next = self.next_end.lock();
            *next = next.into_iter().chain(until).min();
            next.take_if(|end| *end <= now()).is_some()
        };
        if is_due { self.remove_over().await } else { Ok(()) }
    }

    /// Removes the expired ones.
    async fn remove_over(&self) -> Result<(), RecordsUnavailable> {
        let now = now();
        let over = self.kept.look(|all| {
            let over = all.iter().filter(|(_, revocation)| revocation.is_over(now));
            over.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        });
        for id in over {
            // Unless it was set again meanwhile.
            self.kept.remove(&id, |revocation| revocation.is_over(now)).await?;
        }
        let end = self.kept.look(|all| all.values().filter_map(|one| one.until).min());
        let mut next = self.next_end.lock();
        *next = next.into_iter().chain(end).min();
        Ok(())
    }

    /// Lets somebody in again, durably; returns the revocation that was lifted. The caller must run it to completion.
    pub(crate) async fn lift(
        &self,
        id: &str,
    ) -> Result<Option<Arc<Revocation>>, RecordsUnavailable> {
        self.kept.remove(id, |_| true).await
    }

    /// At most `count` of the current ones after the one named `after`, ordered by name.
    pub(crate) async fn page(
        &self,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<Arc<Revocation>>, RecordsUnavailable> {
        let (mut after, mut found) = (after.map(Box::from), Vec::new());
        while found.len() < count {
            let page = self.kept.page(after.as_deref(), count - found.len()).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let now = now();
            let hold = page.into_iter().map(|(_, one)| one).filter(|one| !one.is_over(now));
            found.extend(hold);
        }
        Ok(found)
    }
}

#[expect(clippy::disallowed_methods, reason = "revocations say until when they hold")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::services::records::MemoryRecords;
    use crate::testing::key;

    fn until(end: SystemTime) -> Revocation {
        Revocation { until: Some(end), ..Revocation::new(Revoked::PublicKey(key("alice"))) }
    }

    #[tokio::test]
    async fn one_that_is_over_does_not_count_and_goes_when_the_next_one_comes() {
        let records = Arc::new(MemoryRecords::default());
        let revocations = Revocations::new(records.clone());
        let second = Duration::from_secs(1);
        revocations.add(until(now() + 600 * second)).await.expect("set");
        assert!(revocations.check_key(&key("alice")).is_err());
        revocations.kept.set("key:alice", until(now() - second)).await.expect("set");
        assert_eq!(revocations.check_key(&key("alice")), Ok(()));
        assert!(revocations.page(None, 9).await.expect("a page").is_empty());
        *revocations.next_end.lock() = Some(now() - second);
        let subject = Revocation::new(Revoked::Subject("ann".into()));
        revocations.add(subject).await.expect("set");
        let left = records.list("", 9).await.expect("a page");
        assert_eq!(
            left.iter().map(|(name, _)| &**name).collect::<Vec<_>>(),
            ["revocation/subject:ann"]
        );
    }
}

/// Seconds since 1970.
mod seconds {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use serde::{Deserialize, Serialize};

    #[expect(clippy::ref_option, reason = "serde asks for it")]
    pub(super) fn serialize<S: serde::Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let since = |time: &SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        time.as_ref().map(|time| since(time).as_secs()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let seconds = Option::<u64>::deserialize(deserializer)?;
        let time = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let time = seconds.map(|seconds| time(seconds).ok_or("a time too far ahead")).transpose();
        time.map_err(serde::de::Error::custom)
    }
}
