//! `write`: appends events, one from the command line or many from standard input.

mod event;
mod lines;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::task::Poll;

use clap::ArgGroup;
use eventlog_server::client::{EventLogRemote, RemoteError};
use eventlog_server::model::{Batch, EntryId, PublicKey, Sequence};
use serde_json::Value;

use self::event::{Event, EventError};
use self::lines::{LineError, Lines};
use super::connect::{is_reader_gone, runtime};
use super::payload::Codec;
use super::peer::{Peer, PeerError, Protocol};
use super::progress::Progress;
use super::text::parse_hex;

/// A batch is closed when its records reach this size, so that batches of large payloads stay below message limits.
const BATCH_BYTES_TARGET: usize = 1 << 20;

/// Append events, and print the sequence of each, one a line, once it is durable.
///
/// With --event it appends that event. Without it, it reads events from standard input, a JSON object a line, as
/// the examples show.
///
/// `payload` is JSON and sent in the form that clients' handlers read: msgpack with named fields in the given
/// order, or, with --protocol rpc, `SchemaBinary` (see below). `payloadHex` is bytes, sent unchanged. `id` is a
/// UUID (a new UUIDv7 if it is missing). An event whose id the store already has is not appended again, and keeps
/// its sequence.
#[derive(Debug, clap::Args)]
#[command(
    group(ArgGroup::new("content").args(["payload", "payload_file", "payload_hex"])),
    after_help = "\
Examples:
  eventlog-server write --key alice --event Note --primary-key n1 --payload '{\"text\":\"hi\"}'
  eventlog-server write --key alice --event Note --primary-key n1 --payload @note.json
  eventlog-server write --key alice --event Photo --primary-key p1 --payload-file photo.msgpack
  echo '{\"event\":\"Note\",\"primaryKey\":\"n1\",\"payload\":{\"text\":\"hi\"}}' | eventlog-server write --key alice
  eventlog-server write --key alice < events.jsonl
  eventlog-server tail --key alice --json | eventlog-server write --key copy --url ws://other:7420/eventlog
  eventlog-server write --key alice --protocol rpc --identity alice.json --event Note --payload '{\"text\":\"hi\"}'

SchemaBinary, which Effect's clients read, depends on the event's schema. JSON becomes what most schemas expect: an \
object becomes a Struct of required fields, a whole number an Int or Number, any other number a Number, an array an \
Array of one kind of value, null in a field the null of a NullOr, and null alone no payload at all (Void). Optional \
fields, unions and records have other forms: send their bytes with --payload-file or --payload-hex. The server accepts \
only SchemaBinary from --protocol rpc."
)]
pub(super) struct Args {
    #[command(flatten)]
    peer: Peer,
    /// The event tag [default: read JSON lines from standard input]
    #[arg(long, requires = "content", value_parser = parse_event)]
    event: Option<String>,
    /// What the event is about
    #[arg(long, requires = "event", default_value = "")]
    primary_key: String,
    /// The payload as JSON, or @FILE to read it from a file (@- for standard input); sent as msgpack with named
    /// fields, or with rpc as `SchemaBinary`
    #[arg(long, requires = "event", value_name = "JSON", value_parser = parse_json)]
    payload: Option<Value>,
    /// A file whose bytes are the payload
    #[arg(long, requires = "event", value_name = "FILE")]
    payload_file: Option<PathBuf>,
    /// The payload's bytes in hexadecimal
    #[arg(long, requires = "event", value_name = "HEX", value_parser = parse_payload_hex)]
    payload_hex: Option<Bytes>,
    /// The id, a UUID [default: a new UUIDv7]
    #[arg(long, requires = "event", value_parser = parse_id)]
    id: Option<EntryId>,
    /// How many events one batch has at most; a batch is stored whole or not at all
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
}

/// A payload from the command line. It is a separate type, since clap takes a `Vec` for a repeated argument.
#[derive(Clone, Debug)]
struct Bytes(Vec<u8>);

/// `write` failed. Everything that was printed before is stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The payload's file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// The event from the command line cannot be sent.
    #[error(transparent)]
    Event(#[from] EventError),
    /// A line of the input is no event.
    #[error(transparent)]
    Line(#[from] LineError),
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] PeerError),
    /// The server refused the batch, or its outcome is unknown.
    #[error("{cause}{}", if cause.is_definite() { "" } else { UNKNOWN })]
    Remote {
        /// What went wrong.
        cause: RemoteError,
    },
    /// The outcome of the write of the event of the flags is unknown.
    #[error(
        "{cause}; the event may or may not be stored: write it again with --id {id} to find out"
    )]
    One {
        /// What went wrong.
        cause: RemoteError,
        /// The id of the event.
        id: EntryId,
    },
    /// The runtime cannot be started, or the result cannot be printed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

const UNKNOWN: &str =
    "; the events may or may not be stored: write them again with the same ids to find out";

pub(super) fn run(args: Args) -> Result<(), WriteError> {
    runtime()?.block_on(write(args))
}

async fn write(args: Args) -> Result<(), WriteError> {
    let Args { peer, batch, .. } = &args;
    let (key, batch_max) = (peer.key(), *batch as usize);
    let codec = match peer.protocol() {
        Protocol::Msgpack => Codec::Msgpack,
        Protocol::Rpc => Codec::SchemaBinary,
    };
    let single = single_event(&args, codec)?;
    let remote = peer.connect().await?;
    if let Some(event) = single {
        let batch = Batch::from_entries([event.as_ref()]);
        return append(&remote, key, batch).await.map(drop).map_err(|error| match error {
            WriteError::Remote { cause } if !cause.is_definite() => {
                WriteError::One { cause, id: event.id }
            }
            error => error,
        });
    }
    if io::stdin().is_terminal() {
        eprintln!("reading events, a JSON object a line; Ctrl-D ends");
    }
    let progress = Progress::beside_output("write", None);
    let mut lines = Lines::read(io::stdin(), codec)?;
    loop {
        let (batch, end) = next_batch(&mut lines, batch_max).await;
        // What comes before a wrong line is written, as it would be if that line came a moment later.
        let count = batch.len() as u64;
        if !batch.is_empty() && append(&remote, key, batch).await? == Reader::Gone {
            return Ok(());
        }
        progress.add(count);
        match end {
            BatchEnd::Full => {}
            BatchEnd::Input => return Ok(()),
            BatchEnd::Wrong(error) => return Err(error.into()),
        }
    }
}

/// The event of the flags, if there is one.
fn single_event(args: &Args, codec: Codec) -> Result<Option<Event>, WriteError> {
    let Some(tag) = args.event.clone() else { return Ok(None) };
    let payload = match (&args.payload, &args.payload_file, &args.payload_hex) {
        (Some(json), _, _) => codec.encode(json.clone()).map_err(EventError::Json)?,
        (_, Some(path), _) => {
            std::fs::read(path).map_err(|cause| WriteError::File { path: path.clone(), cause })?
        }
        (_, _, Some(Bytes(bytes))) => bytes.clone(),
        // The group of arguments requires one of them.
        (None, None, None) => Vec::new(),
    };
    let id = args.id.unwrap_or_else(EntryId::now);
    Ok(Some(Event { id, tag, primary_key: args.primary_key.clone(), payload }))
}

/// Why a batch ends.
enum BatchEnd {
    /// It is full, or no more lines were available.
    Full,
    /// The input ended.
    Input,
    /// A line is no event.
    Wrong(LineError),
}

/// Waits for a line and takes all other available lines, so that a slow input is not delayed and a fast one fills
/// batches.
async fn next_batch(lines: &mut Lines, entries_max: usize) -> (Batch, BatchEnd) {
    let mut batch = Batch::default();
    let mut line = lines.next().await;
    loop {
        match line {
            None => return (batch, BatchEnd::Input),
            Some(Err(error)) => return (batch, BatchEnd::Wrong(error)),
            Some(Ok(event)) => batch.push(&event.as_ref()),
        }
        if batch.len() >= entries_max || batch.bytes() >= BATCH_BYTES_TARGET {
            return (batch, BatchEnd::Full);
        }
        line = match lines.ready() {
            Poll::Ready(line) => line,
            Poll::Pending => return (batch, BatchEnd::Full),
        };
    }
}

/// Whether anybody still reads the output.
#[derive(PartialEq, Eq)]
enum Reader {
    There,
    Gone,
}

async fn append(
    remote: &EventLogRemote,
    key: &PublicKey,
    batch: Batch,
) -> Result<Reader, WriteError> {
    let sequences = remote.write(key, batch).await.map_err(|cause| WriteError::Remote { cause })?;
    match print(&sequences) {
        Err(error) if is_reader_gone(&error) => Ok(Reader::Gone),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(Reader::There),
    }
}

fn print(sequences: &[Sequence]) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    sequences.iter().try_for_each(|sequence| writeln!(out, "{sequence}"))?;
    out.flush()
}

fn parse_event(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("an event tag cannot be empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn parse_json(text: &str) -> Result<Value, String> {
    let Some(path) = text.strip_prefix('@') else {
        return serde_json::from_str(text).map_err(|error| {
            format!("this is not JSON: {error}; a text needs its own quotes: --payload '\"hi\"'")
        });
    };
    let read =
        if path == "-" { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(path) };
    let text = read.map_err(|error| format!("{path} cannot be read: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{path} is not JSON: {error}"))
}

fn parse_id(text: &str) -> Result<EntryId, String> {
    let wrong = "an id is a UUID such as 018bcfe5-6800-70e1-8101-010101010101; without --id you get a new one";
    text.parse().map_err(|_| wrong.to_owned())
}

fn parse_payload_hex(text: &str) -> Result<Bytes, String> {
    parse_hex(text).map(Bytes)
}
