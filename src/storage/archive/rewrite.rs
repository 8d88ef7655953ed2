//! Rewrites files of the archive with changed frames.
//!
//! Keeps: either the old or the new version of a file exists, complete; the old one is removed when the name of the new one is on disk.
//! Leaves out: what is changed (the caller decides).

use std::fs::File;

use super::chunk::ChunkReader;
use super::head::HEAD_BYTES;
use super::names::{self, Kind, Name};
use super::{Archive, ArchiveError, ArchivedFile, sync_folder};
use crate::storage::commit_log::FoundFrame;

/// The new body of a frame, if it changes.
pub(crate) type Change<'a, E> = dyn FnMut(&FoundFrame<'_>) -> Result<Option<Vec<u8>>, E> + 'a;

impl ArchivedFile {
    /// Passes all readable frames, or the parts of the base, to `visit`.
    pub(crate) fn each<E: From<ArchiveError>>(
        &self,
        mut visit: impl FnMut(FoundFrame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let file = File::open(&self.path).map_err(ArchiveError::from)?;
        let mut chunks = ChunkReader::new(&file, HEAD_BYTES).map_err(ArchiveError::from)?;
        while let Some(chunk) = chunks.next().map_err(ArchiveError::from)? {
            for frame in chunk.frames {
                visit(frame)?;
            }
        }
        Ok(())
    }
}

impl Archive {
    /// Writes `file` again as its next version if `change` has a new body for one of its frames, and removes the old version. `None` if
    /// nothing must be changed. The unreadable parts of it are gone afterwards. Blocks on disk.
    pub(crate) fn rewrite<E: From<ArchiveError>>(
        &self,
        file: &ArchivedFile,
        change: &mut Change<'_, E>,
    ) -> Result<Option<ArchivedFile>, E> {
        let (mut is_due, mut frames) = (false, 0);
        file.each(|frame| {
            frames += 1;
            is_due = is_due || change(&frame)?.is_some();
            Ok::<(), E>(())
        })?;
        if !is_due {
            return Ok(None);
        }
        if file.kind == Kind::Base && frames != file.frames {
            // Afterwards, nothing would show any more what is missing.
            return Err(ArchiveError::ReadBack(file.path.clone()).into());
        }
        let ArchivedFile { number, kind, version, .. } = *file;
        let name = Name { number, kind, version: version + 1 };
        let mut failed = None;
        let written = self.write(&name, (file.first, file.last), |write| {
            file.each(|frame| {
                let changed = match change(&frame) {
                    Ok(changed) => changed,
                    Err(error) => {
                        failed = Some(error);
                        return Err(ArchiveError::Unavailable(std::io::Error::other("unreadable")));
                    }
                };
                write(FoundFrame { body: changed.as_deref().unwrap_or(frame.body), ..frame })
            })
        });
        let written = match (written, failed) {
            (_, Some(error)) => return Err(error),
            (written, None) => written?,
        };
        self.remove(std::slice::from_ref(file)).map_err(ArchiveError::from)?;
        Ok(Some(written))
    }

    /// Removes old versions of rewritten files that an earlier process left.
    pub(crate) fn remove_superseded(&self) -> Result<(), ArchiveError> {
        let newest = names::list(&self.folder)?;
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if names::is_superseded(&path, &newest) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(sync_folder(&self.folder)?)
    }

    /// Removes unfinished files that nobody is writing: bases, or with `all` any of them.
    pub(crate) fn remove_unfinished(&self, all: bool) -> Result<(), ArchiveError> {
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let of_base = name.is_some_and(|name| name.contains(".base."));
            if (all || of_base) && names::is_unfinished(&path) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(sync_folder(&self.folder)?)
    }
}
