//! What a folder with backups has: of which generations, from when to when, and which of them go on with others.
//!
//! Keeps: a server that was restored from backups goes on with them, whichever folder it backs up to; of servers that have nothing to do
//! with each other, none is taken for the newest of the other.

use std::collections::{BTreeMap, BTreeSet};

use super::folder::{BackupError, Backups};
use super::manifest::Manifest;
use super::restore::Until;
use crate::storage::archive::{Archive, ArchiveError, Archived, ArchivedFile, Kind};
use crate::storage::commit_log::Position;

/// A change, and when it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The number of the change.
    pub position: u64,
    /// Its time: milliseconds since 1970.
    pub time_millis: u64,
}

/// The backups of one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The generation, in hexadecimal digits.
    pub generation: String,
    /// The one that it goes on with: its directory was restored from that.
    pub before: Option<String>,
    /// How many backups there are.
    pub backups: usize,
    /// The earliest moment that can be restored; `None` if its oldest file cannot be read.
    pub first: Option<Moment>,
    /// The last change of the newest backup.
    pub last: Moment,
    /// When that was made: milliseconds since 1970.
    pub made_millis: u64,
}

impl Held {
    /// Whether its backups have what was there then.
    fn has(&self, millis: u64) -> bool {
        self.first.is_some_and(|first| first.time_millis <= millis) && millis <= self.made_millis
    }
}

impl Backups {
    /// What there is of each generation; the one with the newest backup comes last.
    pub fn held(&self) -> Result<Vec<Held>, BackupError> {
        Ok(held(self, &self.all()?))
    }

    /// Whether there are backups of servers that the one with this backup does not go on with.
    pub fn has_others(&self, newest: &Manifest) -> Result<bool, BackupError> {
        let all = self.held()?;
        Ok(!is_one_line(&all, &newest.generation))
    }
}

/// What `all` of them have, of each generation.
pub(super) fn held(from: &Backups, all: &[Manifest]) -> Vec<Held> {
    let mut generations: BTreeMap<&str, Vec<&Manifest>> = BTreeMap::new();
    for manifest in all {
        generations.entry(&manifest.generation).or_default().push(manifest);
    }
    let mut before = BTreeMap::new();
    for generation in generations.keys() {
        let after = from.successors(generation);
        before.extend(after.into_iter().map(|after| (after, (*generation).to_owned())));
    }
    let mut held = Vec::new();
    for (generation, manifests) in generations {
        // Both are there, since one made the entry.
        let (Some(oldest), Some(newest)) = (manifests.first(), manifests.last()) else { continue };
        held.push(Held {
            generation: generation.to_owned(),
            before: before.get(generation).cloned(),
            backups: manifests.len(),
            first: oldest.first(from).ok(),
            last: Moment { position: newest.position, time_millis: newest.time_millis },
            made_millis: newest.made_millis,
        });
    }
    held.sort_by_key(|held| (held.made_millis, held.last.position));
    held
}

/// The generation that is meant: the one that is named, or the newest if all others are what it goes on with.
pub(super) fn choose<'a>(
    all: &'a [Held],
    named: Option<&str>,
) -> Result<Option<&'a Held>, BackupError> {
    let found = match named {
        Some(named) => all.iter().find(|held| held.generation == named),
        None => all.last().filter(|newest| is_one_line(all, &newest.generation)),
    };
    if found.is_none() && !all.is_empty() {
        Err(BackupError::Which(all.to_vec()))
    } else {
        Ok(found)
    }
}

/// Whether all of them are what `last` goes on with.
fn is_one_line(all: &[Held], last: &str) -> bool {
    let mut line = BTreeSet::new();
    let mut at = Some(last);
    // A note that somebody changed may lead in a circle.
    while let Some(held) = at.and_then(|at| all.iter().find(|held| held.generation == at))
        && line.insert(&held.generation)
    {
        at = held.before.as_deref();
    }
    line.len() == all.len()
}

/// The newest generation, but for this one, that has what was there then.
pub(super) fn other(all: &[Held], but: &str, until: Until) -> Option<String> {
    let Until::Millis(millis) = until else { return None };
    let found = all.iter().rev().find(|held| held.generation != but && held.has(millis));
    found.map(|held| held.generation.clone())
}

impl Manifest {
    /// The earliest moment of which it has everything.
    pub(super) fn first(&self, from: &Backups) -> Result<Moment, BackupError> {
        let Some((_, generation, _)) = self.origin() else {
            return Err(BackupError::damaged(from.path(), "its manifest names no directory"));
        };
        let folder = from.folder_of(self);
        let failed = |cause| BackupError::io(&folder, cause);
        let archive = Archive::to_read(folder.clone(), generation);
        if !self.complete {
            let listing = archive.files().map_err(failed)?;
            let base = listing.files.iter().rfind(|file| file.kind == Kind::Base && self.has(file));
            let base = base.ok_or_else(|| BackupError::damaged(&folder, "its base is missing"))?;
            return Ok(Moment { position: base.last.0, time_millis: base.time_ms });
        }
        let read = archive.read_behind(Position(0), |found| match found {
            Archived::Frame(frame) => {
                Err(First::Frame(Moment { position: frame.position.0, time_millis: frame.time_ms }))
            }
            Archived::Base(_) => Ok(()),
            Archived::Damage(damage) => Err(First::Unreadable(damage.to_string())),
        });
        match read {
            // It has nothing.
            Ok(_) => Ok(Moment::default()),
            Err(First::Frame(first)) => Ok(first),
            Err(First::Unreadable(finding)) => Err(BackupError::damaged(&folder, &finding)),
        }
    }

    /// Whether it is one of its files.
    fn has(&self, file: &ArchivedFile) -> bool {
        let name = file.path.file_name().map(|name| name.to_string_lossy().into_owned());
        self.files.iter().any(|file| Some(&file.name) == name.as_ref())
    }
}

/// Reading ends with the first frame.
enum First {
    Frame(Moment),
    Unreadable(String),
}

impl From<ArchiveError> for First {
    fn from(error: ArchiveError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(generation: &str, before: Option<&str>) -> Held {
        Held {
            generation: generation.to_owned(),
            before: before.map(ToOwned::to_owned),
            backups: 1,
            first: Some(Moment { position: 1, time_millis: 10 }),
            last: Moment { position: 9, time_millis: 20 },
            made_millis: 30,
        }
    }

    #[test]
    fn the_newest_is_meant_only_if_all_others_are_what_it_goes_on_with() {
        let chosen = |all: &[Held], named| {
            let found = choose(all, named).map(|held| held.map(|held| held.generation.clone()));
            found.map_err(|error| error.to_string())
        };
        let (a, b, c) = (one("a", None), one("b", Some("a")), one("c", Some("b")));
        assert_eq!(chosen(&[], None), Ok(None));
        assert_eq!(chosen(std::slice::from_ref(&a), None), Ok(Some("a".to_owned())));
        let line = [a.clone(), b.clone(), c.clone()];
        assert_eq!(chosen(&line, None), Ok(Some("c".to_owned())));
        assert_eq!(chosen(&line, Some("a")), Ok(Some("a".to_owned())));
        assert!(chosen(&line, Some("d")).is_err());
        // Two that were made of the same one, one of which nobody knows anything, and the older one that was written to once more.
        assert!(chosen(&[a.clone(), b.clone(), one("c", Some("a"))], None).is_err());
        assert!(chosen(&[a.clone(), one("b", None)], None).is_err());
        assert!(chosen(&[b, a], None).is_err());
        // A circle, and one that has nothing to do with it.
        let circle = [one("d", None), one("a", Some("b")), one("b", Some("a")), c];
        assert!(chosen(&circle, None).is_err());
    }

    #[test]
    fn what_was_there_then_is_looked_for_in_the_others() {
        let all = [one("a", None), one("b", None)];
        assert_eq!(other(&all, "b", Until::Millis(25)), Some("a".to_owned()));
        assert_eq!(other(&all, "b", Until::Millis(9)), None);
        assert_eq!(other(&all, "b", Until::Position(2)), None);
    }
}
