//! Clients that belong elsewhere, from their own packages: they are told, and so is the operator.

use std::fs::File;

use tempfile::tempdir;

use super::node;
use crate::support::process::{Process, binary};

const CONFIG: &str = r#"
auth.mode = "allow-all"
[[assign]]
public_key = "mapped"
store_id = "team"
[[assign]]
public_key = "beta"
store_id = "team"
"#;

/// What each `ok` of the script leaves in the log: once, however often it was tried.
const LINES: [&str; 8] = [
    "at \"/eventlog\" is closed: a client of Effect's RPC, as Effect 4.1 has it: connect it to /rpc",
    "at \"/rpc\" is closed: a client of Effect's RPC in JSON",
    "at \"/eventlog\" is closed: a client of Effect's RPC in JSON",
    "at \"/rpc\" is closed: a client of Effect's RPC in msgpack",
    "at \"/rpc\" is closed: a client of the msgpack protocol, as Effect 4.0 beta has it: connect it to /eventlog",
    "a write with the public key \"mapped\" is refused, and its client will repeat it: encrypted: ",
    "writes with the public key \"beta\" are refused: encrypted: ",
    "to give it one: eventlog-server keys assign 'no body' STORE",
];

#[test]
fn a_client_that_belongs_elsewhere_is_told_so_and_the_log_says_it_once() {
    let Some(mut command) = node::script("wrong_peers.mjs") else { return };
    let directory = tempdir().expect("a directory");
    let (config, log) = (directory.path().join("eventlog.toml"), directory.path().join("log"));
    std::fs::write(&config, CONFIG).expect("a file");
    let mut server = binary();
    server.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(config).arg("--data-dir");
    server.arg(directory.path().join("data")).stderr(File::create(&log).expect("a file"));
    let server = Process::start(server);
    let address = server.url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    let output = command.args([address, "no body"]).output().expect("node starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{problem}");
    let text = std::fs::read_to_string(log).expect("UTF-8");
    for line in LINES {
        assert_eq!(text.matches(line).count(), 1, "{line}\n{text}");
    }
}
