//! Who connected: what the handshake of a WebSocket said, and what the embedding application derives from it.
//!
//! Keeps: it is made once per connection, and a clone costs one reference count; `Debug` shows no header, no query and
//! not the application's value, because these hold secrets. Leaves out: which public key a request names, and what was
//! proved about it later ([`Claim`](super::Claim)).

use std::any::Any;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Verified;

/// Headers that only make the connection a WebSocket are the same or random for everyone, and are not kept.
const HEADERS_NOT_KEPT: [&str; 5] = [
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
];

/// Who connected. Cheap to clone; all clones are the same caller.
#[derive(Clone, Default)]
pub struct Caller(Arc<Inner>);

#[derive(Default)]
struct Inner {
    peer: Option<SocketAddr>,
    /// What trusted proxies say; `None` if there were none.
    forwarded: Option<IpAddr>,
    /// The path, and after the first `?` the query.
    target: Box<str>,
    /// Each is a name, a colon, a value and a line feed; neither name nor value can contain the separators.
    headers: Box<[u8]>,
    value: Option<Value>,
    verified: Option<Verified>,
    /// The client's certificate as DER.
    certificate: Option<Arc<[u8]>>,
}

/// What the embedding application knows about a caller.
pub(crate) type Value = Box<dyn Any + Send + Sync>;

impl Caller {
    /// A caller without a handshake, for whom [`get`](Self::get) returns `value`: for code that asks an
    /// [`Auth`](super::Auth) itself, such as its tests.
    pub fn of<T: Send + Sync + 'static>(value: T) -> Self {
        Self(Arc::new(Inner { value: Some(Box::new(value)), ..Inner::default() }))
    }

    /// The caller whose handshake asked for `target` with these headers.
    pub(crate) fn connected<'a>(
        peer: Option<SocketAddr>,
        target: &str,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        value: Option<Value>,
    ) -> Self {
        let mut lines = Vec::new();
        for (name, text) in headers.filter(|(name, _)| !HEADERS_NOT_KEPT.contains(name)) {
            lines.extend_from_slice(&[name.as_bytes(), b":", text, b"\n"].concat());
        }
        let (target, headers) = (target.into(), lines.into());
        Self(Arc::new(Inner { peer, target, headers, value, ..Inner::default() }))
    }

    /// How many bytes of the handshake are kept.
    pub(crate) fn kept_bytes(&self) -> usize {
        let certificate = self.0.certificate.as_ref().map_or(0, |certificate| certificate.len());
        self.0.target.len() + self.0.headers.len() + certificate
    }

    /// The same caller, with the address that the proxies reported.
    pub(crate) fn forwarded_for(self, address: IpAddr) -> Self {
        self.with(|inner| inner.forwarded = Some(address))
    }

    /// The same caller, whose client has shown this certificate.
    pub(crate) fn with_certificate(self, certificate: Option<Arc<[u8]>>) -> Self {
        self.with(|inner| inner.certificate = certificate)
    }

    /// The same caller, with the findings of `Auth`.
    pub(crate) fn with_verified(self, verified: Option<Verified>) -> Self {
        self.with(|inner| inner.verified = verified)
    }

    /// Changes a caller that is not shared yet; a shared caller stays as it is.
    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(inner);
        }
        self
    }

    /// The other end of the socket: the client, or the last proxy before the server.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer
    }

    /// Where the client is: what trusted proxies say
    /// ([`Builder::trusted_proxies`](crate::server::Builder::trusted_proxies)), otherwise [`peer`](Self::peer) without
    /// its port.
    pub fn address(&self) -> Option<IpAddr> {
        self.0.forwarded.or_else(|| Some(self.0.peer?.ip()))
    }

    /// The address for people.
    pub(crate) fn shown_address(&self) -> String {
        self.address().map_or_else(|| "?".to_owned(), |address| address.to_string())
    }

    /// The path for people: quoted, and cut to a readable length.
    pub(crate) fn shown_path(&self) -> String {
        format!("{:?}", self.path().chars().take(100).collect::<String>())
    }

    /// What `Auth` found out about the caller at the handshake ([`Auth::verify`](super::Auth::verify)).
    pub fn verified(&self) -> Option<&Verified> {
        self.0.verified.as_ref()
    }

    /// The certificate that the client has shown to the server's TLS port, as DER. One of the server's configured
    /// authorities has signed it. `None` if it has shown none.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.0.certificate.as_deref()
    }

    /// The SHA-256 of that certificate, as 64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` shows it.
    pub fn certificate_sha256(&self) -> Option<String> {
        self.certificate().map(sha256)
    }

    /// The path of the handshake as it was sent. Empty without a handshake.
    pub fn path(&self) -> &str {
        self.0.target.split_once('?').map_or(&self.0.target, |(path, _)| path)
    }

    /// The query of the handshake, after `?`, as it was sent. Empty if there was none.
    pub fn query(&self) -> &str {
        self.0.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The first header of this name, in any case; `None` if there is none or it is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers().find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// The headers of the handshake, with names in lower case; those with the same name are in the order in which they
    /// came. Headers that only make the connection a WebSocket are left out (`upgrade`, `sec-websocket-key`).
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.headers.split(|byte| *byte == b'\n').filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((std::str::from_utf8(&line[..colon]).ok()?, &line[colon + 1..]))
        })
    }

    /// What the embedding application knows about the caller ([`Builder::caller`](crate::server::Builder::caller));
    /// `None` if that is nothing, or not a `T`.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.value.as_ref()?.downcast_ref()
    }
}

/// The SHA-256 as hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Caller");
        shown.field("address", &self.address()).field("path", &self.path()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Caller {
        let headers = [
            ("host", &b"example.org"[..]),
            ("upgrade", b"websocket"),
            ("cookie", b"theme=dark"),
            ("cookie", b"session=SECRET: 1"),
            ("x-raw", b"\xff"),
        ];
        let peer = Some(SocketAddr::from(([127, 0, 0, 1], 7)));
        let value: Value = Box::new("SECRET".to_owned());
        Caller::connected(peer, "/sync/rpc?token=SECRET?", headers.into_iter(), Some(value))
    }

    #[test]
    fn a_caller_is_what_its_handshake_said() {
        let caller = alice();
        assert_eq!((caller.path(), caller.query()), ("/sync/rpc", "token=SECRET?"));
        assert_eq!(caller.header("Cookie"), Some("theme=dark"));
        assert_eq!((caller.header("upgrade"), caller.header("x-raw")), (None, None));
        let cookies = caller.headers().filter(|(name, _)| *name == "cookie");
        let cookies: Vec<_> = cookies.map(|(_, value)| value).collect();
        assert_eq!(cookies, [&b"theme=dark"[..], b"session=SECRET: 1"]);
        assert_eq!(caller.headers().last(), Some(("x-raw", &b"\xff"[..])));
    }

    #[test]
    fn a_value_is_given_back_as_what_it_is_only() {
        let caller = alice();
        assert_eq!(caller.get::<String>().map(String::as_str), Some("SECRET"));
        assert_eq!(caller.get::<u32>(), None);
        assert_eq!(Caller::of(7_u32).get::<u32>(), Some(&7));
        assert_eq!(Caller::default().get::<u32>(), None);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let shown = format!("{:?}", alice());
        assert_eq!(shown, r#"Caller { address: Some(127.0.0.1), path: "/sync/rpc", .. }"#);
    }
}
