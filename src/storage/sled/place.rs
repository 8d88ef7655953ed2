//! Where a data directory is: whether it is the original one, and on what file system.
//!
//! ```text
//! place    the line `device 2049, inode 131075, sum 1a2b3c4d`: where the directory was made, and crc32 over what is before
//!          `, sum`
//! ```
//!
//! Keeps: a copy on any file system has another inode, and is reported until somebody removes the file. Leaves out: a
//! file system that was copied as a whole, where the inode is the same; its device may have another number after each
//! start.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::files::Files;

/// The name of the note.
pub(super) const FILE: &str = "place";

/// Device and inode of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    device: u64,
    inode: u64,
}

impl Place {
    fn of(directory: &Path) -> io::Result<Self> {
        let found = directory.metadata()?;
        Ok(Self { device: found.dev(), inode: found.ino() })
    }

    fn encode(self) -> String {
        let text = format!("device {}, inode {}", self.device, self.inode);
        let sum = crc32fast::hash(text.as_bytes());
        format!("{text}, sum {sum:08x}\n")
    }

    fn decode(text: &str) -> Option<Self> {
        let (device, rest) = text.strip_prefix("device ")?.split_once(", inode ")?;
        let (inode, _) = rest.split_once(',')?;
        let place = Self { device: device.parse().ok()?, inode: inode.parse().ok()? };
        (place.encode() == text).then_some(place)
    }
}

/// Whether the directory is a copy of the original one. If nothing says so, its place is noted from now on.
pub(super) fn is_copy(files: &Files) -> io::Result<bool> {
    let here = Place::of(files.directory())?;
    let noted = match std::fs::read(files.place()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        noted => Place::decode(&String::from_utf8_lossy(&noted?)),
    };
    match noted {
        Some(made) => Ok(made.inode != here.inode),
        None => files.write_whole(&files.place(), here.encode().as_bytes()).map(|()| false),
    }
}

/// Whether the directory seems to be a copy of the original one. Notes nothing.
pub(super) fn seems_copied(directory: &Path) -> bool {
    let noted = std::fs::read_to_string(directory.join(FILE)).ok();
    let noted = noted.and_then(|text| Place::decode(&text));
    noted.is_some_and(|made| Place::of(directory).is_ok_and(|here| here.inode != made.inode))
}

/// Doubts about the file system of `directory`, if it is one of those that promise less than a disk.
#[cfg(target_os = "linux")]
pub(super) fn doubts(directory: &Path) -> io::Result<Option<&'static str>> {
    // The numbers come from `linux/magic.h`.
    Ok(match rustix::fs::statfs(directory)?.f_type {
        0x0102_1994 | 0x8584_58f6 => {
            Some("is in memory (tmpfs): everything is lost when the machine stops")
        }
        0x794c_7630 => {
            Some("is on overlay, which a container loses when it is removed: mount a volume there")
        }
        0x6969 => {
            Some("is on NFS: locks and syncs are as good as its server and its mount options are")
        }
        _ => None,
    })
}

/// On other systems nothing is known.
#[cfg(not(target_os = "linux"))]
pub(super) fn doubts(_directory: &Path) -> io::Result<Option<&'static str>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(directory: &Path) -> bool {
        is_copy(&Files::unlocked(directory)).expect("readable")
    }

    #[test]
    fn a_copied_directory_is_told_until_the_note_is_removed() {
        let (made, copy) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
        assert!(!place(made.path()) && !place(made.path()));
        let note = copy.path().join("place");
        std::fs::copy(made.path().join("place"), &note).expect("copied");
        assert!(place(copy.path()) && place(copy.path()));
        std::fs::remove_file(&note).expect("removed");
        assert!(!place(copy.path()) && note.is_file());
    }

    #[test]
    fn a_damaged_note_is_no_copy_and_is_written_again() {
        let made = tempfile::tempdir().expect("a directory");
        assert!(!place(made.path()));
        let note = made.path().join("place");
        let whole = std::fs::read(&note).expect("a note");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&note, changed).expect("written");
            assert!(!place(made.path()), "byte {at}");
            assert_eq!(std::fs::read(&note).expect("a note"), whole);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_directory_in_memory_is_told() {
        let found = doubts(Path::new("/dev/shm")).expect("it is there");
        assert!(found.is_some_and(|doubt| doubt.contains("tmpfs")));
        assert_eq!(doubts(Path::new("/proc")).expect("it is there"), None);
    }
}
