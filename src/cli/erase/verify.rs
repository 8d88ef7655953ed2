//! `erase --verify`: says whether files, and backups, still have content of erased entries.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use eventlog_server::model::EntryId;
use eventlog_server::storage::PLACES;
use eventlog_server::storage::sled::{Database, ErasedContent, OpenError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::backups::Hits;
use super::{Args, backups};
use crate::cli::admin::{Admin, AdminCommandError, AdminError};
use crate::cli::bucket::BucketError;
use crate::cli::data_dir::{DataDir, NoDataDirectory};
use crate::cli::text::{counted, json_text, one_line, people_bytes, timestamp};
use crate::config::BucketAddress;

/// How often the server is asked whether it is done.
const POLL: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct VerifyArgs {
    /// Erase nothing: read every file, archives decompressed, and say which ones still have content of erased entries
    #[arg(long, conflicts_with_all = ["store", "primary_key", "ids", "yes"])]
    verify: bool,
    /// Look for this text as well, also in backups
    #[arg(long, value_name = "TEXT", requires = "verify")]
    text: Option<String>,
    /// Look through backups too: a folder, or a bucket; may be given several times
    #[arg(long, value_name = "DIR|s3://…", requires = "verify")]
    backups: Vec<PathBuf>,
}

impl VerifyArgs {
    /// Whether nothing is to be erased.
    pub(in crate::cli) const fn is_wanted(&self) -> bool {
        self.verify
    }

    /// Whether there are options that only a check has.
    pub(in crate::cli) const fn has_options(&self) -> bool {
        self.text.is_some() || !self.backups.is_empty()
    }
}

/// The check failed, or found some content.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum VerifyError {
    /// The server did not answer.
    #[error(transparent)]
    Admin(#[from] AdminCommandError),
    /// There is no data directory.
    #[error(transparent)]
    NoDataDirectory(#[from] NoDataDirectory),
    /// The data directory cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The bucket cannot be read.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// There is no bucket at this address.
    #[error("--backups: {0}")]
    Address(&'static str),
    /// A file cannot be read.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// The server could not read its files.
    #[error("the server cannot read its files: {0}")]
    Failed(String),
    /// Some content is left.
    #[error("what was looked for is still there: {0}")]
    Remains(String),
}

impl From<AdminError> for VerifyError {
    fn from(error: AdminError) -> Self {
        Self::Admin(error.into())
    }
}

impl From<io::Error> for VerifyError {
    fn from(error: io::Error) -> Self {
        Self::Admin(error.into())
    }
}

/// What a server says beside its report.
#[derive(Default, Deserialize)]
#[serde(default)]
struct State {
    running: bool,
    failure: Option<String>,
    ids: Vec<String>,
}

/// The report, as far as it is shown to people.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Found {
    entries: u64,
    unread: Vec<String>,
    is_behind: bool,
    is_due: bool,
    erased_millis: Option<u64>,
    clean_millis: Option<u64>,
    places: Vec<Place>,
    tables: Vec<Table>,
    elsewhere: Vec<String>,
}

/// A table of the database.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    name: String,
    bytes: u64,
    rows: u64,
    texts: u64,
    vacuumed_millis: Option<u64>,
    needs_vacuum: bool,
}

#[derive(Default, Deserialize)]
struct Place {
    name: String,
    files: u64,
    bytes: u64,
    held: u64,
    named: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    path: String,
    records: u64,
    texts: u64,
    until: Option<u64>,
}

pub(super) fn run(args: &Args) -> Result<(), VerifyError> {
    let (report, ids) = match args.stopped.get() {
        Some(data) => of_directory(args, &data)?,
        None => of_server(args)?,
    };
    let found = Found::deserialize(&report)?;
    let json = args.admin.json;
    let mut out: Box<dyn Write> =
        if json { Box::new(io::sink()) } else { Box::new(io::stdout().lock()) };
    let mut left = print(&mut out, &found)?;
    let mut searched = Vec::new();
    let looked_for = ErasedContent::new(ids, args.verify.text.as_deref());
    for place in &args.verify.backups {
        let held = match BucketAddress::of(place) {
            Some(address) => backups::bucket(&address.map_err(VerifyError::Address)?, &looked_for)?,
            None => backups::folder(place, &looked_for)?,
        };
        let at = place.display().to_string();
        held.said.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        searched.push(json!({ "at": at, "isHeld": held.any, "said": held.said }));
        left.extend(held.any.then_some(at));
    }
    if json {
        let mut all = report;
        all["backups"] = searched.into();
        all["left"] = json!(left);
        writeln!(io::stdout(), "{}", json_text(&all))?;
    }
    if left.is_empty() { Ok(()) } else { Err(VerifyError::Remains(left.join(", "))) }
}

/// The report as JSON, and the ids of erased entries.
fn of_directory(args: &Args, data: &DataDir) -> Result<(Value, HashSet<EntryId>), VerifyError> {
    data.must_exist()?;
    let report = Database::verify_erased(&data.path, &data.options(), args.verify.text.as_deref())?;
    Ok((serde_json::to_value(&report)?, report.ids))
}

fn of_server(args: &Args) -> Result<(Value, HashSet<EntryId>), VerifyError> {
    let admin: Admin = args.admin.client()?;
    let asked = json!({ "text": args.verify.text, "ids": !args.verify.backups.is_empty() });
    let mut answer: Value = admin.request("POST", "/admin/erased", Some(&asked))?;
    loop {
        let State { running, failure, ids } = State::deserialize(&answer)?;
        if let Some(failure) = failure {
            return Err(VerifyError::Failed(failure));
        }
        if !running {
            let object = answer.as_object_mut();
            object
                .into_iter()
                .for_each(|all| all.retain(|name, _| name != "running" && name != "ids"));
            return Ok((answer, ids.iter().filter_map(|id| id.parse().ok()).collect()));
        }
        std::thread::sleep(POLL);
        answer = admin.request("GET", "/admin/erased", None)?;
    }
}

impl From<serde_json::Error> for VerifyError {
    fn from(error: serde_json::Error) -> Self {
        io::Error::other(error).into()
    }
}

/// Prints the result. Returns the places with some content.
fn print(out: &mut dyn Write, found: &Found) -> io::Result<Vec<String>> {
    let known = counted(found.entries, "erased entry is", "erased entries are");
    writeln!(out, "{known} known")?;
    for unread in &found.unread {
        writeln!(out, "the erasure ledger: {}, so there may be more", one_line(unread))?;
    }
    let mut left = Vec::new();
    for name in PLACES {
        let Some(place) = found.places.iter().find(|place| place.name == name) else { continue };
        let (files, bytes) = (counted(place.files, "file", "files"), people_bytes(place.bytes));
        let what = if place.held == 0 { "clean".to_owned() } else { held(place) };
        writeln!(out, "{name:<12} {files}, {bytes}: {what}")?;
        for file in &place.named {
            let until = match file.until {
                Some(until) => {
                    let path = one_line(&file.path);
                    format!("; it is removed at {}, or by: rm '{path}'", timestamp(until))
                }
                None if name == "spill" => {
                    "; it is removed when the client has sent all of the message and it is stored, or when the client is gone".to_owned()
                }
                None => String::new(),
            };
            let found = Hits { records: file.records, texts: file.texts };
            writeln!(out, "  {}: {found}{until}", one_line(&file.path))?;
        }
        if place.held > 0 {
            left.push(name.to_owned());
        }
    }
    left.extend(print_tables(out, found)?);
    match (found.is_due, found.erased_millis, found.clean_millis) {
        _ if !found.tables.is_empty() => {}
        (true, Some(erased), _) => writeln!(
            out,
            "the files still have to be cleaned of what was erased since {}; the server does that within an hour",
            timestamp(erased)
        )?,
        (_, _, Some(clean)) => writeln!(out, "the files were cleaned at {}", timestamp(clean))?,
        _ => {}
    }
    if found.is_behind && !found.is_due && !left.is_empty() {
        writeln!(out, "the ledger has erasures that are made when the directory is opened next")?;
    }
    Ok(left)
}

/// Prints what a database has. Returns the tables with some content.
fn print_tables(out: &mut dyn Write, found: &Found) -> io::Result<Vec<String>> {
    let mut left = Vec::new();
    for Table { name, bytes, rows, texts, vacuumed_millis, needs_vacuum } in &found.tables {
        let mut what = Vec::new();
        if *rows > 0 {
            what.push(format!("{} with content of erased entries", counted(*rows, "row", "rows")));
        }
        if *texts > 0 {
            what.push(format!("{} with the text", counted(*texts, "row", "rows")));
        }
        if *needs_vacuum {
            let last = vacuumed_millis.map_or("never".to_owned(), timestamp);
            what.push(format!(
                "it may have old versions of rows with content of erased entries (last vacuumed: {last}); run: VACUUM {name}"
            ));
        }
        let is_clean = what.is_empty();
        let what = if is_clean { "clean".to_owned() } else { what.join("; ") };
        writeln!(out, "table {name}, {}: {what}", people_bytes(*bytes))?;
        left.extend((!is_clean).then(|| format!("table {name}")));
    }
    for place in &found.elsewhere {
        writeln!(out, "{}", one_line(place))?;
    }
    Ok(left)
}

fn held(place: &Place) -> String {
    format!("{} with content of erased entries", place.held)
}
