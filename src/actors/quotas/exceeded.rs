//! Which quota is used up, and the message about it.

use std::fmt;
use std::time::Duration;

/// Whose quota it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Key,
    Store,
}

impl Of {
    const fn label(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Store => "store",
        }
    }
}

/// What the quota limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Writes,
    Bytes,
    Subscriptions,
    Connections,
    /// Bytes that a key has written.
    Stored,
    /// Keys or stores that are counted: this limit is fixed.
    Names,
}

impl What {
    const fn label(self) -> &'static str {
        match self {
            Self::Writes => "writes",
            Self::Bytes => "bytes",
            Self::Subscriptions => "subscriptions",
            Self::Connections => "connections",
            Self::Stored => "bytes_stored",
            Self::Names => "names",
        }
    }
}

/// A quota is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(super) of: Of,
    pub(super) what: What,
    /// The limit.
    pub(super) most: u64,
    /// How long to wait before trying again.
    pub(super) wait: Duration,
}

impl std::error::Error for Exceeded {}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, what, most, wait } = self;
        let who = match of {
            Of::Key => "the public key",
            Of::Store => "the store of the public key",
        };
        match what {
            What::Writes => write!(f, "quota: {who} may have {most} writes a second")?,
            What::Bytes => write!(f, "quota: {who} may have {most} bytes a second")?,
            What::Subscriptions => write!(f, "quota: {who} may have {most} subscriptions")?,
            What::Connections => write!(f, "quota: {who} may be used on {most} connections")?,
            What::Stored => {
                return write!(
                    f,
                    "quota: {who} may write {most} bytes in all, and has; try again when its quota is raised"
                );
            }
            What::Names => write!(f, "quota: {most} are in use, and no more are counted")?,
        }
        // Rounded up: a client that comes back a moment too early has come in vain.
        write!(f, "; try again in {} s", wait.as_millis().div_ceil(1_000).max(1))
    }
}

impl Exceeded {
    /// The labels under which a refusal, or a delayed write, is counted.
    pub(crate) const fn labels(&self) -> [(&'static str, &'static str); 2] {
        [("of", self.of.label()), ("what", self.what.label())]
    }
}
