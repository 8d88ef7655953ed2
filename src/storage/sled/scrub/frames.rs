//! All frames that a directory has: those of the archive, and those of the commit log.
//!
//! Keeps: nothing is written, and the directory may be in use.

use std::io;
use std::path::Path;

use crate::storage::archive::Archive;
use crate::storage::commit_log::{
    Found, FoundFrame, Generation, LogOptions, Position, read_running,
};
use crate::storage::sled::files::Files;
use crate::storage::sled::open;
use crate::storage::sled::options::{DatabaseOptions, OpenFailure};
use crate::storage::witness::WitnessFiles;

/// Files are created and removed while a server runs. This is how often reading starts again.
const TRIES: usize = 5;

/// Repeats `read` from the beginning if a file was removed meanwhile.
pub(super) fn while_files_change<T>(
    mut read: impl FnMut() -> Result<T, OpenFailure>,
) -> Result<T, OpenFailure> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        match read() {
            Err(OpenFailure::Io(error)) if error.kind() == io::ErrorKind::NotFound && tries > 0 => {
            }
            done => return done,
        }
    }
}

/// The frames of a directory that may be in use.
pub(super) struct Frames<'a> {
    files: &'a Files,
    archive: Option<Archive>,
    pub(super) generation: Generation,
}

impl<'a> Frames<'a> {
    pub(super) fn of(files: &'a Files, options: &DatabaseOptions) -> Result<Self, OpenFailure> {
        let generation = generation(files)?;
        let archive = open::archive_to_read(files, options, generation);
        Ok(Self { files, archive, generation })
    }

    /// Fails if a file of the archive cannot be read.
    pub(super) fn check(&self) -> Result<(), OpenFailure> {
        let Some(archive) = &self.archive else { return Ok(()) };
        let unreadable = archive.files()?.unreadable.into_iter().next();
        let refused =
            |path: &Path| format!("{} cannot be read, and may have some of it", path.display());
        unreadable.map_or(Ok(()), |file| Err(OpenFailure::Refused(refused(&file.path))))
    }

    /// Passes all readable frames to `visit`, in their order; those that are in the archive and in the commit log twice.
    pub(super) fn each(
        &self,
        visit: &mut dyn FnMut(FoundFrame<'_>) -> Result<(), OpenFailure>,
    ) -> Result<(), OpenFailure> {
        if let Some(archive) = &self.archive {
            for file in archive.files()?.files {
                file.each(&mut *visit)?;
            }
        }
        let options = LogOptions::new(self.files.log(), self.generation);
        // Data that is damaged, or removed meanwhile, does not matter here.
        read_running(&options, Position(0), Position(u64::MAX - 1), |found| match found {
            Found::Frame(frame) => visit(frame),
            Found::Damage(_) => Ok(()),
        })?;
        Ok(())
    }
}

fn generation(files: &Files) -> Result<Generation, OpenFailure> {
    let (_, found) = WitnessFiles::open(files.directory())?;
    let unknown = || OpenFailure::Refused("nothing says whose directory this is".into());
    found.newest.map(|witness| witness.generation).ok_or_else(unknown)
}
