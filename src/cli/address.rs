//! One address for everything: what people type for a server, turned into the addresses of the WebSocket and the admin
//! API.

use super::peer::Protocol;

/// Where a server listens by default.
pub(super) const DEFAULT: &str = "ws://127.0.0.1:7420/eventlog";

/// The server that a command talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerUrl {
    secure: bool,
    /// Host and port, with the path before ours, if the server is mounted below one.
    base: String,
    path: Path,
    /// The part after the path, with its `?`, if there is one: it may contain what says who is calling.
    query: String,
}

/// What clients connect to below the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// The usual path of a protocol.
    Usual(Protocol),
    /// Nothing: the base contains it all.
    Given,
}

impl std::str::FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not the address of a server; write it as ws://HOST:PORT/eventlog, or wss:// for \
                 TLS (http:// and https:// mean the same)"
            )
        };
        // `localhost:7420` is where the server listens.
        let (scheme, rest) = match text.trim().split_once("://") {
            Some(both) => both,
            None if has_port(text.trim()) => ("ws", text.trim()),
            None => return Err(wrong()),
        };
        let secure = match scheme {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => return Err(wrong()),
        };
        let (rest, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        let rest = rest.trim_end_matches('/');
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.is_empty() || text.trim().contains(['#', ' ']) {
            return Err(wrong());
        }
        // A bare host means the usual path; an unusual path is taken as it is.
        let usual = [Protocol::Msgpack, Protocol::Rpc]
            .into_iter()
            .find_map(|protocol| Some((rest.strip_suffix(path(protocol))?, Path::Usual(protocol))));
        let (base, path) = match usual {
            Some(usual) => usual,
            None if rest == authority => (rest, Path::Usual(Protocol::Msgpack)),
            None => (rest, Path::Given),
        };
        Ok(Self { secure, base: base.to_owned(), path, query: query.to_owned() })
    }
}

/// Whether this begins with a host and a port, as in an address without a scheme.
fn has_port(text: &str) -> bool {
    let authority = text.split(['/', '?']).next().unwrap_or_default();
    let port = authority.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    port.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

impl ServerUrl {
    /// Where clients connect.
    pub(super) fn websocket(&self) -> String {
        let scheme = if self.secure { "wss" } else { "ws" };
        let path = match self.path {
            Path::Usual(protocol) => path(protocol),
            Path::Given => "",
        };
        format!("{scheme}://{}{path}{}", self.base, self.query)
    }

    /// Whether it uses TLS.
    pub(super) const fn is_secure(&self) -> bool {
        self.secure
    }

    /// The same for people, who may pass it on: without the query.
    pub(super) fn without_query(&self) -> String {
        Self { query: String::new(), ..self.clone() }.websocket()
    }

    /// The protocol there, as far as the path says.
    pub(super) const fn protocol(&self) -> Protocol {
        match self.path {
            Path::Usual(protocol) => protocol,
            Path::Given => Protocol::Msgpack,
        }
    }

    /// The same server's address for `protocol`. A path that is not a usual one stays.
    pub(super) fn of(&self, protocol: Protocol) -> Self {
        let path = match self.path {
            Path::Usual(_) => Path::Usual(protocol),
            Path::Given => Path::Given,
        };
        Self { path, ..self.clone() }
    }

    /// The paths of the admin API are below this.
    pub(super) fn http(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.base)
    }
}

/// Where a server that is mounted in the usual way speaks `protocol`.
const fn path(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Msgpack => "/eventlog",
        Protocol::Rpc => "/rpc",
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
        for text in [
            "ws://localhost:7420/eventlog",
            "http://localhost:7420",
            "http://localhost:7420/",
            "localhost:7420",
            "localhost:7420/eventlog",
        ] {
            assert_eq!(both(text), local, "{text}");
        }
        let secure = "wss://events.example/eventlog https://events.example";
        for text in ["wss://events.example/eventlog", "https://events.example"] {
            assert_eq!(both(text), secure, "{text}");
        }
        let mounted = "ws://a.example/app/eventlog http://a.example/app";
        assert_eq!(both("ws://a.example/app/eventlog"), mounted);
        assert_eq!(both("ws://a.example/feed"), "ws://a.example/feed http://a.example/feed");
        let with_token = "ws://a.example/eventlog?access_token=a/b http://a.example";
        assert_eq!(both("ws://a.example?access_token=a/b"), with_token);
        assert_eq!(both(DEFAULT), format!("{DEFAULT} http://127.0.0.1:7420"));
    }

    #[test]
    fn an_address_says_its_protocol_and_serves_for_the_other_one() {
        for (text, protocol, other) in [
            ("ws://h:1", Protocol::Msgpack, "ws://h:1/rpc"),
            ("ws://h:1/eventlog", Protocol::Msgpack, "ws://h:1/rpc"),
            ("ws://h:1/rpc", Protocol::Rpc, "ws://h:1/eventlog"),
            ("ws://h:1/app/rpc/", Protocol::Rpc, "ws://h:1/app/eventlog"),
            ("ws://h:1/feed", Protocol::Msgpack, "ws://h:1/feed"),
        ] {
            let url: ServerUrl = text.parse().expect("an address");
            assert_eq!(url.protocol(), protocol, "{text}");
            let opposite = match protocol {
                Protocol::Msgpack => Protocol::Rpc,
                Protocol::Rpc => Protocol::Msgpack,
            };
            assert_eq!(url.of(opposite).websocket(), other, "{text}");
            assert_eq!(url.of(protocol).websocket(), url.websocket(), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "localhost",
            "localhost:",
            ":7420",
            "localhost:http",
            "ftp://x",
            "ws://",
            "ws:///eventlog",
            "ws://?b",
            "ws://a b",
        ] {
            assert_eq!(both(text), "refused", "{text}");
        }
    }
}
