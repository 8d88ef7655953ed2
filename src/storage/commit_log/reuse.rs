//! Has files of the log go for good, with the bytes that are left in them of their earlier uses.
//!
//! Keeps: a file that is removed is not needed by anybody. Leaves out: when that is wanted (the caller's).

use std::io;

use super::files::LogFiles;
use super::folder;

impl LogFiles {
    /// From now on files that are let go of are removed, and none of those that are there is used again: spare ones are removed at once, the
    /// one that has its name ahead of time once there is a later one. Gives the number below which that holds. Blocks on disk.
    pub(crate) fn stop_reuse(&self) -> io::Result<u64> {
        let _moving = self.moving();
        let (spares, before) = self.give_up_spares();
        let options = self.options();
        for spare in spares {
            match std::fs::remove_file(folder::spare(&options.folder, spare)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        folder::sync(&options.folder)?;
        Ok(before)
    }

    /// Whether a file is there whose number is below this one.
    pub(crate) fn has_before(&self, number: u64) -> io::Result<bool> {
        let _moving = self.moving();
        self.clear_surplus()?;
        let names = folder::list(&self.options().folder)?;
        Ok(names.files.iter().any(|file| *file < number))
    }
}
