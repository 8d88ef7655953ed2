//! Unmodified clients of `effect` 4.1 against the binary, which is killed and started again in between.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::tempdir;

use super::node;
use crate::support::process::{Process, binary};

/// What gives access to the admin API, which tells the script which stores there are.
const TOKEN: &str = "only-for-this-test";

fn serve(directory: &Path, listen: &str) -> Process {
    let config = directory.join("eventlog.toml");
    std::fs::write(&config, format!("[admin]\ntoken = \"{TOKEN}\"\n")).expect("a file");
    let mut command = binary();
    command.args(["serve", "--dev", "--listen", listen]);
    command.arg("--config").arg(config).arg("--data-dir").arg(directory.join("data"));
    Process::start(command)
}

/// Each `ok` that the script prints is a case; see there.
#[test]
fn stock_clients_sync_through_the_server_and_its_restart() {
    let Some(command) = node::script("stock_session.mjs") else { return };
    let directory = tempdir().expect("a directory");
    let mut server = Some(serve(directory.path(), "127.0.0.1:0"));
    let url = server.as_ref().expect("a server").url.clone();
    let address = url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    run(command, &[address, TOKEN], || {
        // The old one is killed first, with whatever it was doing.
        drop(server.take());
        server = Some(serve(directory.path(), address));
    });
}

/// Runs a script to its good end, and restarts the server where it asks for that.
fn run(mut command: Command, arguments: &[&str], mut restart: impl FnMut()) {
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("node starts");
    let mut answers = child.stdin.take().expect("a pipe");
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("a pipe")).lines() {
        let line = line.expect("UTF-8");
        if line == "restart" {
            restart();
            writeln!(answers).expect("it waits for that");
        }
        said.push(line);
    }
    let status = child.wait().expect("it ends");
    assert!(status.success(), "{}", said.join("\n"));
}
