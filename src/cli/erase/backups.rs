//! Searches backups for content of erased entries, and for a text.
//!
//! Keeps: every file that may have entries is searched, also what an interrupted backup left. Leaves out: which entries are erased
//! (`verify`).

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use eventlog_server::storage::sled::ErasedContent;

use super::verify::VerifyError;
use crate::cli::bucket::{Bucket, Kept};
use crate::cli::text::{counted, people_bytes};
use crate::config::BucketAddress;

/// What was found, for people.
pub(super) struct Searched {
    /// Whether there is any content.
    pub(super) any: bool,
    /// A line for each backup, and for each file with content.
    pub(super) said: Vec<String>,
}

/// What was found in a file, or in those of a backup.
#[derive(Clone, Copy, Default)]
pub(super) struct Hits {
    pub(super) records: u64,
    pub(super) texts: u64,
}

impl Hits {
    const fn is_none(self) -> bool {
        self.records + self.texts == 0
    }
}

impl fmt::Display for Hits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&counted(self.records, "record", "records"))?;
        match self.texts {
            0 => Ok(()),
            1 => f.write_str(", once the text"),
            more => write!(f, ", {more} times the text"),
        }
    }
}

fn look(content: &ErasedContent, path: &Path) -> io::Result<Hits> {
    content.look(path).map(|(records, texts)| Hits { records, texts })
}

/// Whether it may have entries. An interrupted backup leaves files that end with `new`.
fn is_searched(name: &str) -> bool {
    name.strip_suffix(".new").unwrap_or(name).strip_suffix(".zst").is_some()
}

fn failed(path: &Path) -> impl Fn(io::Error) -> VerifyError {
    let path = path.to_owned();
    move |cause| VerifyError::File { path: path.clone(), cause }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, VerifyError> {
    let entries = std::fs::read_dir(folder).map_err(failed(folder))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = paths.map_err(failed(folder))?;
    paths.sort_unstable();
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Searches the backups in a folder.
pub(super) fn folder(folder: &Path, content: &ErasedContent) -> Result<Searched, VerifyError> {
    let (mut any, mut said) = (false, Vec::new());
    for generation in list(folder)?.into_iter().filter(|path| path.is_dir()) {
        let (mut held, mut manifests) = (BTreeMap::new(), Vec::new());
        for path in list(&generation)? {
            let name = name_of(&path);
            if is_searched(&name) {
                let hits = look(content, &path).map_err(failed(&path))?;
                if !hits.is_none() {
                    held.insert(name, hits);
                }
            } else if name.strip_suffix(".manifest").is_some() {
                manifests.push(path);
            }
        }
        for path in &manifests {
            let text = std::fs::read_to_string(path).map_err(failed(path))?;
            let mut all = Hits::default();
            // The name of a file is quoted there.
            for (_, hits) in held.iter().filter(|(name, _)| text.contains(&format!("\"{name}\""))) {
                all.records += hits.records;
                all.texts += hits.texts;
            }
            let what = if all.is_none() {
                "clean".to_owned()
            } else {
                format!("{all}; it has them until it is removed (backup --keep)")
            };
            said.push(format!("backup {}: {what}", path.display()));
        }
        any |= !held.is_empty();
        for (name, hits) in &held {
            said.push(format!("  {}: {hits}", generation.join(name).display()));
        }
    }
    Ok(Searched { any, said })
}

/// Searches the content of a bucket.
pub(super) fn bucket(
    address: &BucketAddress,
    content: &ErasedContent,
) -> Result<Searched, VerifyError> {
    let bucket = Bucket::open(address)?;
    // Nobody else uses this name.
    let temporary = format!("eventlog-{}.zst", uuid::Uuid::new_v4());
    let temporary = std::env::temp_dir().join(temporary);
    let (mut any, mut said, mut files, mut bytes) = (false, Vec::new(), 0, 0);
    let kept = bucket.keeps_what_is_removed()?;
    for object in bucket.list(None)?.into_iter().filter(|object| is_searched(&object.name)) {
        let mut file = File::create_new(&temporary).map_err(failed(&temporary))?;
        let got = bucket.get(&object.name, &mut file);
        drop(file);
        let looked = got
            .map_err(VerifyError::from)
            .and_then(|()| look(content, &temporary).map_err(failed(&temporary)));
        std::fs::remove_file(&temporary).map_err(failed(&temporary))?;
        let hits = looked?;
        (files, bytes) = (files + 1, bytes + object.bytes);
        if !hits.is_none() {
            any = true;
            said.push(format!("  {address}/{}: {hits}", object.name));
        }
    }
    let what = if any { "some files have what was looked for" } else { "clean" };
    let files = counted(files, "file", "files");
    said.push(format!("bucket {address}: {files}, {}: {what}", people_bytes(bytes)));
    if kept != Kept::No {
        said.push(format!("bucket {address} {kept}"));
    }
    Ok(Searched { any, said })
}
