//! `export`: prints what stores have as lines of JSON.

mod file;
mod source;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use eventlog_server::model::{Sequence, StoreId};
use eventlog_server::processing::compaction::EventPattern;
use eventlog_server::protocol::lines::{Complete, Head, Line, put_complete};
use eventlog_server::server::Selection;

use self::file::{Begun, FileError};
use super::connect::is_reader_gone;
use super::entry::parse_sequence;
use super::place::{Place, PlaceArgs, PlaceError};
use super::progress::{Progress, Unit};
use super::text::{json_line, parse_moment, people_bytes};

/// How much is collected before it is written, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// Print all entries of stores as lines of JSON, which `import` reads, on this server or another.
///
/// For a running server the command uses the admin API (--url, --token), from any machine, and the server goes
/// on. For a stopped server, give --data-dir. Each store is exported as of the moment when its turn came. A line
/// has sequence, id, event, primary key, the time of creation in the id, the time
/// of the commit, the writer, and the payload as base64,
/// and also as JSON where possible. docs/DATA.md describes the lines.
///
/// If a full disk or a lost connection cut the file off, run the same command again to continue it. The last line
/// of a complete file says so.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  EVENTLOG_ADMIN_TOKEN=… eventlog-server export --out all.jsonl
  eventlog-server export --store team --event 'Note*' --created-from 2026-03-01T00:00:00Z | jq .payload
  eventlog-server export --data-dir /var/lib/eventlog | zstd > all.jsonl.zst
  eventlog-server export --store team | eventlog-server import --store copy --url https://other.example")]
pub(super) struct Args {
    /// The store [default: all]
    #[arg(long)]
    store: Option<StoreId>,
    /// The file to write or to continue [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The first sequence
    #[arg(long, value_name = "SEQUENCE", requires = "store", value_parser = parse_sequence)]
    from: Option<Sequence>,
    /// Only events with this tag, in which * stands for any text; can be given several times
    #[arg(long = "event", value_name = "PATTERN")]
    events: Vec<String>,
    /// Only events with this primary key, likewise
    #[arg(long = "primary-key", value_name = "PATTERN")]
    primary_keys: Vec<String>,
    /// Only events made at this time or later, by their ids
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    created_from: Option<u64>,
    /// Only events made before this time, by their ids
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    created_before: Option<u64>,
    /// Only events that the server committed at this time or later, and perhaps some of the ten minutes before
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    committed_from: Option<u64>,
    /// Only events that the server committed before this time. Some of the last ten minutes before it may be missing;
    /// an export with this time as --committed-from has them
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    committed_before: Option<u64>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `export` failed. The same command continues the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    /// The entries cannot be reached.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The file cannot be continued.
    #[error(transparent)]
    File(#[from] FileError),
    /// The entries cannot be printed.
    #[error("cannot write: {0}")]
    Write(io::Error),
    /// There is no such store.
    #[error("there is no store {0:?}")]
    NoSuchStore(StoreId),
    /// The server stopped in the middle.
    #[error("the server stopped in the middle of store {store:?}: {cause}")]
    Cut {
        /// The store.
        store: StoreId,
        /// What showed that.
        cause: String,
    },
    /// The server's answer could not be understood.
    #[error("the server gave an unexpected answer")]
    NoAnswer,
}

pub(super) fn run(args: &Args) -> Result<(), ExportError> {
    let place = args.place.open()?;
    let exported = match &args.out {
        Some(path) => to_file(args, &place, path),
        None => to_output(args, &place),
    };
    // The directory was only read.
    let closed = place.close().map_err(PlaceError::from);
    match exported {
        Err(ExportError::Write(error)) if is_reader_gone(&error) => Ok(()),
        exported => exported.and(Ok(closed?)),
    }
}

fn to_output(args: &Args, place: &Place) -> Result<(), ExportError> {
    let output = io::stdout().lock();
    let is_terminal = output.is_terminal();
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, output);
    let mut put = |line: &str| {
        let line = if is_terminal { &*json_line(line.trim_end()) } else { line.trim_end() };
        writeln!(out, "{line}")
    };
    export(args, place, None, &mut put)?;
    out.flush().map_err(ExportError::Write)
}

fn to_file(args: &Args, place: &Place, path: &Path) -> Result<(), ExportError> {
    let (file, begun) = file::open(path)?;
    if begun.as_ref().is_some_and(|begun| begun.is_complete) {
        eprintln!("{} is complete", path.display());
        return Ok(());
    }
    if begun.is_some() && args.from.is_some() {
        return Err(FileError::From { path: path.to_owned() }.into());
    }
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    let told = begun.as_ref().map(|begun| begun.entries);
    if let Some(entries) = told {
        eprintln!("continuing after the first {entries} entries of {}", path.display());
    }
    let checked = begun.map(|begun| (begun, path));
    let exported = export(args, place, checked, &mut |line| out.write_all(line.as_bytes()));
    // What there is by now is gone on with.
    let file = out.into_inner().map_err(|error| ExportError::Write(error.into_error()))?;
    file.sync_all().map_err(ExportError::Write)?;
    let Complete { stores, entries } = exported?;
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    eprintln!("{entries} entries of {stores} stores, {}", people_bytes(bytes));
    Ok(())
}

impl Args {
    /// Whether every store is exported completely.
    fn wants_all(&self) -> bool {
        self.from.is_none() && self.wanted(Sequence::FIRST).filter().next().is_none()
    }

    fn wanted(&self, from: Sequence) -> Selection {
        let patterns =
            |texts: &[String]| texts.iter().map(|text| EventPattern::glob(text.as_str())).collect();
        Selection {
            from,
            events: patterns(&self.events),
            primary_keys: patterns(&self.primary_keys),
            created_from: self.created_from,
            created_before: self.created_before,
            committed_from: self.committed_from,
            committed_before: self.committed_before,
        }
    }
}

/// Gives `put` all that is wanted, a line at a time, behind what was `begun` in a file.
fn export(
    args: &Args,
    place: &Place,
    begun: Option<(Begun, &Path)>,
    put: &mut dyn FnMut(&str) -> io::Result<()>,
) -> Result<Complete, ExportError> {
    let (begun, path) = begun.unzip();
    let done = begun.as_ref().map_or(0, |begun| begun.entries);
    let total = if args.wants_all() { source::entries(place, args.store.as_ref()) } else { None };
    let progress = match &args.out {
        Some(_) => Progress::start("export", Unit::Events, total),
        None => Progress::beside_output("export", total),
    };
    progress.add(done);
    let mut all = begun.as_ref().map_or(Complete { stores: 0, entries: 0 }, Begun::total);
    let first = args.from.unwrap_or(Sequence::FIRST);
    let mut one = |store: &StoreId, from: Sequence| {
        let mut entries = 0;
        source::read(place, store, &args.wanted(from), &mut |line| {
            if let (Some(begun), Ok(Line::Head(head))) = (&begun, head(line)) {
                begun.goes_on_with(&head, path.unwrap_or(Path::new("")))?;
            }
            let is_entry = u64::from(source::is_entry(line));
            entries += is_entry;
            progress.add(is_entry);
            put(line).map_err(ExportError::Write)
        })?;
        Ok::<_, ExportError>(entries)
    };
    if let (Some(store), Some(begun)) = (&args.store, &begun)
        && begun.store != *store
    {
        let (path, store) = (path.unwrap_or(Path::new("")).to_owned(), begun.store.clone());
        return Err(FileError::OfAnotherStore { path, store }.into());
    }
    let unfinished = begun.as_ref().filter(|begun| !begun.is_ended);
    if let Some(Begun { store, next, .. }) = unfinished {
        all.entries += one(store, *next)?;
    }
    match (&args.store, &begun) {
        (Some(_), Some(_)) => {}
        (Some(store), None) => {
            all.entries += one(store, first)?;
            all.stores += 1;
        }
        (None, _) => {
            let mut after = begun.as_ref().map(|begun| begun.store.clone());
            while let Some(page) = source::stores(place, after.as_ref())? {
                for store in &page {
                    all.entries += one(store, first)?;
                    all.stores += 1;
                }
                after = page.last().cloned();
            }
        }
    }
    let mut line = String::new();
    put_complete(&mut line, all);
    put(&line).map_err(ExportError::Write)?;
    Ok(all)
}

/// The head that `line` is.
fn head(line: &str) -> Result<Line, ()> {
    if line.starts_with(r#"{"export":"#) { Line::parse(line).map_err(drop) } else { Err(()) }
}

impl Begun {
    /// How much the file has.
    const fn total(&self) -> Complete {
        Complete { stores: self.stores, entries: self.entries }
    }

    /// Whether the lines behind `head` belong to the file, too.
    fn goes_on_with(&self, head: &Head, path: &Path) -> Result<(), FileError> {
        let path = || path.to_owned();
        if head.remote_id != self.remote_id {
            return Err(FileError::OfAnotherServer { path: path() });
        }
        if head.filter != self.filter {
            return Err(FileError::OfAnotherFilter { path: path(), filter: self.filter.clone() });
        }
        Ok(())
    }
}
