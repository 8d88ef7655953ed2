//! `grants`: what public keys may do, on a running server.

use std::io::{self, Write};

use clap::Subcommand;
use eventlog_server::model::PublicKey;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::{Admin, AdminArgs, AdminCommandError, percent_encode};
use super::text::{json_text, one_line};

/// Show and change what public keys may do, for `[auth] mode = "grants"`.
///
/// A grant says what a key may do. `keys` says which store it has. What you set here is durable, and overrides
/// the configuration for the same key or pattern. This command talks to the admin API of a running server, so set
/// `[admin] token` in the server's configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  export EVENTLOG_ADMIN_TOKEN=…
  eventlog-server grants list
  eventlog-server grants set alice --read --write
  eventlog-server grants set 'phone-*' --read --write --events 'Todo*' --events Note
  eventlog-server grants set mallory           # nothing
  eventlog-server grants remove alice")]
pub(super) struct Args {
    #[command(subcommand)]
    command: GrantsCommand,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
enum GrantsCommand {
    /// Print every grant with its source
    List,
    /// Set what a key, or a pattern of keys, may do. This replaces what was set before; whatever is no longer
    /// allowed ends at once
    Set {
        /// The public key; `*` stands for any text
        key: PublicKey,
        /// Allow it to subscribe
        #[arg(long)]
        read: bool,
        /// Allow it to append
        #[arg(long)]
        write: bool,
        /// Allow it to append only these events; `*` stands for any text; can be given several times
        #[arg(long, value_name = "EVENT", requires = "write")]
        events: Vec<String>,
    },
    /// Remove what was set; the configuration applies again
    Remove {
        /// The public key, or the pattern
        key: PublicKey,
    },
}

/// The printed part of a grant.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    public_key: PublicKey,
    read: bool,
    write: bool,
    events: Option<Vec<String>>,
    source: String,
    counts: bool,
}

pub(super) fn run(args: Args) -> Result<(), AdminCommandError> {
    let (admin, is_json) = (args.admin.client()?, args.admin.json);
    let mut out = io::stdout().lock();
    let done = match args.command {
        GrantsCommand::List => list(&admin, is_json, &mut out),
        GrantsCommand::Set { key, read, write, events } => {
            let events = (!events.is_empty()).then_some(events);
            let body = json!({ "read": read, "write": write, "events": events });
            let set: Value = admin.request("PUT", &path(&key), Some(&body))?;
            print(&mut out, is_json, &set)
        }
        GrantsCommand::Remove { key } => {
            let removed: Value = admin.request("DELETE", &path(&key), None)?;
            print(&mut out, is_json, &removed)
        }
    };
    AdminCommandError::unless_reader_gone(done)
}

fn path(key: &PublicKey) -> String {
    format!("/admin/grants/{}", percent_encode(key.as_str()))
}

fn list(admin: &Admin, is_json: bool, out: &mut impl Write) -> Result<(), AdminCommandError> {
    admin.each("/admin/grants", "grants", |grant: Value| print(out, is_json, &grant))
}

fn print(out: &mut impl Write, is_json: bool, answer: &Value) -> Result<(), AdminCommandError> {
    if is_json {
        return Ok(writeln!(out, "{}", json_text(&answer))?);
    }
    let shown = Shown::deserialize(answer).map_err(io::Error::other)?;
    let rights = match (shown.read, shown.write) {
        (true, true) => "read, write",
        (true, false) => "read",
        (false, true) => "write",
        (false, false) => "nothing",
    };
    let events = shown.events.map(|events| format!(" {}", events.join(" ")));
    let rights = format!("{rights}{}", events.unwrap_or_default());
    let note = if shown.counts { "" } else { ", does not count" };
    let key = one_line(shown.public_key.as_str());
    writeln!(out, "{key}  {}  ({}{note})", one_line(&rights), shown.source)?;
    Ok(())
}
