//! `trim`: moves the beginning of a store's feed.

use std::io::{self, Write};
use std::str::FromStr;
use std::sync::Arc;

use eventlog_server::model::{Sequence, StoreId};
use eventlog_server::processing::{TrimError, Trimming, trim};
use eventlog_server::server::{Before, Going, going};
use eventlog_server::services::journal::SledJournal;
use eventlog_server::storage::sled::{Database, SledStorage};
use eventlog_server::storage::{Storage, StorageError};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::percent_encode;
use super::data_dir::is_confirmed;
use super::place::{PlaceArgs, PlaceError, no_answer, printed};
use super::text::{self, json_text, one_line, timestamp};

/// Remove the beginning of a store's feed for good; only the ids of its entries stay.
///
/// Readers that ask for trimmed entries get the feed from its new beginning. Ids stay known: an entry that is
/// sent again is acknowledged, and not stored. The trim waits for groups of handlers (webhooks too) that have not
/// processed the entries yet, even if a group is paused. The server then finishes the trim by itself; `groups
/// forget` removes a group that no longer runs. The archive and backups keep what they have, see docs/DATA.md.
///
/// For a running server the command uses the admin API (--url, --token). For a stopped server, give --data-dir;
/// then nothing waits, and the store is trimmed only as far as groups have processed it. The command says what
/// goes, and asks, unless you give --yes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  EVENTLOG_ADMIN_TOKEN=… eventlog-server trim --store team --before 120000
  EVENTLOG_ADMIN_TOKEN=… eventlog-server trim --store team --before 2026-01-01T00:00:00Z
  eventlog-server trim --data-dir /var/lib/eventlog --store team --before 120000

With [[retention]] in the configuration the server trims by itself.")]
pub(super) struct Args {
    /// The store
    #[arg(long)]
    store: StoreId,
    /// The first sequence to keep; or a time: entries committed then or later are kept, and up to ten minutes
    /// more
    #[arg(long, value_name = "SEQUENCE|TIME")]
    before: First,
    /// Do not wait for groups
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Sequence(Sequence),
    Millis(u64),
}

impl FromStr for First {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Sequence::new(number).map(Self::Sequence).map_err(|error| error.to_string());
        }
        let time: Timestamp = text
            .parse()
            .map_err(|_| "neither a sequence nor a time such as 2026-03-01T12:00:00Z".to_owned())?;
        let millis = u64::try_from(time.as_millisecond()).map_err(|_| "before 1970".to_owned())?;
        Ok(Self::Millis(millis))
    }
}

/// `trim` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TrimCommandError {
    /// The store cannot be reached.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The user did not confirm it.
    #[error("nothing was trimmed")]
    NotConfirmed,
    /// The confirmation could not be requested.
    #[error("cannot ask: {0}")]
    Ask(io::Error),
    /// There is no such store.
    #[error("store {0:?} does not exist")]
    NoSuchStore(StoreId),
    /// A read or write failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The trim failed.
    #[error(transparent)]
    Trim(#[from] TrimError),
    /// The runtime cannot be started.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

/// The server's answer.
#[derive(Deserialize)]
struct Answer {
    trimmed: u64,
    wanted: u64,
    behind: Vec<Behind>,
}

#[derive(Deserialize)]
struct Behind {
    name: String,
    position: u64,
}

/// What would be removed, according to the server.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preview {
    wanted: u64,
    entries: u64,
    committed_by: Option<u64>,
}

impl From<Going> for Preview {
    fn from(Going { entries, last, committed_by }: Going) -> Self {
        Self { wanted: last.get(), entries, committed_by }
    }
}

impl Args {
    /// Says what would be removed, and asks for confirmation. Does not ask if nothing would be removed.
    fn confirm(
        &self,
        Preview { wanted, entries, committed_by }: Preview,
    ) -> Result<(), TrimCommandError> {
        if entries == 0 {
            return Ok(());
        }
        let store = self.store.as_str();
        let by = committed_by
            .map_or_else(String::new, |millis| format!(", committed by {}", timestamp(millis)));
        let (entries, go) = (text::entries(entries), if entries == 1 { "goes" } else { "go" });
        let first = wanted + 1;
        println!(
            "{entries} of store {store:?} {go} for good: what comes before entry {first}{by}."
        );
        if is_confirmed().map_err(TrimCommandError::Ask)? {
            Ok(())
        } else {
            Err(TrimCommandError::NotConfirmed)
        }
    }
}

impl From<Trimming> for Answer {
    fn from(Trimming { trimmed, wanted, behind, .. }: Trimming) -> Self {
        let behind = behind
            .iter()
            .map(|group| Behind { name: group.name.to_string(), position: group.position.get() });
        Self { trimmed: trimmed.get(), wanted: wanted.get(), behind: behind.collect() }
    }
}

pub(super) fn run(args: &Args) -> Result<(), TrimCommandError> {
    if let Some(database) = args.place.database()? {
        let trimmed = in_directory(args, &database)?.into();
        return Ok(printed(print(&trimmed, false))?);
    }
    let admin = args.place.client()?;
    let mut body = match args.before {
        First::Sequence(first) => json!({ "before": first.get() }),
        First::Millis(millis) => json!({ "beforeMillis": millis }),
    };
    let path = format!("/admin/stores/{}/trim", percent_encode(args.store.as_str()));
    if !args.yes {
        let mut asked = body.clone();
        asked["dryRun"] = true.into();
        let going = admin.request("POST", &path, Some(&asked));
        args.confirm(going.map_err(PlaceError::from)?)?;
    }
    body["force"] = args.force.into();
    let answer: Value = admin.request("POST", &path, Some(&body)).map_err(PlaceError::from)?;
    Ok(printed(if args.place.admin.json {
        writeln!(io::stdout(), "{}", json_text(&answer))
    } else {
        print(&Answer::deserialize(&answer).map_err(no_answer)?, true)
    })?)
}

fn print(trimmed: &Answer, waits: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match trimmed.trimmed {
        0 => writeln!(out, "nothing is trimmed")?,
        last => writeln!(out, "what came before entry {} is trimmed", last + 1)?,
    }
    if trimmed.trimmed < trimmed.wanted {
        let then =
            if waits { "; the server goes on when they have processed these entries" } else { "" };
        writeln!(out, "the trim up to entry {} waits for groups{then}:", trimmed.wanted)?;
    }
    for group in &trimmed.behind {
        writeln!(out, "  {} has processed entry {}", one_line(&group.name), group.position)?;
    }
    Ok(())
}

fn in_directory(args: &Args, database: &Database) -> Result<Trimming, TrimCommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(TrimCommandError::Runtime)?;
    let done = runtime.block_on(trim_in(args, database));
    let swept = done.is_ok().then(|| database.sweep()).transpose();
    database.close()?;
    swept?;
    done
}

async fn trim_in(args: &Args, database: &Database) -> Result<Trimming, TrimCommandError> {
    let storage = SledStorage::new(database.clone());
    let size = storage.size(&args.store)?;
    if size.entries == 0 && size.trimmed == Sequence::ZERO {
        return Err(TrimCommandError::NoSuchStore(args.store.clone()));
    }
    let before = match args.before {
        First::Sequence(first) => Before::Sequence(first),
        First::Millis(since) => Before::Millis(since),
    };
    let going = going(&storage, &args.store, before)?;
    if !args.yes {
        args.confirm(going.into())?;
    }
    let log = storage.open(&args.store)?;
    let journal = SledJournal::new(database.clone());
    Ok(trim(Some(&journal), &args.store, &Arc::clone(&log), going.last, args.force).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_a_sequence_or_a_time() {
        assert_eq!("12".parse(), Ok(First::Sequence(Sequence::ZERO.plus(12))));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(First::Millis(1_000)));
        for wrong in ["", "-1", "yesterday", "99999999999999999", "1969-01-01T00:00:00Z"] {
            assert!(wrong.parse::<First>().is_err(), "{wrong}");
        }
    }
}
