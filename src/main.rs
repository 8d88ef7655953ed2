//! The `eventlog-server` binary: see `eventlog-server help`.

mod cli;
mod config;

fn main() -> std::process::ExitCode {
    cli::run()
}
