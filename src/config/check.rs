//! What cannot work, found before anything starts.

use std::time::Duration;

use eventlog_server::model::{Limits, RetentionRule, without_user};
use eventlog_server::services::auth::jwt::Key;
use eventlog_server::services::origin_policy::OriginPolicy;
use eventlog_server::webhooks::WebhookOptions;

use super::lists::Many;
use super::{AuthChoice, CompactionRule, Config, ConfigError};

/// A batch counts its bytes in 32 bits.
const MESSAGE_BYTES_MOST: usize = 1 << 30;

/// Adds every value that cannot work to `faults`.
pub(super) fn check(config: &Config, faults: &mut Vec<ConfigError>) {
    const ONE: &str = "at least one is needed";
    let cache_bytes = usize::try_from(config.database.cache_bytes).unwrap_or(usize::MAX);
    let all = [
        at_least("workers", config.workers, 1, ONE),
        at_least("store_threads", config.store_threads, 1, ONE),
        at_least("cache_bytes", cache_bytes, 1 << 20, "at least 1MiB is needed"),
        check_cookies(config),
        check_pinned(config),
        check_jwt(config),
        check_secrets(config),
        at_least("paths", config.paths.len(), 1, "nobody could connect"),
        check_admin_listen(config),
    ];
    let compaction = config.compaction.iter().map(check_compaction);
    let webhooks = config.webhooks.iter().map(check_webhook);
    let retention = config.retention.rules.iter().map(check_retention);
    let entries = compaction.chain(retention).chain(webhooks);
    faults.extend(all.into_iter().chain(entries).filter_map(Result::err));
    check_limits(&config.limits, faults);
}

fn check_admin_listen(config: &Config) -> Result<(), ConfigError> {
    match config.admin.listen {
        // Port 0 is another port each time.
        Some(address) if address == config.listen && address.port() != 0 => {
            let reason = "that is `listen`; the admin API is there if you leave this out";
            Err(impossible("[admin] listen", address, reason))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_secrets(config: &Config) -> Result<(), ConfigError> {
    let AuthChoice::Jwt(jwt) = &config.auth else { return Ok(()) };
    let mut secrets = jwt.secret.iter().flat_map(|secrets| &secrets.0);
    if secrets.any(|named| Key::from_secret(named.secret.expose()).is_err()) {
        let reason = "a secret that signs tokens has at least 32 bytes";
        return Err(impossible("[auth.jwt] secret", "so short", reason));
    }
    Ok(())
}

fn check_webhook(webhook: &WebhookOptions) -> Result<(), ConfigError> {
    if webhook.secrets.is_empty() {
        let reason = "requests are signed: `secret` or `secret_file` is needed";
        return Err(impossible(
            "[[webhook]] secret",
            format!("nothing for {:?}", webhook.name),
            reason,
        ));
    }
    Ok(())
}

fn check_pinned(config: &Config) -> Result<(), ConfigError> {
    if config.pinned.iter().any(|(key, _)| key.as_str().contains('*')) {
        let reason = "it stands for many keys, and each has a signing key of its own";
        return Err(impossible("public_key", "one with * and a signing_key", reason));
    }
    Ok(())
}

fn check_retention(rule: &RetentionRule) -> Result<(), ConfigError> {
    let RetentionRule { stores, age_max, bytes_max, entries_max } = rule;
    if stores.is_empty() {
        return Err(impossible(
            "[[retention]] stores",
            "empty",
            "no store has an empty name; * stands for any",
        ));
    }
    if age_max.is_none() && bytes_max.is_none() && entries_max.is_none() {
        let reason = "say age_max, bytes_max or entries_max";
        return Err(impossible("[[retention]]", "without a bound", reason));
    }
    let nothing = age_max.is_some_and(|age| age.is_zero())
        || *bytes_max == Some(0)
        || *entries_max == Some(0);
    if nothing {
        return Err(impossible("[[retention]]", 0, "everything would be trimmed"));
    }
    Ok(())
}

fn check_compaction(rule: &CompactionRule) -> Result<(), ConfigError> {
    let CompactionRule { events, older_than: _, strategy: _ } = rule;
    let key = "[[compaction]] events";
    if events.is_empty() {
        return Err(impossible(key, "an empty list", "name the events, or \"*\" for all"));
    }
    if events.iter().any(String::is_empty) {
        return Err(impossible(key, "an empty text", "no event has an empty tag"));
    }
    Ok(())
}

/// With both, any web page could act for a user whose browser has the cookie.
fn check_cookies(config: &Config) -> Result<(), ConfigError> {
    match config.auth.takes_cookies() {
        Some(reason) if config.origins == OriginPolicy::Any => {
            Err(impossible("origins", "[\"*\"]", reason))
        }
        Some(_) | None => Ok(()),
    }
}

/// What is empty by mistake, such as a variable that was not set, must not let more people in, or hide who they are.
fn check_jwt(config: &Config) -> Result<(), ConfigError> {
    let AuthChoice::Jwt(jwt) = &config.auth else { return Ok(()) };
    let is_empty = |texts: &Option<Many<String>>| {
        texts.as_ref().is_some_and(|Many(texts)| texts.iter().all(String::is_empty))
    };
    let lists = [
        ("[auth.jwt] issuer", is_empty(&jwt.issuer)),
        ("[auth.jwt] audience", is_empty(&jwt.audience)),
        ("[auth.jwt] algorithms", jwt.algorithms.as_ref().is_some_and(|all| all.0.is_empty())),
    ];
    if let Some((key, _)) = lists.into_iter().find(|(_, is_empty)| *is_empty) {
        return Err(impossible(key, "empty", "to accept any, leave it out"));
    }
    if jwt.claims.names().into_iter().flatten().any(String::is_empty) {
        return Err(impossible("[auth.jwt.claims]", "an empty name", "no claim has one"));
    }
    Ok(())
}

impl AuthChoice {
    /// Why a cookie can be somebody's proof, if it can.
    pub(crate) fn takes_cookies(&self) -> Option<&'static str> {
        match self {
            Self::Jwt(jwt) if jwt.takes_cookies() => Some(
                "tokens are taken from a cookie ([auth.jwt] tokens), which browsers send for every page; name your origins",
            ),
            Self::Http(http)
                if http.headers.iter().any(|name| name.eq_ignore_ascii_case("cookie")) =>
            {
                Some(
                    "cookies are passed on ([auth.http] headers), which browsers send for every page; name your origins",
                )
            }
            Self::Http(_) | Self::Jwt(_) | Self::Dev | Self::AllowAll | Self::Grants(_) => None,
        }
    }
}

fn check_limits(limits: &Limits, faults: &mut Vec<ConfigError>) {
    check_each(limits, faults);
    if limits.message_bytes_max > MESSAGE_BYTES_MOST {
        let reason = "1GiB is the most";
        faults.push(impossible("[limits] message_bytes_max", limits.message_bytes_max, reason));
    }
    if limits.frame_bytes_max > MESSAGE_BYTES_MOST {
        let reason = "1GiB is the most";
        faults.push(impossible("[limits] frame_bytes_max", limits.frame_bytes_max, reason));
    }
    if limits.entry_bytes_max != usize::MAX && limits.entry_bytes_max > limits.message_bytes_max {
        let reason = "no entry is larger than a message, see `message_bytes_max`";
        faults.push(impossible("[limits] entry_bytes_max", limits.entry_bytes_max, reason));
    }
    let fits = at_least(
        "[limits] chunk_set_bytes_max",
        limits.chunk_set_bytes_max,
        limits.message_bytes_max,
        "the largest message has to fit, see `message_bytes_max`",
    );
    faults.extend(fits.err());
}

macro_rules! check_each {
    ($($(#[$doc:meta])* $name:ident: $kind:ident = $default:expr $(, least $least:expr $(, $reason:literal)?)?;)*) => {
        /// Adds every limit that is too low by itself.
        fn check_each(limits: &Limits, faults: &mut Vec<ConfigError>) {
            $($(
                let (value, reason) = limits.$name.amount();
                let key = concat!("[limits] ", stringify!($name));
                faults.extend(at_least(key, value, $least, [$($reason,)? reason][0]).err());
            )?)*
        }
    };
}
eventlog_server::with_limits!(check_each);

/// A limit as a number, and why it must not be zero.
trait Amount {
    fn amount(&self) -> (usize, &'static str);
}

impl Amount for usize {
    fn amount(&self) -> (usize, &'static str) {
        (*self, "with nothing allowed, nobody could do anything")
    }
}

impl Amount for Duration {
    fn amount(&self) -> (usize, &'static str) {
        (usize::from(!self.is_zero()), "everything would time out at once")
    }
}

fn at_least(
    key: &'static str,
    value: usize,
    least: usize,
    reason: &'static str,
) -> Result<(), ConfigError> {
    if value < least { Err(impossible(key, value, reason)) } else { Ok(()) }
}

pub(super) const fn missing(key: &'static str, reason: &'static str) -> ConfigError {
    ConfigError::Missing { key, reason }
}

pub(super) fn impossible(
    key: &'static str,
    value: impl std::fmt::Display,
    reason: &'static str,
) -> ConfigError {
    ConfigError::Impossible { key, value: without_user(&value.to_string()), reason }
}
