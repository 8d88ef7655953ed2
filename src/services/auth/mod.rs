//! The answers to [`Auth`](super::Auth) that come with the server: everyone may, those who are listed may, those whose token
//! says so, or those of whom the application says so.
//!
//! Leaves out: proof of keys. A client of the msgpack protocol states its public key and nothing else, so there a key is a
//! name that whoever knows it can use, unless a token says whose it is; an embedder who needs more looks at the
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
