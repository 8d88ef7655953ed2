//! The content of a folder with backups: its generations, the times that they cover, and which of them continue others.
//!
//! Keeps: a restored server continues its earlier backups, in whatever folder; backups of unrelated servers are never mistaken for
//! each other.

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

/// One backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// The last change in it.
    pub last: Moment,
    /// When it was made: milliseconds since 1970.
    pub made_millis: u64,
}

/// The backups of one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The generation, in hexadecimal digits.
    pub generation: String,
    /// The generation that it continues: its directory was restored from a backup of that one.
    pub before: Option<String>,
    /// The backups, the newest one last.
    pub each: Vec<Made>,
    /// The earliest moment that can be restored. `None` if its oldest file cannot be read.
    pub first: Option<Moment>,
    /// The last change of the newest backup.
    pub last: Moment,
    /// When the newest backup was made: milliseconds since 1970.
    pub made_millis: u64,
}

impl Held {
    /// Whether its backups contain the state of that time.
    fn has(&self, millis: u64) -> bool {
        self.first.is_some_and(|first| first.time_millis <= millis) && millis <= self.made_millis
    }
}

impl Backups {
    /// The backups of each generation. The generation with the newest backup comes last.
    pub fn held(&self) -> Result<Vec<Held>, BackupError> {
        Ok(held(self, &self.all()?.whole))
    }

    /// Whether there are backups of servers that the server of this backup does not continue.
    pub fn has_others(&self, newest: &Manifest) -> Result<bool, BackupError> {
        let all = self.held()?;
        Ok(!is_one_line(&all, &newest.generation))
    }
}

/// What all of these backups contain, by generation.
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
        // Both exist, since a manifest made the entry.
        let (Some(oldest), Some(newest)) = (manifests.first(), manifests.last()) else { continue };
        held.push(Held {
            generation: generation.to_owned(),
            before: before.get(generation).cloned(),
            each: manifests.iter().map(|manifest| manifest.made()).collect(),
            first: oldest.first(from).ok(),
            last: newest.made().last,
            made_millis: manifests.iter().map(|one| one.made_millis).max().unwrap_or(0),
        });
    }
    held.sort_by_key(|held| (held.made_millis, held.last.position));
    held
}

/// The requested generation: the one that is named, or the newest one if it continues all others.
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

/// Whether `last` continues all of them.
fn is_one_line(all: &[Held], last: &str) -> bool {
    let mut line = BTreeSet::new();
    let mut at = Some(last);
    // An edited note may lead in a circle.
    while let Some(held) = at.and_then(|at| all.iter().find(|held| held.generation == at))
        && line.insert(&held.generation)
    {
        at = held.before.as_deref();
    }
    line.len() == all.len()
}

/// The newest generation except this one that has backups of that time.
pub(super) fn other(all: &[Held], but: &str, until: Until) -> Option<String> {
    let Until::Millis(millis) = until else { return None };
    let found = all.iter().rev().find(|held| held.generation != but && held.has(millis));
    found.map(|held| held.generation.clone())
}

impl Manifest {
    fn made(&self) -> Made {
        let last = Moment { position: self.position, time_millis: self.time_millis };
        Made { last, made_millis: self.made_millis }
    }

    /// The earliest moment from which it has everything.
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
            // It contains nothing.
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

/// Reading stops at the first frame.
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
            each: vec![Made { last: Moment { position: 9, time_millis: 20 }, made_millis: 30 }],
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
        // Two that were made from the same one, one that nothing is known about, and the older one that was written to once more.
        assert!(chosen(&[a.clone(), b.clone(), one("c", Some("a"))], None).is_err());
        assert!(chosen(&[a.clone(), one("b", None)], None).is_err());
        assert!(chosen(&[b, a], None).is_err());
        // A circle, and an unrelated one.
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
