//! What people and scripts type.
//!
//! Keeps: results go to standard output and nothing else does; what went wrong goes to standard error and says what to
//! do; 0 is success, 1 a failure, 2 a wrong command line. Printing lives here only.

mod accept_format;
mod accept_loss;
mod address;
mod admin;
mod backup;
mod bench;
mod bucket;
mod compact;
mod config;
mod connect;
mod data_dir;
#[cfg(feature = "postgres")]
mod database;
mod entries;
mod entry;
mod erase;
mod erase_store;
mod examples;
mod export;
mod grants;
mod groups;
mod heal;
mod health;
mod identity;
mod import;
mod inspect;
mod keys;
#[cfg(feature = "postgres")]
mod keys_import;
mod log;
#[cfg(feature = "postgres")]
mod migrate;
mod payload;
mod peer;
mod place;
mod progress;
mod quarantine;
mod rebuild;
mod renew;
mod restore;
mod revocations;
mod screen;
mod serve;
mod shell;
mod tail;
mod text;
mod trim;
mod trust;
mod verify;
mod watch;
mod write;

use std::ffi::OsString;
use std::fmt::Display;
use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// A sync server for local-first apps: one durable, ordered log of events per store, streamed to every client of
/// that store.
#[derive(Debug, Parser)]
#[command(version, max_term_width = examples::COLUMNS_MAX, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Try it out, in three terminals:
  eventlog-server serve --dev
  eventlog-server tail --key alice
  eventlog-server write --key bob --event Note --primary-key n1 --payload '{\"text\":\"hi\"}'

Environment:
  EVENTLOG_URL   the server that commands talk to, the same as --url
  EVENTLOG_ADMIN_TOKEN   the token of commands that use the admin API, the same as their --token
  EVENTLOG_TOKEN   the same as --token of write and tail
  EVENTLOG_CA   the same as --ca
  EVENTLOG_CERT, EVENTLOG_CERT_KEY   the same as --cert and --cert-key
  EVENTLOG_LOG   what is logged to standard error: error, warn, info, debug, trace (or RUST_LOG)
  EVENTLOG_…     every setting of the server, see config.example.toml

Exit codes: 0 success, 1 failure, 2 wrong command line.";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Config(config::Args),
    Health(health::Args),
    Keys(keys::Args),
    Grants(grants::Args),
    Revoke(revocations::RevokeArgs),
    Revocations(revocations::ListArgs),
    Identity(identity::Args),
    Groups(groups::Args),
    Quarantine(quarantine::Args),
    Stores(watch::StoresArgs),
    Entries(entries::Args),
    Sessions(watch::SessionsArgs),
    Top(watch::TopArgs),
    Write(write::Args),
    Tail(tail::Args),
    Inspect(inspect::Args),
    Export(export::Args),
    Import(import::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    #[cfg(feature = "postgres")]
    Migrate(migrate::Args),
    Trim(trim::Args),
    Compact(compact::Args),
    Erase(erase::Args),
    Verify(verify::Args),
    Rebuild(rebuild::Args),
    AcceptLoss(accept_loss::Args),
    Heal(heal::Args),
    AcceptFormat(accept_format::Args),
    Bench(bench::Args),
    Completions(shell::CompletionsArgs),
    Man(shell::ManArgs),
}

/// The command line of this process. Ends the process if it is wrong, or asks for help.
fn parsed() -> Cli {
    let mut command = examples::fitted(Cli::command());
    let parsed = command.try_get_matches_from_mut(std::env::args_os());
    let parsed = parsed.and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.map_err(|error| error.format(&mut command)).unwrap_or_else(|mut error| {
        if error.get(ContextKind::Usage).is_some() {
            let usage = usage(std::env::args_os().skip(1));
            error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
        }
        error.exit()
    })
}

/// How to type the command that `arguments` name. The usage that clap adds to an error also has whatever came from the
/// environment, as if it had to be typed.
fn usage(arguments: impl Iterator<Item = OsString>) -> StyledStr {
    let mut command = Cli::command();
    command.build();
    for argument in arguments {
        if let Some(below) = command.find_subcommand(&argument) {
            command = below.clone();
        }
    }
    command.render_usage()
}

/// Runs the command line of this process.
pub(crate) fn run() -> ExitCode {
    let command = parsed().command;
    // A server starts its log when it knows how.
    if !matches!(command, Command::Serve(_)) {
        log::start();
    }
    match command {
        Command::Serve(args) => finish(serve::run(args)),
        Command::Config(args) => finish(config::run(args)),
        Command::Health(args) => finish(health::run(&args)),
        Command::Keys(args) => finish(keys::run(args)),
        Command::Grants(args) => finish(grants::run(args)),
        Command::Revoke(args) => finish(revocations::revoke(args)),
        Command::Revocations(args) => finish(revocations::list(&args)),
        Command::Identity(args) => finish(identity::run(args)),
        Command::Groups(args) => finish(groups::run(args)),
        Command::Quarantine(args) => finish(quarantine::run(args)),
        Command::Stores(args) => finish(watch::stores(&args)),
        Command::Entries(args) => finish(entries::run(&args)),
        Command::Sessions(args) => finish(watch::sessions(&args)),
        Command::Top(args) => finish(watch::top(&args)),
        Command::Write(args) => finish(write::run(args)),
        Command::Tail(args) => finish(tail::run(args)),
        Command::Inspect(args) => finish(inspect::run(&args)),
        Command::Export(args) => finish(export::run(&args)),
        Command::Import(args) => finish(import::run(&args)),
        Command::Backup(args) => finish(backup::run(&args)),
        Command::Restore(args) => finish(restore::run(&args)),
        #[cfg(feature = "postgres")]
        Command::Migrate(args) => finish(migrate::run(&args)),
        Command::Compact(args) => finish(compact::run(&args)),
        Command::Trim(args) => finish(trim::run(&args)),
        Command::Erase(args) => finish(erase::run(&args)),
        Command::Verify(args) => finish(verify::run(&args)),
        Command::Rebuild(args) => finish(rebuild::run(&args)),
        Command::AcceptLoss(args) => finish(accept_loss::run(&args)),
        Command::Heal(args) => finish(heal::run(&args)),
        Command::AcceptFormat(args) => finish(accept_format::run(&args)),
        Command::Bench(args) => finish(bench::run(&args)),
        Command::Completions(args) => finish(shell::completions(&args)),
        Command::Man(args) => finish(shell::man(&args)),
    }
}

fn finish<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // It may contain what a server said, or a client.
            let error = text::lines(&error.to_string());
            // Red and bold, where a terminal wants that (NO_COLOR, CLICOLOR).
            anstream::eprintln!("\x1b[1;31merror:\x1b[0m {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
