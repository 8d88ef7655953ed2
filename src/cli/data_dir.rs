//! The data directory of a server, for the commands that work on it without one.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use eventlog_server::storage::sled::{ArchivePlace, DatabaseOptions, archive_place};

/// The variable that says where the archive is.
const ARCHIVE_DIR: &str = "EVENTLOG_ARCHIVE_DIR";

#[derive(Debug, clap::Args)]
pub(super) struct DataDir {
    /// The data directory
    #[arg(
        long = "data-dir",
        value_name = "DIR",
        env = "EVENTLOG_DATA_DIR",
        default_value = "data"
    )]
    pub(super) path: PathBuf,
    /// The directory of the archive [default: that of the last server on the data directory, or `archive` in it]
    #[arg(long, value_name = "DIR", env = ARCHIVE_DIR)]
    archive_dir: Option<PathBuf>,
}

/// The data directory of a stopped server, for commands that otherwise ask the running one.
#[derive(Debug, clap::Args)]
pub(super) struct StoppedDir {
    /// The data directory of a stopped server [default: use a running one]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The directory of its archive [default: that in `EVENTLOG_ARCHIVE_DIR`, else that of the last server on the data
    /// directory, or `archive` in it]
    #[arg(long, value_name = "DIR", requires = "data_dir")]
    archive_dir: Option<PathBuf>,
}

impl StoppedDir {
    /// The directory, if one was given.
    pub(super) fn get(&self) -> Option<DataDir> {
        let path = self.data_dir.clone()?;
        Some(DataDir { path, archive_dir: archive_dir(self.archive_dir.as_ref()) })
    }
}

/// Where the archive is, from an option or from the environment. An option that requires another one cannot have `env`: it would require that
/// one wherever the variable is set.
pub(super) fn archive_dir(option: Option<&PathBuf>) -> Option<PathBuf> {
    let of_environment = || std::env::var_os(ARCHIVE_DIR).filter(|dir| !dir.is_empty());
    option.cloned().or_else(|| of_environment().map(PathBuf::from))
}

/// The options for the data directory `path`, whose archive is in `archive_dir`, or else where its last server had it.
pub(super) fn options(path: Option<&PathBuf>, archive_dir: Option<&PathBuf>) -> DatabaseOptions {
    let mut options = DatabaseOptions::default();
    options.archive.dir = archive_dir.cloned();
    if options.archive.dir.is_none() {
        match path.and_then(|path| archive_place(path)) {
            Some(ArchivePlace::At(dir)) => options.archive.dir = Some(dir),
            Some(ArchivePlace::Off) => options.archive.enabled = false,
            Some(ArchivePlace::Here) | None => {}
        }
    }
    options
}

/// There is no data directory.
#[derive(Debug, thiserror::Error)]
#[error("{} is not a data directory; --data-dir says where one is", path.display())]
pub(super) struct NoDataDirectory {
    path: PathBuf,
}

impl DataDir {
    pub(super) fn options(&self) -> DatabaseOptions {
        options(Some(&self.path), self.archive_dir.as_ref())
    }

    /// The place of the archive, or where it was before it was switched off.
    pub(super) fn archive(&self) -> PathBuf {
        self.options().archive.dir.unwrap_or_else(|| self.path.join("archive"))
    }

    /// For a command that must not create a directory: opening would create one.
    pub(super) fn must_exist(&self) -> Result<(), NoDataDirectory> {
        if ["format", "witness.a", "witness.b"].iter().any(|name| self.path.join(name).is_file()) {
            return Ok(());
        }
        Err(NoDataDirectory { path: self.path.clone() })
    }
}

/// Asks for confirmation.
pub(super) fn is_confirmed() -> io::Result<bool> {
    is_confirmed_by("yes")
}

/// Asks for this to be typed in order to go on.
pub(super) fn is_confirmed_by(word: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    write!(out, "Type {word} to go on: ")?;
    out.flush()?;
    let (mut answer, mut input) = (String::new(), io::stdin().lock());
    input.read_line(&mut answer)?;
    // Only a terminal shows the line break that somebody types.
    if !input.is_terminal() || !answer.ends_with('\n') {
        writeln!(out)?;
    }
    Ok(answer.trim() == word)
}

#[cfg(test)]
mod tests {
    use eventlog_server::storage::sled::Database;

    use super::*;

    #[test]
    fn what_is_no_data_directory_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let is_one = |path| DataDir { path, archive_dir: None }.must_exist().is_ok();
        let path = || directory.path().to_owned();
        assert!(!is_one(path()) && !is_one(path().join("nowhere")));
        let database = Database::open(&path(), DatabaseOptions::default());
        database.expect("it opens").close().expect("it closes");
        assert!(is_one(path()));
    }
}
