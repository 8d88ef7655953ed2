//! The application's answer.
//!
//! Keeps: an answer with an unknown field, or a field of another type, counts as no answer: a misspelt restriction must
//! not be ignored.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::super::{PerKey, Rights};
use crate::model::{Batch, PublicKey, StoreId};
use crate::services::identities::{SigningKey, signing_key_from_hex};
use crate::services::{AuthError, AuthReason};

/// How long an answer counts if it does not say,
const HOLDS: Duration = Duration::from_secs(60);

/// and the shortest and longest time that one may count.
const HOLDS_MIN: Duration = Duration::from_secs(1);
const HOLDS_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What the application says.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    /// `None` if nothing is allowed.
    rights: Option<Rights>,
    /// Who it is.
    pub(super) subject: Option<Arc<str>>,
    /// For how long.
    pub(super) holds: Duration,
    /// About how much memory it takes.
    pub(super) bytes: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    allow: bool,
    store_id: Option<StoreId>,
    read: Option<bool>,
    write: Option<bool>,
    events: Option<Vec<Box<str>>>,
    signing_key: Option<String>,
    sub: Option<Arc<str>>,
    ttl_seconds: Option<f64>,
}

impl Answer {
    /// Parses `text` as an answer; an error says what is wrong with it.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let body: Body = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let holds = match body.ttl_seconds {
            None => HOLDS,
            Some(seconds) if seconds >= 0.0 => {
                let most = seconds.min(HOLDS_MAX.as_secs_f64());
                Duration::from_secs_f64(most).max(HOLDS_MIN)
            }
            Some(_) => return Err("ttlSeconds is below 0".to_owned()),
        };
        let signing_key = body.signing_key.map(|text| {
            let wrong = || "signingKey is not 64 hexadecimal digits".to_owned();
            signing_key_from_hex(&text).ok_or_else(wrong)
        });
        let signing_key = signing_key.transpose()?;
        let rights = body.allow.then(|| Rights {
            keys: vec!["*".into()],
            stores: body.store_id.map_or(PerKey::Unsaid, PerKey::One),
            signing_keys: signing_key.map_or(PerKey::Unsaid, PerKey::One),
            read: body.read.unwrap_or(true),
            write: body.write.unwrap_or(true),
            events: body.events,
        });
        Ok(Self { rights, subject: body.sub, holds, bytes: text.len() })
    }

    /// Whether anything is allowed.
    pub(super) fn allows(&self) -> bool {
        self.rights.is_some()
    }

    /// The store that it names.
    pub(super) fn store(&self) -> Option<&StoreId> {
        match &self.rights.as_ref()?.stores {
            PerKey::One(store) => Some(store),
            PerKey::Unsaid | PerKey::Each(_) => None,
        }
    }

    /// The signing key that it names.
    pub(super) fn signing_key(&self) -> Option<SigningKey> {
        match self.rights.as_ref()?.signing_keys {
            PerKey::One(signing_key) => Some(signing_key),
            PerKey::Unsaid | PerKey::Each(_) => None,
        }
    }

    pub(super) fn check_read(&self, key: &PublicKey) -> Result<(), AuthError> {
        self.rights(key)?.check_read(key)
    }

    pub(super) fn check_write(&self, key: &PublicKey, entries: &Batch) -> Result<(), AuthError> {
        self.rights(key)?.check_write(key, entries)
    }

    /// Whether the key may be used at all.
    pub(super) fn check_use(&self, key: &PublicKey) -> Result<(), AuthError> {
        let rights = self.rights(key)?;
        if rights.write { Ok(()) } else { rights.check_read(key) }
    }

    fn rights(&self, key: &PublicKey) -> Result<&Rights, AuthError> {
        self.rights.as_ref().ok_or_else(|| AuthError {
            reason: AuthReason::Forbidden,
            key: key.clone(),
            message: Arc::from("you may not use this public key"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{key, store};

    fn parse(text: &str) -> Result<Answer, String> {
        Answer::parse(text.as_bytes())
    }

    fn allowed(text: &str) -> [bool; 3] {
        let (answer, key) = (parse(text).expect(text), key("k"));
        let write = answer.check_write(&key, &Batch::default());
        [answer.check_read(&key), write, answer.check_use(&key)].map(|allowed| allowed.is_ok())
    }

    #[test]
    fn what_is_not_said_is_allowed_by_who_allows() {
        assert_eq!(allowed(r#"{"allow":true}"#), [true; 3]);
        assert_eq!(allowed(r#"{"allow":true,"read":null,"storeId":null}"#), [true; 3]);
        assert_eq!(allowed(r#"{"allow":true,"write":false}"#), [true, false, true]);
        assert_eq!(allowed(r#"{"allow":true,"read":false}"#), [false, true, true]);
        assert_eq!(allowed(r#"{"allow":true,"read":false,"write":false}"#), [false; 3]);
        assert_eq!(allowed(r#"{"allow":false,"read":true,"write":true}"#), [false; 3]);
        let one = parse(r#"{"allow":true,"storeId":"team","events":["A"]}"#).expect("an answer");
        assert_eq!(one.store(), Some(&store("team")));
        let none = parse(r#"{"allow":false,"storeId":"team"}"#).expect("an answer");
        assert!(!none.allows() && none.store().is_none());
    }

    #[test]
    fn an_answer_holds_as_long_as_it_says_within_bounds() {
        for (ttl, millis) in
            [("null", 60_000), ("5", 5_000), ("2.5", 2_500), ("0", 1_000), ("1e300", 86_400_000)]
        {
            let answer = parse(&format!(r#"{{"allow":false,"ttlSeconds":{ttl}}}"#)).expect(ttl);
            assert_eq!(answer.holds, Duration::from_millis(millis), "{ttl}");
        }
    }

    #[test]
    fn anything_else_is_no_answer() {
        for text in [
            "",
            "true",
            "{}",
            "<html>",
            r#"{"allow":1}"#,
            r#"{"allow":"true"}"#,
            r#"{"allow":true} {}"#,
            r#"{"allow":true,"allow":true}"#,
            r#"{"allow":true,"event":["A"]}"#,
            r#"{"allow":true,"events":"A"}"#,
            r#"{"allow":true,"storeId":""}"#,
            r#"{"allow":true,"storeId":7}"#,
            r#"{"allow":true,"write":"no"}"#,
            r#"{"allow":true,"signingKey":"0f"}"#,
            r#"{"allow":true,"ttlSeconds":-1}"#,
            r#"{"allow":true,"ttlSeconds":"60"}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
