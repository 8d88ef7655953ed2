//! The backups in a folder: those that can be used, and those whose manifest is damaged.
//!
//! Keeps: a damaged manifest makes its own backup unusable, and no other; whoever wants the newest backup is not given an older one unasked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::folder::{BackupError, Backups, manifests_in};
use super::held::Held;
use super::manifest::{Manifest, SUFFIX};

/// What a folder has.
#[derive(Default)]
pub(super) struct Listed {
    /// The backups, with the latest at the end.
    pub(super) whole: Vec<Manifest>,
    /// The others.
    pub(super) damaged: Vec<Damaged>,
}

/// A backup whose manifest is damaged.
pub(super) struct Damaged {
    path: PathBuf,
    finding: String,
    /// The name of its folder.
    generation: String,
    /// Its last change, according to its name.
    position: Option<u64>,
}

impl Backups {
    /// All backups. What is damaged is logged. An error if the folder cannot be read.
    pub(super) fn all(&self) -> Result<Listed, BackupError> {
        let failed = |cause| BackupError::io(self.path(), cause);
        let mut listed = Listed::default();
        for entry in std::fs::read_dir(self.path()).map_err(failed)? {
            let folder = entry.map_err(failed)?.path();
            if !folder.is_dir() {
                continue;
            }
            let name = |path: &PathBuf| {
                path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into())
            };
            for path in manifests_in(&folder)? {
                match Manifest::read(&path) {
                    Ok(manifest) => listed.whole.push(manifest),
                    Err(BackupError::Damaged { path, finding }) => {
                        let position = name(&path).strip_suffix(SUFFIX).map(str::parse);
                        let position = position.and_then(Result::ok);
                        let generation = name(&folder);
                        listed.damaged.push(Damaged { path, finding, generation, position });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        for Damaged { path, finding, .. } in &listed.damaged {
            log::warn!(
                "a backup cannot be used, but the others in the folder can: {}: {finding}. Remove this file, and make another backup",
                path.display()
            );
        }
        sort(&mut listed.whole);
        Ok(listed)
    }
}

/// Puts the generation with the latest backup last, and within each the one with the most changes, whatever the clock said when it was made.
fn sort(manifests: &mut [Manifest]) {
    let mut made: BTreeMap<String, u64> = BTreeMap::new();
    for manifest in &*manifests {
        let latest = made.entry(manifest.generation.clone()).or_default();
        *latest = manifest.made_millis.max(*latest);
    }
    manifests.sort_by(|one, other| {
        let key = |of: &Manifest| (made.get(&of.generation).copied(), of.position);
        let generations = one.generation.cmp(&other.generation);
        key(one).0.cmp(&key(other).0).then(generations).then(key(one).1.cmp(&key(other).1))
    });
}

impl Listed {
    /// Whether `chosen` ends with the newest backup, as far as can be known. `is_named` says that its generation was asked for. With no intact
    /// backup at all, the error is that of a damaged one.
    pub(super) fn newest_is_whole(
        &self,
        chosen: Option<&Held>,
        is_named: bool,
    ) -> Result<(), BackupError> {
        let may_be_newer = |damaged: &&Damaged| {
            let Some(chosen) = chosen else { return true };
            let is_before = damaged.position.is_some_and(|at| at < chosen.last.position);
            let is_of_it = damaged.generation == chosen.generation;
            // Nothing says how old the only backups of another generation are.
            let is_known =
                self.whole.iter().any(|manifest| manifest.generation == damaged.generation);
            if is_of_it { !is_before } else { !is_named && !is_known }
        };
        let Some(Damaged { path, finding, .. }) = self.damaged.iter().rfind(may_be_newer) else {
            return Ok(());
        };
        let (path, finding) = (path.clone(), finding.clone());
        Err(match chosen {
            None => BackupError::Damaged { path, finding },
            Some(before) => {
                BackupError::NewestDamaged { path, finding, before: Box::new(before.clone()) }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RemoteId, Sequence};
    use crate::storage::Snapshot;

    /// The clock was set back between two backups, and `restore` took the older one for the newest.
    #[test]
    fn the_backup_with_the_most_changes_is_the_newest_whatever_the_clock_said() {
        let manifest = |generation: u8, position, made_millis| {
            let snapshot = Snapshot {
                remote_id: RemoteId::random(),
                generation: [generation; 16],
                floor: Sequence::ZERO,
                complete: true,
                position,
                time_ms: 1,
                files: Vec::new(),
            };
            Manifest::new(&snapshot, made_millis, Vec::new())
        };
        let mut all = [(2, 7, 300), (1, 9, 100), (1, 4, 200), (2, 8, 50)]
            .map(|(generation, position, made)| manifest(generation, position, made));
        sort(&mut all);
        let sorted: Vec<_> = all.iter().map(|one| (&one.generation[..2], one.position)).collect();
        assert_eq!(sorted, [("01", 4), ("01", 9), ("02", 7), ("02", 8)]);
    }
}
