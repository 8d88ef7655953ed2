//! The answers to [`Auth`](super::Auth) that come with the server: everyone may, or those who are listed may.
//!
//! Leaves out: proof. A client of the msgpack protocol states its public key and nothing else, so there a key is a
//! name that whoever knows it can use; an embedder who needs more looks at the [`Caller`](super::Caller) (a
//! cookie, a token, a user of the application).

mod allow_all;
mod grants;

pub use allow_all::AllowAll;
pub use grants::{DuplicateGrant, Grant, Grantee, Grants};
