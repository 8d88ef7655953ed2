//! Which web pages may open a WebSocket here, and use the admin API.
//!
//! A browser sends the page's origin with every handshake and lets any page connect anywhere, so the server has to
//! check it. Programs that are not browsers send no origin, or any they like: this protects the users of browsers, and
//! is not authorization.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The origins from which a handshake is accepted. Handshakes without an origin are always accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OriginPolicy {
    /// From a page that this very host served.
    #[default]
    SameHost,
    /// Like [`OriginPolicy::SameHost`], and from these.
    Listed(Vec<PageOrigin>),
    /// Everything.
    Any,
    /// For development: from pages that this machine served, at any port, and from those listed; a page of the same
    /// host is accepted only where the host is this machine, an address or listed. Otherwise a page could point its own
    /// name at this server, and be the same host.
    ThisMachine(Vec<PageOrigin>),
}

/// What a request says about the page that makes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageRequest<'a> {
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// `Host`.
    pub host: Option<&'a str>,
    /// `X-Forwarded-Host`, if a trusted proxy sent it: the host before the proxy.
    pub forwarded_host: Option<&'a str>,
    /// `X-Forwarded-Proto`, in the same way.
    pub forwarded_proto: Option<&'a str>,
}

impl OriginPolicy {
    /// Whether the page may connect.
    pub fn allows(&self, request: &PageRequest<'_>) -> bool {
        let Some(origin) = request.origin else { return true };
        if *self == Self::Any {
            return true;
        }
        let Ok(origin) = origin.parse::<PageOrigin>() else { return false };
        match self {
            Self::Any => true,
            Self::SameHost => is_same_host(&origin, request),
            Self::Listed(listed) => listed.contains(&origin) || is_same_host(&origin, request),
            Self::ThisMachine(listed) => {
                let is_listed = |host: &str| listed.iter().any(|page| page.is_of(host));
                let is_here = |host: &str| is_this_machine(bare_host(host)) || is_listed(host);
                let is_address = |host: &str| is_address(bare_host(host));
                listed.contains(&origin)
                    || is_this_machine(bare_host(&origin.authority)) && request.hosts_are(is_here)
                    || is_same_host(&origin, request)
                        && request.hosts_are(|host| is_here(host) || is_address(host))
            }
        }
    }
}

impl<'a> PageRequest<'a> {
    fn hosts(&self) -> impl Iterator<Item = &'a str> {
        [self.host, self.forwarded_host].into_iter().flatten()
    }

    /// Whether all hosts satisfy this, and there is at least one.
    fn hosts_are(&self, so: impl Fn(&str) -> bool) -> bool {
        self.host.is_some() && self.hosts().all(so)
    }
}

impl PageRequest<'_> {
    /// Whether the page would be of the same host, had the trusted proxy not said that the browser used TLS.
    pub(crate) fn differs_in_tls(&self) -> bool {
        let plain = Self { forwarded_proto: None, ..*self };
        let differs =
            |origin: &PageOrigin| !is_same_host(origin, self) && is_same_host(origin, &plain);
        self.origin.and_then(|origin| origin.parse().ok()).is_some_and(|origin| differs(&origin))
    }
}

/// The origin of a page, as browsers send it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PageOrigin {
    /// In lower case; empty for `null`.
    scheme: String,
    /// Host and port, in lower case, without the scheme's default port.
    authority: String,
}

/// The text is not the origin of a page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no page has the origin {text:?}: {reason}")]
pub struct InvalidOrigin {
    text: String,
    reason: &'static str,
}

impl PageOrigin {
    const NULL: &str = "null";

    /// Whether pages of this origin come from `host`.
    fn is_of(&self, host: &str) -> bool {
        !host.is_empty() && without_own_port(&self.scheme, host) == self.authority
    }
}

impl FromStr for PageOrigin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let invalid = |reason| Err(InvalidOrigin { text: text.to_owned(), reason });
        if text == Self::NULL {
            return Ok(Self { scheme: String::new(), authority: Self::NULL.to_owned() });
        }
        let Some((scheme, authority)) = text.split_once("://") else {
            return invalid(
                "write scheme, host and port, as in https://app.example or http://localhost:3000",
            );
        };
        let scheme = scheme.to_ascii_lowercase();
        let is_scheme_char = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            || !scheme.chars().all(is_scheme_char)
        {
            return invalid("the scheme is invalid");
        }
        if matches!(&*scheme, "ws" | "wss") {
            return invalid(
                "this is the address of a WebSocket; the page that opens it has http:// or https://",
            );
        }
        if authority.contains('*') {
            return invalid("a * has no meaning here: list each origin, or \"*\" alone for all");
        }
        if authority.contains(['/', '?', '#', '@']) {
            return invalid(
                "write nothing after host and port, not even a slash, and no user before them",
            );
        }
        if !authority.bytes().all(|byte| byte.is_ascii_graphic()) {
            return invalid("browsers send letters that are not ASCII as xn--…, and no spaces");
        }
        // Some applications on phones load their pages from files.
        if authority.is_empty() && scheme != "file" {
            return invalid("the host is missing");
        }
        if !has_good_port(authority) {
            return invalid("a port is a number from 1 to 65535");
        }
        let authority = match &*scheme {
            // Others have rules of their own.
            "http" | "https" => match as_sent(authority) {
                Ok(authority) => without_own_port(&scheme, &authority),
                Err(reason) => return invalid(reason),
            },
            _ => authority.to_ascii_lowercase(),
        };
        Ok(Self { scheme, authority })
    }
}

impl fmt::Display for PageOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.scheme {
            "" => f.write_str(&self.authority),
            scheme => write!(f, "{scheme}://{}", self.authority),
        }
    }
}

/// Whether `origin` is a page of the requested host: the same name and port, where a missing port is the scheme's
/// default. A page that came without TLS does not belong to a host that was reached with it: somebody on the network
/// path could have made it.
fn is_same_host(origin: &PageOrigin, request: &PageRequest<'_>) -> bool {
    let was_secure = request.forwarded_proto.is_some_and(|proto| {
        ["https", "wss"].iter().any(|secure| proto.eq_ignore_ascii_case(secure))
    });
    match &*origin.scheme {
        "http" if was_secure => false,
        "http" | "https" => request.hosts().any(|host| origin.is_of(host)),
        _ => false,
    }
}

fn without_own_port(scheme: &str, authority: &str) -> String {
    let authority = authority.to_ascii_lowercase();
    let own_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return authority,
    };
    authority.strip_suffix(own_port).map(ToOwned::to_owned).unwrap_or(authority)
}

/// Host and port in the one form in which browsers send them, as the [URL Standard] says; the port is a number.
///
/// [URL Standard]: https://url.spec.whatwg.org/#host-parsing
fn as_sent(authority: &str) -> Result<String, &'static str> {
    let (host, port) = split_port(authority);
    let host = if host.starts_with('[') || host.contains(':') {
        let address =
            in_brackets(host).ok_or("an IPv6 address is written as in http://[::1]:3000")?;
        match address.to_ipv4_mapped().map(|address| address.octets()) {
            Some([a, b, c, d]) => format!(
                "[::ffff:{:x}:{:x}]",
                u16::from_be_bytes([a, b]),
                u16::from_be_bytes([c, d])
            ),
            None => format!("[{address}]"),
        }
    } else {
        let host = host.to_ascii_lowercase();
        if host.is_empty() || host.contains(['%', '<', '>', '[', ']', '\\', '^', '|']) {
            return Err("no host has such a name");
        }
        let last = host.strip_suffix('.').unwrap_or(&host).rsplit('.').next().unwrap_or_default();
        let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
        if (is_number || last.starts_with("0x")) && host.parse::<Ipv4Addr>().is_err() {
            return Err(
                "browsers send an IPv4 address as four numbers, as in http://127.0.0.1:3000",
            );
        }
        host
    };
    Ok(match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(port) => format!("{host}:{port}"),
        None => host,
    })
}

/// The part before the port, and the port.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // The colons of an IPv6 address are within brackets.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        Some(_) | None => (authority, None),
    }
}

fn has_good_port(authority: &str) -> bool {
    let Some(port) = split_port(authority).1 else { return true };
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn bare_host(authority: &str) -> &str {
    split_port(authority).0
}

/// Names and addresses that lead to the machine itself, whatever DNS says.
fn is_this_machine(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || in_brackets(&host).is_some_and(|address| address.is_loopback())
}

/// An address leads where it says; a name leads wherever its owner says.
fn is_address(host: &str) -> bool {
    host.parse::<Ipv4Addr>().is_ok() || in_brackets(host).is_some()
}

fn in_brackets(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(origins: &[&str]) -> Vec<PageOrigin> {
        origins.iter().map(|origin| origin.parse().expect("an origin")).collect()
    }

    fn allows(policy: &OriginPolicy, origin: &str, host: &str) -> bool {
        let (origin, host) = (Some(origin), Some(host));
        policy.allows(&PageRequest { origin, host, ..PageRequest::default() })
    }

    #[test]
    fn no_origin_is_no_browser() {
        let host = Some("events.example");
        for policy in [
            OriginPolicy::SameHost,
            OriginPolicy::Listed(vec![]),
            OriginPolicy::Any,
            OriginPolicy::ThisMachine(vec![]),
        ] {
            assert!(policy.allows(&PageRequest { host, ..PageRequest::default() }));
        }
    }

    #[test]
    fn pages_of_the_same_host_pass() {
        let same = |origin, host| allows(&OriginPolicy::SameHost, origin, host);
        assert!(same("http://localhost:7420", "localhost:7420"));
        assert!(same("https://Events.example", "events.example"));
        assert!(same("https://events.example", "events.example:443"));
        assert!(same("https://events.example:443", "events.example"));
        assert!(same("http://[::1]:7420", "[::1]:7420"));
        assert!(!same("http://localhost:3000", "localhost:7420"));
        assert!(!same("https://evil.example", "events.example"));
        assert!(!same("https://events.example.evil", "events.example"));
        assert!(!same("https://events.example:80", "events.example"));
    }

    #[test]
    fn what_no_browser_sends_is_no_origin_and_other_forms_are_made_its_own() {
        for (written, sent) in [
            ("https://app.example:0443", "https://app.example"),
            ("http://localhost:05173", "http://localhost:5173"),
            ("http://[::0001]:5173", "http://[::1]:5173"),
            ("http://[::FFFF:127.0.0.1]", "http://[::ffff:7f00:1]"),
            ("http://APP.example.", "http://app.example."),
        ] {
            let origin: PageOrigin = written.parse().expect("an origin");
            assert_eq!(origin, sent.parse().expect("an origin"));
            assert_eq!(origin.to_string(), sent);
        }
        for never in [
            "http://127.1",
            "https://300.1.1.1",
            "https://0x7f.1",
            "http://0x7f000001",
            "http://[::1",
            "http://]",
            "http://a:b:80",
            "http://::1",
            "http://[1]",
            "http://a%b",
            "http://<b>",
            "http://a^b",
            "http://a\\b",
        ] {
            assert!(never.parse::<PageOrigin>().is_err(), "{never}");
        }
    }

    #[test]
    fn origins_that_name_no_host_do_not_pass() {
        for origin in ["null", "", "file://", "https://", "://events.example", "events.example"] {
            for host in ["events.example", ""] {
                assert!(!allows(&OriginPolicy::SameHost, origin, host), "{origin}");
            }
            let origin = Some(origin);
            let nowhere = PageRequest { origin, ..PageRequest::default() };
            assert!(!OriginPolicy::SameHost.allows(&nowhere), "{origin:?}");
        }
    }

    #[test]
    fn listed_origins_pass_besides_however_their_port_is_written() {
        let origins = listed(&["https://App.example:443", "null", "capacitor://localhost"]);
        let policy = OriginPolicy::Listed(origins);
        for origin in [
            "https://app.example",
            "HTTPS://app.example:443",
            "https://events.example",
            "null",
            "capacitor://localhost",
        ] {
            assert!(allows(&policy, origin, "events.example"), "{origin}");
        }
        for origin in ["http://app.example", "https://app.example:444", "file://"] {
            assert!(!allows(&policy, origin, "events.example"), "{origin}");
        }
        assert!(allows(&OriginPolicy::Any, "null", "x") && allows(&OriginPolicy::Any, "?", "x"));
    }

    #[test]
    fn what_no_browser_sends_is_no_origin() {
        for wrong in [
            "",
            "app.example",
            "https://",
            "https://app.example/",
            "https://app.example/path",
            "https://user@app.example",
            "https://*.app.example",
            "wss://app.example",
            "https://app.example:",
            "https://app.example:0",
            "https://app.example:65536",
            "https://größe.example",
            "https://app.example https://b.example",
            "*",
            "Null",
        ] {
            assert!(wrong.parse::<PageOrigin>().is_err(), "{wrong}");
        }
        for (text, shown) in
            [("null", "null"), ("HTTP://A:80", "http://a"), ("http://[::1]:80", "http://[::1]")]
        {
            assert_eq!(text.parse().map(|origin: PageOrigin| origin.to_string()), Ok(shown.into()));
        }
    }

    #[test]
    fn what_a_trusted_proxy_says_of_the_host_counts_beside_it() {
        let request = PageRequest {
            origin: Some("https://app.example"),
            host: Some("10.0.0.7:7420"),
            forwarded_host: Some("app.example"),
            forwarded_proto: Some("https"),
        };
        assert!(OriginPolicy::SameHost.allows(&request));
        let without_tls = PageRequest { origin: Some("http://app.example"), ..request };
        assert!(!OriginPolicy::SameHost.allows(&without_tls));
        let plain = PageRequest { forwarded_proto: Some("http"), ..without_tls };
        assert!(OriginPolicy::SameHost.allows(&plain));
        // TLS may have ended at an outer proxy.
        assert!(
            OriginPolicy::SameHost
                .allows(&PageRequest { forwarded_proto: Some("http"), ..request })
        );
    }

    #[test]
    fn in_development_this_machine_serves_its_own_pages_and_no_name_from_outside_does() {
        let policy = OriginPolicy::ThisMachine(listed(&["http://devbox:7420", "http://phone:1"]));
        for (origin, host) in [
            ("http://localhost:5173", "localhost:7420"),
            ("http://localhost:5173", "127.0.0.1:7420"),
            ("http://127.0.0.2:5173", "app.localhost:7420"),
            ("https://[::1]:5173", "[::1]:7420"),
            ("http://localhost:5173", "devbox:7420"),
            ("http://phone:1", "anything:7420"),
            ("http://192.168.1.5:7420", "192.168.1.5:7420"),
            ("http://devbox:7420", "devbox:7420"),
        ] {
            assert!(allows(&policy, origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("http://evil.example:7420", "evil.example:7420"),
            ("http://localhost:5173", "evil.example:7420"),
            ("http://evil.example", "localhost:7420"),
            ("http://localhost.evil.example", "localhost:7420"),
            ("http://notlocalhost:1", "localhost:7420"),
            ("http://localhost:5173", "192.168.1.5:7420"),
            ("http://127.0.0.1.evil.example", "127.0.0.1:7420"),
            ("null", "localhost:7420"),
        ] {
            assert!(!allows(&policy, origin, host), "{origin} {host}");
        }
        let through = PageRequest {
            origin: Some("http://evil.example"),
            host: Some("127.0.0.1:7420"),
            forwarded_host: Some("evil.example"),
            forwarded_proto: None,
        };
        assert!(!policy.allows(&through));
    }
}
