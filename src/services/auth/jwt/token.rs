//! A token: where to find it, its header, and its signature.
//!
//! Keeps: messages about a token never contain any part of it. Leaves out: what its payload says (`claims`).

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::key::{Algorithm, KeySet, Name};
use crate::services::{Caller, Rejected};

/// A token in the list of subprotocols begins with this.
const SUBPROTOCOL: &str = "bearer.";

/// A token in the query is the value of this parameter.
const PARAMETER: &str = "access_token=";

/// Where a token may be in a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenSource {
    /// `authorization: Bearer TOKEN`
    Authorization,
    /// The cookie of this name.
    Cookie(Box<str>),
    /// `?access_token=TOKEN`
    Query,
    /// `sec-websocket-protocol: eventlog, bearer.TOKEN`
    Subprotocol,
}

/// The text does not name a place for a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a place for a token; write authorization, query, subprotocol or cookie:NAME")]
pub struct InvalidSource(String);

impl TokenSource {
    /// The token at this place, if there is one.
    pub(super) fn find<'a>(&self, caller: &'a Caller) -> Option<&'a str> {
        let found = match self {
            Self::Authorization => caller.header("authorization").and_then(|value| {
                let (scheme, token) = value.split_once(' ')?;
                scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
            }),
            Self::Cookie(name) => values(caller, "cookie", ';').find_map(|cookie| {
                let (found, value) = cookie.split_once('=')?;
                (found.trim_end() == &**name).then(|| value.trim_matches(['"', ' ']))
            }),
            Self::Query => caller.query().split('&').find_map(|pair| pair.strip_prefix(PARAMETER)),
            Self::Subprotocol => values(caller, "sec-websocket-protocol", ',')
                .find_map(|offered| offered.strip_prefix(SUBPROTOCOL)),
        };
        found.filter(|token| !token.is_empty())
    }
}

/// The items of all headers of this name; their values are lists.
fn values<'a>(
    caller: &'a Caller,
    name: &'static str,
    separator: char,
) -> impl Iterator<Item = &'a str> {
    let headers = caller.headers().filter(move |(found, _)| *found == name);
    let texts = headers.filter_map(|(_, value)| std::str::from_utf8(value).ok());
    texts.flat_map(move |text| text.split(separator)).map(str::trim)
}

impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorization => f.write_str("the header `authorization: Bearer TOKEN`"),
            Self::Cookie(name) => write!(f, "the cookie `{name}`"),
            Self::Query => f.write_str("`?access_token=TOKEN` behind the path"),
            Self::Subprotocol => f.write_str("the subprotocols `eventlog` and `bearer.TOKEN`"),
        }
    }
}

impl FromStr for TokenSource {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, InvalidSource> {
        match (text, text.strip_prefix("cookie:")) {
            ("authorization", _) => Ok(Self::Authorization),
            ("query", _) => Ok(Self::Query),
            ("subprotocol", _) => Ok(Self::Subprotocol),
            (_, Some(name)) if is_cookie_name(name) => Ok(Self::Cookie(name.into())),
            _ => Err(InvalidSource(text.to_owned())),
        }
    }
}

/// RFC 6265: no cookie has another name, so no token would be found.
fn is_cookie_name(name: &str) -> bool {
    let separators = br#"()<>@,;:\"/[]?={}"#;
    let is_in_names = |byte: u8| byte.is_ascii_graphic() && !separators.contains(&byte);
    !name.is_empty() && name.bytes().all(is_in_names)
}

/// A token whose header can be read, and whose signature has not been checked yet.
pub(super) struct Token<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    /// Header and payload, as they were signed.
    signed: &'a str,
    payload: &'a str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Whether it is there at all.
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

/// For a field whose content does not matter, not even `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsigned {
    #[error("no key is known that could have signed the token")]
    UnknownKey,
    #[error("the signature is not right")]
    Forged {
        /// Whether the key is the one that the token names.
        named: bool,
    },
    #[error("the payload is not base64url")]
    Payload,
}

impl Unsigned {
    /// Whether the issuer may have a new key that is not known here.
    pub(super) fn may_be_a_new_key(self) -> bool {
        matches!(self, Self::UnknownKey | Self::Forged { named: false })
    }
}

impl From<Unsigned> for Rejected {
    fn from(unsigned: Unsigned) -> Self {
        invalid(&unsigned.to_string())
    }
}

pub(super) fn invalid(message: &str) -> Rejected {
    Rejected::new("invalid-token", message)
}

impl<'a> Token<'a> {
    /// The token in `text`, if it has one of the `algorithms`.
    pub(super) fn parse(text: &'a str, algorithms: &[Algorithm]) -> Result<Self, Rejected> {
        let malformed = || invalid("it is not a token of the form HEADER.PAYLOAD.SIGNATURE");
        let (signed, signature) = text.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or_else(malformed)?;
        let header = BASE64.decode(header).map_err(|_| malformed())?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| malformed())?;
        let signature = BASE64.decode(signature).map_err(|_| malformed())?;
        let algorithm = Algorithm::named(&header.alg).filter(|named| algorithms.contains(named));
        let algorithm = algorithm.ok_or_else(|| {
            let taken: Vec<&str> = algorithms.iter().map(|taken| taken.name()).collect();
            invalid(&format!("the algorithm of the token is not taken here; {}", taken.join(", ")))
        })?;
        // The issuer requires that an extension is understood, and none is here.
        if header.crit {
            return Err(invalid("the token has critical headers, which are not known here"));
        }
        Ok(Self { algorithm, key_id: header.kid, signed, payload, signature })
    }

    /// The payload, if one of the keys signed the token. If a key has the name in the token, only that key counts; keys
    /// with other names never do.
    pub(super) fn verify(&self, sets: &[&KeySet]) -> Result<Vec<u8>, Unsigned> {
        let keys = || sets.iter().flat_map(|set| set.of(self.algorithm, self.key_id.as_deref()));
        let named = keys().any(|(_, name)| name == Name::Same);
        let wanted = if named { Name::Same } else { Name::Unsaid };
        let mut outcome = Err(Unsigned::UnknownKey);
        for (key, _) in keys().filter(|(_, name)| *name == wanted) {
            if key.has_signed(self.signed.as_bytes(), &self.signature) {
                return BASE64.decode(self.payload).map_err(|_| Unsigned::Payload);
            }
            outcome = Err(Unsigned::Forged { named });
        }
        outcome
    }
}
