//! Reads the sources of a configuration, one after another.
//!
//! Keeps: an error in one source does not hide errors in the next. Leaves out: how they are combined
//! ([`super::Config`]).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Said;
use super::environment::Environment;
use super::fault::ConfigError;
use super::layer::{FileFaults, Layer};
use super::secrets::{self, SecretFile};
use super::settings::Settings;
use super::sources::{Effective, Source};
use super::units::Address;

/// What is known while sources are read.
pub(super) struct Loading {
    pub(super) said: Said,
    pub(super) secret_files: Vec<SecretFile>,
    pub(super) effective: Effective,
    pub(super) file_readable_by_all: bool,
    pub(super) faults: Vec<ConfigError>,
}

impl Default for Loading {
    fn default() -> Self {
        Self {
            said: Said::default(),
            secret_files: Vec::new(),
            effective: Effective::new(),
            file_readable_by_all: false,
            faults: Vec::new(),
        }
    }
}

impl Loading {
    /// The settings in the file. Without a readable file there is no point in continuing.
    pub(super) fn file(&mut self, path: Option<&Path>) -> Result<Settings, ConfigError> {
        let Some(path) = path else { return Ok(Settings::default()) };
        let (text, readable_by_all) =
            read(path).map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
        self.file_readable_by_all = readable_by_all;
        self.said = Said(text.parse().unwrap_or_default());
        self.effective.add_file(path, &text);
        let (settings, faults) = parse_file(&text);
        let faults = faults.found.into_iter();
        self.faults
            .extend(faults.map(|fault| ConfigError::Malformed { path: path.to_owned(), fault }));
        Ok(self.with_secrets(settings))
    }

    pub(super) fn environment(&mut self, mut environment: Environment) -> Settings {
        let mut settings = Settings::default();
        settings.fill("EVENTLOG", &mut environment);
        let (taken, faults) = environment.finish();
        self.effective.add_environment(&taken);
        self.faults.extend(faults.into_iter().map(ConfigError::from));
        self.with_secrets(settings)
    }

    fn with_secrets(&mut self, mut settings: Settings) -> Settings {
        let (files, faults) = settings.read_secrets();
        self.secret_files.extend(files);
        self.faults.extend(faults);
        settings
    }
}

#[expect(clippy::disallowed_methods, reason = "the configuration is a file")]
fn read(path: &Path) -> std::io::Result<(String, bool)> {
    let mut file = File::open(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((text, secrets::readable_by_all(&file)?))
}

/// The settings in `text`, and everything that is wrong with it.
pub(super) fn parse_file(text: &str) -> (Settings, FileFaults<'_>) {
    let mut faults = FileFaults::new(text);
    let mut settings = Settings::default();
    let (table, wrong) = DeTable::parse_recoverable(text);
    for error in &wrong {
        // Without the line itself, which may contain a secret.
        faults.add(error.span().map_or(0, |span| span.start), "", error.message());
    }
    if wrong.is_empty() {
        let span = table.span();
        settings.read("", Spanned::new(span, DeValue::Table(table.into_inner())), &mut faults);
    }
    (settings, faults)
}

pub(super) fn add_flags(effective: &mut Effective, flags: &Settings, dev: bool) {
    if let Some(Address(address)) = flags.listen {
        effective.add("listen", format!("{:?}", address.to_string()), Source::Flag("--listen"));
    }
    if let Some(directory) = &flags.data_dir {
        effective.add(
            "data_dir",
            format!("{:?}", directory.display().to_string()),
            Source::Flag("--data-dir"),
        );
    }
    if let Some(format) = flags.log.format {
        let format = format!("{format:?}").to_lowercase();
        effective.add("log.format", format!("{format:?}"), Source::Flag("--log-format"));
    }
    if dev {
        effective.add(
            "auth.mode",
            "\"allow-all\", and unknown keys get the store \"default\"",
            Source::Flag("--dev"),
        );
    }
}

#[expect(clippy::disallowed_methods, reason = "whether others can read a file is seen at the file")]
pub(super) fn warnings(
    files: &[SecretFile],
    config: Option<&Path>,
    tls_key: Option<&Path>,
) -> Vec<String> {
    let is_open = |file: &&SecretFile| {
        file.readable_by_all && secrets::has_secret(&file.setting, file.content.expose())
    };
    let files = files.iter().filter(is_open);
    let files = files.map(|file| (&*file.path, format!("`{}`", file.setting)));
    let config = config.map(|path| (path, "secrets".to_owned()));
    let open = |path: &&Path| File::open(path).and_then(|file| secrets::readable_by_all(&file));
    let key = tls_key.filter(|path| open(path).unwrap_or(false));
    let key = key.map(|path| (path, "the key of `[tls]`".to_owned()));
    let all = files.chain(config).chain(key).map(|(path, what)| {
        let path = path.display();
        format!("every user of this machine can read {path}, which holds {what}; chmod o= {path}")
    });
    all.collect()
}
