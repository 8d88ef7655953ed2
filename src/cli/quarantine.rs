//! `quarantine`: entries that clients wrote and that are too large to be stored.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use eventlog_server::services::Quarantined;
use serde::Deserialize;
use serde_json::Value;

use super::admin::{Admin, AdminArgs, AdminCommandError};
use super::text::{json_text, one_line, people_bytes, timestamp};

/// Show, release and remove entries from /rpc that are larger than `[limits] entry_bytes_max`.
///
/// Nobody receives these entries, and their clients do not send them again. Raise the limit and release them, or
/// remove them. This command talks to the admin API of a running server, so set `[admin] token` in the server's
/// configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  export EVENTLOG_ADMIN_TOKEN=…
  eventlog-server quarantine list
  eventlog-server quarantine export 3 --to payload.bin
  eventlog-server quarantine release 3
  eventlog-server quarantine remove 3")]
pub(super) struct Args {
    #[command(subcommand)]
    command: QuarantineCommand,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
enum QuarantineCommand {
    /// Print what is in quarantine
    List,
    /// Print one of the entries
    Show {
        /// Its number, as `list` prints it
        number: u64,
    },
    /// Write the payload of an entry to a file, unchanged
    Export {
        /// Its number
        number: u64,
        /// Write another part of the entry
        #[arg(long, value_enum, default_value_t = Part::Payload)]
        part: Part,
        /// The file, which must not exist [default: standard output]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Store an entry where its client wrote it; the limits must allow it by now
    Release {
        /// Its number
        number: u64,
    },
    /// Remove an entry for good
    Remove {
        /// Its number
        number: u64,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    Payload,
    Event,
    PrimaryKey,
}

pub(super) fn run(args: Args) -> Result<(), AdminCommandError> {
    let (admin, is_json) = (args.admin.client()?, args.admin.json);
    let mut out = io::stdout().lock();
    let done = match args.command {
        QuarantineCommand::List => list(&admin, is_json, &mut out),
        QuarantineCommand::Show { number } => show(&admin, "GET", number, is_json, &mut out),
        QuarantineCommand::Remove { number } => show(&admin, "DELETE", number, is_json, &mut out),
        QuarantineCommand::Export { number, part, to } => {
            export(&admin, number, part, to.as_deref(), &mut out)
        }
        QuarantineCommand::Release { number } => release(&admin, number, is_json, &mut out),
    };
    AdminCommandError::unless_reader_gone(done)
}

fn list(admin: &Admin, is_json: bool, out: &mut impl Write) -> Result<(), AdminCommandError> {
    let print = |entry: Value| print(out, is_json, &entry);
    admin.each("/admin/quarantine", "quarantine", print)
}

/// Prints an entry. `method` decides what happens to it.
fn show(
    admin: &Admin,
    method: &str,
    number: u64,
    is_json: bool,
    out: &mut impl Write,
) -> Result<(), AdminCommandError> {
    let entry: Value = admin.request(method, &format!("/admin/quarantine/{number}"), None)?;
    print(out, is_json, &entry)
}

fn print(out: &mut impl Write, is_json: bool, entry: &Value) -> Result<(), AdminCommandError> {
    if is_json {
        return Ok(writeln!(out, "{}", json_text(&entry))?);
    }
    let entry = Quarantined::deserialize(entry).map_err(io::Error::other)?;
    let Quarantined { number, public_key, store_id, entry_id, event, primary_key, .. } = &entry;
    let received = timestamp(entry.received_millis);
    let (key, store) = (one_line(public_key.as_str()), one_line(store_id.as_str()));
    let (event, primary_key) = (one_line(event), one_line(primary_key));
    let size = people_bytes(entry.bytes());
    writeln!(
        out,
        "{number}  {key}  {store}  {entry_id}  {event}  {primary_key}  {size}  {received}"
    )?;
    Ok(())
}

fn release(
    admin: &Admin,
    number: u64,
    is_json: bool,
    out: &mut impl Write,
) -> Result<(), AdminCommandError> {
    let path = format!("/admin/quarantine/{number}/release");
    let released: Value = admin.request_patiently("POST", &path)?;
    if is_json {
        writeln!(out, "{}", json_text(&released))?;
    } else {
        writeln!(out, "stored as {}", released["sequence"])?;
    }
    Ok(())
}

/// What to do where the file cannot be created.
fn not_created(path: &Path, cause: &io::Error) -> AdminCommandError {
    let path = path.display();
    AdminCommandError::File(match cause.kind() {
        io::ErrorKind::AlreadyExists => {
            format!(
                "{path} exists, and is left as it is: give another name with --to, or remove it first"
            )
        }
        _ => format!("cannot create {path}: {cause}"),
    })
}

#[expect(clippy::disallowed_methods, reason = "the file that was asked for")]
fn export(
    admin: &Admin,
    number: u64,
    part: Part,
    to: Option<&Path>,
    out: &mut impl Write,
) -> Result<(), AdminCommandError> {
    let part = match part {
        Part::Payload => "payload",
        Part::Event => "event",
        Part::PrimaryKey => "primary-key",
    };
    let mut bytes = admin.download(&format!("/admin/quarantine/{number}/{part}"))?;
    match to {
        None => io::copy(&mut bytes, out)?,
        Some(path) => {
            let mut file = File::create_new(path).map_err(|cause| not_created(path, &cause))?;
            let copied =
                io::copy(&mut bytes, &mut file).and_then(|copied| file.sync_all().map(|()| copied));
            if copied.is_err() {
                // Half of it is useless.
                let _ = std::fs::remove_file(path);
            }
            copied?
        }
    };
    Ok(())
}
