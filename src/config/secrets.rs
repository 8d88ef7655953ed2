//! The settings that nobody may see: which ones they are, and their files.
//!
//! Keeps: each is a text in its source, or the content of a file that the same source names with the setting's name and
//! `_file`; the program shows it only as `***`, whatever is
//! wrong with it, and a database's URL without its password. Leaves out: the type that holds a secret
//! (`model::Secret`).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use eventlog_server::model::Secret;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, SeqDeserializer, StrDeserializer};

use super::fault::ConfigError;
use super::settings::Settings;

/// Every secret setting. The name with `_file` added is the setting that names its file.
pub(super) const SECRETS: [&str; 6] = [
    "storage.url",
    "admin.token",
    "admin.tokens.token",
    "auth.jwt.secret",
    "auth.http.secret",
    "webhook.secret",
];

/// The one that is a URL, in which there may be a password.
const DATABASE: &str = "storage.url";

/// What stands in the place of a secret.
pub(super) const HIDDEN: &str = "***";

/// Most bytes of a secret's file, even with several secrets.
const FILE_BYTES_MAX: u64 = 64 * 1_024;

/// A file that a secret was read from.
#[derive(Clone, Debug)]
pub(crate) struct SecretFile {
    /// The secret's setting.
    pub(crate) setting: String,
    /// The file.
    pub(crate) path: PathBuf,
    /// The content of the file.
    pub(crate) content: Secret,
    /// Whether every user of this machine can read it.
    pub(crate) readable_by_all: bool,
}

/// Whether the setting at `path` (`webhook[2].secret`) is secret.
pub(super) fn is_secret(path: &str) -> bool {
    SECRETS.contains(&without_places(path).as_str())
}

/// Whether there is a secret below `path`: `webhook` has `webhook.secret`.
fn has_secrets_below(path: &str) -> bool {
    let plain = without_places(path);
    let is_below = |secret: &str| secret.strip_prefix(&plain).is_some_and(|it| it.starts_with('.'));
    SECRETS.into_iter().any(is_below)
}

/// `webhook.secret` for `webhook[2].secret`.
pub(super) fn without_places(path: &str) -> String {
    let mut plain = String::new();
    let mut inside = false;
    for letter in path.chars() {
        match letter {
            '[' => inside = true,
            ']' => inside = false,
            letter if !inside => plain.push(letter),
            _ => {}
        }
    }
    plain
}

/// What is shown of the value of a secret setting, as TOML: nothing, but of the URL of a database all except its password.
pub(super) fn shown(setting: &str, value: &str) -> String {
    let url = Some(value).filter(|_| setting == DATABASE).and_then(without_password);
    url.unwrap_or_else(|| format!("\"{HIDDEN}\""))
}

/// Whether there is a secret in what was set: a URL may have no password in it.
pub(super) fn has_secret(setting: &str, value: &str) -> bool {
    shown(setting, value).contains(HIDDEN)
}

/// A URL of a database without its password. `None` if it is not known what is one.
fn without_password(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    if !["postgres", "postgresql"].contains(&scheme.trim_start_matches(['"', '\'', ' '])) {
        return None;
    }
    // The last one: a password may have others in it.
    let (user, rest) =
        rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
    let user = match user.map(|user| user.split_once(':').ok_or(user)) {
        None => String::new(),
        Some(Err(user)) => format!("{user}@"),
        Some(Ok((user, _))) => format!("{user}:{HIDDEN}@"),
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let pairs = query.split('&').map(|pair| {
        let (name, _) = pair.split_once('=').unwrap_or((pair, ""));
        let is_password = name.to_ascii_lowercase().contains("pass") || name.contains('%');
        if is_password { format!("{name}={HIDDEN}") } else { pair.to_owned() }
    });
    let query = if query.is_empty() {
        String::new()
    } else {
        format!("?{}", pairs.collect::<Vec<_>>().join("&"))
    };
    let shown = format!("{scheme}://{user}{place}{query}");
    // The quotation mark at the end may be gone with the password.
    let open = url.chars().next().filter(|mark| ['"', '\''].contains(mark));
    Some(match open {
        Some(mark) if !shown.ends_with(mark) => format!("{shown}{mark}"),
        _ => shown,
    })
}

/// `message` about the setting at `path`, without the value if that is secret: Serde's messages contain what it found
/// instead of a text.
pub(super) fn without(path: &str, message: &str) -> String {
    match message.rsplit_once("expected ") {
        Some((_, expected))
            if is_secret(path) || (has_secrets_below(path) && message.starts_with("invalid ")) =>
        {
            format!("it has to be {expected}")
        }
        _ => message.to_owned(),
    }
}

/// Whether every user of this machine can read the file.
pub(super) fn readable_by_all(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.permissions().mode() & 0o004 != 0)
}

impl Settings {
    /// Reads the secrets that are in files, as if their text were in their place.
    pub(super) fn read_secrets(&mut self) -> (Vec<SecretFile>, Vec<ConfigError>) {
        let mut reading = Reading::default();
        let storage = &mut self.storage;
        reading.read("storage.url", &mut storage.url, &mut storage.url_file);
        let jwt = &mut self.auth.jwt;
        reading.read("auth.jwt.secret", &mut jwt.secret, &mut jwt.secret_file);
        let http = &mut self.auth.http;
        reading.read("auth.http.secret", &mut http.secret, &mut http.secret_file);
        reading.read("admin.token", &mut self.admin.token, &mut self.admin.token_file);
        for (at, entry) in self.admin.tokens.iter_mut().enumerate() {
            let setting = format!("admin.tokens[{}].token", at + 1);
            reading.read(&setting, &mut entry.token, &mut entry.token_file);
        }
        for (at, webhook) in self.webhook.iter_mut().enumerate() {
            let setting = format!("webhook[{}].secret", at + 1);
            reading.read(&setting, &mut webhook.secret, &mut webhook.secret_file);
        }
        (reading.files, reading.faults)
    }
}

#[derive(Default)]
struct Reading {
    files: Vec<SecretFile>,
    faults: Vec<ConfigError>,
}

impl Reading {
    fn read<T: for<'de> Deserialize<'de>>(
        &mut self,
        setting: &str,
        value: &mut Option<T>,
        file: &mut Option<PathBuf>,
    ) {
        let Some(path) = file.take() else { return };
        let wrong = |message: String| ConfigError::SecretFile {
            setting: setting.to_owned(),
            path: path.clone(),
            message,
        };
        if value.is_some() {
            let message = format!("`{setting}` is set as well; set only one of them");
            return self.faults.push(wrong(message));
        }
        let (content, readable_by_all) = match read_file(&path) {
            Ok(read) => read,
            Err(error) => return self.faults.push(wrong(format!("it cannot be read: {error}"))),
        };
        match parse(setting, &content) {
            Ok(parsed) => *value = Some(parsed),
            Err(message) => return self.faults.push(wrong(message)),
        }
        let content = Secret::new(content);
        self.files.push(SecretFile { setting: setting.to_owned(), path, content, readable_by_all });
    }
}

#[expect(clippy::disallowed_methods, reason = "secrets are in files")]
fn read_file(path: &Path) -> io::Result<(String, bool)> {
    let file = File::open(path)?;
    let readable_by_all = readable_by_all(&file)?;
    let mut content = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 64 KiB, and so not a secret"));
    }
    Ok((content, readable_by_all))
}

/// The secret in a file with one line, or the secrets in one with several.
fn parse<T: for<'de> Deserialize<'de>>(setting: &str, content: &str) -> Result<T, String> {
    let lines: Vec<&str> = content.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let parsed: Result<T, ValueError> = match lines[..] {
        [] => return Err("it is empty".to_owned()),
        [line] => {
            let line: StrDeserializer<'_, ValueError> = line.into_deserializer();
            T::deserialize(line)
        }
        _ => T::deserialize(SeqDeserializer::new(lines.iter().copied())),
    };
    parsed.map_err(|error| without(setting, &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_path() {
        for path in SECRETS.into_iter().chain(["webhook[2].secret"]) {
            assert!(is_secret(path), "{path}");
        }
        for path in ["admin", "admin.token_file", "webhook[2].url", "secret"] {
            assert!(!is_secret(path), "{path}");
        }
    }

    #[test]
    fn of_the_url_of_a_database_the_password_alone_is_hidden() {
        for (url, expected) in [
            ("\"postgres://db/x?sslmode=require\"", "\"postgres://db/x?sslmode=require\""),
            ("\"postgres://eventlog@a,b:5/x\"", "\"postgres://eventlog@a,b:5/x\""),
            ("'postgres://u:hunt:2@r/?@db/x?a=b'", "'postgres://u:***@db/x?a=b'"),
            (
                "\"postgresql://db/x?user=u&password=hunter2\"",
                "\"postgresql://db/x?user=u&password=***\"",
            ),
            ("postgres://db/x?p%61ssword=hunter2", "postgres://db/x?p%61ssword=***"),
            ("\"hunter2\"", "\"***\""),
            ("\"mysql://u:hunter2@db\"", "\"***\""),
        ] {
            assert_eq!(shown("storage.url", url), expected);
            assert_eq!(has_secret("storage.url", url), expected.contains("***"));
        }
        assert_eq!(shown("admin.token", "\"postgres://db\""), "\"***\"");
    }

    #[test]
    fn a_message_does_not_say_what_was_found_instead_of_a_secret() {
        let said = "invalid type: integer `424242`, expected a text";
        assert_eq!(without("admin.token", said), "it has to be a text");
        assert_eq!(without("workers", said), said);
        assert_eq!(without("admin.tokens", said), "it has to be a text");
        let unknown = "unknown field `secrets`, expected one of `name`, `url`";
        assert_eq!(without("webhook", unknown), unknown);
    }
}
