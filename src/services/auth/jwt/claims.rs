//! What the payload of a token says, after its signature was verified.
//!
//! Keeps: a claim of the wrong type refuses the token; what is not said is not allowed, except reading and writing,
//! which are the purpose of a token that names keys.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::super::{PerKey, Rights};
use super::token::invalid;
use crate::model::{PublicKey, StoreId};
use crate::services::identities::signing_key_from_hex;
use crate::services::{Rejected, Verified};

/// A time beyond what any token should last, in seconds; sums of it stay in range.
const SECONDS_MAX: f64 = 1e11;

/// The names of the claims. A name that begins with `/` is a path: `/app/keys` is `keys` within `app`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimNames {
    /// A list of the public keys that the caller may use; a `*` in one stands for any text. None if it is absent.
    pub public_keys: String,
    /// The store of these keys, or an object with the store of each. If absent, the registry decides.
    pub store_id: String,
    /// The signing key that may be bound to these keys, as 64 hexadecimal digits, or an object with the signing key of
    /// each.
    pub signing_key: String,
    /// Whether the caller may subscribe; yes if it is absent.
    pub read: String,
    /// Whether the caller may append; yes if it is absent.
    pub write: String,
    /// A list of the events that the caller may append, with `*` as in keys. All if it is absent.
    pub events: String,
    /// Who the caller is.
    pub sub: String,
    /// When the token expires, in seconds since 1970. Required.
    pub exp: String,
    /// The id of the token.
    pub jti: String,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            public_keys: "public_keys".to_owned(),
            store_id: "store_id".to_owned(),
            signing_key: "signing_key".to_owned(),
            read: "read".to_owned(),
            write: "write".to_owned(),
            events: "events".to_owned(),
            sub: "sub".to_owned(),
            exp: "exp".to_owned(),
            jti: "jti".to_owned(),
        }
    }
}

/// What a token has to claim.
pub(super) struct Expected {
    pub(super) issuers: Vec<String>,
    pub(super) audiences: Vec<String>,
    pub(super) leeway: Duration,
    pub(super) names: ClaimNames,
}

impl Expected {
    /// What `payload` says, if it is valid at `now` and meant for this server.
    pub(super) fn read(&self, payload: &[u8], now: SystemTime) -> Result<Verified, Rejected> {
        let claims: Value = serde_json::from_slice(payload).unwrap_or_default();
        if !claims.is_object() {
            return Err(invalid("the payload of the token is not a JSON object"));
        }
        let names = &self.names;
        let expires = self.check_time(&claims, now)?;
        self.check_parties(&claims)?;
        let rights = Rights {
            keys: texts(&claims, &names.public_keys)?.unwrap_or_default(),
            stores: per_key(&claims, &names.store_id, "a store", |text| StoreId::new(text).ok())?,
            signing_keys: per_key(
                &claims,
                &names.signing_key,
                "a signing key",
                signing_key_from_hex,
            )?,
            read: flag(&claims, &names.read)?,
            write: flag(&claims, &names.write)?,
            events: texts(&claims, &names.events)?,
        };
        Ok(Verified {
            subject: text(&claims, &names.sub)?.map(Box::from),
            token_id: text(&claims, &names.jti)?.map(Box::from),
            expires: Some(expires),
            rights: Some(rights),
            claims: into_object(claims),
        })
    }

    /// When the token expires.
    fn check_time(&self, claims: &Value, now: SystemTime) -> Result<SystemTime, Rejected> {
        let name = &self.names.exp;
        let Some(expires) = time(claims, name)? else {
            return Err(invalid(&format!(
                "the token has no claim {name:?}, and would never expire"
            )));
        };
        let expires = expires + self.leeway;
        if expires <= now {
            let ago = now.duration_since(expires).unwrap_or_default().as_secs();
            return Err(Rejected::new("expired", format!("the token expired {ago} s ago")));
        }
        if time(claims, "nbf")?.is_some_and(|begins| begins > now + self.leeway) {
            return Err(invalid("the token is not valid yet"));
        }
        Ok(expires)
    }

    /// Whether the token comes from the right issuer, and is meant for us.
    fn check_parties(&self, claims: &Value) -> Result<(), Rejected> {
        let issuer = text(claims, "iss")?;
        let is_known = |issuer| self.issuers.iter().any(|known| known == issuer);
        if !self.issuers.is_empty() && !issuer.is_some_and(is_known) {
            return Err(invalid("the claim \"iss\" of the token is not accepted here"));
        }
        let audiences = match claims.get("aud") {
            None => None,
            Some(Value::String(one)) => Some(vec![Box::from(&**one)]),
            Some(_) => texts(claims, "aud")?,
        };
        let is_ours = |name: &str| self.audiences.iter().any(|ours| ours == name);
        match audiences {
            None if self.audiences.is_empty() => Ok(()),
            Some(named) if named.iter().any(|name| is_ours(name)) => Ok(()),
            // RFC 7519: a recipient who is not named in the claim has to refuse the token.
            Some(_) if self.audiences.is_empty() => Err(invalid(
                "the token has a claim \"aud\", and no audience is configured here ([auth.jwt] audience)",
            )),
            Some(_) => Err(invalid("the claim \"aud\" of the token does not name this server")),
            None => Err(invalid("the token has no claim \"aud\"")),
        }
    }
}

/// A claim; `null` counts as absent.
fn claim<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    let found = if name.starts_with('/') { claims.pointer(name) } else { claims.get(name) };
    found.filter(|value| !value.is_null())
}

/// The claim as converted by `read`.
fn typed<'a, T>(
    claims: &'a Value,
    name: &str,
    expected: &str,
    read: impl FnOnce(&'a Value) -> Option<T>,
) -> Result<Option<T>, Rejected> {
    let wrong = || invalid(&format!("the claim {name:?} of the token is not {expected}"));
    claim(claims, name).map(|value| read(value).ok_or_else(wrong)).transpose()
}

fn text<'a>(claims: &'a Value, name: &str) -> Result<Option<&'a str>, Rejected> {
    typed(claims, name, "a text", Value::as_str)
}

fn flag(claims: &Value, name: &str) -> Result<bool, Rejected> {
    Ok(typed(claims, name, "true or false", Value::as_bool)?.unwrap_or(true))
}

fn texts(claims: &Value, name: &str) -> Result<Option<Vec<Box<str>>>, Rejected> {
    typed(claims, name, "a list of texts", |value| {
        value.as_array()?.iter().map(|item| item.as_str().map(Box::from)).collect()
    })
}

fn time(claims: &Value, name: &str) -> Result<Option<SystemTime>, Rejected> {
    typed(claims, name, "a time in seconds", |value| {
        let seconds = value.as_f64().filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds))?;
        Some(UNIX_EPOCH + Duration::from_secs_f64(seconds))
    })
}

/// A claim that is a text for all keys, or an object with a text for each.
fn per_key<T>(
    claims: &Value,
    name: &str,
    what: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<PerKey<T>, Rejected> {
    let expected = format!("{what}, or an object of {what} for each key");
    let said = typed(claims, name, &expected, |value| match value {
        Value::Object(each) => {
            let each = each.iter().map(|(key, value)| {
                Some((PublicKey::new(key.as_str()).ok()?, read(value.as_str()?)?))
            });
            Some(PerKey::Each(each.collect::<Option<BTreeMap<_, _>>>()?))
        }
        one => read(one.as_str()?).map(PerKey::One),
    })?;
    Ok(said.unwrap_or(PerKey::Unsaid))
}

fn into_object(claims: Value) -> Map<String, Value> {
    match claims {
        Value::Object(claims) => claims,
        _ => Map::new(),
    }
}
