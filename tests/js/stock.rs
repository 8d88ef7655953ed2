//! Unmodified clients of `effect` 4.1 against the binary, which is killed and started again in between.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::tempdir;

use super::node;
use crate::support::process::{Process, binary};

/// What gives access to the admin API, which tells the script which stores there are.
const TOKEN: &str = "only-for-this-test";

fn serve(directory: &Path, listen: &str, flag: Option<&str>) -> Process {
    let config = directory.join("eventlog.toml");
    let text = format!("auth.mode = \"allow-all\"\nadmin.token = \"{TOKEN}\"\n");
    std::fs::write(&config, text).expect("a file");
    let mut command = binary();
    command.args(["serve", "--listen", listen]).args(flag);
    command.arg("--config").arg(config).arg("--data-dir").arg(directory.join("data"));
    Process::start(command)
}

/// Each `ok` that the script prints is a case; see there.
#[test]
fn stock_clients_sync_through_the_server_and_its_restart() {
    run("stock_session.mjs", Some("--dev"));
}

/// The same here: `docs/KEYS.md` says what they have to see.
#[test]
fn stock_clients_whose_key_is_to_move_lose_nothing_and_wait_for_nothing() {
    run("stock_moves.mjs", None);
}

/// Runs a script to its good end, against a server that is restarted where the script asks for that.
fn run(script: &str, flag: Option<&str>) {
    let Some(mut command) = node::script(script) else { return };
    let directory = tempdir().expect("a directory");
    let mut server = Some(serve(directory.path(), "127.0.0.1:0", flag));
    let url = server.as_ref().expect("a server").url.clone();
    let address = url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    command.args([address, TOKEN]);
    follow(command, || {
        // The old one is killed first, with whatever it was doing.
        drop(server.take());
        server = Some(serve(directory.path(), address, flag));
    });
}

fn follow(mut command: Command, mut restart: impl FnMut()) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
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
