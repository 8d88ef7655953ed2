//! `revoke` and `revocations`: which users, keys and tokens are locked out of a running server.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ArgGroup;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::{Admin, AdminArgs, AdminCommandError, percent_encode};
use super::text::{json_text, one_line};
use crate::config::Span;

/// Revoke a public key, a user or a token, at once and durably; or lift a revocation.
///
/// Open connections and subscriptions end within a second, and new requests are refused. This command talks to
/// the admin API of a running server, so set `[admin] token` in the server's configuration.
#[derive(Debug, clap::Args)]
#[command(
    group(ArgGroup::new("whom").required(true).args(["key", "subject", "token_id", "lift"])),
    after_help = "\
Examples:
  export EVENTLOG_ADMIN_TOKEN=…
  eventlog-server revoke --key alice --reason 'this device was stolen'
  eventlog-server revoke --subject ann --for 7d
  eventlog-server revoke --token-id 7f3c… --until 2026-12-01T00:00:00Z     # when the token expires anyway
  eventlog-server revocations
  eventlog-server revoke --lift key:alice"
)]
pub(super) struct RevokeArgs {
    /// A public key; no pattern
    #[arg(long)]
    key: Option<String>,
    /// A user, with all their keys and tokens: the claim `sub` of their tokens
    #[arg(long)]
    subject: Option<String>,
    /// A token: its claim `jti`
    #[arg(long, value_name = "ID")]
    token_id: Option<String>,
    /// Lift this revocation; `revocations` prints the ids
    #[arg(long, value_name = "ID", conflicts_with_all = ["duration", "until", "reason"])]
    lift: Option<String>,
    /// For how long: 30m, 12h, 7d [default: until it is lifted]
    #[arg(long = "for", value_name = "DURATION", conflicts_with = "until")]
    duration: Option<Span>,
    /// Until when: 2026-12-01T00:00:00Z, or seconds since 1970 as in tokens
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<u64>,
    /// The reason, which the client is told
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Print who is revoked, and until when.
///
/// This command talks to the admin API of a running server, so set `[admin] token` in the server's configuration.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

/// The printed part of a revocation.
#[derive(Deserialize)]
struct Shown {
    id: String,
    until: Option<u64>,
    reason: Option<String>,
}

fn parse_time(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let time: Timestamp = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    u64::try_from(time.as_second()).map_err(|_| "that is before 1970".to_owned())
}

#[expect(clippy::disallowed_methods, reason = "`--for` begins now")]
fn in_seconds(span: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Rounded up: nobody is let in too early.
    now.saturating_add(span).as_secs().saturating_add(1)
}

pub(super) fn revoke(args: RevokeArgs) -> Result<(), AdminCommandError> {
    let (admin, is_json) = (args.admin.client()?, args.admin.json);
    let mut out = io::stdout().lock();
    let answer: Value = if let Some(id) = &args.lift {
        let path = format!("/admin/revocations/{}", percent_encode(id));
        let lifted: Value = admin.request("DELETE", &path, None)?;
        if !is_json {
            let printed = writeln!(out, "{}  is lifted", one_line(id)).map_err(Into::into);
            return AdminCommandError::unless_reader_gone(printed);
        }
        lifted
    } else {
        let until = args.until.or_else(|| args.duration.map(|Span(span)| in_seconds(span)));
        let mut body = json!({ "until": until, "reason": args.reason });
        let whom = [("publicKey", args.key), ("subject", args.subject), ("tokenId", args.token_id)];
        for (name, whom) in whom.into_iter().filter_map(|(name, whom)| Some((name, whom?))) {
            if whom.contains('*') {
                eprintln!("note: revocations have no patterns: the * stands for itself");
            }
            body[name] = whom.into();
        }
        admin.request("POST", "/admin/revocations", Some(&body))?
    };
    AdminCommandError::unless_reader_gone(print(&mut out, is_json, &answer))
}

pub(super) fn list(args: &ListArgs) -> Result<(), AdminCommandError> {
    let (admin, is_json) = (args.admin.client()?, args.admin.json);
    AdminCommandError::unless_reader_gone(list_all(&admin, is_json, &mut io::stdout().lock()))
}

fn list_all(admin: &Admin, is_json: bool, out: &mut impl Write) -> Result<(), AdminCommandError> {
    let print = |revocation: Value| print(out, is_json, &revocation);
    admin.each("/admin/revocations", "revocations", print)
}

fn print(out: &mut impl Write, is_json: bool, answer: &Value) -> Result<(), AdminCommandError> {
    if is_json {
        return Ok(writeln!(out, "{}", json_text(&answer))?);
    }
    let shown = Shown::deserialize(answer).map_err(io::Error::other)?;
    let until = shown.until.and_then(|until| Timestamp::from_second(until.try_into().ok()?).ok());
    let until = until.map_or_else(|| "until it is lifted".to_owned(), |at| format!("until {at}"));
    let reason = shown.reason.map(|reason| format!("  {}", one_line(&reason)));
    writeln!(out, "{}  {until}{}", one_line(&shown.id), reason.unwrap_or_default())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_what_tokens_and_people_write() {
        assert_eq!(parse_time("1900000000"), Ok(1_900_000_000));
        assert_eq!(parse_time("2030-03-17T17:46:40Z"), Ok(1_900_000_000));
        assert_eq!(parse_time("2030-03-17T19:46:40+02:00"), Ok(1_900_000_000));
        for wrong in ["", "soon", "1900-01-01T00:00:00Z", "2030-03-17", "-5"] {
            assert!(parse_time(wrong).is_err(), "{wrong:?}");
        }
    }
}
