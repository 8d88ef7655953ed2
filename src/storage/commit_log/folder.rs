//! The names in the folder of a log.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// What the folder holds.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The numbers of the log files, ascending.
    pub(super) files: Vec<u64>,
    /// The numbers of the spare files.
    pub(super) spares: Vec<u64>,
}

pub(super) fn list(folder: &Path) -> io::Result<Names> {
    let mut names = Names::default();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(number) = name.strip_suffix(".log").and_then(|number| number.parse().ok()) {
            names.files.push(number);
        } else if let Some(number) =
            name.strip_prefix("spare-").and_then(|number| number.parse().ok())
        {
            names.spares.push(number);
        }
    }
    names.files.sort_unstable();
    names.spares.sort_unstable();
    Ok(names)
}

pub(super) fn file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.log"))
}

pub(super) fn spare(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("spare-{number}"))
}

/// Makes the files that were created, renamed or removed in it durable.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes the next read of `file` come from the disk.
///
/// After a failed sync the kernel considers the pages clean: they show what never reached the disk.
pub(super) fn forget_cached(file: &File) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    #[cfg(not(target_os = "linux"))]
    let _ = file;
    Ok(())
}
