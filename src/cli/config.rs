//! `config`: the configuration that a server would start with, and the settings that its file may have.
//!
//! Keeps: it starts nothing and changes nothing; no secret is shown. Leaves out: the settings themselves
//! (`crate::config`).

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use super::connect::is_reader_gone;
use super::serve::{self, DevToken};
use super::text;
use crate::config::{
    Address, Config, ConfigError, ConfigFaults, Effective, Environment, LogFormat, Settings, schema,
};

// It has no documentation: that would replace the documentation of the command that contains it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ConfigArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "EVENTLOG_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Address and port [default: 127.0.0.1:7420]
    #[arg(long, value_name = "ADDR")]
    listen: Option<Address>,
    /// The directory for all data [default: data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The format of the log: text for people, json for machines [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Let everyone write and read, and durably map unknown keys to the store `default`
    #[arg(long)]
    dev: bool,
    #[arg(skip)]
    dev_token: Option<DevToken>,
}

impl ConfigArgs {
    /// What these, the environment and the file add up to.
    pub(super) fn load(&self) -> Result<Config, ConfigFaults> {
        let mut config = self.examine().1?;
        config.admin.tokens.extend(self.dev_token.as_ref().and_then(DevToken::admin_token));
        Ok(config)
    }

    /// The same for a command that only asks a running server, which itself knows who may do what.
    pub(super) fn load_to_ask(&self) -> Result<Config, ConfigFaults> {
        match self.load() {
            Err(ConfigFaults(faults))
                if faults.iter().all(|fault| matches!(fault, ConfigError::NoAuthMode)) =>
            {
                Self { dev: true, ..self.clone() }.load()
            }
            loaded => loaded,
        }
    }

    /// With `--dev`, the same with a new token for the console.
    pub(super) fn with_dev_token(mut self) -> Self {
        self.dev_token = self.dev.then(DevToken::made);
        self
    }

    pub(super) fn dev_token(&self) -> Option<&DevToken> {
        self.dev_token.as_ref()
    }

    /// The configuration with the source of each value, even if it is invalid.
    fn examine(&self) -> (Effective, Result<Config, ConfigFaults>) {
        let Self { config, listen, data_dir, log_format, dev, dev_token: _ } = self;
        let mut flags = Settings::default();
        (flags.listen, flags.data_dir) = (*listen, data_dir.clone());
        flags.log.format = *log_format;
        Config::examine(config.as_deref(), Environment::new(std::env::vars_os()), flags, *dev)
    }
}

/// Check the configuration of a server without starting it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print every setting with the source of its value, and everything that is wrong
    ///
    /// Takes the same options as `serve`. Secrets are shown as ***. The command also reads files with keys and
    /// certificates, but makes no network requests. Exits with 1 if the server would not start.
    #[command(after_help = "\
Example:
  eventlog-server config check --config /etc/eventlog/eventlog.toml")]
    Check(ConfigArgs),
    /// Print the JSON Schema of the configuration file, for editors
    ///
    /// Editors with Taplo use it if the first line of the file is `#:schema eventlog.schema.json`.
    Schema,
}

/// The configuration is invalid, or cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigCommandError {
    /// It is invalid.
    #[error(transparent)]
    Config(#[from] ConfigFaults),
    /// Something that it refers to cannot be used.
    #[error(transparent)]
    Parts(#[from] serve::ServeError),
    /// Several things.
    #[error("{} things cannot be used:{}", .0.len(), listed(.0))]
    Several(Vec<serve::ServeError>),
    /// The output cannot be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

fn listed(faults: &[serve::ServeError]) -> String {
    faults.iter().fold(String::new(), |list, fault| list + "\n\n* " + &fault.to_string())
}

pub(super) fn run(args: Args) -> Result<(), ConfigCommandError> {
    let done = match args.command {
        Command::Check(args) => check(&args),
        Command::Schema => print(&format!("{:#}\n", schema())).map_err(Into::into),
    };
    match done {
        Err(ConfigCommandError::Print(error)) if is_reader_gone(&error) => Ok(()),
        done => done,
    }
}

fn check(args: &ConfigArgs) -> Result<(), ConfigCommandError> {
    let (effective, config) = args.examine();
    print(&table(&effective))?;
    let config = config?;
    for warning in &config.warnings {
        anstream::eprintln!("\x1b[1;33mwarning:\x1b[0m {}", text::lines(warning));
    }
    let mut faults = serve::faults(&config);
    match faults.len() {
        0 => Ok(()),
        1 => Err(faults.remove(0).into()),
        _ => Err(ConfigCommandError::Several(faults)),
    }
}

/// One setting per line, which is TOML with the source as a comment.
fn table(effective: &Effective) -> String {
    let mut text = String::new();
    for (key, value, source) in effective.lines() {
        let setting = format!("{key} = {value}");
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{setting:<50}  # {source}");
    }
    text
}

fn print(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}
