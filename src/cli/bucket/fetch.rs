//! Makes a backup on disk from the copy of a directory in a bucket.
//!
//! Keeps: the newest complete generation, or the requested one; the bucket records that it was used.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use eventlog_server::storage::sled::{BackupError, Backups, DirectoryNote, Tail};

use super::ship::{is_ledger, parse_tail};
use super::{Bucket, BucketError, Object};
use crate::cli::progress::{Progress, Unit};

const NOTED: &str = "restored-";

/// No directory is restored so often; a name with a greater number is somebody else's.
const RESTORES_MAX: usize = 100_000;

/// What was fetched.
pub(in crate::cli) struct Fetched {
    /// The generation, in hexadecimal digits.
    pub(in crate::cli) generation: String,
    /// The number of bytes.
    pub(in crate::cli) bytes: u64,
}

/// The copy could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum FetchError {
    /// The bucket could not be read.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The files cannot be written here.
    #[error("cannot keep it: {0}")]
    Io(#[from] io::Error),
    /// The copy is incomplete.
    #[error("generation {generation} is not complete: {cause}")]
    NotWhole {
        /// The generation.
        generation: String,
        /// What is missing.
        cause: BackupError,
    },
    /// The copy does not identify itself.
    #[error("generation {0} has no valid `directory`")]
    NoNote(String),
    /// There is none.
    #[error("the bucket has nothing{}", .0.as_ref().map_or(String::new(), |which| format!(" of generation {which}")))]
    Nothing(Option<String>),
}

/// What a bucket has of a directory.
pub(in crate::cli) struct Shipped {
    /// Its generation, in hexadecimal digits.
    pub(in crate::cli) generation: String,
    /// How many bytes its objects have.
    pub(in crate::cli) bytes: u64,
    /// When the last of its files was written: milliseconds since 1970.
    pub(in crate::cli) modified_millis: u64,
}

/// What a bucket has, the one that was written to last at the end.
pub(in crate::cli) fn generations(bucket: &Bucket) -> Result<Vec<Shipped>, BucketError> {
    let folders = by_generation(bucket.list(None)?, None);
    let found = folders.into_iter().map(|(generation, objects)| Shipped {
        generation,
        bytes: objects.iter().map(|object| object.bytes).sum(),
        modified_millis: written(&objects),
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|shipped| shipped.modified_millis);
    Ok(found)
}

/// The objects of each generation, or of this one.
fn by_generation(all: Vec<Object>, generation: Option<&str>) -> BTreeMap<String, Vec<Object>> {
    let mut folders: BTreeMap<String, Vec<Object>> = BTreeMap::new();
    let wanted = all
        .into_iter()
        .filter(|object| generation.is_none_or(|of| object.name.starts_with(&format!("{of}/"))));
    for object in wanted {
        let folder = object.name.split_once('/').map(|(folder, _)| folder.to_owned());
        if let Some(folder) = folder.filter(|folder| folder.len() == 32) {
            folders.entry(folder).or_default().push(object);
        }
    }
    folders
}

fn written(objects: &[Object]) -> u64 {
    let files = objects.iter().filter(|object| !object.name.contains(NOTED));
    files.map(|object| object.modified_millis).max().unwrap_or(0)
}

/// Fetches to the folder `to`, which is empty, what `Backups` reads.
pub(in crate::cli) fn fetch(
    bucket: &Bucket,
    generation: Option<&str>,
    to: &Path,
) -> Result<Fetched, FetchError> {
    let all = bucket.list(None)?;
    let ledgers: Vec<String> = all.iter().map(|object| object.name.clone()).collect();
    let folders = by_generation(all, generation);
    let mut newest: Vec<_> =
        folders.into_iter().map(|(folder, objects)| (written(&objects), folder, objects)).collect();
    newest.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    let mut last = FetchError::Nothing(generation.map(ToOwned::to_owned));
    for (millis, folder, objects) in newest.into_iter().rev() {
        match one(bucket, (&folder, &objects), millis, to) {
            Ok(fetched) => {
                fetch_ledgers(bucket, &ledgers, to)?;
                return Ok(fetched);
            }
            Err(error @ (FetchError::NotWhole { .. } | FetchError::NoNote(_))) => {
                eprintln!("{error}");
                std::fs::remove_dir_all(to.join(&folder))?;
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Fetches the erasure ledgers of all generations. What was erased in one stays erased in every copy of it.
fn fetch_ledgers(bucket: &Bucket, names: &[String], to: &Path) -> Result<(), FetchError> {
    for whole in names {
        let Some((folder, name)) = whole.split_once('/') else { continue };
        let is_generation =
            folder.len() == 32 && folder.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_generation && is_ledger(name) {
            std::fs::create_dir_all(to.join(folder))?;
            let mut file = File::create(to.join(folder).join(name))?;
            bucket.get(whole, &mut file)?;
            file.sync_all()?;
        }
    }
    Ok(())
}

/// Fetches one generation.
fn one(
    bucket: &Bucket,
    (folder, objects): (&str, &[Object]),
    written_millis: u64,
    to: &Path,
) -> Result<Fetched, FetchError> {
    let path = to.join(folder);
    std::fs::create_dir_all(&path)?;
    let mut text = Vec::new();
    if objects.iter().any(|object| object.name == format!("{folder}/directory")) {
        bucket.get(&format!("{folder}/directory"), &mut text)?;
    }
    let note = DirectoryNote::decode(&text).filter(|note| note.generation() == folder);
    let note = note.ok_or_else(|| FetchError::NoNote(folder.to_owned()))?;
    let mut bytes = 0;
    let wanted = files(folder, objects);
    let total = wanted.iter().map(|(_, object)| object.bytes).sum();
    let progress = Progress::start("fetch", Unit::Bytes, Some(total));
    for (name, object) in wanted {
        let mut file = File::create(path.join(&name))?;
        bucket.get(&object.name, &mut file)?;
        file.sync_all()?;
        bytes += object.bytes;
        progress.add(object.bytes);
    }
    drop(progress);
    let not_whole = |cause| FetchError::NotWhole { generation: folder.to_owned(), cause };
    Backups::new(to).adopt(&note, written_millis).map_err(not_whole)?;
    note_restore(bucket, folder, objects, &path)?;
    Ok(Fetched { generation: folder.to_owned(), bytes })
}

/// The objects to fetch, and their names here. If two tails have the same beginning, the longer one.
fn files<'a>(folder: &str, objects: &'a [Object]) -> Vec<(String, &'a Object)> {
    let mut tails: BTreeMap<u64, (u64, &Object)> = BTreeMap::new();
    let mut files = Vec::new();
    for object in objects {
        let Some(name) = object.name.strip_prefix(&format!("{folder}/")) else { continue };
        if let Some((first, last)) = parse_tail(name) {
            if tails.get(&first).is_none_or(|(known, _)| *known < last) {
                tails.insert(first, (last, object));
            }
        } else if is_file(name) || is_ledger(name) {
            files.push((name.to_owned(), object));
        }
    }
    let tails = tails.into_iter().map(|(first, (_, object))| (Tail::name_of(first), object));
    files.into_iter().chain(tails).collect()
}

/// Whether this may be the name of a file of an archive. Names that lead elsewhere are refused.
fn is_file(name: &str) -> bool {
    name.strip_suffix(".zst").is_some_and(|name| !name.is_empty())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
}

/// Records in the bucket, and in the folder `here`, that a directory is made from the copy: each directory continues
/// above the previous ones.
fn note_restore(
    bucket: &Bucket,
    folder: &str,
    objects: &[Object],
    here: &Path,
) -> Result<(), FetchError> {
    let number = |object: &Object| {
        let name = object.name.strip_prefix(&format!("{folder}/"))?;
        name.strip_prefix(NOTED)?.parse::<usize>().ok().filter(|number| *number < RESTORES_MAX)
    };
    let mut before = objects.iter().filter_map(number).max().unwrap_or(0);
    while !bucket.put_text(&format!("{folder}/{NOTED}{}", before + 1), b"1")? {
        before += 1;
    }
    // One line for each.
    let lines = "in the bucket\n".repeat(before);
    std::fs::write(here.join("restores"), lines)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_object_is_written_elsewhere_and_the_longer_tail_counts() {
        let object = |name: &str| Object { name: name.to_owned(), bytes: 1, modified_millis: 1 };
        let all = [
            "g/00000001.log.zst",
            "g/../../etc/00000001.log.zst",
            "g/.zst",
            "g/directory",
            "g/tail-00000000000000000005-00000000000000000007.log.zst",
            "g/tail-00000000000000000005-00000000000000000009.log.zst",
            "g/tail-00000000000000000010-00000000000000000011.log.zst",
            "h/00000002.log.zst",
        ];
        let objects: Vec<Object> = all.iter().map(|name| object(name)).collect();
        let found: Vec<_> = files("g", &objects)
            .into_iter()
            .map(|(name, object)| (name, object.name.rsplit('-').next().map(ToOwned::to_owned)))
            .collect();
        let text = |text: &str| Some(text.to_owned());
        let expected = [
            ("00000001.log.zst".to_owned(), text("g/00000001.log.zst")),
            ("1000000000000005.log.zst".to_owned(), text("00000000000000000009.log.zst")),
            ("1000000000000010.log.zst".to_owned(), text("00000000000000000011.log.zst")),
        ];
        assert_eq!(found, expected);
    }
}
