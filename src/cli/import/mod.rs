//! `import`: writes the output of `export`, or the entries of another server, into stores.

mod feed;
mod lines;
mod target;
mod writing;

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use eventlog_server::model::{Sequence, StoreId};

use self::feed::{FeedArgs, FeedError};
use self::lines::{LineError, Lines};
use self::writing::{Refused, Writing};
use super::place::{PlaceArgs, PlaceError};
use super::progress::{Progress, Unit};
use super::text::{self, json_text, one_line};

/// Import the JSON lines of `export`, or one store of another server.
///
/// Each entry keeps its id. An entry that the store already has is not written again, so you can import the same
/// lines any number of times. New entries get the next sequences, in the order of the lines, and count as written
/// by the server. Handlers run on them, unless you give --no-handlers. At the end a line for each store says how
/// many entries there were, and how many of them were new.
///
/// For a running server the command uses the admin API (--url, --token). For a stopped server, give --data-dir.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  EVENTLOG_ADMIN_TOKEN=… eventlog-server import all.jsonl
  zstd -dc all.jsonl.zst | eventlog-server import --data-dir /var/lib/eventlog
  eventlog-server import --store copy team.jsonl
  eventlog-server import --store team --from-url wss://old.example/eventlog --public-key alice
  eventlog-server import --store team --from-url wss://old.example/rpc --public-key alice --identity alice.json

From the tables of Effect's own server, one store as one command (rows without an event are erased entries):
  sqlite3 effect.sqlite \"SELECT json_object('id', lower(hex(entry_id)), 'event', event, 'primaryKey', primary_key,
    'payloadHex', hex(payload)) FROM effect_events WHERE store_id = 'team' AND event <> '' ORDER BY sequence\" | eventlog-server import --store team
  psql -qAt -c \"SELECT json_build_object('id', encode(entry_id, 'hex'), 'event', event, 'primaryKey', primary_key,
    'payloadHex', encode(payload, 'hex')) FROM effect_events WHERE store_id = 'team' AND event <> '' ORDER BY sequence\" | eventlog-server import --store team")]
pub(super) struct Args {
    /// The file; `-` is standard input
    #[arg(default_value = "-", value_name = "FILE", conflicts_with = "from_url")]
    file: PathBuf,
    /// The store to write to [default: the one that the lines name]
    #[arg(long)]
    store: Option<StoreId>,
    /// Run no handlers or webhooks on these entries
    #[arg(long)]
    no_handlers: bool,
    #[command(flatten)]
    feed: FeedArgs,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `import` failed. Everything that was reported as imported is imported.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    /// The stores cannot be reached.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The file cannot be opened.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// There are several stores, and one to write to.
    #[error(
        "nothing is imported: {} has lines of several stores, {first:?} and {second:?}. Without --store each goes to its own", path.display()
    )]
    Stores {
        /// The file.
        path: PathBuf,
        /// The first store.
        first: StoreId,
        /// Another one.
        second: StoreId,
    },
    /// A line is wrong.
    #[error("{0}; everything before it is imported, and nothing from there on")]
    Line(#[from] LineError),
    /// The other server does not send its feed.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// The entries were refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Everything that came is imported, but something is missing.
    #[error("all lines are imported, but some are missing: {0}")]
    Missing(String),
    /// The result cannot be printed.
    #[error("cannot print: {0}")]
    Print(io::Error),
}

pub(super) fn run(args: &Args) -> Result<(), ImportError> {
    let place = args.place.open()?;
    let mut writing = Writing::new(&place, args.store.clone(), !args.no_handlers);
    let read = match args.feed.begin(args.store.as_ref(), args.place.admin.trust())? {
        Some(feed) => feed.read(&mut writing),
        None => one_store(args).and_then(|()| read_lines(&args.file, &mut writing)),
    };
    // There may be good lines before a wrong line.
    let written = writing.flush().map_err(ImportError::from);
    let is_all = read.is_ok() && written.is_ok();
    let (told, missing) = (tell(&writing, args.place.admin.json, is_all), writing.missing());
    drop(writing);
    let closed = place.close().map_err(PlaceError::from);
    // The first cause is reported.
    read.and(written)?;
    closed?;
    told.map_err(ImportError::Print)?;
    missing.map_or(Ok(()), |missing| Err(ImportError::Missing(missing)))
}

/// With `--store`, a file may have the lines of one store alone, which is found out before anything is written. Of a pipe it is found out
/// when the second store begins.
fn one_store(args: &Args) -> Result<(), ImportError> {
    let path = &args.file;
    if args.store.is_none() || !path.is_file() {
        return Ok(());
    }
    let wrong = |cause| ImportError::File { path: path.clone(), cause };
    match lines::stores(&File::open(path).map_err(wrong)?).map_err(wrong)? {
        (Some(first), Some(second)) => {
            Err(ImportError::Stores { path: path.clone(), first, second })
        }
        _ => Ok(()),
    }
}

fn read_lines(path: &Path, writing: &mut Writing<'_>) -> Result<(), ImportError> {
    let (input, bytes): (Box<dyn Read>, _) = if path == Path::new("-") {
        if io::stdin().is_terminal() {
            eprintln!("reading entries, a JSON object a line; Ctrl-D ends");
        }
        (Box::new(io::stdin().lock()), None)
    } else {
        let wrong = |cause| ImportError::File { path: path.to_owned(), cause };
        let file = File::open(path).map_err(wrong)?;
        let found = file.metadata().map_err(wrong)?;
        (Box::new(file), found.is_file().then_some(found.len()))
    };
    let progress = Progress::start("import", Unit::Bytes, bytes);
    let mut lines = Lines::new(Box::new(progress.counting(input)));
    while let Some((number, line)) = lines.next()? {
        writing.line(number, line)?;
    }
    writing.end_of_lines();
    Ok(())
}

/// Prints a line for each store. If all of the input was read and there was nothing in it, it says that.
fn tell(writing: &Writing<'_>, json: bool, is_all: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if is_all && !json && writing.tallies().next().is_none() {
        writeln!(out, "{}: there was nothing to import", text::entries(0))?;
    }
    for (store, tally) in writing.tallies() {
        let (entries, new) = (tally.entries, tally.new);
        if json {
            let line = serde_json::json!({ "storeId": store, "entries": entries, "new": new });
            writeln!(out, "{}", json_text(&line))?;
        } else {
            let name = one_line(store.as_str());
            let known = entries - new;
            let (entries, were) = (text::entries(entries), if known == 1 { "was" } else { "were" });
            writeln!(out, "{name}  {entries}: {new} new, {known} {were} there already")?;
        }
    }
    Ok(())
}

/// The position of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The number of the line, counted from one.
    Line(u64),
    /// The sequence in the feed of another server.
    Sequence(Sequence),
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Sequence(sequence) => write!(f, "sequence {sequence} there"),
        }
    }
}
