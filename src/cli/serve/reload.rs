//! Reads the configuration file again while the server runs.
//!
//! Keeps: a file that the server could not be started with changes nothing; settings that need a restart are named.
//! Leaves out: what asks for it (SIGHUP, the admin API).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use eventlog_server::model::{Limits, Secret};
use eventlog_server::server::{NewCertificates, ReloadError, Reloaded, Server, Tls};
use eventlog_server::services::auth::Grants;
use eventlog_server::services::auth::jwt::JwtAuth;
use eventlog_server::services::origin_policy::OriginPolicy;
use eventlog_server::webhooks::{Signing, WebhookOptions};
use parking_lot::Mutex;
use toml::{Table, Value};

use super::compaction::Rules;
use super::webhooks::Signings;
use super::{files, jwt};
use crate::cli::config::ConfigArgs;
use crate::config::{AuthChoice, Config};

/// The settings that take effect as soon as they are read, in parts that are replaced as a whole.
const LIVE: [(&str, Part); 24] = [
    ("admin.token", Part::AdminTokens),
    ("admin.token_file", Part::AdminTokens),
    ("admin.tokens", Part::AdminTokens),
    ("auth.grant", Part::Grants),
    ("auth.http.secret", Part::Http),
    ("auth.http.secret_file", Part::Http),
    ("auth.jwt.jwks_file", Part::Keys),
    ("auth.jwt.public_key_file", Part::Keys),
    ("auth.jwt.secret", Part::Keys),
    ("auth.jwt.secret_file", Part::Keys),
    ("compaction", Part::Compaction),
    ("limits", Part::Limits),
    ("log.access", Part::Log),
    ("log.format", Part::Log),
    ("log.keys", Part::Log),
    ("log.level", Part::Log),
    ("origins", Part::Origins),
    ("quota", Part::Quotas),
    ("retention", Part::Retention),
    ("tls.certificate_file", Part::Tls),
    ("tls.client_ca_file", Part::Tls),
    ("tls.client_certificates", Part::Tls),
    ("tls.key_file", Part::Tls),
    ("webhook", Part::Webhooks),
];

/// The tables of which each setting is live, except those in [`LATER`].
const LIVE_TABLES: [&str; 2] = ["limits.", "quota."];

/// Limits of what is made once, at the start.
const LATER: [&str; 3] =
    ["limits.compaction_bucket_bytes_max", "limits.compaction_bytes_max", "limits.keep_alive"];

/// What is replaced as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    AdminTokens,
    Compaction,
    Grants,
    Http,
    Keys,
    Limits,
    Log,
    Origins,
    Quotas,
    Retention,
    Tls,
    Webhooks,
}

impl Part {
    /// The part that the setting at `path` belongs to; `None` if it needs a restart.
    fn of(path: &str) -> Option<Self> {
        if LATER.contains(&path) {
            return None;
        }
        let is_below = |table: &&str| path.starts_with(table);
        let path = LIVE_TABLES.into_iter().find(is_below).map_or(path, |it| &it[..it.len() - 1]);
        LIVE.iter().find(|(live, _)| path == *live).map(|(_, part)| *part)
    }
}

/// The part of the authorization that can be replaced while the server runs.
pub(super) enum Decides {
    /// Nothing.
    Fixed,
    /// The grants.
    Grants(Arc<Grants>),
    /// The keys of tokens.
    Jwt(Arc<JwtAuth>),
    /// What questions are signed with.
    Http(Signing),
}

/// Reads the configuration again.
pub(super) struct Reload {
    args: ConfigArgs,
    decides: Decides,
    tls: Option<Tls>,
    compaction: Arc<Rules>,
    webhooks: Vec<WebhookOptions>,
    signings: Signings,
    has_admin_api: bool,
    /// Whether cookies prove who somebody is, until a restart.
    takes_cookies: bool,
    counts: Mutex<Counts>,
}

/// The settings in effect.
struct Counts {
    /// From the file.
    said: Table,
    /// From the files with secrets, by setting.
    files: BTreeMap<String, Secret>,
}

impl Reload {
    pub(super) fn new(
        args: ConfigArgs,
        config: &Config,
        decides: Decides,
        tls: Option<Tls>,
        compaction: Arc<Rules>,
    ) -> Self {
        let counts = Counts { said: config.said.0.clone(), files: contents(config) };
        let webhooks = config.webhooks.clone();
        let (signings, has_admin_api) = (Signings::new(), !config.admin.tokens.is_empty());
        let (takes_cookies, counts) = (config.auth.takes_cookies().is_some(), Mutex::new(counts));
        Self {
            args,
            decides,
            tls,
            compaction,
            webhooks,
            signings,
            has_admin_api,
            takes_cookies,
            counts,
        }
    }

    /// The webhooks that run.
    pub(super) fn run_webhooks(&mut self, signings: Signings) {
        self.signings = signings;
    }

    /// The grants of the server, if those are what it uses.
    pub(super) const fn grants(&self) -> Option<&Arc<Grants>> {
        match &self.decides {
            Decides::Grants(grants) => Some(grants),
            Decides::Fixed | Decides::Jwt(_) | Decides::Http(_) => None,
        }
    }

    pub(super) fn run(&self, server: &Server) -> Result<Reloaded, ReloadError> {
        let mut counts = self.counts.lock();
        if self.args.config.is_none() && counts.files.is_empty() {
            return Err(ReloadError::NoConfiguration);
        }
        let config = self.args.load().map_err(wrong)?;
        super::check(&config).map_err(wrong)?;
        // What can still be refused comes first: the files of keys and certificates may have changed.
        let certificates = self.certificates(&config)?;
        self.replace_keys(&config)?;
        if let Some(certificates) = certificates {
            certificates.take_effect();
        }
        // From here on nothing fails.
        let mut reloaded = Reloaded::default();
        let mut parts = BTreeSet::new();
        for path in counts.changed(&config) {
            match Part::of(&path).filter(|part| self.can_replace(*part, &config)) {
                None => reloaded.needs_restart.push(path),
                Some(part) => {
                    parts.insert(part);
                    put(&mut counts.said, &config.said.0, &path);
                    reloaded.applied.push(path);
                }
            }
        }
        parts.into_iter().for_each(|part| self.replace(part, &config, server));
        let counting = |setting: &str| reloaded.applied.contains(&one_setting(setting));
        counts.files.extend(contents(&config).into_iter().filter(|(setting, _)| counting(setting)));
        if !reloaded.applied.is_empty() {
            server.access_changed();
        }
        config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        Ok(reloaded)
    }

    /// Those of the files that `config` names, or of the present ones if it wants none: that takes a restart.
    fn certificates(&self, config: &Config) -> Result<Option<NewCertificates>, ReloadError> {
        let Some(tls) = &self.tls else { return Ok(None) };
        let files = config.tls.clone().map_or_else(|| tls.files(), Arc::new);
        tls.read(&files).map(Some).map_err(wrong)
    }

    /// Whether the part of the running server can become what `config` says.
    fn can_replace(&self, part: Part, config: &Config) -> bool {
        match part {
            // A server that started without tokens has no admin API; an empty list takes all tokens away from one that
            // has it.
            Part::AdminTokens => self.has_admin_api && !config.admin.tokens.is_empty(),
            Part::Grants => {
                matches!((&self.decides, &config.auth), (Decides::Grants(_), AuthChoice::Grants(_)))
            }
            Part::Http => {
                matches!((&self.decides, &config.auth), (Decides::Http(_), AuthChoice::Http(_)))
            }
            Part::Keys => {
                matches!((&self.decides, &config.auth), (Decides::Jwt(_), AuthChoice::Jwt(_)))
            }
            // Not all pages while this server takes cookies, even if the file says that it does not: that takes a
            // restart.
            Part::Origins => !(self.takes_cookies && config.origins == OriginPolicy::Any),
            Part::Tls => self.tls.is_some() && config.tls.is_some(),
            // The secrets of webhooks are replaced, if nothing else about the webhooks has changed.
            Part::Webhooks => {
                let rest = |options: &WebhookOptions| {
                    let options = WebhookOptions { secrets: Vec::new(), ..options.clone() };
                    format!("{options:?}")
                };
                self.webhooks.iter().map(rest).eq(config.webhooks.iter().map(rest))
            }
            Part::Compaction | Part::Limits | Part::Log | Part::Quotas | Part::Retention => true,
        }
    }

    /// Replaces what [can be replaced](Self::can_replace). It was checked before, so nothing is refused any more.
    fn replace(&self, part: Part, config: &Config, server: &Server) {
        match part {
            Part::AdminTokens => server.set_admin_tokens(config.admin.tokens.clone()),
            Part::Compaction => checked(self.compaction.replace(&config.compaction)),
            Part::Grants => self.replace_grants(config),
            Part::Http => self.replace_http(config),
            // They were replaced before, because this can be refused.
            Part::Keys | Part::Tls => {}
            Part::Limits => server.set_limits(Limits {
                connections_max: files::make_room(config.limits.connections_max),
                ..config.limits.clone()
            }),
            Part::Log => crate::cli::log::serve(&config.log),
            Part::Origins => server.set_origins(config.origins.clone()),
            Part::Quotas => server.set_quotas(config.quotas.clone()),
            Part::Retention => server.set_retention(config.retention.clone()),
            Part::Webhooks => self.replace_webhook_secrets(config),
        }
    }

    fn replace_grants(&self, config: &Config) {
        if let (Decides::Grants(grants), AuthChoice::Grants(new)) = (&self.decides, &config.auth) {
            checked(grants.replace(new.clone()));
        }
    }

    fn replace_http(&self, config: &Config) {
        if let (Decides::Http(signing), AuthChoice::Http(options)) = (&self.decides, &config.auth) {
            signing.replace(options.secrets.clone());
        }
    }

    fn replace_webhook_secrets(&self, config: &Config) {
        for options in &config.webhooks {
            if let Some(signing) = self.signings.get(&options.name) {
                signing.replace(options.secrets.clone());
            }
        }
    }

    fn replace_keys(&self, config: &Config) -> Result<(), ReloadError> {
        if let (Decides::Jwt(auth), AuthChoice::Jwt(settings)) = (&self.decides, &config.auth) {
            auth.replace_keys(jwt::keys(settings).map_err(wrong)?).map_err(wrong)?;
        }
        Ok(())
    }
}

/// [`super::check`] has found everything that this could be refused for.
fn checked<E: std::fmt::Display>(replaced: Result<(), E>) {
    if let Err(error) = replaced {
        log::error!("reload: {error}");
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn wrong(error: impl ToString) -> ReloadError {
    ReloadError::Wrong(error.to_string())
}

/// The contents of the files with secrets, by setting.
fn contents(config: &Config) -> BTreeMap<String, Secret> {
    let files = config.secret_files.iter();
    files.map(|file| (file.setting.clone(), file.content.clone())).collect()
}

/// A list of tables is one setting: `webhook` for `webhook[1].secret`.
fn one_setting(setting: &str) -> String {
    setting.split('[').next().unwrap_or(setting).to_owned()
}

impl Counts {
    /// The settings that differ in `config`.
    fn changed(&self, config: &Config) -> Vec<String> {
        let mut all = changed(&self.said, &config.said.0);
        for (setting, content) in contents(config) {
            let old = self.files.get(&setting);
            if old.is_none_or(|old| old.expose() != content.expose()) {
                all.push(one_setting(&setting));
            }
        }
        all.sort();
        all.dedup();
        all
    }
}

/// The settings that differ, as people write them: `limits.frame_bytes_max`. A list is one setting.
fn changed(one: &Table, other: &Table) -> Vec<String> {
    let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    let differ = |name: &String| match (one.get(name), other.get(name)) {
        (one, other) if one == other => Vec::new(),
        (Some(Value::Table(one)), Some(Value::Table(other))) => below(name, changed(one, other)),
        (Some(Value::Table(table)), None) | (None, Some(Value::Table(table))) => {
            below(name, changed(table, &Table::new()))
        }
        _ => vec![name.clone()],
    };
    names.into_iter().flat_map(differ).collect()
}

fn below(name: &str, paths: Vec<String>) -> Vec<String> {
    paths.into_iter().map(|path| format!("{name}.{path}")).collect()
}

/// Sets the setting at `path` in `counts` to its value in `file`.
fn put(counts: &mut Table, file: &Table, path: &str) {
    let Some((name, rest)) = path.split_once('.') else {
        match file.get(path) {
            Some(value) => counts.insert(path.to_owned(), value.clone()),
            None => counts.remove(path),
        };
        return;
    };
    let empty = Table::new();
    let below = file.get(name).and_then(Value::as_table).unwrap_or(&empty);
    let at = counts.entry(name).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(at) = at {
        put(at, below, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        text.parse().expect("TOML")
    }

    #[test]
    fn what_differs_is_named_as_people_write_it() {
        let old = table("listen = \"a\"\n[auth]\nmode = \"grants\"\n[limits]\nx = 1\ny = 2");
        let new = table(
            "origins = \"*\"\n[auth]\nmode = \"grants\"\n[[auth.grant]]\nread = true\n[limits]\nx = 2\ny = 2\n[admin]\ntoken = \"t\"",
        );
        let expected = ["admin.token", "auth.grant", "limits.x", "listen", "origins"];
        assert_eq!(changed(&old, &new), expected);
        assert_eq!(changed(&new, &old), expected);
        assert_eq!(changed(&old, &old), <[String; 0]>::default());
    }

    #[test]
    fn what_counts_is_no_difference_any_more() {
        let mut counts = table("listen = \"a\"\norigins = \"*\"");
        let file = table("listen = \"b\"\n[[auth.grant]]\nread = true");
        for path in ["auth.grant", "origins"] {
            put(&mut counts, &file, path);
        }
        assert_eq!(changed(&counts, &file), ["listen"]);
    }
}
