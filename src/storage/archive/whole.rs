//! Whether a database can be rebuilt from an archive and the commit log after it.

use super::names::Kind;
use super::{ArchivedFile, Listing};
use crate::storage::commit_log::Position;

impl ArchivedFile {
    /// Whether a log file has every frame from its first to its last one.
    pub(crate) const fn has_all(&self) -> bool {
        self.frames == self.last.0.saturating_sub(self.first.0) + 1
    }
}

impl Listing {
    /// The base that a database is rebuilt from.
    pub(crate) fn base(&self) -> Option<&ArchivedFile> {
        self.files.iter().rfind(|file| file.kind == Kind::Base)
    }

    /// Whether a database can be rebuilt from these files and a log that begins with the frame `log_first`, according
    /// to their heads; without a base only if the first frame of all began with an empty database, which is `complete`.
    pub(crate) fn is_whole(&self, complete: bool, log_first: Position) -> bool {
        let mut last = match self.base() {
            Some(base) => base.last,
            None if complete => Position(0),
            None => return false,
        };
        for file in self.behind(last) {
            if file.first > last.next() || !file.has_all() {
                return false;
            }
            last = last.max(file.last);
        }
        log_first <= last.next()
    }

    /// How many bytes the log files have that are read after the base.
    pub(crate) fn bytes_behind_base(&self) -> u64 {
        let last = self.base().map_or(Position(0), |base| base.last);
        self.behind(last).map(|file| file.bytes).sum()
    }

    fn behind(&self, last: Position) -> impl Iterator<Item = &ArchivedFile> {
        self.files.iter().filter(move |file| file.kind == Kind::Log && file.last > last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: Kind, number: u64, (first, last): (u64, u64)) -> ArchivedFile {
        ArchivedFile {
            path: format!("{number}").into(),
            kind,
            number,
            version: 1,
            first: Position(first),
            last: Position(last),
            time_ms: 0,
            frames: last - first + 1,
            bytes: 100,
        }
    }

    fn is_whole(files: &[ArchivedFile], complete: bool, log_first: u64) -> bool {
        let listing = Listing { files: files.to_vec(), unreadable: Vec::new() };
        listing.is_whole(complete, Position(log_first))
    }

    #[test]
    fn each_frame_has_to_be_in_a_file_or_the_log_or_what_the_base_stands_for() {
        let log = |number, frames| file(Kind::Log, number, frames);
        let (one, two, three) = (log(1, (1, 9)), log(2, (10, 19)), log(3, (20, 29)));
        let all = [one.clone(), two.clone(), three.clone()];
        assert!(is_whole(&[], true, 1) && is_whole(&all, true, 30) && is_whole(&all, true, 15));
        assert!(!is_whole(&all, false, 30), "what was before them is not known");
        assert!(!is_whole(&all, true, 31) && !is_whole(&[], true, 2));
        assert!(!is_whole(&[one.clone(), three.clone()], true, 30));
        let lost = ArchivedFile { frames: 9, ..two.clone() };
        assert!(!is_whole(&[one.clone(), lost.clone(), three.clone()], true, 30));
        let base = file(Kind::Base, 3, (22, 22));
        assert!(is_whole(&[base.clone(), three.clone()], false, 30));
        assert!(is_whole(&[one, lost, base.clone(), three], false, 30), "that was before the base");
        assert!(is_whole(std::slice::from_ref(&base), false, 23) && !is_whole(&[base], false, 24));
    }
}
