//! Several nodes of the real binary on one PostgreSQL. If there is no PostgreSQL, these tests report that and pass.
//! With `CI=true`, they fail.

mod balanced;
mod drill;
mod erased;
mod export;
mod failover;
mod guarded;
mod handlers;
mod kills;
mod migrate;
mod nodes;
mod one;
mod pooler;
mod quarantine;
mod queued;
mod several;
mod standby;
mod stock;
mod takeover;

use std::path::PathBuf;

/// Starts PostgreSQL's programs. The tests of the library use the same file.
#[path = "../../src/testing/cluster.rs"]
mod postgres;

use tempfile::TempDir;

pub(crate) use self::postgres::{Cluster, cluster};
use crate::support::process::{Process, binary};

const ADMIN: &str = "an-admin-token-that-nobody-guesses";

/// How often each node is killed: the value of `EVENTLOG_TEST_KILLS`, or three times. `docs/CLUSTER.md` has the recipe
/// for many more.
fn rounds() -> u32 {
    std::env::var("EVENTLOG_TEST_KILLS").map_or(3, |said| said.parse().expect("a number"))
}

/// One node, which is restarted on its port.
struct Node {
    process: Process,
    directory: TempDir,
    database: String,
    port: u16,
    settings: Vec<(&'static str, String)>,
}

impl Node {
    /// Everybody may do everything, and unknown keys get the store `default`.
    fn dev(database: &str) -> Self {
        Self::start(database, Vec::new())
    }

    fn start(database: &str, settings: Vec<(&'static str, String)>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let process = serve(&directory.path().to_owned(), database, port, &settings);
        Self { process, directory, database: database.to_owned(), port, settings }
    }

    /// Kills the node and starts it again.
    fn kill(&mut self) {
        self.end("KILL");
        self.start_again();
    }

    fn end(&mut self, signal: &str) {
        self.process.signal(signal);
        self.process.wait();
    }

    /// Starts a node that has ended, with its directory.
    fn start_again(&mut self) {
        self.process =
            serve(&self.directory.path().to_owned(), &self.database, self.port, &self.settings);
    }

    /// The log output of the node.
    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).expect("a log")
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/eventlog", self.port)
    }

    fn run(&self, arguments: &[&str]) -> String {
        let done = self.process.run(arguments);
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{arguments:?}: {told}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

fn serve(
    directory: &PathBuf,
    database: &str,
    port: u16,
    settings: &[(&'static str, String)],
) -> Process {
    let mut command = binary();
    command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"]).arg(directory);
    if settings.is_empty() {
        command.arg("--dev");
    }
    command.env("EVENTLOG_STORAGE_KIND", "postgres").env("EVENTLOG_STORAGE_URL", database);
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    let mut log = std::fs::OpenOptions::new();
    let log = log.create(true).append(true).open(directory.join("log")).expect("a log");
    command.stderr(log);
    Process::start(command)
}

impl Drop for Node {
    /// Prints its output, which is useful if a test fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}
