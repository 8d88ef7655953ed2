//! Names that people and applications choose: of stores, and of the keys that reach them.

use std::fmt;
use std::sync::Arc;

use super::limits::{PUBLIC_KEY_BYTES_MAX, STORE_ID_BYTES_MAX};

/// A text that cannot be a store id or a public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// The text is empty.
    #[error("the {what} is empty")]
    Empty {
        /// Which name: `store id` or `public key`.
        what: &'static str,
    },
    /// The text is longer than names may be.
    #[error("the {what} is {bytes} bytes long, at most {bytes_max} are allowed")]
    TooLong {
        /// Which name: `store id` or `public key`.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The greatest length allowed.
        bytes_max: usize,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $bytes_max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the length and wraps the text; there is no other rule.
            pub fn new(text: impl Into<Arc<str>>) -> Result<Self, InvalidName> {
                let text = text.into();
                if text.is_empty() {
                    return Err(InvalidName::Empty { what: $what });
                }
                if text.len() > $bytes_max {
                    let (bytes, bytes_max) = (text.len(), $bytes_max);
                    return Err(InvalidName::TooLong { what: $what, bytes, bytes_max });
                }
                Ok(Self(text))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(&*text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name! {
    /// Names a store: stable, chosen by whoever runs the server, 1 to 256 bytes of UTF-8. Cheap to clone.
    StoreId, "store id", STORE_ID_BYTES_MAX
}

name! {
    /// Names a client identity, 1 to 1,024 bytes of UTF-8. The registry says which store it reads and writes. Cheap to
    /// clone.
    PublicKey, "public key", PUBLIC_KEY_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_neither_empty_nor_too_long() {
        assert_eq!(StoreId::new(""), Err(InvalidName::Empty { what: "store id" }));
        assert!(StoreId::new("x".repeat(256)).is_ok());
        assert!(StoreId::new("x".repeat(257)).is_err());
        assert!(PublicKey::new("x".repeat(1_024)).is_ok());
        assert!(PublicKey::new("x".repeat(1_025)).is_err());
    }
}
