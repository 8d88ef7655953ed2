//! The real binary as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// `eventlog-server`, without settings from outside.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eventlog-server"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EVENTLOG_") {
            command.env_remove(name);
        }
    }
    command
}

/// A running `serve`; killed when it is dropped.
pub struct Process {
    child: Child,
    pub url: String,
}

impl Process {
    /// Starts `serve --dev` on a free port and waits until it listens.
    pub fn serve_dev(data_dir: &Path) -> Self {
        let mut command = binary();
        command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
        Self::start(command)
    }

    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary starts");
        let output = child.stdout.take().expect("its output");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("a line of output");
        let url = line.trim().strip_prefix("listening on ").map(ToOwned::to_owned);
        let url = url.unwrap_or_else(|| panic!("it does not listen: {line:?}"));
        Self { child, url }
    }

    /// The current and the peak resident memory, in bytes.
    pub fn memory_bytes(&self) -> (u64, u64) {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("a process");
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
        };
        (kib("VmRSS:") * 1_024, kib("VmHWM:") * 1_024)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The process's view of `path`, with mounts that only it has.
    pub fn inside(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.child.id()))
            .join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
        assert!(sent.success(), "signal {name}");
    }

    /// The exit code, once it has ended.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }

    /// A client command against it.
    pub fn client(&self, arguments: &[&str]) -> Command {
        let (command, rest) = arguments.split_first().expect("a command");
        let mut client = binary();
        client.arg(command).args(["--url", &self.url]).args(rest);
        client
    }

    /// Runs a client command against it.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.client(arguments).output().expect("the command runs")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
