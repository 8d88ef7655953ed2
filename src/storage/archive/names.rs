//! The names in the folder of an archive.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What a file holds. Numbers and order are persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// The state before a log file.
    Base = 0,
    /// The frames of a log file.
    Log = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) number: u64,
    pub(super) kind: Kind,
    pub(super) version: u32,
}

impl Name {
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        let kind = match self.kind {
            Kind::Base => "base",
            Kind::Log => "log",
        };
        folder.join(match self.version {
            1 => format!("{:08}.{kind}.zst", self.number),
            version => format!("{:08}.{version}.{kind}.zst", self.number),
        })
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(".zst")?.split('.');
        let number = parts.next()?.parse().ok()?;
        let (version, kind) = match (parts.next()?, parts.next()) {
            (kind, None) => (1, kind),
            (version, Some(kind)) => (version.parse().ok().filter(|version| *version > 1)?, kind),
        };
        let kind = match kind {
            "base" => Kind::Base,
            "log" => Kind::Log,
            _ => return None,
        };
        parts.next().is_none().then_some(Self { number, kind, version })
    }
}

/// The files in order; for each, the version that was written last.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Name>> {
    let mut newest = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().and_then(Name::parse) else { continue };
        let kept = newest.entry((name.number, name.kind)).or_insert(name);
        if name.version > kept.version {
            *kept = name;
        }
    }
    Ok(newest.into_values().collect())
}

/// Whether `newest` contains a later version of the file.
pub(super) fn is_superseded(path: &Path, newest: &[Name]) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(Name::parse);
    name.is_some_and(|name| {
        let same = |other: &&Name| (other.number, other.kind) == (name.number, name.kind);
        newest.iter().find(same).is_some_and(|newest| newest.version > name.version)
    })
}

/// The name of a file until it is complete.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("zst.new")
}

pub(super) fn is_unfinished(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.ends_with(".zst.new"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (number, kind, version) in [
            (1, Kind::Base, 1),
            (16, Kind::Log, 1),
            (16, Kind::Log, 2),
            (123_456_789, Kind::Log, 13),
        ] {
            let name = Name { number, kind, version };
            let path = name.path(Path::new(""));
            assert_eq!(Name::parse(path.to_str().expect("text")), Some(name));
        }
        for foreign in ["x.log.zst", "1.log", "1.1.log.zst", "1.2.3.log.zst", "1.zst", "1.tail.zst"]
        {
            assert_eq!(Name::parse(foreign), None, "{foreign}");
        }
    }
}
