//! `tail`: prints a feed, and goes on printing what comes.

use std::io::{self, BufWriter, Write};
use std::num::NonZero;

use eventlog_server::client::{Page, RemoteError};
use eventlog_server::model::Sequence;
use futures_util::StreamExt;

use super::connect::{is_reader_gone, reader_gone, runtime};
use super::entry::{Format, Printer, parse_sequence};
use super::peer::{Peer, PeerError};

/// Print the events of a key's store, and those that come, until interrupted.
///
/// A line has sequence, time of creation, event, primary key and payload; the payload as JSON if it is msgpack or
/// `SchemaBinary`, else its bytes in hexadecimal. After a lost connection it goes on where it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  eventlog-server tail --key alice
  eventlog-server tail --key alice --from 1000 --count 10
  eventlog-server tail --key alice --json | jq 'select(.event == \"Note\") | .payload'
  eventlog-server tail --key alice --protocol rpc --identity alice.json --fields text,at

With --json, `payloadHex` stands besides `payload` where JSON cannot say everything (byte strings, times, undefined;
always for SchemaBinary), and alone where the payload is neither. What it prints, `write` reads.

SchemaBinary, which Effect's clients write, has no names and no types in it. Fields are shown by number (#bde64e3e) unless
--fields names them, and values as what their bytes look like, which is a guess; bytes that look like nothing else are
shown as such (0x…).")]
pub(super) struct Args {
    #[command(flatten)]
    peer: Peer,
    /// The first sequence to print; 0 and 1 are the beginning
    #[arg(long, default_value = "0", value_parser = parse_sequence)]
    from: Sequence,
    /// End after so many events [default: never]
    #[arg(long)]
    count: Option<NonZero<u64>>,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    /// Names that fields of `SchemaBinary` payloads may have
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
    let Args { peer, from, count, json, fields } = args;
    let remote = peer.connect().await?;
    let printer = Printer::new(Format::new(json), fields.iter().map(String::as_str));
    let mut left = count.map_or(u64::MAX, NonZero::get);
    let mut pages = remote.pages(peer.key(), from);
    while left > 0 {
        let Some(page) = pages.next().await else { break };
        left -= print_page(&page?, &printer, left)?;
    }
    Ok(())
}

/// Prints at most `count_max` entries and tells how many.
fn print_page(page: &Page, printer: &Printer, count_max: u64) -> io::Result<u64> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut printed = 0;
    for (sequence, entry) in page.iter().take(usize::try_from(count_max).unwrap_or(usize::MAX)) {
        printer.print(&mut out, sequence, &entry)?;
        printed += 1;
    }
    // A page at a time: whoever reads the output sees each entry as soon as it is here.
    out.flush()?;
    Ok(printed)
}
