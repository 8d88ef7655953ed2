//! `keys`: which public key has which store on a running server.

use std::io::{self, Write};

use clap::Subcommand;
use eventlog_server::model::{PublicKey, StoreId};
use serde::Deserialize;
use serde_json::json;

use super::admin::{Admin, AdminArgs, AdminCommandError, AdminError, percent_encode};
use super::text::{json_text, one_line};

/// Show and change which store a public key writes to and reads from.
///
/// This command talks to the admin API of a running server, so set `[admin] token` in the server's configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  export EVENTLOG_ADMIN_TOKEN=…
  eventlog-server keys assign alice team
  eventlog-server keys list
  eventlog-server keys remove alice          # also ends the subscriptions of alice
  eventlog-server keys pin alice d75a…       # what `identity show FILE` prints
  eventlog-server keys release alice         # no device has data of alice any more: she may get another store
  eventlog-server keys import --from-effect --store team --config /etc/eventlog.toml
  eventlog-server keys list --json --url https://events.example")]
pub(super) struct Args {
    #[command(subcommand)]
    command: KeysCommand,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Map a key to a store; it is an error if the key maps to another store, or was used with another one
    Assign {
        /// The public key
        key: PublicKey,
        /// The store
        store: StoreId,
    },
    /// Print every key with its store
    List,
    /// Remove a key; its entries stay in the store, and its subscriptions end
    Remove {
        /// The public key
        key: PublicKey,
    },
    /// Print the signing key of a public key
    Show {
        /// The public key
        key: PublicKey,
    },
    /// Set the signing key of a public key, and replace any other; clients with another signing key are refused
    /// from then on
    Pin {
        /// The public key
        key: PublicKey,
        /// 64 hexadecimal digits, which `identity show FILE` prints
        signing_key: String,
    },
    /// Remove the signing key of a public key, so that it can get another one
    Unpin {
        /// The public key
        key: PublicKey,
    },
    /// Print how many bytes of entries a key has written, as counted for quotas
    Usage {
        /// The public key
        key: PublicKey,
        /// Set the count back to zero, and print the old count
        #[arg(long)]
        reset: bool,
    },
    /// Map all keys that Effect's own server knows to one store
    ///
    /// For a database that `SqlEventLogServerUnencrypted` was running on: it keeps no map of its own. Keys that have a store keep it, and so
    /// do those that were used with one here. Asks the database that [storage] names, not a server, which may be running or not.
    #[cfg(feature = "postgres")]
    Import {
        /// From the table of signing keys that Effect's server keeps
        #[arg(long, required = true)]
        from_effect: bool,
        /// The store
        #[arg(long)]
        store: StoreId,
        #[command(flatten)]
        config: super::config::ConfigArgs,
    },
    /// Forget which store a key was used with, so that it can be mapped to another
    ///
    /// Do this only when no device has anything left of that store. A device that has would miss entries of the
    /// new store, and write entries there that were meant for the old one. If a device may have some, give it a
    /// new key instead.
    Release {
        /// The public key
        key: PublicKey,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Assigned {
    store_id: StoreId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    public_key: PublicKey,
    store_id: StoreId,
}

pub(super) fn run(args: Args) -> Result<(), AdminCommandError> {
    #[cfg(feature = "postgres")]
    if let KeysCommand::Import { from_effect: _, store, config } = &args.command {
        return Ok(super::keys_import::run(store, config, args.admin.json)?);
    }
    let (admin, json) = (args.admin.client()?, args.admin.json);
    let mut out = io::stdout().lock();
    let done = match args.command {
        KeysCommand::List => list(&admin, json, &mut out),
        // This was done before.
        #[cfg(feature = "postgres")]
        KeysCommand::Import { .. } => Ok(()),
        KeysCommand::Assign { key, store } => {
            let body = json!({ "storeId": store });
            let assigned = admin.request("PUT", &path(&key), Some(&body));
            print_store(assigned, key, json, &mut out)
        }
        KeysCommand::Remove { key } => {
            let removed = admin.request("DELETE", &path(&key), None);
            print_store(removed, key, json, &mut out)
        }
        KeysCommand::Show { key } => {
            let bound = admin.request("GET", &signing_key_path(&key), None);
            print_signing_key(bound, &key, json, &mut out)
        }
        KeysCommand::Pin { key, signing_key } => {
            let body = json!({ "signingKey": signing_key });
            let pinned = admin.request("PUT", &signing_key_path(&key), Some(&body));
            print_signing_key(pinned, &key, json, &mut out)
        }
        KeysCommand::Unpin { key } => {
            let before = admin.request("DELETE", &signing_key_path(&key), None);
            print_signing_key(before, &key, json, &mut out)
        }
        KeysCommand::Usage { key, reset } => {
            let method = if reset { "DELETE" } else { "GET" };
            let path = format!("{}/usage", path(&key));
            print_usage(admin.request(method, &path, None), &key, json, &mut out)
        }
        KeysCommand::Release { key } => {
            let released = admin.request("POST", &format!("{}/release", path(&key)), None);
            print_store(released, key, json, &mut out)
        }
    };
    AdminCommandError::unless_reader_gone(done)
}

/// Prints the store that `key` has or had, from the server's answer.
fn print_store(
    answer: Result<Assigned, AdminError>,
    key: PublicKey,
    json: bool,
    out: &mut impl Write,
) -> Result<(), AdminCommandError> {
    Ok(print(out, json, &Mapping { public_key: key, store_id: answer?.store_id })?)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bound {
    signing_key: String,
}

fn signing_key_path(key: &PublicKey) -> String {
    format!("{}/signing-key", path(key))
}

/// Prints the signing key that `key` has or had, from the server's answer.
fn print_signing_key(
    answer: Result<Bound, AdminError>,
    key: &PublicKey,
    json: bool,
    out: &mut impl Write,
) -> Result<(), AdminCommandError> {
    let Bound { signing_key } = answer?;
    if json {
        writeln!(out, "{}", json_text(&json!({ "publicKey": key, "signingKey": signing_key })))?;
    } else {
        writeln!(out, "{}  {}", one_line(key.as_str()), one_line(&signing_key))?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Usage {
    bytes: u64,
    /// Whether new writes of the key are counted.
    counted: bool,
}

fn print_usage(
    answer: Result<Usage, AdminError>,
    key: &PublicKey,
    json: bool,
    out: &mut impl Write,
) -> Result<(), AdminCommandError> {
    let Usage { bytes, counted } = answer?;
    if json {
        writeln!(
            out,
            "{}",
            json_text(&json!({ "publicKey": key, "bytes": bytes, "counted": counted }))
        )?;
        return Ok(());
    }
    let not = if counted { "" } else { "; nothing is counted now: no quota has `bytes_stored`" };
    writeln!(out, "{}  {bytes} bytes{not}", one_line(key.as_str()))?;
    Ok(())
}

fn list(admin: &Admin, json: bool, out: &mut impl Write) -> Result<(), AdminCommandError> {
    admin.each("/admin/keys", "keys", |mapping: Mapping| Ok(print(out, json, &mapping)?))
}

fn path(key: &PublicKey) -> String {
    format!("/admin/keys/{}", percent_encode(key.as_str()))
}

fn print(out: &mut impl Write, json: bool, mapping: &Mapping) -> io::Result<()> {
    let Mapping { public_key, store_id } = mapping;
    if json {
        writeln!(out, "{}", json_text(&json!({ "publicKey": public_key, "storeId": store_id })))
    } else {
        writeln!(out, "{}  {}", one_line(public_key.as_str()), one_line(store_id.as_str()))
    }
}
