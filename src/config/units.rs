//! Values as people write them: sizes, times, counts, addresses, origins, tokens.
//!
//! Keeps: each of them can be read from a text, because an environment variable can hold nothing else, and numbers also
//! from a number. An error also says how to write the value.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use eventlog_server::model;
use eventlog_server::services::origin_policy::{OriginPolicy, PageOrigin};
use eventlog_server::webhooks::{InvalidSecret, Secret};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::schema::{Described, one_or_several, text};

/// A number of bytes: `1048576`, `"512KiB"`, `"16MiB"`, `"1GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

/// A time: `"500ms"`, `"30s"`, `"5m"`, `"12h"`, `"30d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// A plain number, underscores allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) usize);

/// Yes or no: `true` or `false`, in the environment as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flag(pub(crate) bool);

/// An address and port to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) SocketAddr);

/// What is logged: a level, and levels of single modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Levels(pub(crate) String);

/// The bearer token of the admin API.
#[derive(Clone, Debug)]
pub(crate) struct Token(model::Secret);

/// What requests are signed with: one secret, or a list of them.
#[derive(Clone, Debug)]
pub(crate) struct Secrets(pub(crate) Vec<Secret>);

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged, expecting = "a secret is a text, or a list of texts")]
        enum Texts {
            One(String),
            Several(Vec<String>),
        }
        let texts = match Texts::deserialize(deserializer)? {
            Texts::One(text) => vec![text],
            Texts::Several(texts) => texts,
        };
        let secrets = texts.iter().map(|text| text.parse());
        secrets.collect::<Result<_, InvalidSecret>>().map(Self).map_err(de::Error::custom)
    }
}

/// Which web pages may connect: a list, or one text with commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origins(pub(crate) OriginPolicy);

const SIZES: [(&str, u64); 5] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

const TIMES_MS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A whole number and one of `units`, with spaces between them or not.
fn parse_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '_')?;
    let (number, unit) = text.split_at(unit_at);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    parse_count(number)?.checked_mul(*factor)
}

fn parse_count(text: &str) -> Option<u64> {
    text.replace('_', "").parse().ok()
}

impl Size {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        parse_count(text.trim())
            .or_else(|| parse_unit(text, &SIZES))
            .and_then(|bytes| usize::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| {
                format!("{text:?} is not a size; write bytes, or as 512KiB, 16MiB, 1GiB")
            })
    }
}

impl Span {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        parse_unit(text, &TIMES_MS)
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(|| format!("{text:?} is not a time; write it as 500ms, 30s, 5m, 12h, 30d"))
    }
}

impl Count {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        parse_count(text.trim())
            .and_then(|count| usize::try_from(count).ok())
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a whole number"))
    }
}

impl Flag {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text:?} is neither true nor false"))
    }
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        text.trim().parse().map(Self).map_err(|_| {
            format!(
                "{text:?} is not an address with a port; write it as 127.0.0.1:7420, \
                 or 0.0.0.0:7420 for every IPv4 address of this machine, [::]:7420 for IPv6"
            )
        })
    }
}

impl Levels {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let is_level = |part: &str| {
            let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
            let is_of_nothing = part.starts_with('=');
            !is_of_nothing && level.trim().parse::<log::LevelFilter>().is_ok()
        };
        if text.split(',').map(str::trim).all(is_level) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "{text:?} is not a level; there are off, error, warn, info, debug and trace, and for single \
             modules info,eventlog_server::storage=debug"
        ))
    }
}

impl Token {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the token is empty; leave it out to have none".to_owned());
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a token travels in an HTTP header: ASCII only, no spaces".to_owned());
        }
        Ok(Self(model::Secret::new(text)))
    }

    /// The token itself.
    pub(crate) fn as_str(&self) -> &str {
        self.0.expose()
    }
}

impl Origins {
    fn parse(text: &str) -> Result<Self, String> {
        let origins = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        Self::from_list(&origins.map(ToOwned::to_owned).collect::<Vec<_>>())
    }

    fn from_list(origins: &[String]) -> Result<Self, String> {
        if origins.iter().any(|origin| origin == "*") {
            return Ok(Self(OriginPolicy::Any));
        }
        let listed = origins.iter().map(|origin| origin.parse::<PageOrigin>());
        let listed: Vec<_> = listed.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let policy =
            if listed.is_empty() { OriginPolicy::SameHost } else { OriginPolicy::Listed(listed) };
        Ok(Self(policy))
    }
}

macro_rules! reads_from_text {
    ($($name:ident: $expected:literal,)*) => {$(
        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::parse(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::parse(text).map_err(E::custom)
                    }

                    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<$name, E> {
                        $name::parse(&flag.to_string()).map_err(E::custom)
                    }

                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                        $name::parse(&number.to_string()).map_err(E::custom)
                    }
                }

                deserializer.deserialize_any(Text)
            }
        }
    )*};
}

reads_from_text! {
    Size: "a size such as \"16MiB\"",
    Span: "a time such as \"30s\"",
    Count: "a whole number",
    Flag: "true or false",
    Address: "an address and a port such as \"127.0.0.1:7420\"",
    Token: "a text",
    Levels: "a level such as \"info\"",
}

impl<'de> Deserialize<'de> for Origins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Origins;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of origins such as [\"https://app.example\"]")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Origins, E> {
                Origins::parse(text).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Origins, A::Error> {
                let mut origins = Vec::new();
                while let Some(origin) = items.next_element()? {
                    origins.push(origin);
                }
                Origins::from_list(&origins).map_err(de::Error::custom)
            }
        }

        deserializer.deserialize_any(List)
    }
}

text!(Span, Address, Token, Levels);

/// A number, or a text with underscores or a unit.
macro_rules! number_or_text {
    ($($type:ty: $kind:literal),*) => {$(
        impl Described for $type {
            fn schema() -> Value {
                json!({ "type": [$kind, "string"] })
            }
        }
    )*};
}
number_or_text!(Size: "integer", Count: "integer", Flag: "boolean");

impl Described for Secrets {
    fn schema() -> Value {
        one_or_several(&json!({ "type": "string" }))
    }
}

impl Described for Origins {
    fn schema() -> Value {
        one_or_several(&json!({ "type": "string" }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_bytes_or_have_a_binary_unit() {
        let bytes = |text| Size::parse(text).ok().map(|size| size.0);
        assert_eq!(bytes("0"), Some(0));
        assert_eq!(bytes("1_000"), Some(1_000));
        assert_eq!(bytes("512KiB"), Some(524_288));
        assert_eq!(bytes("16 MiB"), Some(16 << 20));
        assert_eq!(bytes("7B"), Some(7));
        for wrong in ["", "MiB", "16MB", "16mib", "-1", "1.5GiB", "99999999999999TiB", "1MiBx"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_has_a_unit() {
        let ms = |text| Span::parse(text).ok().map(|span| span.0.as_millis());
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(ms("30s"), Some(30_000));
        assert_eq!(ms("5m"), Some(300_000));
        assert_eq!(ms("12h"), Some(43_200_000));
        assert_eq!(ms("30 d"), Some(2_592_000_000));
        for wrong in ["", "30", "s", "-1s", "1.5s", "1h30m", "99999999999999999999d", "30S"] {
            assert_eq!(ms(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        let policy = |text| Origins::parse(text).map(|origins| origins.0);
        assert_eq!(policy(""), Ok(OriginPolicy::SameHost));
        assert_eq!(policy("*"), Ok(OriginPolicy::Any));
        assert_eq!(
            policy("https://a.example, http://localhost:3000"),
            Ok(OriginPolicy::Listed(vec![
                "https://a.example".parse().expect("an origin"),
                "http://localhost:3000".parse().expect("an origin"),
            ]))
        );
        for wrong in ["a.example", "https://a.example/", "https://*.example", "wss://a.example"] {
            assert!(policy(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_fits_into_a_header_and_is_never_shown() {
        let token = Token::parse("s3cret-Token").expect("a token");
        assert_eq!(token.as_str(), "s3cret-Token");
        assert!(!format!("{token:?}").contains("s3cret"));
        for wrong in ["", "two words", "tökén", "line\nbreak"] {
            assert!(Token::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = (Size::parse(&text), Span::parse(&text), Count::parse(&text));
            let _ = (Address::parse(&text), Token::parse(&text).is_ok(), Origins::parse(&text));
        }

        #[test]
        fn every_whole_size_reads_back(bytes: u32) {
            prop_assert_eq!(Size::parse(&bytes.to_string()), Ok(Size(bytes as usize)));
            prop_assert_eq!(Size::parse(&format!("{bytes}KiB")), Ok(Size((bytes as usize) << 10)));
        }
    }
}
