//! Removes files of the log permanently, with the bytes that are left in them from earlier uses.
//!
//! Keeps: a removed file is not needed by anybody. Leaves out: when that is wanted (the caller decides).

use std::io;

use super::files::LogFiles;
use super::folder;

impl LogFiles {
    /// From now on, released files are removed, and no existing file is reused. Spare files are removed at once; the file that was named
    /// ahead of time is removed once there is a later one. Returns the number below which that holds. Blocks on disk.
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

    /// Whether there is a file whose number is below this one.
    pub(crate) fn has_before(&self, number: u64) -> io::Result<bool> {
        let _moving = self.moving();
        self.clear_surplus()?;
        let names = folder::list(&self.options().folder)?;
        Ok(names.files.iter().any(|file| *file < number))
    }
}
