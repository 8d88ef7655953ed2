//! Which files of an archive are kept.
//!
//! Keeps: the oldest files are removed, whole files at a time; the newest base stays, and so does the newest log file.
//! Leaves out: removing them ([`super::Archive::remove`]). Once a log file after the newest base is gone, a database
//! can no longer be rebuilt from the archive alone; what is left can still repair what is newer.

use super::ArchivedFile;
use super::names::Kind;

/// How much is kept; everything if neither is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retention {
    /// Most bytes on disk.
    pub(crate) bytes_max: Option<u64>,
    /// The greatest age of a file's last frame, in milliseconds.
    pub(crate) age_max_ms: Option<u64>,
}

impl Retention {
    /// The files to remove, in the order of removal; `now_ms` is milliseconds since 1970.
    pub(crate) fn surplus<'a>(
        &self,
        files: &'a [ArchivedFile],
        now_ms: u64,
    ) -> Vec<&'a ArchivedFile> {
        let newest = |kind| files.iter().rfind(|file| file.kind == kind);
        let kept = [newest(Kind::Base), newest(Kind::Log)];
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        let may_go = files.iter().filter(|file| !kept.contains(&Some(*file)));
        let is_surplus = |file: &&ArchivedFile| {
            let oldest = self.age_max_ms.map(|age| now_ms.saturating_sub(age));
            let is_surplus = oldest.is_some_and(|oldest| file.time_ms < oldest)
                || self.bytes_max.is_some_and(|bytes_max| bytes > bytes_max);
            bytes -= file.bytes;
            is_surplus
        };
        may_go.take_while(is_surplus).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::commit_log::Position;

    fn file(kind: Kind, number: u64, time_ms: u64) -> ArchivedFile {
        ArchivedFile {
            path: format!("{number}").into(),
            kind,
            number,
            version: 1,
            first: Position(number * 10),
            last: Position(number * 10 + 9),
            time_ms,
            frames: 10,
            bytes: 100,
        }
    }

    fn surplus(retention: Retention, now_ms: u64) -> Vec<u64> {
        let files = [
            file(Kind::Base, 1, 0),
            file(Kind::Log, 2, 1_000),
            file(Kind::Log, 3, 2_000),
            file(Kind::Base, 4, 2_000),
            file(Kind::Log, 5, 3_000),
            file(Kind::Log, 6, 4_000),
        ];
        retention.surplus(&files, now_ms).iter().map(|file| file.number).collect()
    }

    #[test]
    fn without_a_bound_all_is_kept() {
        assert_eq!(surplus(Retention::default(), u64::MAX), [0_u64; 0]);
    }

    #[test]
    fn the_oldest_files_go_until_the_bytes_are_within_the_bound() {
        let bytes = |bytes| Retention { bytes_max: Some(bytes), age_max_ms: None };
        assert_eq!(surplus(bytes(600), 0), [0_u64; 0]);
        assert_eq!(surplus(bytes(599), 0), [1]);
        assert_eq!(surplus(bytes(400), 0), [1, 2]);
        assert_eq!(surplus(bytes(0), 0), [1, 2, 3, 5], "the newest base and log file stay");
    }

    #[test]
    fn old_files_go() {
        let age = |age| Retention { bytes_max: None, age_max_ms: Some(age) };
        assert_eq!(surplus(age(5_000), 5_000), [0_u64; 0]);
        assert_eq!(surplus(age(3_000), 5_000), [1, 2]);
        assert_eq!(surplus(age(1), 5_000), [1, 2, 3, 5]);
        assert_eq!(
            surplus(age(10_000), 5_000),
            [0_u64; 0],
            "a clock that is behind removes nothing"
        );
    }
}
