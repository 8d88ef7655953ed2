//! Reads the configuration file again while the server runs.
//!
//! Keeps: a file that the server could not be started with changes nothing; settings that need a restart are named.
//! Leaves out: what asks for it (SIGHUP, the admin API).

use std::collections::BTreeMap;
use std::sync::Arc;

use eventlog_server::model::Secret;
use eventlog_server::server::{ReloadError, Reloaded, Server, Tls};
use eventlog_server::services::auth::Grants;
use eventlog_server::services::auth::jwt::JwtAuth;
use eventlog_server::services::origin_policy::OriginPolicy;
use eventlog_server::webhooks::{Signing, WebhookOptions};
use parking_lot::Mutex;
use toml::{Table, Value};

use super::jwt;
use super::webhooks::Signings;
use crate::cli::config::ConfigArgs;
use crate::config::{AuthChoice, Config};

/// The settings that take effect as soon as they are read. Each is applied as a whole, and none of them can fail:
/// errors are found before.
const LIVE: [(&str, Apply); 18] = [
    ("auth.grant", apply_grants),
    ("auth.http.secret", apply_http),
    ("auth.http.secret_file", apply_http),
    ("auth.jwt.jwks_file", applied_keys),
    ("auth.jwt.public_key_file", applied_keys),
    ("auth.jwt.secret", applied_keys),
    ("auth.jwt.secret_file", applied_keys),
    ("log.access", apply_log),
    ("log.format", apply_log),
    ("log.keys", apply_log),
    ("log.level", apply_log),
    ("origins", apply_origins),
    ("quota", apply_quotas),
    ("retention", apply_retention),
    ("webhook", apply_webhooks),
    ("admin.token", apply_admin_tokens),
    ("admin.token_file", apply_admin_tokens),
    ("admin.tokens", apply_admin_tokens),
];

/// Whether it could be applied.
type Apply = fn(&Reload, &Config, &Server) -> bool;

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
    ) -> Self {
        let counts = Counts { said: config.said.0.clone(), files: contents(config) };
        let webhooks = config.webhooks.clone();
        let (signings, has_admin_api) = (Signings::new(), !config.admin.tokens.is_empty());
        let (takes_cookies, counts) = (config.auth.takes_cookies().is_some(), Mutex::new(counts));
        Self { args, decides, tls, webhooks, signings, has_admin_api, takes_cookies, counts }
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
        let certificates = self.tls.as_ref().map(Tls::read_again).transpose().map_err(wrong)?;
        self.replace_keys(&config)?;
        if let Some(certificates) = certificates {
            certificates.take_effect();
        }
        let mut reloaded = Reloaded::default();
        for path in counts.changed(&config) {
            let is = |live: &str| path == live || (live == "quota" && path.starts_with("quota."));
            let live = LIVE.iter().find(|(live, _)| is(live));
            if live.is_some_and(|(_, apply)| apply(self, &config, server)) {
                put(&mut counts.said, &config.said.0, &path);
                reloaded.applied.push(path);
            } else {
                reloaded.needs_restart.push(path);
            }
        }
        let counting = |setting: &str| reloaded.applied.contains(&one_setting(setting));
        counts.files.extend(contents(&config).into_iter().filter(|(setting, _)| counting(setting)));
        if !reloaded.applied.is_empty() {
            server.access_changed();
        }
        config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        Ok(reloaded)
    }

    fn replace_keys(&self, config: &Config) -> Result<(), ReloadError> {
        if let (Decides::Jwt(auth), AuthChoice::Jwt(settings)) = (&self.decides, &config.auth) {
            auth.replace_keys(jwt::keys(settings).map_err(wrong)?).map_err(wrong)?;
        }
        Ok(())
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

fn apply_grants(reload: &Reload, config: &Config, _: &Server) -> bool {
    match (&reload.decides, &config.auth) {
        (Decides::Grants(grants), AuthChoice::Grants(new)) => grants.replace(new.clone()).is_ok(),
        _ => false,
    }
}

/// They were applied before.
fn applied_keys(reload: &Reload, config: &Config, _: &Server) -> bool {
    matches!((&reload.decides, &config.auth), (Decides::Jwt(_), AuthChoice::Jwt(_)))
}

fn apply_http(reload: &Reload, config: &Config, _: &Server) -> bool {
    let (Decides::Http(signing), AuthChoice::Http(options)) = (&reload.decides, &config.auth)
    else {
        return false;
    };
    signing.replace(options.secrets.clone());
    true
}

/// The secrets of webhooks are replaced, if nothing else about the webhooks has changed.
fn apply_webhooks(reload: &Reload, config: &Config, _: &Server) -> bool {
    let rest = |options: &WebhookOptions| {
        let options = WebhookOptions { secrets: Vec::new(), ..options.clone() };
        format!("{options:?}")
    };
    let same = reload.webhooks.iter().map(rest).eq(config.webhooks.iter().map(rest));
    for options in config.webhooks.iter().filter(|_| same) {
        if let Some(signing) = reload.signings.get(&options.name) {
            signing.replace(options.secrets.clone());
        }
    }
    same
}

fn apply_log(_: &Reload, config: &Config, _: &Server) -> bool {
    crate::cli::log::serve(&config.log);
    true
}

/// Not all pages while this server takes cookies, even if the file says that it does not: that takes a restart.
fn apply_origins(reload: &Reload, config: &Config, server: &Server) -> bool {
    let applies = !(reload.takes_cookies && config.origins == OriginPolicy::Any);
    if applies {
        server.set_origins(config.origins.clone());
    }
    applies
}

fn apply_quotas(_: &Reload, config: &Config, server: &Server) -> bool {
    server.set_quotas(config.quotas.clone());
    true
}

/// A server that started without tokens has no admin API; and an empty list takes all tokens away from one that has it.
fn apply_admin_tokens(reload: &Reload, config: &Config, server: &Server) -> bool {
    let applies = reload.has_admin_api && !config.admin.tokens.is_empty();
    if applies {
        server.set_admin_tokens(config.admin.tokens.clone());
    }
    applies
}

fn apply_retention(_: &Reload, config: &Config, server: &Server) -> bool {
    server.set_retention(config.retention.clone());
    true
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
