//! Where the database is, and how much of it to use.
//!
//! Keeps: entries never go over a network unencrypted, or to a server that was not verified, unless that was requested
//! explicitly.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::PostgresError;

/// The default name of Effect's table of entries. The names of the other tables begin with it.
const PREFIX: &str = "effect_events";
/// The name of Effect's table of the remote id.
const REMOTE_ID_TABLE: &str = "effect_remote_id";
/// A name in PostgreSQL has at most 63 bytes, and the longest suffix has 25.
const PREFIX_BYTES_MAX: usize = 38;

/// Where the database is, and how much of it to use.
#[derive(Clone)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// In libpq's format: `postgres://user:password@host:port/database?sslmode=verify-full`. Several hosts, separated
    /// by commas, are tried in their order, and the one that accepts writes is used. A host that is neither loopback
    /// nor a socket needs `sslmode=require` or `verify-full`, which both verify its certificate, or `sslmode=disable`.
    /// `sslrootcert` names a file with the trusted authorities (PEM), which replace [`PostgresOptions::authorities`].
    pub url: String,
    /// The prefix of the names of all tables: Effect's `entryTablePrefix`. Lowercase letters, digits and underscores.
    pub prefix: String,
    /// Effect's `remoteIdTable`.
    pub remote_id_table: String,
    /// The number of connections for everything but appends. They are opened when they are needed.
    pub connections_max: usize,
    /// The number of connections for appends, and of concurrent append statements.
    pub append_connections: usize,
    /// The file in which the node stores the heads that it has shown. With it, a restarted node notices that the
    /// database was reset to an earlier state. The folder must exist, and only this node may use the file.
    pub heads_file: Option<PathBuf>,
    /// The folder in which the node keeps a copy of the erasure ledger. With it, what was erased is erased again after the
    /// database was restored from before. It is created if it is missing, and only this node may use it.
    pub erased_dir: Option<PathBuf>,
    /// For [`Postgres::heal`](super::Postgres::heal) and moves: nodes that seem to run are known to be dead. Their connections
    /// are ended. A node that runs after all notices that the database was taken from it, and serves nobody.
    pub nodes_are_dead: bool,
    /// The authorities that certificates are checked against, as X.509 in DER.
    pub authorities: Vec<Vec<u8>>,
}

impl PostgresOptions {
    /// The database at `url`, with defaults for everything else.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: PREFIX.to_owned(),
            remote_id_table: REMOTE_ID_TABLE.to_owned(),
            connections_max: 8,
            append_connections: 2,
            heads_file: None,
            erased_dir: None,
            nodes_are_dead: false,
            authorities: Vec::new(),
        }
    }

    /// The database in words: its hosts and its name, without user and password.
    #[cfg(feature = "sled")]
    pub(crate) fn named(&self) -> String {
        let without = self.url.split('?').next().unwrap_or_default();
        let (scheme, rest) = without.split_once("://").unwrap_or(("postgres", without));
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        format!("{scheme}://{place}")
    }

    /// Says what cannot work.
    pub(super) fn check(&self) -> Result<(), PostgresError> {
        for (what, name) in [("prefix", &self.prefix), ("remote_id_table", &self.remote_id_table)] {
            let is_letter = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
            let starts = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
            if !starts || name.len() > PREFIX_BYTES_MAX || !name.bytes().all(is_letter) {
                return Err(PostgresError::Options(format!(
                    "{what} {name:?} is not a name for tables: use lower-case letters, digits and \
                     underscores, no digit first, at most {PREFIX_BYTES_MAX} of them"
                )));
            }
        }
        if self.connections_max == 0 || self.append_connections == 0 {
            return Err(PostgresError::Options("without a connection nothing can be done".into()));
        }
        Ok(())
    }

    /// The configuration of the driver, and the authorities that the server's certificate is checked against.
    pub(super) fn driver(&self) -> Result<(tokio_postgres::Config, Vec<Vec<u8>>), PostgresError> {
        let (url, ssl) = split_ssl(&self.url)?;
        // The text of the error is not always included: a URL contains a password.
        let mut config: tokio_postgres::Config =
            url.parse().map_err(|error| PostgresError::Options(what_is_wrong(&url, &error)))?;
        let is_near = config.get_hosts().iter().all(is_near)
            && config.get_hostaddrs().iter().all(IpAddr::is_loopback);
        let mode = match ssl.mode.as_deref() {
            Some("disable") => SslMode::Disable,
            Some("require" | "verify-full") => SslMode::Require,
            Some(mode) => {
                return Err(PostgresError::Options(format!(
                    "sslmode={mode} in the URL is not supported: `require` and `verify-full` both verify the \
                     certificate, `disable` uses no TLS"
                )));
            }
            None if is_near => SslMode::Disable,
            None => {
                return Err(PostgresError::Options(
                    "the database is on another machine, so the URL needs sslmode=verify-full, or \
                     sslmode=disable if the network between is trusted"
                        .into(),
                ));
            }
        };
        config
            .ssl_mode(mode)
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(15));
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(5));
        }
        if config.get_application_name().is_none() {
            config.application_name("eventlog-server");
        }
        let authorities = match &ssl.root_certificates {
            Some(path) => read_certificates(path)?,
            None => self.authorities.clone(),
        };
        Ok((config, authorities))
    }
}

impl std::fmt::Debug for PostgresOptions {
    /// The URL contains a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresOptions").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// The TLS settings of a URL, of which the driver knows only some.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ssl {
    mode: Option<String>,
    root_certificates: Option<String>,
}

/// The URL without its TLS settings. A text of `key=value` pairs is passed to the driver unchanged.
fn split_ssl(url: &str) -> Result<(String, Ssl), PostgresError> {
    let mut ssl = Ssl::default();
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(PostgresError::Options("the URL does not begin with postgres://".into()));
    }
    let Some((before, query)) = url.split_once('?') else { return Ok((url.to_owned(), ssl)) };
    let mut rest = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", mode)) => ssl.mode = Some(mode.to_owned()),
            Some(("sslrootcert", path)) => ssl.root_certificates = Some(path.to_owned()),
            _ => rest.push(pair),
        }
    }
    let rest = rest.join("&");
    let url = if rest.is_empty() { before.to_owned() } else { format!("{before}?{rest}") };
    Ok((url, ssl))
}

/// What is wrong with a URL, without any part of its password.
fn what_is_wrong(url: &str, error: &tokio_postgres::Error) -> String {
    let before_query = url.split('?').next().unwrap_or_default();
    // An option is named only if nothing after the first question mark can belong to the password.
    let has_password_after = url[before_query.len()..].contains('@');
    let cause = std::error::Error::source(error).filter(|_| !has_password_after);
    cause.map_or_else(
        || "the URL is wrong: it should be postgres://user:password@host:port/database".to_owned(),
        |cause| format!("the URL is wrong: {cause}"),
    )
}

fn is_near(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

fn read_certificates(path: &str) -> Result<Vec<Vec<u8>>, PostgresError> {
    let wrong = |error: rustls::pki_types::pem::Error| {
        PostgresError::Options(format!("sslrootcert {path} cannot be read: {error}"))
    };
    let certificates = CertificateDer::pem_file_iter(path).map_err(wrong)?;
    certificates.map(|one| Ok(one.map_err(wrong)?.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> Result<SslMode, String> {
        let driver = PostgresOptions::new(url).driver();
        driver.map(|(config, _)| config.get_ssl_mode()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_database_elsewhere_is_verified_or_nobody_cares_by_their_own_word() {
        for near in [
            "postgres://a@localhost/b",
            "postgres://a@127.0.0.1:5/b",
            "postgres://%2Ftmp/b",
            "postgres://[::1]/b",
        ] {
            assert_eq!(mode(near), Ok(SslMode::Disable), "{near}");
        }
        for (said, expected) in [
            ("require", SslMode::Require),
            ("verify-full", SslMode::Require),
            ("disable", SslMode::Disable),
        ] {
            let url = format!("postgres://a:b@db.example/c?connect_timeout=3&sslmode={said}");
            assert_eq!(mode(&url), Ok(expected));
        }
        for refused in ["postgres://a@db.example/b", "postgres://a@localhost,db.example/b"] {
            assert!(mode(refused).expect_err("refused").contains("sslmode"), "{refused}");
        }
        for unknown in ["prefer", "allow", "verify-ca", ""] {
            assert!(mode(&format!("postgres://a@localhost/b?sslmode={unknown}")).is_err());
        }
        assert!(mode("postgres://a@db.example/b?sslmode=require&sslrootcert=/nowhere").is_err());
    }

    #[cfg(feature = "sled")]
    #[test]
    fn a_database_is_named_without_its_password() {
        let named = |url: &str| PostgresOptions::new(url).named();
        assert_eq!(named("postgres://a:hunt@er2@b:5,c/d?sslmode=require"), "postgres://b:5,c/d");
        assert_eq!(named("postgres://%2Ftmp/b"), "postgres://%2Ftmp/b");
    }

    #[test]
    fn a_password_is_not_shown() {
        let options = PostgresOptions::new("postgres://a:hunter2@localhost:x/b");
        assert!(!format!("{options:?}").contains("hunter2"));
        assert!(!options.driver().expect_err("no port").to_string().contains("hunter2"));
        let options = PostgresOptions::new("postgres://a:hun?ter2=5@localhost/b");
        let error = options.driver().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(!error.contains("ter2"), "{error}");
    }

    #[test]
    fn a_wrong_option_is_named() {
        for (wrong, named) in [
            ("?connect_timeot=3", "connect_timeot"),
            ("?connect_timeout=soon", "connect_timeout"),
            (":x/b", "port"),
        ] {
            let error = PostgresOptions::new(format!("postgres://a@localhost{wrong}")).driver();
            let error = error.expect_err("wrong").to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_prefix_is_a_name() {
        let check = |prefix: &str| {
            PostgresOptions { prefix: prefix.to_owned(), ..PostgresOptions::new("") }.check()
        };
        assert!(check("effect_events").is_ok() && check("_a1").is_ok());
        for wrong in ["", "1a", "A", "a-b", "a\"b", &"a".repeat(39)] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }
}
