//! `tail`: prints a feed, and goes on printing what comes.

use std::io::{self, BufWriter, Write};
use std::num::NonZero;

use eventlog_server::client::{Page, RemoteError};
use eventlog_server::model::{PublicKey, Sequence};
use futures_util::StreamExt;

use super::address::{DEFAULT, ServerUrl};
use super::connect::{Unconnected, connect, is_reader_gone, reader_gone, runtime};
use super::entry::{Format, parse_sequence, print_entry};

/// Print the events of a key's store, and those that come, until interrupted.
///
/// A line has sequence, time of creation, event, primary key and payload; the payload as JSON if it is msgpack, else its
/// bytes in hexadecimal. After a lost connection it goes on where it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  eventlog-server tail --key alice
  eventlog-server tail --key alice --from 1000 --count 10
  eventlog-server tail --key alice --json | jq 'select(.event == \"Note\") | .payload'

With --json, `payloadHex` stands besides `payload` where JSON cannot say everything (byte strings, times, undefined), and
alone where the payload is not msgpack. What it prints, `write` reads.")]
pub(super) struct Args {
    /// The server
    #[arg(long, env = "EVENTLOG_URL", default_value = DEFAULT, hide_env_values = true)]
    url: ServerUrl,
    /// The public key to read with; which store it reads is for the server's registry to say
    #[arg(long)]
    key: PublicKey,
    /// The first sequence to print; 0 and 1 are the beginning
    #[arg(long, default_value = "0", value_parser = parse_sequence)]
    from: Sequence,
    /// End after so many events [default: never]
    #[arg(long)]
    count: Option<NonZero<u64>>,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// `tail` ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum TailError {
    /// The server cannot be reached.
    #[error(transparent)]
    Connect(#[from] Unconnected),
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
    let Args { url, key, from, count, json } = args;
    let remote = connect(&url).await?;
    let format = Format::new(json);
    let mut left = count.map_or(u64::MAX, NonZero::get);
    let mut pages = remote.pages(&key, from);
    while left > 0 {
        let Some(page) = pages.next().await else { break };
        left -= print_page(&page?, format, left)?;
    }
    Ok(())
}

/// Prints at most `count_max` entries and tells how many.
fn print_page(page: &Page, format: Format, count_max: u64) -> io::Result<u64> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut printed = 0;
    for (sequence, entry) in page.iter().take(usize::try_from(count_max).unwrap_or(usize::MAX)) {
        print_entry(&mut out, format, sequence, &entry)?;
        printed += 1;
    }
    // A page at a time: whoever reads the output sees each entry as soon as it is here.
    out.flush()?;
    Ok(printed)
}
