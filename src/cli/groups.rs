//! `groups`: the state of the handlers of a running server, and what failed.

use std::io::{self, Write};

use clap::Subcommand;
use eventlog_server::model::StoreId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::{Admin, AdminArgs, AdminCommandError, percent_encode};
use super::text::{self, json_text, one_line};

/// Show, pause and rewind groups of handlers, and handle their dead letters.
///
/// This command talks to the admin API of a running server, so set `[admin] token` in the server's configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  export EVENTLOG_ADMIN_TOKEN=…
  eventlog-server groups list
  eventlog-server groups dead-letters billing
  eventlog-server groups retry billing team 1207
  eventlog-server groups dismiss billing --all
  eventlog-server groups rewind --group billing --store team --from 1")]
pub(super) struct Args {
    #[command(subcommand)]
    command: GroupsCommand,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
enum GroupsCommand {
    /// Print every group, how far it is behind, and what blocks it
    List,
    /// Pause a group in all stores until you resume it
    Pause {
        /// The group
        group: String,
    },
    /// Resume a group
    Resume {
        /// The group
        group: String,
    },
    /// Make groups process a store again from an entry on, or skip what is before it
    Rewind {
        /// The sequence of the next entry to process; beyond the last one, only new entries
        #[arg(long)]
        from: u64,
        /// The group [default: all]
        #[arg(long)]
        group: Option<String>,
        /// The store [default: all]
        #[arg(long)]
        store: Option<StoreId>,
    },
    /// Remove the positions and dead letters of a group that the server no longer runs
    Forget {
        /// The group
        group: String,
    },
    /// Print the entries that failed for good
    DeadLetters {
        /// The group
        group: String,
    },
    /// Run the handler on a dead letter again
    Retry {
        /// The group
        group: String,
        /// The store
        store: StoreId,
        /// The sequence
        sequence: u64,
    },
    /// Remove a dead letter, or all of a group
    #[command(arg_required_else_help = true)]
    Dismiss {
        /// The group
        group: String,
        /// The store
        #[arg(requires = "sequence", required_unless_present = "all")]
        store: Option<StoreId>,
        /// The sequence
        sequence: Option<u64>,
        /// All of them
        #[arg(long, conflicts_with = "store")]
        all: bool,
    },
}

pub(super) fn run(args: Args) -> Result<(), AdminCommandError> {
    let (admin, json) = (args.admin.client()?, args.admin.json);
    let mut out = io::stdout().lock();
    let done = match args.command {
        GroupsCommand::List => list(&admin, json, &mut out),
        GroupsCommand::DeadLetters { group } => dead_letters(&admin, &group, json, &mut out),
        other => act(&admin, other, json, &mut out),
    };
    AdminCommandError::unless_reader_gone(done)
}

fn path(group: &str, rest: &str) -> String {
    format!("/admin/groups/{}{rest}", percent_encode(group))
}

/// Makes a change and reports it.
fn act(
    admin: &Admin,
    command: GroupsCommand,
    json: bool,
    out: &mut impl Write,
) -> Result<(), AdminCommandError> {
    let (method, path, body, said) = match command {
        GroupsCommand::List | GroupsCommand::DeadLetters { .. } => return Ok(()),
        GroupsCommand::Pause { group } => ("POST", path(&group, "/pause"), None, "paused"),
        GroupsCommand::Resume { group } => ("POST", path(&group, "/resume"), None, "resumed"),
        GroupsCommand::Forget { group } => ("DELETE", path(&group, ""), None, "forgotten"),
        GroupsCommand::Rewind { from, group, store } => {
            let body = json!({ "from": from, "group": group, "storeId": store });
            ("POST", "/admin/rewind".to_owned(), Some(body), "rewound")
        }
        GroupsCommand::Retry { group, store, sequence } => {
            let body = json!({ "storeId": store, "sequence": sequence });
            ("POST", path(&group, "/dead-letters/retry"), Some(body), "retried with success")
        }
        GroupsCommand::Dismiss { group, store: Some(store), sequence: Some(sequence), .. } => {
            let store = percent_encode(store.as_str());
            let which = format!("/dead-letters?storeId={store}&sequence={sequence}");
            ("DELETE", path(&group, &which), None, "dismissed")
        }
        GroupsCommand::Dismiss { group, .. } => {
            ("DELETE", path(&group, "/dead-letters?all=true"), None, "dismissed")
        }
    };
    let answer: Value = admin.request(method, &path, body.as_ref())?;
    if json {
        writeln!(out, "{}", json_text(&answer))?;
    } else {
        writeln!(out, "{said}")?;
        for later in answer["later"].as_array().into_iter().flatten() {
            let store = one_line(later["storeId"].as_str().unwrap_or_default());
            writeln!(
                out,
                "  in {store} it begins with entry {}: earlier entries are trimmed",
                later["from"]
            )?;
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    runs: bool,
    paused: bool,
    full: bool,
    dead_letters: u64,
    stores_behind: u64,
    lag: u64,
    refused: Vec<Refused>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refused {
    store_id: String,
    error: String,
}

fn list(admin: &Admin, json: bool, out: &mut impl Write) -> Result<(), AdminCommandError> {
    admin.each("/admin/groups", "groups", |group: Value| {
        if json {
            writeln!(out, "{}", json_text(&group))?;
        } else if let Ok(group) = serde_json::from_value::<Group>(group) {
            print(out, &group)?;
        }
        Ok(())
    })
}

fn print(out: &mut impl Write, group: &Group) -> io::Result<()> {
    let Group { name, runs, paused, full, dead_letters, stores_behind, lag, refused } = group;
    let state = match (runs, paused, full) {
        (false, ..) => "gone",
        (_, true, _) => "paused",
        (.., true) => "paused: too many dead letters",
        _ => "running",
    };
    let name = one_line(name);
    writeln!(
        out,
        "{name}  {state}  {lag} behind in {}  {}",
        text::stores(*stores_behind),
        text::counted(*dead_letters, "dead letter", "dead letters")
    )?;
    for Refused { store_id, error } in refused {
        writeln!(out, "  {}: {}", one_line(store_id), one_line(error))?;
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Letter {
    store_id: String,
    sequence: u64,
    id: String,
    event: String,
    error: String,
}

fn dead_letters(
    admin: &Admin,
    group: &str,
    json: bool,
    out: &mut impl Write,
) -> Result<(), AdminCommandError> {
    admin.each(&path(group, "/dead-letters"), "deadLetters", |value: Value| {
        let Ok(letter) = serde_json::from_value::<Letter>(value.clone()) else { return Ok(()) };
        let Letter { store_id, sequence, id, event, error } = &letter;
        if json {
            writeln!(out, "{}", json_text(&value))?;
        } else {
            let (store, event, error) = (one_line(store_id), one_line(event), one_line(error));
            writeln!(out, "{store}  {sequence}  {id}  {event}  {error}")?;
        }
        Ok(())
    })
}
