//! The one type that holds secrets: tokens, and signing secrets.
//!
//! Keeps: it has no `Display`, and its `Debug` is `***`; so a secret gets into a line, an answer or an error only
//! through [`Secret::expose`], which is easy to search for.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// Something that nobody may see.
pub struct Secret<T: ?Sized = str>(Box<T>);

impl<T: ?Sized> Clone for Secret<T>
where
    Box<T>: Clone,
{
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ?Sized> Secret<T> {
    /// Wraps a secret.
    pub fn new(secret: impl Into<Box<T>>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for its purpose: to compare it, or to sign with it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `text` with `***` in place of the user and password of a URL in it. Rather too much is hidden than too little: a
/// password may contain an `@` or a `/`.
pub fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(|c: char| c.is_whitespace() || "\"'".contains(c)).unwrap_or(rest.len());
    let (url, after) = rest.split_at(end);
    let url =
        url.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, host)| format!("***@{host}"));
    format!("{scheme}://{url}{}", without_user(after))
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_url_neither_user_nor_password_is_shown() {
        for (text, expected) in [
            ("\"https://u:p@h/x\"", "\"https://***@h/x\""),
            ("https://u:p/@w@h:8/x?y", "https://***@h:8/x?y"),
            ("[\"https://a\", 'http://u@b']", "[\"https://a\", 'http://***@b']"),
            ("a@b", "a@b"),
        ] {
            assert_eq!(without_user(text), expected);
        }
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        let text: Secret = Secret::new("s3cret");
        let bytes = Secret::<[u8]>::new(*b"s3cret");
        assert_eq!((text.expose(), bytes.expose()), ("s3cret", &b"s3cret"[..]));
        assert_eq!(format!("{text:?} {:?}", Some(bytes)), "*** Some(***)");
    }
}
