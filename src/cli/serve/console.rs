//! Where the console is; and with `--dev` a token for it, made at each start, for whoever sees the server's output.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use eventlog_server::server::{AdminRight, AdminToken};
use uuid::Uuid;

/// What the log calls whoever uses it.
const NAME: &str = "dev";

/// A token of the admin API that is valid until the process ends.
#[derive(Clone)]
pub(in crate::cli) struct DevToken(String);

impl fmt::Debug for DevToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DevToken(…)")
    }
}

impl DevToken {
    pub(in crate::cli) fn made() -> Self {
        Self(format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()))
    }

    /// The token for the server. Never `None`, because it is not a hash.
    pub(in crate::cli) fn admin_token(&self) -> Option<AdminToken> {
        AdminToken::new(NAME, [AdminRight::Admin], &self.0).ok()
    }
}

/// The text that is printed about the console at `address`.
pub(super) fn said(scheme: &str, address: SocketAddr, token: Option<&DevToken>) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let page = format!("{scheme}://{}/console", SocketAddr::new(ip, address.port()));
    match token {
        // Browsers do not send the part after `#` anywhere.
        Some(DevToken(token)) => format!(
            "console at {page}#token={token}\n  opens signed in; the token is made at each start with --dev\n"
        ),
        None => format!("console at {page}\n  sign in with a token of [admin]\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_can_be_opened_and_the_token_is_not_in_what_the_server_is_asked() {
        let token = DevToken::made();
        let line = said("http", ([0, 0, 0, 0], 7420).into(), Some(&token));
        let url = format!("http://127.0.0.1:7420/console#token={}\n", token.0);
        assert!(line.contains(&url), "{line}");
        assert!(
            said("https", ([10, 0, 0, 1], 80).into(), None)
                .starts_with("console at https://10.0.0.1:80/console\n")
        );
    }

    #[test]
    fn each_is_another_and_is_not_shown() {
        let (one, other) = (DevToken::made(), DevToken::made());
        assert!(one.0 != other.0 && one.0.len() == 64);
        assert!(!format!("{one:?} {:?}", one.admin_token()).contains(&one.0));
    }
}
