//! Settings that are lists, and values that occur only in lists.
//!
//! Keeps: each can also be read from a text, because an environment variable can hold nothing else.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use eventlog_server::model::Secret;
use eventlog_server::server::AdminRight;
use eventlog_server::services::auth::jwt::TokenSource;
use eventlog_server::services::identities::{SigningKey, signing_key_from_hex};
use eventlog_server::services::proxies::AddressRange;
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::schema::{Described, one_or_several, text};

/// A list, or one text instead of a list of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Many<T>(pub(crate) Vec<T>);

/// A list, or one text with commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed<T>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Items(|text| vec![text.to_owned()], PhantomData)).map(Self)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let split = |text: &str| text.split(',').map(str::trim).map(str::to_owned).collect();
        deserializer.deserialize_any(Items(split, PhantomData)).map(Self)
    }
}

/// Reads a list, or a text that is split into one.
struct Items<T>(fn(&str) -> Vec<String>, PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
        let texts = (self.0)(text).into_iter().filter(|text| !text.is_empty());
        texts.map(|text| T::deserialize(text.into_deserializer())).collect()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(all)
    }
}

/// A secret that signs tokens.
#[derive(Clone, Debug)]
pub(crate) struct NamedSecret {
    /// The `kid` of tokens that it signs.
    pub(crate) kid: Option<String>,
    pub(crate) secret: Secret,
}

impl<'de> Deserialize<'de> for NamedSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Named {
            kid: String,
            secret: Secret,
        }

        impl<'de> Visitor<'de> for Either {
            type Value = NamedSecret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret, or a table of its kid and the secret")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<NamedSecret, E> {
                Ok(NamedSecret { kid: None, secret: Secret::new(text) })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<NamedSecret, A::Error> {
                let Named { kid, secret } =
                    Deserialize::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(NamedSecret { kid: Some(kid), secret })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// A signing key to bind to a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PinnedKey(pub(crate) SigningKey);

impl FromStr for PinnedKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "a signing key is 64 hexadecimal digits; `eventlog-server identity show FILE` prints it";
        signing_key_from_hex(text).map(Self).ok_or(wrong)
    }
}

/// A value that is parsed from a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parsed<T>(pub(crate) T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

text!(Parsed<PinnedKey>, Parsed<TokenSource>, Parsed<AddressRange>, Parsed<AdminRight>);

impl<T: Described> Described for Many<T> {
    fn schema() -> Value {
        one_or_several(&T::schema())
    }
}

/// One text may hold several, separated by commas.
impl<T: Described> Described for Listed<T> {
    fn schema() -> Value {
        json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": T::schema() }] })
    }
}

impl Described for NamedSecret {
    fn schema() -> Value {
        let named = super::schema::table(&[
            ("kid", json!({ "type": "string" }), true),
            ("secret", json!({ "type": "string" }), true),
        ]);
        json!({ "anyOf": [{ "type": "string" }, named] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Of<T> {
        it: T,
    }

    fn read<T: for<'de> Deserialize<'de>>(value: &str) -> Result<T, String> {
        let read = toml::from_str(&format!("it = {value}")).map(|Of { it }| it);
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_may_be_one_text() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(read(r#""a, b""#), Ok(Many::<String>(texts(&["a, b"]))));
        assert_eq!(read(r#"["a", "b"]"#), Ok(Many::<String>(texts(&["a", "b"]))));
        assert_eq!(read(r#""a, b,""#), Ok(Listed::<String>(texts(&["a", "b"]))));
        assert_eq!(read(r#"["a", "b"]"#), Ok(Listed::<String>(texts(&["a", "b"]))));
        assert!(read::<Listed<Parsed<u8>>>(r#""1, x""#).is_err());
        assert!(read::<Many<String>>("7").is_err());
    }

    #[test]
    fn a_secret_may_have_a_name_and_is_never_shown() {
        let [plain, named] = [r#""s3cret""#, r#"{ kid = "one", secret = "s3cret" }"#];
        for (text, kid) in [(plain, None), (named, Some("one"))] {
            let read = read::<NamedSecret>(text).expect("a secret");
            assert_eq!((read.kid.as_deref(), read.secret.expose()), (kid, "s3cret"));
            assert!(!format!("{read:?}").contains("s3cret"));
        }
        assert!(read::<NamedSecret>(r#"{ kid = "one" }"#).is_err());
    }
}
