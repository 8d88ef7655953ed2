//! Which copies are missing of what a data directory has several times: the heads, and the erasure ledger. (The witness reports its own.)

use std::path::PathBuf;

use super::files::Files;
use super::open;
use super::options::DatabaseOptions;
use crate::storage::ledger;
use crate::storage::witness::Heads;

/// The copies that do not exist, though another one does or has to.
pub(super) fn missing(files: &Files, options: &DatabaseOptions) -> Vec<PathBuf> {
    let mut missing = Heads::paths(files.directory()).to_vec();
    // Nobody keeps the copy of an archive that is switched off.
    let archive = open::archive_folder(files, options).filter(|_| options.archive.enabled);
    let ledgers = ledger::paths(files.directory(), archive.as_deref());
    // Without an erasure there is none.
    if ledgers.iter().any(|path| path.metadata().is_ok_and(|found| found.len() > 0)) {
        missing.extend(ledgers);
    }
    missing.retain(|path| matches!(path.try_exists(), Ok(false)));
    missing
}
