//! Who changed what: one line of the log for each change, under the target `audit`, as `name=value`.
//!
//! Keeps: names and order do not change, because programs read them; text that people chose is quoted, so that nobody
//! can forge another field or line. Leaves out: what clients do, which does not change permissions.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Who did it.
#[derive(Clone, Debug)]
pub(crate) enum By {
    /// Code in this process.
    Process,
    /// Whoever has the admin token of this name.
    Admin {
        /// From where.
        address: Option<IpAddr>,
        token: Arc<str>,
    },
    /// A caller whose proof says that they are this subject.
    Claim(Option<Box<str>>),
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process => f.write_str("by=process"),
            Self::Admin { address: Some(address), token } => {
                write!(f, "by=admin address={address} token={token:?}")
            }
            Self::Admin { address: None, token } => {
                write!(f, "by=admin address=? token={token:?}")
            }
            Self::Claim(subject) => {
                write!(f, "by=claim subject={:?}", subject.as_deref().unwrap_or_default())
            }
        }
    }
}

/// Logs that it was done: `what` begins with `action=`.
pub(crate) fn note(by: &By, what: fmt::Arguments<'_>) {
    log::info!(target: "audit", "{what} {by}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_did_it_cannot_write_a_further_field() {
        let mallory = By::Claim(Some("m\" by=process\n".into()));
        assert_eq!(mallory.to_string(), r#"by=claim subject="m\" by=process\n""#);
        let admin = By::Admin { address: Some([10, 0, 0, 7].into()), token: "ops".into() };
        assert_eq!(admin.to_string(), r#"by=admin address=10.0.0.7 token="ops""#);
    }
}
