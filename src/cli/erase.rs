//! `erase`: removes the content of entries permanently.

mod asking;
mod backups;
mod verify;

use std::io::{self, Write};
use std::sync::Arc;

use clap::error::ErrorKind;
use eventlog_server::model::{EntryId, Sequence, StoreId};
use eventlog_server::processing::{TrimError, erase, of_primary_key};
use eventlog_server::services::journal::SledJournal;
use eventlog_server::services::quarantine::SledQuarantine;
use eventlog_server::services::{Quarantine, QuarantineUnavailable, RegistryError};
use eventlog_server::storage::sled::{Database, OpenError, SledStorage};
use eventlog_server::storage::{Storage, StorageError, StoreLog};
use serde::Deserialize;
use serde_json::{Value, json};

use self::asking::Preview;
use super::admin::{AdminArgs, AdminCommandError, percent_encode};
use super::data_dir::{DataDir, NoDataDirectory, StoppedDir};
use super::entries::parse_id;
use super::erase_store::erase_store;
use super::peer::wrong;
use super::text::{json_text, one_line};

/// How many entries are erased per call.
pub(super) const AT_ONCE: usize = 1_000;

/// Erase the content of entries for good: event, primary key, payload, and who wrote them.
///
/// Without --primary-key and --id, the whole store is erased, with its keys; the command then asks you to type its
/// name.
///
/// Ids and sequences stay: an erased entry that is sent again is acknowledged, and not stored. Readers skip erased
/// entries. Clients keep what they already have. Entries in quarantine with the same primary key or ids are removed
/// too. Within an hour the server's files do not have the content any more either; backups keep it, see docs/DATA.md.
/// `erase --verify` looks for it in every file, and fails if any is left.
///
/// For a running server the command uses the admin API (--url, --token). For a stopped server, give --data-dir;
/// handlers are then told after the next start.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  EVENTLOG_ADMIN_TOKEN=… eventlog-server erase --store team --primary-key user-17
  EVENTLOG_ADMIN_TOKEN=… eventlog-server erase --store team --id 018bcfe5-6800-70e1-8101-010101010101 --yes
  EVENTLOG_ADMIN_TOKEN=… eventlog-server erase --store team
  eventlog-server erase --data-dir /var/lib/eventlog --store team --primary-key user-17
  EVENTLOG_ADMIN_TOKEN=… eventlog-server erase --verify
  eventlog-server erase --verify --data-dir /var/lib/eventlog --backups /backups/eventlog --backups s3://bucket/prefix")]
pub(super) struct Args {
    /// The store
    #[arg(long, required_unless_present = "verify")]
    store: Option<StoreId>,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    verify: verify::VerifyArgs,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    stopped: StoppedDir,
    #[command(flatten)]
    admin: AdminArgs,
}

/// One of the two, or neither: the whole store.
#[derive(Debug, clap::Args)]
#[group(required = false, multiple = false)]
struct What {
    /// All entries that have exactly this primary key now; a * stands for itself
    #[arg(long, value_name = "KEY")]
    primary_key: Option<String>,
    /// The entry with this id; can be given several times
    #[arg(long = "id", value_name = "ID", value_parser = parse_id)]
    ids: Vec<EntryId>,
}

impl What {
    const fn is_whole(&self) -> bool {
        self.primary_key.is_none() && self.ids.is_empty()
    }
}

/// `erase` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum EraseCommandError {
    /// The server did not do it, or the result could not be printed.
    #[error(transparent)]
    Admin(#[from] AdminCommandError),
    /// There is nothing to erase.
    #[error(transparent)]
    NoDataDirectory(#[from] NoDataDirectory),
    /// The user did not confirm it.
    #[error("nothing was erased")]
    NotConfirmed,
    /// The confirmation could not be requested.
    #[error("cannot ask: {0}")]
    Ask(io::Error),
    /// There is no such store.
    #[error("store {0:?} does not exist")]
    NoSuchStore(StoreId),
    /// The data directory cannot be opened.
    #[error("{0}{hint}", hint = if matches!(.0, OpenError::InUse { .. }) { ", or leave out --data-dir: then the command asks the running server" } else { "" })]
    Open(#[from] OpenError),
    /// It cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Not everything was erased.
    #[error(transparent)]
    Erase(#[from] TrimError),
    /// Not everything was removed from quarantine.
    #[error(transparent)]
    Quarantine(#[from] QuarantineUnavailable),
    /// The keys of the store cannot be removed.
    #[error(transparent)]
    Keys(#[from] RegistryError),
    /// The check failed, or found some content.
    #[error(transparent)]
    Verify(#[from] verify::VerifyError),
    /// The runtime cannot be started.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

/// The server's answer.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    erased: u64,
    unknown: Vec<String>,
    quarantined: u64,
    #[serde(default)]
    keys: u64,
    kept_elsewhere: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<(), EraseCommandError> {
    if args.verify.is_wanted() {
        return Ok(verify::run(args)?);
    }
    if args.verify.has_options() {
        // Else it would erase, and somebody wanted to look.
        wrong(ErrorKind::MissingRequiredArgument, "--text and --backups need --verify");
    }
    let Some(store) = &args.store else {
        wrong(ErrorKind::MissingRequiredArgument, "--store says what to erase");
    };
    if let Some(data) = args.stopped.get() {
        let erased = in_directory(args, store, &data)?;
        return Ok(print(args, &erased).map_err(AdminCommandError::from)?);
    }
    let admin = args.admin.client()?;
    let body = match &args.what.primary_key {
        Some(key) => json!({ "primaryKey": key }),
        None if args.what.is_whole() => json!({ "whole": true }),
        None => json!({ "ids": args.what.ids.iter().map(ToString::to_string).collect::<Vec<_>>() }),
    };
    let path = format!("/admin/stores/{}/erase", percent_encode(store.as_str()));
    if !args.yes {
        let mut asked = body.clone();
        asked["dryRun"] = true.into();
        let found: Preview =
            admin.request("POST", &path, Some(&asked)).map_err(AdminCommandError::from)?;
        found.confirm(&args.what, store)?;
    }
    let answer: Value =
        admin.request("POST", &path, Some(&body)).map_err(AdminCommandError::from)?;
    let printed = if args.admin.json {
        writeln!(io::stdout(), "{}", json_text(&answer))
    } else {
        Answer::deserialize(&answer)
            .map_err(io::Error::other)
            .and_then(|erased| print(args, &erased))
    };
    Ok(AdminCommandError::unless_reader_gone(printed.map_err(AdminCommandError::from))?)
}

fn are(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

fn print(args: &Args, erased: &Answer) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{} erased", are(erased.erased, "entry is", "entries are"))?;
    let is_pattern = args.what.primary_key.as_ref().is_some_and(|key| key.contains('*'));
    if erased.erased == 0 && is_pattern {
        writeln!(out, "  --primary-key is exact: * stands only for itself")?;
    }
    if erased.quarantined > 0 {
        let taken = are(erased.quarantined, "entry is", "entries are");
        writeln!(out, "{taken} taken out of quarantine")?;
    }
    if erased.keys > 0 {
        writeln!(out, "{} removed", are(erased.keys, "key is", "keys are"))?;
    }
    for id in &erased.unknown {
        writeln!(out, "  the store does not know {}", one_line(id))?;
    }
    if let Some(kept) = &erased.kept_elsewhere {
        writeln!(out, "{}", one_line(kept))?;
    }
    Ok(())
}

fn in_directory(args: &Args, store: &StoreId, data: &DataDir) -> Result<Answer, EraseCommandError> {
    data.must_exist()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(EraseCommandError::Runtime)?;
    let database = Database::open(&data.path, data.options())?;
    database.tell_handlers_later();
    let done = runtime.block_on(erase_in(args, store, &database));
    let scrubbed = done.as_ref().map_or(Ok(()), |_| database.scrub());
    database.close()?;
    scrubbed?;
    done
}

async fn erase_in(
    args: &Args,
    store: &StoreId,
    database: &Database,
) -> Result<Answer, EraseCommandError> {
    let storage = SledStorage::new(database.clone());
    let quarantine = SledQuarantine::new(database.clone());
    let aside = in_quarantine(args, store, &quarantine).await?;
    let size = storage.size(store)?;
    if size.entries == 0 && size.trimmed == Sequence::ZERO && aside.is_empty() {
        return Err(EraseCommandError::NoSuchStore(store.clone()));
    }
    let log = storage.open(store)?;
    if !args.yes {
        let found = Preview::of(&args.what, &*log, size, aside.len() as u64)?;
        found.confirm(&args.what, store)?;
    }
    let mut erased = Answer { quarantined: aside.len() as u64, ..Answer::default() };
    for number in &aside {
        quarantine.remove(*number).await?;
    }
    if !aside.is_empty() {
        storage.content_is_erased()?;
    }
    if args.what.is_whole() {
        drop(log);
        (erased.erased, erased.keys) = erase_store(database, store).await?;
        return Ok(erased);
    }
    let journal = SledJournal::new(database.clone());
    let mut next = log.trimmed().next();
    while let Some(key) = args.what.primary_key.as_ref().filter(|_| next <= size.head) {
        let (found, read_to) = of_primary_key(&*log, key, (next, size.head), AT_ONCE)?;
        erase(Some(&journal), store, &log, &found).await?;
        erased.erased += found.len() as u64;
        next = read_to.next();
    }
    if let Some(key) = &args.what.primary_key {
        let found = storage.trimmed_of_key(store, key)?;
        for part in found.chunks(AT_ONCE) {
            erase(Some(&journal), store, &log, part).await?;
        }
        erased.erased += found.len() as u64;
    }
    for ids in args.what.ids.chunks(AT_ONCE) {
        let known = log.lookup(ids)?;
        let found = ids.iter().zip(&known).filter_map(|(id, at)| Some(((*at)?, *id)));
        let found: Vec<_> = found.collect();
        erase(Some(&journal), store, &Arc::<dyn StoreLog>::clone(&log), &found).await?;
        erased.erased += found.len() as u64;
        let unknown = ids.iter().zip(known).filter(|(_, at)| at.is_none());
        erased.unknown.extend(unknown.map(|(id, _)| id.to_string()));
    }
    Ok(erased)
}

/// The numbers of the entries in quarantine that are meant.
async fn in_quarantine(
    args: &Args,
    store: &StoreId,
    quarantine: &SledQuarantine,
) -> Result<Vec<u64>, QuarantineUnavailable> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let page = quarantine.list(after, AT_ONCE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = last.number;
        for entry in page.iter().filter(|entry| entry.store_id == *store) {
            let of_key = args.what.primary_key.as_ref().is_some_and(|key| {
                entry.primary_key_bytes == key.len() as u64 && key.starts_with(&entry.primary_key)
            });
            if of_key || args.what.is_whole() || args.what.ids.contains(&entry.entry_id) {
                found.push(entry.number);
            }
        }
    }
}
