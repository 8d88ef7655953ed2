//! `stores`, `sessions`, `top`, and the repetition of `entries`: what a running server has and does, once or again and again.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, IsTerminal, Write};
use std::thread::sleep;
use std::time::Duration;

use clap::Subcommand;
use eventlog_server::model::PublicKey;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::{Admin, AdminArgs, AdminCommandError, AdminError, percent_encode};
use super::progress::now;
use super::screen::{self, Out};
use super::text::{self, json_text, one_line, people_bytes, timestamp};
use crate::config::Span;

/// `top` shows so many stores.
const HOTTEST: usize = 20;
/// Stores without entries are shown if there are no more keys than this.
const KEYS_MAX: usize = 1_000;
/// `top` looks a second time after so long.
const INTERVAL: Duration = Duration::from_secs(2);

/// What is the same for all of them.
#[derive(Debug, clap::Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Repeat at this interval until interrupted, also while the server restarts
    #[arg(long, global = true, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s",
          value_parser = Span::parse)]
    watch: Option<Span>,
}

impl WatchArgs {
    /// Whether programs read it.
    pub(super) const fn json(&self) -> bool {
        self.admin.json
    }

    /// Prints what `look` writes, once or again and again. Keeps nothing of it: a look may have a great deal to show.
    ///
    /// If a server that has answered once does not answer any more, a line on standard error says so, and the next look
    /// asks again.
    pub(super) fn run(
        &self,
        mut look: impl FnMut(&Admin, &mut Out) -> Result<(), AdminCommandError>,
    ) -> Result<(), AdminCommandError> {
        let admin = self.admin.client()?;
        let is_screen = self.watch.is_some() && !self.admin.json && io::stdout().is_terminal();
        let (mut has_answered, mut is_away) = (false, false);
        loop {
            let mut out = if is_screen {
                Out::screen(io::stdout(), screen::size())?
            } else {
                Out::whole(io::stdout())
            };
            if has_answered && !is_screen && !self.admin.json {
                writeln!(out)?;
            }
            let looked = look(&admin, &mut out);
            // What was shown before it failed stays.
            match looked.and(out.end().map_err(Into::into)) {
                Ok(()) => (has_answered, is_away) = (true, false),
                Err(AdminCommandError::Admin(away @ AdminError::Unreachable { .. }))
                    if has_answered && self.watch.is_some() =>
                {
                    // A screen has just lost what it said before.
                    if is_screen || !is_away {
                        eprintln!("{away}");
                    }
                    is_away = true;
                }
                failed => return AdminCommandError::unless_reader_gone(failed),
            }
            let Some(Span(every)) = self.watch else { return Ok(()) };
            sleep(every);
        }
    }
}

/// Show the stores of a running server, and what each holds.
///
/// At the end come stores that a key is assigned to and that have no entries yet, if there are at most 1,000 keys.
#[derive(Debug, clap::Args)]
pub(super) struct StoresArgs {
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Deserialize)]
struct Store {
    #[serde(rename = "storeId")]
    name: String,
    head: u64,
    entries: u64,
    bytes: u64,
    subscribers: u64,
}

pub(super) fn stores(args: &StoresArgs) -> Result<(), AdminCommandError> {
    let json = args.watch.admin.json;
    args.watch.run(|admin, out| {
        let mut empty = assigned(admin);
        admin.each("/admin/stores", "stores", |value: Value| {
            empty.remove(value["storeId"].as_str().unwrap_or_default());
            if json {
                return Ok(writeln!(out, "{}", json_text(&value))?);
            }
            let Store { name, head, entries, bytes, subscribers } =
                Store::deserialize(&value).map_err(io::Error::other)?;
            let (name, bytes) = (one_line(&name), people_bytes(bytes));
            writeln!(
                out,
                "{name}  head {head}  {}  {bytes}  {}",
                text::entries(entries),
                text::counted(subscribers, "subscriber", "subscribers")
            )?;
            Ok(())
        })?;
        for name in empty {
            if json {
                let store = json!({ "storeId": name, "head": 0, "entries": 0, "bytes": 0, "subscribers": 0 });
                writeln!(out, "{}", json_text(&store))?;
            } else {
                writeln!(out, "{}  no entries yet", one_line(&name))?;
            }
        }
        Ok(())
    })
}

/// The stores that keys are assigned to. Empty if there are too many keys to ask for, or if the stores are unknown.
fn assigned(admin: &Admin) -> BTreeSet<String> {
    let page = admin.request("GET", &format!("/admin/keys?limit={KEYS_MAX}"), None);
    let page: Value = page.unwrap_or_default();
    if page.get("next").is_some() {
        return BTreeSet::new();
    }
    let keys = page["keys"].as_array().into_iter().flatten();
    keys.filter_map(|key| Some(key["storeId"].as_str()?.to_owned())).collect()
}

/// Show who is connected to a running server and what they follow, or close a connection.
///
/// Live streams of the admin API are in the list as well.
#[derive(Debug, clap::Args)]
pub(super) struct SessionsArgs {
    #[command(subcommand)]
    command: Option<SessionsCommand>,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Debug, Subcommand)]
enum SessionsCommand {
    /// Close a connection; its client reconnects at once, unless it was revoked
    Close {
        /// Its number in the list of `sessions`
        id: u64,
        /// Close only its subscription with this public key
        #[arg(long)]
        key: Option<PublicKey>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    id: u64,
    address: Option<String>,
    path: String,
    subject: Option<String>,
    certificate_sha256: Option<String>,
    since_millis: u64,
    received_bytes: u64,
    sent_bytes: u64,
    subscriptions: Vec<Subscription>,
    /// Of a live stream: the name of the token that opened it, and what it follows.
    token: Option<String>,
    stream: Option<Followed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Followed {
    store_id: String,
    cursor: u64,
    lag: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subscription {
    public_key: String,
    store_id: String,
    cursor: u64,
    lag: Option<u64>,
}

pub(super) fn sessions(args: &SessionsArgs) -> Result<(), AdminCommandError> {
    let json = args.watch.admin.json;
    if let Some(SessionsCommand::Close { id, key }) = &args.command {
        let (of, what) = match key {
            None => (String::new(), "is closed".to_owned()),
            Some(key) => (
                format!("/subscriptions/{}", percent_encode(key.as_str())),
                format!("no longer has a subscription with {key:?}"),
            ),
        };
        let path = format!("/admin/sessions/{id}{of}");
        let closed: Value = args.watch.admin.client()?.request("DELETE", &path, None)?;
        let said = if json { json_text(&closed) } else { format!("session {id} {what}") };
        let printed = writeln!(io::stdout(), "{said}").map_err(Into::into);
        return AdminCommandError::unless_reader_gone(printed);
    }
    args.watch.run(|admin, out| {
        admin.each("/admin/sessions", "sessions", |value: Value| {
            if json {
                return Ok(writeln!(out, "{}", json_text(&value))?);
            }
            Ok(print_session(out, &Session::deserialize(&value).map_err(io::Error::other)?)?)
        })
    })
}

fn print_session(out: &mut impl Write, session: &Session) -> io::Result<()> {
    let Session {
        id,
        address,
        path,
        subject,
        certificate_sha256,
        since_millis,
        received_bytes,
        sent_bytes,
        subscriptions,
        token,
        stream,
    } = session;
    let address = address.as_deref().unwrap_or("?");
    let subject = subject.as_ref().map(|subject| format!("  {}", one_line(subject)));
    let (received, sent) = (people_bytes(*received_bytes), people_bytes(*sent_bytes));
    let since = timestamp(*since_millis);
    let (path, subject) = (one_line(path), subject.unwrap_or_default());
    let certificate = certificate_sha256.as_ref();
    let certificate = certificate.map_or_else(String::new, |it| format!("  certificate {it}"));
    writeln!(
        out,
        "{id}  {address}  {path}{subject}{certificate}  since {since}  received {received}  sent {sent}"
    )?;
    let lag_of = |lag: &Option<u64>| lag.map_or_else(|| "?".to_owned(), |lag| lag.to_string());
    if let Some(Followed { store_id, cursor, lag }) = stream {
        let token = one_line(token.as_deref().unwrap_or("?"));
        let (lag, store) = (lag_of(lag), one_line(store_id));
        writeln!(out, "    token {token} follows {store}: next {cursor}, {lag} behind")?;
    }
    for Subscription { public_key, store_id, cursor, lag } in subscriptions {
        let lag = lag_of(lag);
        let (key, store) = (one_line(public_key), one_line(store_id));
        writeln!(out, "    {key} follows {store}: next {cursor}, {lag} behind")?;
    }
    Ok(())
}

/// Show the stores of a running server that grow most, over two seconds each time.
///
/// Compares the stores that are open both times: those that were written to or followed lately.
#[derive(Debug, clap::Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    watch: WatchArgs,
}

pub(super) fn top(args: &TopArgs) -> Result<(), AdminCommandError> {
    let json = args.watch.admin.json;
    let mut last = None;
    args.watch.run(|admin, out| {
        // The previous values, if there are any.
        let (before, since) = match last.take() {
            Some(looked) => looked,
            None => {
                let looked = (sizes(admin)?, now());
                sleep(INTERVAL);
                looked
            }
        };
        let (sizes, at) = (sizes(admin)?, now());
        let millis = (at.duration_since(since).as_millis() as u64).max(1);
        let mut grown: Vec<(f64, u64, &String)> = sizes
            .iter()
            .map(|(store, (head, bytes))| {
                // The size of a store that was not open then is unknown.
                let (old_head, old_bytes) = before.get(store).copied().unwrap_or((*head, *bytes));
                let entries = head.saturating_sub(old_head) as f64 * 1_000.0 / millis as f64;
                (entries, bytes.saturating_sub(old_bytes).saturating_mul(1_000) / millis, store)
            })
            .filter(|(entries, ..)| *entries > 0.0)
            .collect();
        grown.sort_by(|one, other| other.0.total_cmp(&one.0).then_with(|| one.2.cmp(other.2)));
        for (entries, bytes, store) in grown.into_iter().take(HOTTEST) {
            if json {
                let line = json!({ "storeId": store, "entriesPerSecond": entries, "bytesPerSecond": bytes });
                writeln!(out, "{}", json_text(&line))?;
            } else {
                let bytes = people_bytes(bytes);
                writeln!(out, "{}  {entries:.1} entries/s  {bytes}/s", one_line(store))?;
            }
        }
        last = Some((sizes, at));
        Ok(())
    })
}

/// The head and the bytes of each open store.
fn sizes(admin: &Admin) -> Result<HashMap<String, (u64, u64)>, AdminCommandError> {
    let mut sizes = HashMap::new();
    admin.each("/admin/stores?open=true", "stores", |store: Store| {
        sizes.insert(store.name, (store.head, store.bytes));
        Ok(())
    })?;
    Ok(sizes)
}
