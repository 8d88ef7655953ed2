//! Where the archive of a data directory is, as whoever opened it last was told.
//!
//! ```text
//! archived   `here`, `off`, or `at` with an absolute path; then `, sum 1a2b3c4d`: crc32 over what is before that
//! ```
//!
//! Keeps: a command that is not told where the archive is finds it; a damaged note is none. Leaves out: a copy of the
//! directory, which has another archive than the original one: its note does not count.

use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::files::Files;
use super::options::ArchiveOptions;
use super::place;

const FILE: &str = "archived";

/// Where the archive of a data directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchivePlace {
    /// In the directory.
    Here,
    /// In this one.
    At(PathBuf),
    /// Nowhere: it is switched off.
    Off,
}

/// Where the archive of the data directory `directory` is, according to whoever opened it last. `None` if nothing says so, or if the
/// directory seems to be a copy.
pub fn archive_place(directory: &Path) -> Option<ArchivePlace> {
    let noted = std::fs::read(directory.join(FILE)).ok()?;
    decode(&noted).filter(|_| !place::seems_copied(directory))
}

/// Notes that the archive of the directory is where `options` says.
pub(super) fn note(files: &Files, options: &ArchiveOptions) -> io::Result<()> {
    let place = match &options.dir {
        _ if !options.enabled => ArchivePlace::Off,
        None => ArchivePlace::Here,
        Some(dir) => ArchivePlace::At(std::path::absolute(dir)?),
    };
    let (path, text) = (files.directory().join(FILE), encode(&place));
    if std::fs::read(&path).is_ok_and(|noted| noted == text) {
        return Ok(());
    }
    files.write_whole(&path, &text)
}

fn encode(place: &ArchivePlace) -> Vec<u8> {
    let mut text = match place {
        ArchivePlace::Here => b"here".to_vec(),
        ArchivePlace::Off => b"off".to_vec(),
        ArchivePlace::At(path) => [b"at ", path.as_os_str().as_bytes()].concat(),
    };
    let sum = crc32fast::hash(&text);
    text.extend_from_slice(format!(", sum {sum:08x}\n").as_bytes());
    text
}

fn decode(noted: &[u8]) -> Option<ArchivePlace> {
    const END: usize = ", sum 1a2b3c4d\n".len();
    let text = noted.get(..noted.len().checked_sub(END)?)?;
    let place = match text {
        b"here" => ArchivePlace::Here,
        b"off" => ArchivePlace::Off,
        text => {
            let path = text.strip_prefix(b"at ")?.to_vec();
            ArchivePlace::At(std::ffi::OsString::from_vec(path).into())
        }
    };
    (encode(&place) == noted).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_and_what_is_damaged_is_not() {
        let places =
            [ArchivePlace::Here, ArchivePlace::Off, ArchivePlace::At("/a, sum/b c".into())];
        for place in places {
            let noted = encode(&place);
            assert_eq!(decode(&noted), Some(place));
            for at in 0..noted.len() {
                let mut changed = noted.clone();
                changed[at] ^= 1;
                assert_eq!(decode(&changed), None, "byte {at}");
                assert_eq!(decode(&noted[..at]), None);
            }
        }
    }

    #[test]
    fn the_note_of_a_copy_does_not_count() {
        let (made, copy) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
        let files = Files::unlocked(made.path());
        assert_eq!(archive_place(made.path()), None);
        let off = ArchiveOptions { enabled: false, ..ArchiveOptions::default() };
        note(&files, &off).expect("noted");
        assert!(!place::is_copy(&files).expect("noted"));
        assert_eq!(archive_place(made.path()), Some(ArchivePlace::Off));
        for name in ["place", FILE] {
            std::fs::copy(made.path().join(name), copy.path().join(name)).expect("copied");
        }
        assert_eq!(archive_place(copy.path()), None);
    }
}
