//! One address for everything: what people type for a server, as the WebSocket and the admin API need it.

/// Where a server listens unless it was told otherwise.
pub(super) const DEFAULT: &str = "ws://127.0.0.1:7420/eventlog";

const PATH: &str = "/eventlog";

/// The server that a command talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerUrl {
    secure: bool,
    /// Host and port, with the path in front of ours, if the server is mounted below one.
    base: String,
    path: String,
}

impl std::str::FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no address of a server; write it as ws://HOST:PORT/eventlog, \
                 or wss:// for TLS (http:// and https:// mean the same)"
            )
        };
        let (scheme, rest) = text.trim().split_once("://").ok_or_else(wrong)?;
        let secure = match scheme {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => return Err(wrong()),
        };
        let rest = rest.trim_end_matches('/');
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.is_empty() || rest.contains(['?', '#', ' ']) {
            return Err(wrong());
        }
        // A bare host means the usual path; another path than the usual one is taken as it is.
        let (base, path) = match rest.strip_suffix(PATH) {
            Some(base) => (base, PATH),
            None if rest == authority => (rest, PATH),
            None => (rest, ""),
        };
        Ok(Self { secure, base: base.to_owned(), path: path.to_owned() })
    }
}

impl ServerUrl {
    /// Where clients connect.
    pub(super) fn websocket(&self) -> String {
        let scheme = if self.secure { "wss" } else { "ws" };
        format!("{scheme}://{}{}", self.base, self.path)
    }

    /// What the paths of the admin API are below.
    pub(super) fn http(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both addresses, or `refused`.
    fn both(text: &str) -> String {
        text.parse().map_or("refused".to_owned(), |url: ServerUrl| {
            format!("{} {}", url.websocket(), url.http())
        })
    }

    #[test]
    fn one_address_serves_clients_and_administration() {
        let local = "ws://localhost:7420/eventlog http://localhost:7420";
        for text in
            ["ws://localhost:7420/eventlog", "http://localhost:7420", "http://localhost:7420/"]
        {
            assert_eq!(both(text), local, "{text}");
        }
        let secure = "wss://events.example/eventlog https://events.example";
        for text in ["wss://events.example/eventlog", "https://events.example"] {
            assert_eq!(both(text), secure, "{text}");
        }
        let mounted = "ws://a.example/app/eventlog http://a.example/app";
        assert_eq!(both("ws://a.example/app/eventlog"), mounted);
        assert_eq!(both("ws://a.example/feed"), "ws://a.example/feed http://a.example/feed");
        assert_eq!(both(DEFAULT), format!("{DEFAULT} http://127.0.0.1:7420"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "localhost:7420", "ftp://x", "ws://", "ws:///eventlog", "ws://a?b", "ws://a b"]
        {
            assert_eq!(both(text), "refused", "{text}");
        }
    }
}
