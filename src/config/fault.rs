//! What is wrong with a configuration.
//!
//! Keeps: everything that is wrong is reported at once; no message contains a secret.

use std::fmt;
use std::io;
use std::path::PathBuf;

use eventlog_server::services::auth::DuplicateGrant;

use super::environment::EnvironmentError;
use super::layer::FileFault;

/// Everything that is wrong. Never empty.
#[derive(Debug, thiserror::Error)]
pub(crate) struct ConfigFaults(pub(crate) Vec<ConfigError>);

impl From<ConfigError> for ConfigFaults {
    fn from(fault: ConfigError) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [fault] => fault.fmt(f),
            faults => {
                write!(f, "{} things are wrong with the configuration:", faults.len())?;
                faults.iter().try_for_each(|fault| write!(f, "\n\n* {fault}"))
            }
        }
    }
}

/// The configuration cannot be read, or cannot work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// The file is not TOML, or contains something that is not a setting.
    #[error("{}, line {}: {}{}", path.display(), fault.line, Key(&fault.key), fault.message)]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        fault: FileFault,
    },
    /// The file of a secret cannot be used.
    #[error("`{setting}_file` names {}: {message}", path.display())]
    SecretFile {
        /// The secret.
        setting: String,
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A problem with the environment.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// It is not set who may do what.
    #[error("{}", NO_AUTH_MODE)]
    NoAuthMode,
    /// Two settings allow different things.
    #[error(
        "--dev allows everything to everyone, but the configuration has an [auth] mode; leave out one of the \
         two"
    )]
    DevWithRules,
    /// A setting of a mode without the mode, or the other way round.
    #[error("{0}")]
    Auth(&'static str),
    /// One grantee has two grants.
    #[error(transparent)]
    DuplicateGrant(#[from] DuplicateGrant),
    /// A setting that others need.
    #[error("`{key}` is missing: {reason}")]
    Missing {
        /// The setting, with its table.
        key: &'static str,
        /// What needs it.
        reason: &'static str,
    },
    /// A value that cannot work.
    #[error("`{key}` cannot be {value}: {reason}")]
    Impossible {
        /// The setting, with its table.
        key: &'static str,
        /// What it was set to.
        value: String,
        /// Why that cannot work, and what can.
        reason: &'static str,
    },
}

impl ConfigError {
    /// Whether it hides what `[auth]` says.
    pub(super) fn is_about_auth(&self) -> bool {
        match self {
            Self::Malformed { fault: FileFault { key, .. }, .. } => {
                key.is_empty() || key.starts_with("auth")
            }
            Self::SecretFile { setting, .. } => setting.starts_with("auth"),
            Self::Environment(
                EnvironmentError::Invalid { variable, .. } | EnvironmentError::Unknown { variable },
            ) => variable.starts_with("EVENTLOG_AUTH"),
            _ => false,
        }
    }
}

/// The setting, before the message about it.
struct Key<'a>(&'a str);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "`{}`: ", self.0) }
    }
}

const NO_AUTH_MODE: &str = r#"nobody has said who may write and read, so the server does not start.

Write one of these into the configuration file (--config FILE):

    [auth]
    mode = "allow-all"            # whoever reaches the server may use every key

    [auth]
    mode = "grants"               # the keys listed here may, and no others
    [[auth.grant]]
    public_key = "alice"          # "*" stands for every key without a grant of its own
    write = true
    read = true

    [auth]
    mode = "jwt"                  # the tokens of your own login say who may what, see docs/AUTH.md
    [auth.jwt]
    jwks_url = "https://login.example/.well-known/jwks.json"   # or secret, public_key_file, jwks_file

    [auth]
    mode = "http"                 # your application decides, see docs/AUTH.md
    [auth.http]
    url = "https://app.example/may"
    headers = ["cookie"]          # which headers of the handshake it sees
    # and in the environment EVENTLOG_AUTH_HTTP_SECRET=whsec_…, which signs the questions

or set EVENTLOG_AUTH_MODE=allow-all. To try things out on this machine: eventlog-server serve --dev"#;
