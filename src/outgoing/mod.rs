//! Requests that this program makes to other servers: POSTs, signed according to Standard Webhooks.
//!
//! Keeps: a request ends within its time, whatever the other end does; redirects are not followed; no more of an answer
//! is read than was requested. Leaves out: what is sent, what an answer means, and retries (`webhooks`,
//! `services::auth::http`).

mod post;
mod sign;

pub(crate) use post::Post;
pub use sign::{InvalidSecret, Secret, Signing};

use hyper::Uri;

/// The address in `text`, if something can be sent there; otherwise what is wrong with it.
pub(crate) fn parse_url(text: &str) -> Result<Uri, &'static str> {
    let url: Uri = text.parse().map_err(|_| "it cannot be read as one")?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err("it begins with neither http:// nor https://");
    }
    match url.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Err("it contains a user; requests are signed instead")
        }
        Some(authority) if !authority.host().is_empty() => Ok(url),
        Some(_) | None => Err("it names no host"),
    }
}
