//! `entries`: entries of a store of a running server, by sequence, id, event and primary key.

use std::io::{self, Write};
use std::num::NonZero;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use eventlog_server::model::{EntryId, StoreId};
use serde::Deserialize;
use serde_json::Value;

use super::admin::{Admin, AdminCommandError, percent_encode};
use super::screen::Out;
use super::text::{hex, json_line, json_text, one_line, timestamp};
use super::watch::WatchArgs;

/// How many are requested at a time.
const PAGE: u64 = 1_000;
/// People are shown so many bytes of a payload that is no JSON.
const SHOWN_BYTES: usize = 64;

/// Print entries of a store of a running server.
///
/// A line has sequence, time of creation, event, primary key, the public key that wrote it (`-` for the server), and payload. The payload is
/// JSON if it is msgpack or `SchemaBinary`, else its length and first bytes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  EVENTLOG_ADMIN_TOKEN=… eventlog-server entries team
  EVENTLOG_ADMIN_TOKEN=… eventlog-server entries --store team --from 1 --event 'Note*' --count 10
  EVENTLOG_ADMIN_TOKEN=… eventlog-server entries --store team --id 018bcfe5-6800-70e1-8101-010101010101 --json
  EVENTLOG_ADMIN_TOKEN=… eventlog-server entries --store team --last 5 --watch")]
#[command(group = clap::ArgGroup::new("of").required(true).args(["named", "store"]))]
pub(super) struct Args {
    /// The store
    #[arg(value_name = "STORE")]
    named: Option<StoreId>,
    /// The same
    #[arg(long)]
    store: Option<StoreId>,
    /// Begin with this sequence
    #[arg(long, value_name = "SEQUENCE")]
    from: Option<u64>,
    /// Look only at the last N entries there are [default: 20 without --from]
    #[arg(long, value_name = "N", conflicts_with = "from", value_parser = parse_last)]
    last: Option<NonZero<u64>>,
    /// Print only the entry with this id
    #[arg(long, conflicts_with_all = ["from", "last"], value_parser = parse_id)]
    id: Option<EntryId>,
    /// Print only entries with this event, in which * stands for any text; can be given several times
    #[arg(long = "event", value_name = "PATTERN")]
    events: Vec<String>,
    /// Print only entries with this primary key, likewise
    #[arg(long = "primary-key", value_name = "PATTERN")]
    primary_keys: Vec<String>,
    /// Stop after this many entries; `export` prints all
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    count: u64,
    #[command(flatten)]
    watch: WatchArgs,
}

const LAST: u64 = 20;

#[derive(Deserialize)]
struct Page {
    entries: Vec<Value>,
    next: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    sequence: u64,
    event: String,
    primary_key: String,
    created_at: u64,
    origin: Value,
    payload_bytes: usize,
    payload_base64: String,
    codec: Option<String>,
    #[serde(default)]
    payload: Value,
}

pub(super) fn run(args: &Args) -> Result<(), AdminCommandError> {
    args.watch.run(|admin, out| look(args, admin, out))
}

fn look(args: &Args, admin: &Admin, out: &mut Out) -> Result<(), AdminCommandError> {
    let mut left = args.count;
    let mut from = args.from;
    while left > 0 {
        let page: Page = admin.request("GET", &path(args, from, left), None)?;
        for entry in page.entries {
            left = left.saturating_sub(1);
            if args.watch.json() {
                writeln!(out, "{}", json_text(&entry))?;
            } else {
                print(out, &Entry::deserialize(&entry).map_err(io::Error::other)?)?;
            }
        }
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    Ok(())
}

/// The path of the next page.
fn path(args: &Args, from: Option<u64>, left: u64) -> String {
    let mut path = format!(
        "/admin/stores/{}/entries?as=page&limit={}",
        percent_encode(args.named.as_ref().or(args.store.as_ref()).map_or("", StoreId::as_str)),
        left.min(PAGE)
    );
    let mut add = |name: &str, value: &str| {
        path.extend(["&", name, "=", &percent_encode(value)]);
    };
    if let Some(id) = args.id {
        add("id", &id.to_string());
    } else if let Some(from) = from {
        add("from", &from.to_string());
    } else {
        add("newest", &args.last.map_or(LAST, NonZero::get).to_string());
    }
    if !args.watch.json() {
        add("payloadMax", &(1 << 20).to_string());
    }
    args.events.iter().for_each(|event| add("event", event));
    args.primary_keys.iter().for_each(|key| add("primaryKey", key));
    path
}

fn print(out: &mut impl Write, entry: &Entry) -> io::Result<()> {
    let Entry { sequence, event, primary_key, created_at, origin, .. } = entry;
    let by = origin["publicKey"].as_str().unwrap_or("-");
    let [event, key, by] = [event.as_str(), primary_key.as_str(), by].map(one_line);
    let at = timestamp(*created_at);
    let payload = match entry.codec {
        Some(_) => json_line(&entry.payload.to_string()).into_owned(),
        None => {
            let bytes = BASE64.decode(&entry.payload_base64).map_err(io::Error::other)?;
            let shown = hex(&bytes[..bytes.len().min(SHOWN_BYTES)]);
            format!("{} bytes 0x{shown}", entry.payload_bytes)
        }
    };
    writeln!(out, "{sequence}  {at}  {event}  {key}  {by}  {payload}")
}

fn parse_last(text: &str) -> Result<NonZero<u64>, String> {
    text.parse().map_err(|_| "it is a number from 1 on".to_owned())
}

pub(super) fn parse_id(text: &str) -> Result<EntryId, String> {
    let wrong =
        "an id is a UUID such as 018bcfe5-6800-70e1-8101-010101010101, which `entries` prints";
    text.parse().map_err(|_| wrong.to_owned())
}
