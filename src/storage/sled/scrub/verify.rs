//! Checks whether files have content of erased entries: the whole data directory and its archive, decompressed, including unused parts of files.
//!
//! Keeps: nothing is written, and the directory may be in use. The erasure ledger tells what is erased, and so do the archive and the
//! commit log, in case that records of it are lost. Leaves out: removing that content from files (`worker`).

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::frames::{Frames, while_files_change};
use super::gone::Gone;
use super::kept;
use super::needles::{Blocks, Hits, Needles};
use super::note::Note;
use crate::model::EntryId;
use crate::storage::ledger::Erased;
use crate::storage::sled::erasures;
use crate::storage::sled::files::Files;
use crate::storage::sled::open;
use crate::storage::sled::options::{DatabaseOptions, OpenFailure};
use crate::storage::{ErasedFile, ErasedPlace, ErasedReport, PLACES};

/// The folder of large messages that are not whole, and its place in the report.
const SPILL: &str = "spill";
/// The maximum number of files that are listed for a place.
const NAMED_MAX: usize = 100;

/// Searches the directory of `files`, also for `text`.
pub(in crate::storage::sled) fn verify(
    files: &Files,
    options: &DatabaseOptions,
    text: Option<&str>,
) -> Result<ErasedReport, OpenFailure> {
    while_files_change(|| once(files, options, text))
}

/// What is erased according to a directory.
struct Known {
    ids: HashSet<EntryId>,
    /// See [`ErasedReport::unread`].
    unread: Vec<String>,
    /// See [`ErasedReport::is_behind`].
    is_behind: bool,
}

fn known(files: &Files, options: &DatabaseOptions) -> Result<Known, OpenFailure> {
    let frames = Frames::of(files, options)?;
    let mut gone = Gone::of_ledger(open::ledger(files, options)?, false)?;
    frames.each(&mut |frame| Ok(gone.note(frame.position, frame.body)?))?;
    gone.sort();
    let mut ids = HashSet::new();
    frames.each(&mut |frame| Ok(gone.ids_in(frame.body, &mut ids)?))?;
    // This comes last: what is erased meanwhile is in the ledger before it is in the log.
    let mut ledger = open::ledger(files, options)?;
    while let Some(erasure) = ledger.next()? {
        if let Erased::Entries(erased) = erasure.what {
            ids.extend(erased);
        }
    }
    let (end, applied) = (ledger.mark().number, erasures::applied_to(files, frames.generation)?);
    let mut unread = ledger.lost().to_vec();
    if end < applied {
        unread.push(format!("it ends with record {end}, and had {applied}"));
    }
    Ok(Known { ids, unread, is_behind: applied < end })
}

/// Searches files one by one. Their names tell their kinds.
pub struct ErasedContent(Needles);

impl ErasedContent {
    /// Searches for content of these entries, and for this text.
    pub fn new(ids: HashSet<EntryId>, text: Option<&str>) -> Self {
        Self(Needles::new(ids, text))
    }

    /// The number of records with content of these entries in a file of a backup or of an archive, and how often it has the text. What is
    /// behind damage in the file is not searched.
    pub fn look(&self, path: &Path) -> io::Result<(u64, u64)> {
        look(path, &self.0, false).map(|hits| (hits.records, hits.texts))
    }
}

fn once(
    files: &Files,
    options: &DatabaseOptions,
    text: Option<&str>,
) -> Result<ErasedReport, OpenFailure> {
    let Known { ids, unread, is_behind } = known(files, options)?;
    let needles = Needles::new(ids, text);
    let note = Note::read(files.directory())?;
    let mut looking =
        Looking { needles: &needles, note, kept_aside_millis: 0, places: BTreeMap::new() };
    looking.kept_aside_millis =
        u64::try_from(options.scrub.kept_aside.as_millis()).unwrap_or(u64::MAX);
    looking.folder(files.directory(), None)?;
    let archive = options.archive.dir.clone().filter(|dir| !dir.starts_with(files.directory()));
    if let Some(archive) = &archive {
        looking.folder(archive, Some("archive"))?;
        for kept in
            kept::list(&archive.parent().map(Path::to_owned).into_iter().collect::<Vec<_>>())?
        {
            looking.any(&kept.path, "kept aside")?;
        }
    }
    let mut places = looking.places;
    let ids = needles.into_ids();
    let places = PLACES
        .into_iter()
        .map(|name| places.remove(name).unwrap_or(ErasedPlace { name, ..ErasedPlace::default() }));
    Ok(ErasedReport {
        entries: ids.len() as u64,
        ids,
        unread,
        is_behind,
        is_due: note.is_some_and(|note| note.clean_millis.is_none()),
        erased_millis: note.map(|note| note.erased_millis),
        clean_millis: note.and_then(|note| note.clean_millis),
        places: places.collect(),
        ..ErasedReport::default()
    })
}

/// What was found so far.
struct Looking<'a> {
    needles: &'a Needles,
    note: Option<Note>,
    kept_aside_millis: u64,
    places: BTreeMap<&'static str, ErasedPlace>,
}

impl Looking<'_> {
    /// Everything in a folder that belongs to `place`, or in the data directory.
    fn folder(&mut self, folder: &Path, place: Option<&'static str>) -> io::Result<()> {
        for path in names(folder)? {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            let place = match (place, &*name) {
                (Some(place), _) => place,
                (None, "log") => "commit log",
                (None, "sled" | "compacting" | "renewing" | "taking-over") => "database",
                (None, "archive") => "archive",
                (None, SPILL) => SPILL,
                (None, "shipping") => "shipping",
                (None, name) if kept::is_aside(name) => "kept aside",
                (None, _) => "other files",
            };
            // An operator may have put it on another disk.
            let is_elsewhere = place != "other files" && path.is_symlink();
            match path.canonicalize() {
                Ok(there) if is_elsewhere => self.any(&there, place)?,
                _ => self.any(&path, place)?,
            }
        }
        Ok(())
    }

    fn any(&mut self, path: &Path, place: &'static str) -> io::Result<()> {
        match self.each(path, place) {
            // The message was stored meanwhile, or its client is gone.
            Err(error) if place == SPILL && error.kind() == io::ErrorKind::NotFound => Ok(()),
            looked => looked,
        }
    }

    fn each(&mut self, path: &Path, place: &'static str) -> io::Result<()> {
        let kind = std::fs::symlink_metadata(path)?.file_type();
        if kind.is_dir() {
            for path in names(path)? {
                self.any(&path, place)?;
            }
        } else if kind.is_file() {
            let mut hits = look(path, self.needles, place == SPILL)?;
            if is_ledger(path) {
                // It has only ids, each followed by a hash, which may look like anything.
                hits.records = 0;
            }
            self.add(path, place, hits);
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, name: &'static str, hits: Hits) {
        let until = self.until(name);
        let place = self
            .places
            .entry(name)
            .or_insert_with(|| ErasedPlace { name, ..ErasedPlace::default() });
        place.files += 1;
        place.bytes += hits.bytes;
        if hits.records + hits.texts > 0 {
            place.held += 1;
            if place.named.len() < NAMED_MAX {
                let Hits { records, texts, .. } = hits;
                place.named.push(ErasedFile { path: path.to_owned(), records, texts, until });
            }
        }
    }

    /// When the files there will be removed.
    fn until(&self, place: &str) -> Option<u64> {
        let aside = self.note.and_then(|note| note.aside_millis);
        aside
            .filter(|_| place == "kept aside")
            .map(|aside| aside.saturating_add(self.kept_aside_millis))
    }
}

/// Whether it is a copy of the erasure ledger.
fn is_ledger(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    name.is_some_and(|name| name == "erased" || name.starts_with("erased."))
}

fn names(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let names = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names?,
    };
    let mut paths = names.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort_unstable();
    Ok(paths)
}

/// Searches a file according to its kind, or as a message of a client.
fn look(path: &Path, needles: &Needles, is_message: bool) -> io::Result<Hits> {
    let file = BufReader::with_capacity(1 << 16, File::open(path)?);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let is_archive = name.strip_suffix(".zst").is_some() || name.ends_with(".zst.new");
    let is_log = name.strip_suffix(".log").is_some() || name.starts_with("spare-");
    if is_message {
        return needles.look_in_messages(&mut BufReader::new(file));
    }
    if is_archive {
        return decompressed(file, needles);
    }
    if is_log {
        return needles.look(&mut BufReader::new(Blocks::new(file)));
    }
    needles.look(&mut BufReader::new(file))
}

/// What can be decompressed of a file. An unfinished or damaged file ends in the middle.
fn decompressed(file: impl Read, needles: &Needles) -> io::Result<Hits> {
    let mut decoder = UntilDamage(zstd::stream::read::Decoder::new(file)?);
    needles.look(&mut decoder)
}

struct UntilDamage<R>(R);

impl<R: Read> Read for UntilDamage<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self.0.read(to) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            read => Ok(read.unwrap_or(0)),
        }
    }
}
