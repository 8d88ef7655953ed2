//! `tail`: prints a feed, and then new entries as they arrive.

use std::io::{self, BufWriter, Write};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use clap::error::ErrorKind;
use eventlog_server::client::{ConnectionState, ErrorCode, Page, RemoteError};
use eventlog_server::model::{EntryRef, Sequence};
use eventlog_server::processing::compaction::EventPattern;
use futures_util::StreamExt;

use super::connect::{is_reader_gone, reader_gone, runtime};
use super::entry::{Format, Printer, parse_count, parse_sequence};
use super::peer::{Peer, PeerError, Protocol, wrong};
use super::progress::Progress;
use super::text::one_line;

/// How long to wait before a feed is requested again that the server could not send.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Print a store's events, then follow new ones.
///
/// A line has sequence, time of creation, event, primary key and payload. The payload is JSON if it is msgpack or
/// `SchemaBinary`, else its bytes in hexadecimal. After a lost connection, or while the server cannot read its
/// storage, the command tries again and goes on where it was. Standard error says when the connection was lost and
/// when it is back. Control characters are escaped, in JSON as well, where
/// the meaning stays the same.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  eventlog-server tail --key alice
  eventlog-server tail --key alice --from 1000 --count 10
  eventlog-server tail --key alice --last 20 --event 'Note*'
  eventlog-server tail --key alice --json | jq 'select(.event == \"Note\") | .payload'
  eventlog-server tail --key alice --protocol rpc --identity alice.json --fields text,at

With --json, a line also has `payloadHex` if JSON cannot express the whole payload (byte strings, times, undefined; \
always for SchemaBinary), and only `payloadHex` if the payload is neither. `write` reads this output.

SchemaBinary, which Effect's clients write, contains no names and no types. Fields are shown by number (#bde64e3e) \
unless --fields names them. Values are guessed from their bytes; bytes that look like nothing else are shown as bytes \
(0x…).")]
pub(super) struct Args {
    #[command(flatten)]
    peer: Peer,
    /// The first sequence to print; 0 and 1 mean the beginning, `end` means only new events
    #[arg(long, default_value = "0", value_parser = parse_from)]
    from: Begin,
    /// Begin with the last N events of the store
    #[arg(long, value_name = "N", conflicts_with = "from")]
    last: Option<u64>,
    /// Print only events with this tag, in which * stands for any text; can be given several times
    #[arg(long = "event", value_name = "PATTERN", value_parser = pattern)]
    events: Vec<EventPattern>,
    /// Print only events with this primary key, likewise
    #[arg(long = "primary-key", value_name = "PATTERN", value_parser = pattern)]
    primary_keys: Vec<EventPattern>,
    /// Stop after this many events [default: never]
    #[arg(long, value_parser = parse_count)]
    count: Option<NonZero<u64>>,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    /// Possible names of fields in `SchemaBinary` payloads
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    fields: Vec<String>,
}

/// `tail` ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum TailError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] PeerError),
    /// The server refused the subscription, or ended it.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The runtime cannot be started, or the events cannot be printed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

pub(super) fn run(args: Args) -> Result<(), TailError> {
    let done = runtime()?.block_on(async {
        tokio::select! {
            done = tail(args) => done,
            () = reader_gone() => Ok(()),
        }
    });
    match done {
        Err(TailError::Io(error)) if is_reader_gone(&error) => Ok(()),
        done => done,
    }
}

async fn tail(args: Args) -> Result<(), TailError> {
    let start = first(&args).await?;
    let Args { peer, count, json, fields, events, primary_keys, .. } = args;
    let remote = peer.connect().await?;
    let printer = Printer::new(Format::new(json), fields.iter().map(String::as_str));
    let shown = Shown { events, primary_keys };
    let mut left = count.map_or(u64::MAX, NonZero::get);
    let progress = count.map(|count| Progress::beside_output("tail", Some(count.get())));
    let mut pages = remote.pages(peer.key(), start);
    let mut state = remote.connection_state();
    let (mut news, mut next) = (News::default(), start);
    while left > 0 {
        tokio::select! {
            page = pages.next() => match page {
                Some(Ok(page)) => {
                    let printed = print_page(&page, &printer, &shown, left)?;
                    (left, next) = (left - printed, page.last().next());
                    news.fed();
                    progress.iter().for_each(|progress| progress.add(printed));
                }
                Some(Err(error)) if news.had_it && is_for_now(&error) => {
                    news.refused(&error);
                    tokio::time::sleep(AGAIN_AFTER).await;
                    pages = remote.pages(peer.key(), next);
                }
                Some(Err(error)) => return Err(error.into()),
                None => break,
            },
            Ok(()) = state.changed() => news.tell(&state.borrow_and_update()),
        }
    }
    Ok(())
}

/// Whether the same request may succeed later: the server has no other code for what fails on its side.
const fn is_for_now(error: &RemoteError) -> bool {
    matches!(error, RemoteError::Rejected { code: ErrorCode::InternalServerError, .. })
}

/// Where to begin. The server must be asked how far a store is.
async fn first(args: &Args) -> Result<Sequence, PeerError> {
    let is_asked = args.last.is_some() || args.from == Begin::End;
    if is_asked && args.peer.protocol() == Protocol::Rpc {
        wrong(
            ErrorKind::ArgumentConflict,
            "--from end and --last need the msgpack protocol (--protocol msgpack): in the other one a server \
             does not tell the last sequence of a store",
        );
    }
    match (args.last, args.from) {
        (None, Begin::Sequence(start)) => Ok(start),
        (None, Begin::End) => Ok(args.peer.head().await?.next()),
        (Some(last), _) => {
            let head = args.peer.head().await?.get();
            // At most the head, which is a sequence.
            Ok(Sequence::new(head.saturating_sub(last) + 1).unwrap_or(Sequence::FIRST))
        }
    }
}

/// Where the output of a feed begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    Sequence(Sequence),
    /// Behind the existing entries.
    End,
}

fn parse_from(text: &str) -> Result<Begin, String> {
    if text == "end" { Ok(Begin::End) } else { parse_sequence(text).map(Begin::Sequence) }
}

#[expect(clippy::unnecessary_wraps, reason = "as clap wants it")]
fn pattern(text: &str) -> Result<EventPattern, std::convert::Infallible> {
    Ok(EventPattern::glob(text))
}

/// Which entries are printed: those that match each filter.
struct Shown {
    events: Vec<EventPattern>,
    primary_keys: Vec<EventPattern>,
}

impl Shown {
    fn has(&self, entry: &EntryRef<'_>) -> bool {
        let one_of = |patterns: &[EventPattern], text| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(text))
        };
        one_of(&self.events, entry.event) && one_of(&self.primary_keys, entry.primary_key)
    }
}

/// Reports changes of the connection and of the feed on standard error, once each.
#[derive(Default)]
struct News {
    lost: Option<Arc<str>>,
    /// Why the server does not send the feed.
    refused: Option<String>,
    /// Whether there was a feed: something came, or the connection was there and is lost.
    had_it: bool,
}

impl News {
    /// The feed goes on.
    fn fed(&mut self) {
        self.had_it = true;
        if self.refused.take().is_some() {
            eprintln!("the feed goes on");
        }
    }

    /// The server does not send the feed for now.
    fn refused(&mut self, error: &RemoteError) {
        let reason = error.to_string();
        if self.refused.as_ref() != Some(&reason) {
            eprintln!("{}; trying again", one_line(&reason));
            self.refused = Some(reason);
        }
    }

    fn tell(&mut self, state: &ConnectionState) {
        match state {
            ConnectionState::Connected => {
                if self.lost.take().is_some() {
                    eprintln!("connected again");
                }
            }
            ConnectionState::Lost { reason } if self.lost.as_ref() != Some(reason) => {
                let what =
                    if self.lost.is_some() { "still no connection" } else { "lost the connection" };
                eprintln!("{what}: {}; trying again", one_line(reason));
                (self.lost, self.had_it) = (Some(reason.clone()), true);
            }
            ConnectionState::Lost { .. } => {}
        }
    }
}

/// Prints at most `count_max` entries. Returns how many.
fn print_page(page: &Page, printer: &Printer, shown: &Shown, count_max: u64) -> io::Result<u64> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut printed = 0;
    let entries = page.iter().filter(|(_, entry)| shown.has(entry));
    for (sequence, entry) in entries.take(usize::try_from(count_max).unwrap_or(usize::MAX)) {
        printer.print(&mut out, sequence, &entry)?;
        printed += 1;
    }
    // A page at a time: whoever reads the output sees each entry as soon as it has arrived.
    out.flush()?;
    Ok(printed)
}
