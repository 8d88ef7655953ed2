//! What was kept aside of a data directory and may have content that was erased since: a database before it was rebuilt, the content
//! before `heal` or `accept-loss`, a directory of an earlier format.
//!
//! Keeps: only names that this server gives count. Leaves out: when it is removed (`worker`).

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Their names contain one of these, before a number.
const ASIDE: [&str; 3] = [".damaged-", ".before-heal-", ".before-restore-"];
/// A directory of an earlier format.
const BEFORE_FORMAT: &str = "before-format-3";

/// A file or folder that was kept aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) path: PathBuf,
    /// When it got its name, according to the file system: milliseconds since 1970.
    pub(super) since_millis: u64,
}

/// What was kept aside in these folders up to `millis`, in milliseconds since 1970.
pub(super) fn before(folders: &[PathBuf], millis: u64) -> io::Result<Vec<Kept>> {
    let mut kept = list(folders)?;
    kept.retain(|kept| kept.since_millis <= millis);
    Ok(kept)
}

/// All of it in these folders. Some of the folders may be missing.
pub(super) fn list(folders: &[PathBuf]) -> io::Result<Vec<Kept>> {
    let mut kept = Vec::new();
    for folder in folders {
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if is_aside(&entry.file_name().to_string_lossy()) {
                let since_millis = since(&entry.metadata()?);
                kept.push(Kept { path: entry.path(), since_millis });
            }
        }
    }
    kept.sort_by(|one, other| one.path.cmp(&other.path));
    kept.dedup();
    Ok(kept)
}

/// Removes it.
pub(super) fn remove(kept: &Kept) -> io::Result<()> {
    let removed = if kept.path.is_dir() {
        std::fs::remove_dir_all(&kept.path)
    } else {
        std::fs::remove_file(&kept.path)
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Whether this is the name of something kept aside.
pub(super) fn is_aside(name: &str) -> bool {
    let numbered = |aside: &str| {
        let number = name.rsplit_once(aside).map(|(_, number)| number);
        number.is_some_and(|number| number.parse::<u64>().is_ok())
    };
    name == BEFORE_FORMAT || ASIDE.into_iter().any(numbered)
}

/// A rename changes this time.
fn since(metadata: &Metadata) -> u64 {
    let millis = metadata.ctime().saturating_mul(1_000) + metadata.ctime_nsec() / 1_000_000;
    u64::try_from(millis).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_kept_aside_counts() {
        for name in ["sled.damaged-1", "log.before-heal-12", "before-format-3", "archive.damaged-2"]
        {
            assert!(is_aside(name), "{name}");
        }
        for name in ["sled", "log", "my.damaged-notes", "before-format-3.tar", "x.damaged-"] {
            assert!(!is_aside(name), "{name}");
        }
    }
}
