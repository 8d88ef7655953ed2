//! `export`: prints the content of stores as lines of JSON.

mod file;
mod source;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use eventlog_server::model::{Sequence, StoreId};
use eventlog_server::processing::compaction::EventPattern;
use eventlog_server::protocol::lines::{Complete, Head, Line, put_complete};
use eventlog_server::server::Selection;
use serde_json::json;

use self::file::{Begun, FileError};
use super::connect::is_reader_gone;
use super::entry::parse_sequence;
use super::place::{Place, PlaceArgs, PlaceError};
use super::progress::{Progress, Unit};
use super::text::{self, json_line, parse_moment, people_bytes};

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
/// of a complete file says so; the same command adds what was written since.
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
    /// The file to write or to continue; `-` is standard output, which is the default
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
    #[error(
        "the server stopped in the middle of store {store:?}: {cause}; the same command continues a file of --out, and \
         --store {store} --from {next} continues anything else"
    )]
    Cut {
        /// The store.
        store: StoreId,
        /// What showed that.
        cause: String,
        /// The next sequence.
        next: Sequence,
    },
    /// The server's answer could not be understood.
    #[error("the server gave an unexpected answer")]
    NoAnswer,
}

pub(super) fn run(args: &Args) -> Result<(), ExportError> {
    let place = args.place.open()?;
    let exported = match args.file() {
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
    let all = Exporting::new(args, place, None, &mut put).run()?;
    put(&complete(all)).map_err(ExportError::Write)?;
    out.flush().map_err(ExportError::Write)
}

fn to_file(args: &Args, place: &Place, path: &Path) -> Result<(), ExportError> {
    let mut opened = file::open(path)?;
    let (begun, was_complete) = (opened.begun.take(), opened.is_complete);
    let begun = begun.as_ref().map(|begun| (begun, path));
    if let Some((begun, _)) = begun {
        if args.from.is_some() {
            return Err(FileError::From { path: path.to_owned() }.into());
        }
        begun.may_be_of(args.store.as_ref(), path)?;
        compare(args, place, (begun, path))?;
        if !was_complete {
            let (entries, path) = (text::entries(begun.entries), path.display());
            eprintln!("{path} has {entries} already: going on behind them");
        }
    }
    // A complete file stays complete until there is something new.
    let mut is_whole = was_complete;
    let mut out = BufWriter::with_capacity(
        BUFFER_BYTES,
        opened.file.try_clone().map_err(ExportError::Write)?,
    );
    if !is_whole {
        opened.cut().map_err(ExportError::Write)?;
    }
    let mut put = |line: &str| {
        if is_whole {
            opened.cut()?;
            is_whole = false;
        }
        out.write_all(line.as_bytes())
    };
    let mut exported = Exporting::new(args, place, begun, &mut put).run();
    if let (Ok(all), false) = (&exported, is_whole) {
        exported =
            out.write_all(complete(*all).as_bytes()).map(|()| *all).map_err(ExportError::Write);
    }
    // This continues with what was added meanwhile.
    let file = out.into_inner().map_err(|error| ExportError::Write(error.into_error()))?;
    file.sync_all().map_err(ExportError::Write)?;
    let Complete { stores, entries } = exported?;
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    if args.place.admin.json {
        let line =
            json!({ "stores": stores, "entries": entries, "bytes": bytes, "isNew": !is_whole });
        // The file is written, whoever reads this.
        let _ = writeln!(io::stdout(), "{line}");
        return Ok(());
    }
    let bytes = people_bytes(bytes);
    let is_complete = if is_whole {
        format!("{} is complete, and nothing is new: ", path.display())
    } else {
        String::new()
    };
    let (entries, stores) = (text::entries(entries), text::stores(stores));
    eprintln!("{is_complete}{entries} of {stores}, {bytes}");
    Ok(())
}

/// The last line.
fn complete(all: Complete) -> String {
    let mut line = String::new();
    put_complete(&mut line, all);
    line
}

/// Checks that a file belongs to this place and this selection.
fn compare(args: &Args, place: &Place, (begun, path): (&Begun, &Path)) -> Result<(), ExportError> {
    let next = begun.next.get(&begun.store).copied().unwrap_or(Sequence::FIRST);
    let head = source::head(place, &begun.store, &args.wanted(next))?;
    Ok(begun.goes_on_with(&head, path)?)
}

impl Args {
    /// The file that is written.
    fn file(&self) -> Option<&Path> {
        self.out.as_deref().filter(|path| *path != Path::new("-"))
    }

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

/// Passes what is wanted to `put`, a line at a time, after what a file already has (`begun`), except for the last line.
struct Exporting<'a> {
    args: &'a Args,
    place: &'a Place,
    begun: Option<(&'a Begun, &'a Path)>,
    /// The next sequence of each store that was begun.
    next: BTreeMap<StoreId, Sequence>,
    all: Complete,
    progress: Progress,
    put: &'a mut dyn FnMut(&str) -> io::Result<()>,
}

impl<'a> Exporting<'a> {
    fn new(
        args: &'a Args,
        place: &'a Place,
        begun: Option<(&'a Begun, &'a Path)>,
        put: &'a mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Self {
        let next = begun.map_or_else(BTreeMap::new, |(begun, _)| begun.next.clone());
        let entries = begun.map_or(0, |(begun, _)| begun.entries);
        let all = Complete { stores: next.len() as u64, entries };
        let total =
            if args.wants_all() { source::entries(place, args.store.as_ref()) } else { None };
        let progress = match args.file() {
            Some(_) => Progress::start("export", Unit::Events, total),
            None => Progress::beside_output("export", total),
        };
        progress.add(entries);
        Self { args, place, begun, next, all, progress, put }
    }

    fn run(mut self) -> Result<Complete, ExportError> {
        // Its lines come before all others.
        if let Some((begun, _)) = self.begun.filter(|(begun, _)| !begun.is_ended) {
            self.store(&begun.store)?;
        }
        if let Some(store) = &self.args.store {
            let head = source::last(self.place, store)?;
            self.store_up_to(store, head)?;
            return Ok(self.all);
        }
        let mut after = None;
        while let Some(page) = source::stores(self.place, after.as_ref())? {
            for (store, head) in &page {
                self.store_up_to(store, *head)?;
            }
            after = page.into_iter().last().map(|(store, _)| store);
        }
        Ok(self.all)
    }

    /// Exports a store that ends with `head`, if it has anything new.
    fn store_up_to(&mut self, store: &StoreId, head: Sequence) -> Result<(), ExportError> {
        let is_there = self.next.get(store).is_some_and(|next| *next > head);
        if is_there { Ok(()) } else { self.store(store) }
    }

    fn store(&mut self, store: &StoreId) -> Result<(), ExportError> {
        let Self { args, place, begun, next, all, progress, put } = self;
        let known = next.get(store).copied();
        let from = known.or(args.from).unwrap_or(Sequence::FIRST);
        source::read(place, store, &args.wanted(from), &mut |line| {
            if let (Some((begun, path)), Some(head)) = (&begun, head(line)) {
                begun.goes_on_with(&head, path)?;
                next.insert(head.store, head.head.next());
            }
            let is_entry = u64::from(source::is_entry(line));
            all.entries += is_entry;
            progress.add(is_entry);
            put(line).map_err(ExportError::Write)
        })?;
        all.stores += u64::from(known.is_none());
        Ok(())
    }
}

/// Reads `line` as a head.
fn head(line: &str) -> Option<Head> {
    let is_one = line.starts_with(r#"{"export":"#);
    match is_one.then(|| Line::parse(line)) {
        Some(Ok(Line::Head(head))) => Some(head),
        _ => None,
    }
}

impl Begun {
    /// Whether lines of this store, or of all stores, belong to the file.
    fn may_be_of(&self, store: Option<&StoreId>, path: &Path) -> Result<(), FileError> {
        let Some(wanted) = store else { return Ok(()) };
        match self.next.keys().find(|store| *store != wanted) {
            Some(store) => {
                Err(FileError::OfAnotherStore { path: path.to_owned(), store: store.clone() })
            }
            None => Ok(()),
        }
    }

    /// Whether the lines after `head` belong to the file too.
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
