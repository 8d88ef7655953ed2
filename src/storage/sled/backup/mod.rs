//! Backups: the content of the archive up to one moment is copied to a folder or a stream, and a data directory can be
//! made from it.
//!
//! Keeps: a backup matches its manifest, including checksums, or it is no backup; it never changes once it is complete.
//! Writes continue meanwhile. Leaves out: who asks for a backup, and when (`cli`).
//!
//! ```text
//! DIR/generation/00000016.log.zst               files of the archive, as they are there; see `archive`
//! DIR/generation/00000000000000001234.manifest  one backup: JSON in a line, and the SHA-256 of that line
//! DIR/generation/restores                       a line for each directory that was made from them
//! DIR/generation/successors                     a line for each of these, with its generation
//! DIR/generation/checked                        when its files were last read again
//! ```

mod check;
mod copy;
mod folder;
mod held;
mod listed;
mod manifest;
mod pack;
mod restore;
mod shipped;
mod take;

pub use check::Checked;
pub use folder::{BackupError, Backups, Written};
pub use held::{Held, Made, Moment};
pub use manifest::{Manifest, ManifestFile};
pub use pack::{pack, unpack};
pub(super) use restore::{As, MARK, Restoring, plan, restore};
pub use restore::{Restored, Until, Wanted};
pub(super) use shipped::tail;
pub use shipped::{DirectoryNote, Tail};
pub(super) use take::{Origin, archived, take};
