//! The implementations of [`Auth`](super::Auth) that come with the server: everyone may, those on a list may, those
//! whose token says so, or those whom the application allows.
//!
//! Leaves out: proof of keys. A client of the msgpack protocol only states its public key, so there a key is a name
//! that anyone who knows it can use, unless a token says whose it is; an embedder who needs more looks at the
//! [`Caller`](super::Caller) (a cookie, a user of the application).

mod allow_all;
mod grants;
#[cfg(feature = "webhooks")]
pub mod http;
#[cfg(feature = "jwt")]
pub mod jwt;
mod rights;

pub use allow_all::AllowAll;
pub use grants::{DuplicateGrant, Grant, GrantSource, Grants, ListedGrant};
pub use rights::{PerKey, Rights};
