//! A backup as one stream, for pipes: a tar archive of what a folder with this backup would contain, with the manifest
//! last.

use std::io::{self, Read, Write};
use std::path::{Component, Path};

use super::copy::digest;
use super::folder::BackupError;
use super::manifest::{Manifest, ManifestFile, SUFFIX, hex};
use crate::storage::sled::commit::now_ms;
use crate::storage::{Snapshot, SnapshotFile};

/// Writes a backup of `snapshot`, whose files `open` opens, to `out`.
pub fn pack<R: Read>(
    snapshot: &Snapshot,
    mut open: impl FnMut(&SnapshotFile) -> io::Result<R>,
    out: impl Write,
) -> io::Result<Manifest> {
    let mut tar = tar::Builder::new(out);
    let folder = hex(&snapshot.generation);
    let mut files = Vec::new();
    for SnapshotFile { name, bytes, path } in &snapshot.files {
        let file = SnapshotFile { name: name.clone(), bytes: *bytes, path: path.clone() };
        let mut read =
            Summed { from: open(&file)?.take(*bytes), sum: sha2::Digest::new(), bytes: 0 };
        append(&mut tar, &format!("{folder}/{name}"), *bytes, &mut read)?;
        if read.bytes != *bytes {
            return Err(io::Error::other(format!("{name} ends after {} bytes", read.bytes)));
        }
        let sha256 = hex(&sha2::Digest::finalize(read.sum));
        files.push(ManifestFile { name: name.clone(), bytes: *bytes, sha256 });
    }
    let manifest = Manifest::new(snapshot, now_ms(), files);
    let encoded = manifest.encode()?;
    append(&mut tar, &format!("{folder}/{}", manifest.name()), encoded.len() as u64, &encoded[..])?;
    tar.into_inner()?.flush()?;
    Ok(manifest)
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    path: &str,
    bytes: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_mtime(now_ms() / 1_000);
    tar.append_data(&mut header, path, content)
}

/// Counts and sums what is read through it.
struct Summed<R> {
    from: R,
    sum: sha2::Sha256,
    bytes: u64,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        sha2::Digest::update(&mut self.sum, &into[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Creates the folder `to` from the output of [`pack`]. The reader of the folder must find out whether it is complete.
pub fn unpack(from: impl Read, to: &Path) -> Result<(), BackupError> {
    let failed = |cause: io::Error| BackupError::io(to, cause);
    let mut has_manifest = false;
    let mut tar = tar::Archive::new(from);
    for entry in tar.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let path = entry.path().map_err(failed)?.into_owned();
        let parts: Vec<Component<'_>> = path.components().collect();
        let [Component::Normal(folder), Component::Normal(name)] = parts[..] else {
            return Err(BackupError::damaged(&path, "this is no file of a backup"));
        };
        if !entry.header().entry_type().is_file() {
            return Err(BackupError::damaged(&path, "this is no file of a backup"));
        }
        has_manifest |= name.to_string_lossy().ends_with(SUFFIX);
        let folder = to.join(folder);
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let mut file = std::fs::File::create_new(folder.join(name)).map_err(failed)?;
        digest(&mut entry, |part| file.write_all(part)).map_err(failed)?;
    }
    if has_manifest { Ok(()) } else { Err(BackupError::damaged(to, "the stream ended too early")) }
}
