//! `completions` and `man`: the command line in the form that shells and `man` need.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use super::connect::is_reader_gone;

const NAME: &str = "eventlog-server";

/// Print the completion script of a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  eventlog-server completions bash > /usr/share/bash-completion/completions/eventlog-server
  eventlog-server completions zsh > /usr/local/share/zsh/site-functions/_eventlog-server
  eventlog-server completions fish > ~/.config/fish/completions/eventlog-server.fish")]
pub(super) struct CompletionsArgs {
    shell: Shell,
}

/// Print the manual page, or write the pages of all commands.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  eventlog-server man | man -l -
  eventlog-server man --out /usr/local/share/man/man1")]
pub(super) struct ManArgs {
    /// Write a page for each command to this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Nothing could be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShellError {
    /// Writing to standard output failed.
    #[error("cannot print: {0}")]
    Print(io::Error),
    /// Writing to the directory failed.
    #[error("cannot write to {}: {cause}", path.display())]
    Write {
        /// The directory.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<(), ShellError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    print(&script)
}

pub(super) fn man(args: &ManArgs) -> Result<(), ShellError> {
    let mut command = Cli::command();
    command.build();
    if let Some(path) = &args.out {
        let written = clap_mangen::generate_to(command, path);
        return written.map_err(|cause| ShellError::Write { path: path.clone(), cause });
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(ShellError::Print)?;
    print(&page)
}

fn print(text: &[u8]) -> Result<(), ShellError> {
    match io::stdout().lock().write_all(text) {
        Err(error) if !is_reader_gone(&error) => Err(ShellError::Print(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
