//! Where each value comes from, for people who wonder why a setting has its value.
//!
//! Keeps: values are shown as they were written, but secrets, and whatever has a name that is no setting, as `***`; the
//! order is that of `config.example.toml`, which also contains the defaults. Leaves out: what the values mean
//! (`settings`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use eventlog_server::model::without_user;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::EXAMPLE;
use super::layer::{Layer, below, line_at};
use super::schema::{is_shown, takes_values};
use super::secrets::{self, HIDDEN, is_secret, without_places};
use super::settings::Settings;

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nowhere.
    Default,
    /// Nowhere; it depends on the machine or on other settings.
    Derived,
    /// In the file, at this line.
    File(PathBuf, usize),
    /// In this variable.
    Variable(String),
    /// With this flag.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Derived => f.write_str("default here"),
            Self::File(path, line) => write!(f, "{}, line {line}", path.display()),
            Self::Variable(name) => write!(f, "environment, {name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// Every setting that has a value, with its source. Sources take precedence over those that were added before them.
#[derive(Clone, Debug)]
pub(crate) struct Effective {
    values: BTreeMap<String, (String, Source)>,
}

impl Effective {
    /// The defaults.
    pub(super) fn new() -> Self {
        let mut effective = Self { values: BTreeMap::new() };
        for Shown { key, value, .. } in shown(EXAMPLE) {
            effective.add(&key, value, Source::Default);
        }
        effective
    }

    pub(super) fn add(&mut self, key: &str, value: impl Into<String>, source: Source) {
        // A secret and its file count as one setting.
        let other = key.strip_suffix("_file").map_or_else(|| format!("{key}_file"), str::to_owned);
        if is_secret(key) || is_secret(&other) {
            self.values.remove(&other);
        }
        let value = value.into();
        let value = if is_secret(key) { secrets::shown(key, &value) } else { without_user(&value) };
        self.values.insert(key.to_owned(), (value, source));
    }

    /// Adds the file's values.
    pub(super) fn add_file(&mut self, path: &std::path::Path, text: &str) {
        let schema = Settings::schema();
        for Shown { key, value, line } in shown(text) {
            // A secret may have been given a wrong name.
            let known = value == "[]" || takes_values(&schema, &without_places(&key));
            let value = if known { value } else { format!("\"{HIDDEN}\"") };
            self.add(&key, value, Source::File(path.to_owned(), line));
        }
    }

    /// Adds the environment's values: the variables that were requested.
    pub(super) fn add_environment(&mut self, taken: &[(String, String)]) {
        for (variable, value) in taken {
            if let Some(key) = settings().iter().find(|key| variable_of(key) == *variable) {
                self.add(key, format!("{value:?}"), Source::Variable(variable.clone()));
            }
        }
    }

    /// Adds a value that has no source so far.
    pub(super) fn derive(&mut self, key: &str, value: impl Into<String>) {
        if !self.values.contains_key(key) {
            self.add(key, value, Source::Derived);
        }
    }

    /// Whether a secret is in the file itself.
    pub(super) fn has_secret_in_file(&self) -> bool {
        self.values.iter().any(|(key, (shown, source))| {
            let is_file = matches!(source, Source::File(..));
            is_file && is_secret(key) && secrets::has_secret(key, shown)
        })
    }

    /// Setting, value and source, in the order of the example.
    pub(crate) fn lines(&self) -> Vec<(&str, &str, &Source)> {
        let order = settings();
        let place = |key: &str| {
            let first = |place: &String| key == place || key.starts_with(&format!("{place}["));
            order.iter().position(first).unwrap_or(order.len())
        };
        let mut lines: Vec<_> =
            self.values.iter().map(|(key, (value, source))| (&**key, &**value, source)).collect();
        lines.sort_by_key(|(key, ..)| (place(key), *key));
        lines
    }
}

/// Every existing setting, including lists of tables, in the order of the example.
fn settings() -> Vec<String> {
    let lines = EXAMPLE.lines();
    let lines =
        lines.map(|line| line.strip_prefix('#').filter(|rest| is_shown(rest)).unwrap_or(line));
    let mut table = String::new();
    let mut all = Vec::new();
    for line in lines {
        if let Some(name) = line.strip_prefix('[') {
            name.trim_matches(['[', ']']).clone_into(&mut table);
            if name.starts_with('[') {
                all.push(table.clone());
            }
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| is_shown(line)) {
            all.push(below(&table, key));
        }
    }
    all
}

/// The environment variable of a setting.
fn variable_of(key: &str) -> String {
    format!("EVENTLOG_{}", key.replace('.', "_").to_ascii_uppercase())
}

/// A value as it was written.
struct Shown {
    key: String,
    value: String,
    line: usize,
}

/// Every value in a file, as far as it can be read.
fn shown(text: &str) -> Vec<Shown> {
    let (table, _) = DeTable::parse_recoverable(text);
    let mut all = Vec::new();
    add_table(text, "", table.into_inner(), &mut all);
    all
}

fn add_table(text: &str, path: &str, table: DeTable<'_>, all: &mut Vec<Shown>) {
    for (name, value) in table {
        add_value(text, below(path, name.get_ref()), value, all);
    }
}

fn add_value(text: &str, key: String, value: Spanned<DeValue<'_>>, all: &mut Vec<Shown>) {
    let span = value.span();
    let is_table = |value: &Spanned<DeValue<'_>>| matches!(value.get_ref(), DeValue::Table(_));
    match value.into_inner() {
        DeValue::Table(table) => add_table(text, &key, table, all),
        DeValue::Array(items)
            if !items.is_empty() && items.iter().all(is_table) && !is_secret(&key) =>
        {
            for (at, item) in items.into_iter().enumerate() {
                add_value(text, format!("{key}[{}]", at + 1), item, all);
            }
        }
        _ => {
            let line = line_at(text, span.start);
            let value = text.get(span).unwrap_or("…").lines().map(str::trim);
            all.push(Shown { key, value: value.collect::<Vec<_>>().join(" "), line });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_outweighs_is_shown_and_a_secret_is_not() {
        let mut effective = Effective::new();
        let file = "listen = \"[::]:1\"\nworkers = 3\n[admin]\ntoken = \"CANARY\"\n[[auth.grant]]\npublic_key = \"a\"\nevents = [\n  \"x\", # one\n  \"y\",\n]\n[auth.jwt]\nsecret = [{ kid = \"a\", secret = \"CANARY\" }]";
        effective.add_file("a.toml".as_ref(), file);
        let variables = [("EVENTLOG_WORKERS", "4"), ("EVENTLOG_ADMIN_TOKEN_FILE", "/run/t")];
        let taken = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        effective.add_environment(&taken);
        effective.add("listen", "\"[::]:2\"", Source::Flag("--listen"));
        let lines: Vec<String> = effective
            .lines()
            .into_iter()
            .filter(|(_, _, source)| **source != Source::Default)
            .map(|(key, value, source)| format!("{key} = {value}  # {source}"))
            .collect();
        let expected = [
            "listen = \"[::]:2\"  # --listen",
            "workers = \"4\"  # environment, EVENTLOG_WORKERS",
            "auth.jwt.secret = \"***\"  # a.toml, line 12",
            "auth.grant[1].events = [ \"x\", # one \"y\", ]  # a.toml, line 7",
            "auth.grant[1].public_key = \"a\"  # a.toml, line 6",
            "admin.token_file = \"/run/t\"  # environment, EVENTLOG_ADMIN_TOKEN_FILE",
        ];
        assert_eq!(lines, expected);
        assert_eq!(effective.lines()[0].0, "listen");
    }
}
