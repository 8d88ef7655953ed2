//! Which web pages may open a WebSocket here.
//!
//! A browser sends the page's origin with every handshake and lets any page connect anywhere, so the server is the one
//! who has to look. Programs that are not browsers send no origin, or what they like: this is protection for the
//! users of browsers, not authorization.

/// The origins that a handshake is taken from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OriginPolicy {
    /// Handshakes without an origin, and those from a page that this very host served.
    #[default]
    SameHost,
    /// As [`OriginPolicy::SameHost`], and from these origins, each written as browsers send it:
    /// `https://app.example`, with the port if it is not the scheme's own.
    Listed(Vec<String>),
    /// Everything.
    Any,
}

impl OriginPolicy {
    /// Whether to take a handshake with these `Origin` and `Host` headers.
    pub fn allows(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let listed: &[String] = match self {
            Self::Any => return true,
            Self::SameHost => &[],
            Self::Listed(listed) => listed,
        };
        listed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) || same_host(origin, host)
    }
}

/// Whether `origin` is a page of `host`: the same name and port, where a missing port is the scheme's own.
fn same_host(origin: &str, host: Option<&str>) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let own_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let bare = |authority: &str| {
        let authority = authority.to_ascii_lowercase();
        authority.strip_suffix(own_port).map(ToOwned::to_owned).unwrap_or(authority)
    };
    host.is_some_and(|host| !host.is_empty() && bare(host) == bare(authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_origin_is_no_browser() {
        for policy in [OriginPolicy::SameHost, OriginPolicy::Listed(vec![]), OriginPolicy::Any] {
            assert!(policy.allows(None, Some("events.example")));
        }
    }

    #[test]
    fn pages_of_the_same_host_pass() {
        let host_of = |origin, host| OriginPolicy::SameHost.allows(Some(origin), Some(host));
        assert!(host_of("http://localhost:7420", "localhost:7420"));
        assert!(host_of("https://Events.example", "events.example"));
        assert!(host_of("https://events.example", "events.example:443"));
        assert!(host_of("http://[::1]:7420", "[::1]:7420"));
        assert!(!host_of("http://localhost:3000", "localhost:7420"));
        assert!(!host_of("https://evil.example", "events.example"));
        assert!(!host_of("https://events.example.evil", "events.example"));
        assert!(!host_of("https://events.example:80", "events.example"));
    }

    #[test]
    fn origins_that_name_no_host_do_not_pass() {
        for origin in ["null", "", "file://", "https://", "://events.example", "events.example"] {
            assert!(
                !OriginPolicy::SameHost.allows(Some(origin), Some("events.example")),
                "{origin}"
            );
            assert!(!OriginPolicy::SameHost.allows(Some(origin), Some("")), "{origin}");
            assert!(!OriginPolicy::SameHost.allows(Some(origin), None), "{origin}");
        }
    }

    #[test]
    fn listed_origins_pass_besides() {
        let policy = OriginPolicy::Listed(vec!["https://app.example".into()]);
        assert!(policy.allows(Some("https://app.example"), Some("events.example")));
        assert!(policy.allows(Some("https://events.example"), Some("events.example")));
        assert!(!policy.allows(Some("http://app.example"), Some("events.example")));
        assert!(OriginPolicy::Any.allows(Some("null"), None));
    }
}
