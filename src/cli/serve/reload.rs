//! Reading the configuration file again, while the server runs.
//!
//! Keeps: a file that could not be started with changes nothing; what does not count before a restart is named. Leaves out: what
//! asks for it (SIGHUP, the admin API).

use std::sync::Arc;

use eventlog_server::server::{ReloadError, Reloaded, Server};
use eventlog_server::services::auth::Grants;
use parking_lot::Mutex;
use toml::{Table, Value};

use super::{Args, load};
use crate::config::{AuthChoice, Config};

/// The settings that count as soon as they are read. Each is put in place as a whole, and none of them can fail: what is wrong is
/// found before.
const LIVE: [(&str, Apply); 2] = [("auth.grant", apply_grants), ("origins", apply_origins)];

/// Whether it could be put in place.
type Apply = fn(&Reload, &Config, &Server) -> bool;

/// What reads the file again.
pub(super) struct Reload {
    args: Args,
    grants: Option<Arc<Grants>>,
    /// What the file said of that which counts.
    counts: Mutex<Table>,
}

impl Reload {
    pub(super) fn new(args: Args, config: &Config, grants: Option<Arc<Grants>>) -> Self {
        Self { args, grants, counts: Mutex::new(config.said.0.clone()) }
    }

    /// The grants of the server, if those are what it asks.
    pub(super) fn grants(&self) -> Option<&Arc<Grants>> {
        self.grants.as_ref()
    }

    pub(super) fn run(&self, server: &Server) -> Result<Reloaded, ReloadError> {
        if self.args.config.is_none() {
            return Err(ReloadError::NoConfiguration);
        }
        let config = load(&self.args).map_err(|error| ReloadError::Wrong(error.to_string()))?;
        let mut counts = self.counts.lock();
        let mut reloaded = Reloaded::default();
        for path in changed(&counts, &config.said.0) {
            let live = LIVE.iter().find(|(live, _)| *live == path);
            if live.is_some_and(|(_, apply)| apply(self, &config, server)) {
                put(&mut counts, &config.said.0, &path);
                reloaded.applied.push(path);
            } else {
                reloaded.needs_restart.push(path);
            }
        }
        if !reloaded.applied.is_empty() {
            server.access_changed();
        }
        Ok(reloaded)
    }
}

fn apply_grants(reload: &Reload, config: &Config, _: &Server) -> bool {
    match (&reload.grants, &config.auth) {
        (Some(grants), AuthChoice::Grants(new)) => grants.replace(new.clone()).is_ok(),
        (Some(_) | None, _) => false,
    }
}

fn apply_origins(_: &Reload, config: &Config, server: &Server) -> bool {
    server.set_origins(config.origins.clone());
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

/// Has `counts` say of the setting at `path` what `file` says.
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
