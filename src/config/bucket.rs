//! Buckets: their addresses, and what is sent there.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use eventlog_server::storage::sled::ArchiveOptions;

use super::settings::ArchiveSettings;
use super::{ConfigError, check};

/// A bucket and the prefix of all names in it: `s3://bucket/prefix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BucketAddress {
    /// Its name.
    pub(crate) bucket: String,
    /// Without slashes at the ends; may be empty.
    pub(crate) prefix: String,
}

const SCHEME: &str = "s3://";

impl BucketAddress {
    /// The bucket that `path` names, if it is written like one; `Err` says what is wrong with it.
    pub(crate) fn of(path: &Path) -> Option<Result<Self, &'static str>> {
        let text = path.to_str().filter(|text| text.starts_with(SCHEME))?;
        Some(text.parse())
    }
}

impl FromStr for BucketAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let wrong = "write it as s3://BUCKET/PREFIX";
        let rest = text.strip_prefix(SCHEME).ok_or(wrong)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |text: &str| {
            let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !text.is_empty() && text.bytes().all(is_good) && !matches!(text, "." | "..")
        };
        let prefix = prefix.trim_end_matches('/');
        let is_prefix = prefix.is_empty() || prefix.split('/').all(is_name);
        if !is_name(bucket) || !is_prefix {
            return Err(wrong);
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for BucketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, prefix } = self;
        let slash = if prefix.is_empty() { "" } else { "/" };
        write!(f, "{SCHEME}{bucket}{slash}{prefix}")
    }
}

/// How often new data is sent there: what a lost machine can lose.
const SHIP_EVERY: Duration = Duration::from_secs(10);

/// The shortest interval.
const SHIP_EVERY_MIN: Duration = Duration::from_millis(100);

/// An archive that is sent to a bucket while the server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShippingPlan {
    /// The bucket.
    pub(crate) to: BucketAddress,
    /// How often to look for new data.
    pub(crate) every: Duration,
    /// Whether the archive releases old files, and the bucket with it.
    pub(crate) is_bounded: bool,
}

/// What `[archive]` says about it.
pub(super) fn shipping(
    settings: &ArchiveSettings,
    archive: &ArchiveOptions,
) -> Result<Option<ShippingPlan>, ConfigError> {
    let every = settings.ship_every.map_or(SHIP_EVERY, |span| span.0).max(SHIP_EVERY_MIN);
    let Some(to) = &settings.to else { return Ok(None) };
    let impossible = |reason| check::impossible("archive.to", to, reason);
    if !archive.enabled {
        return Err(impossible("there is no archive: `[archive] enabled` is false"));
    }
    let to = to.parse().map_err(impossible)?;
    let is_bounded = archive.bytes_max.is_some() || archive.age_max.is_some();
    Ok(Some(ShippingPlan { to, every, is_bounded }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_bucket_and_maybe_a_prefix() {
        let shown = |text: &str| text.parse().map(|address: BucketAddress| address.to_string());
        for text in ["s3://events", "s3://events/a/b-c"] {
            assert_eq!(shown(text).as_deref(), Ok(text));
            assert_eq!(shown(&format!("{text}/")).as_deref(), Ok(text));
        }
        for wrong in
            ["", "s3://", "s3:///a", "s3://a//b", "s3://a/../b", "s3://a/b c", "s3://k:s@a/b"]
        {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
        assert_eq!(BucketAddress::of(Path::new("/backups/s3")), None);
    }
}
