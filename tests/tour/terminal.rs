//! The terminals in which a reader of a page types, in a directory and a network of the page's own.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::{TempDir, tempdir};

use super::shown;
use crate::binary::process::lines;

/// Nothing on a page takes this long, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// How a fault begins that says so.
pub const HANGS: &str = "it hangs before";
/// What a shell prints when a command has ended, before its exit status.
const ENDED: char = '\u{1e}';

/// Where a page runs: an empty directory with links to the repository's files, and a network that nobody else uses,
/// where the system permits that.
pub struct Place {
    pub directory: TempDir,
    network: Option<Child>,
}

impl Place {
    pub fn new() -> Self {
        let directory = tempdir().expect("a directory");
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let home = directory.path().join("page");
        let programs = directory.path().join("bin");
        for path in [&home, &programs] {
            std::fs::create_dir(path).expect("a directory");
        }
        for name in ["config.example.toml", "dist", "examples", "tests"] {
            std::os::unix::fs::symlink(repository.join(name), home.join(name)).expect("a link");
        }
        let packages = repository.join("tests/js/node_modules");
        std::os::unix::fs::symlink(packages, home.join("node_modules")).expect("a link");
        let binary = env!("CARGO_BIN_EXE_eventlog-server");
        std::os::unix::fs::symlink(binary, programs.join("eventlog-server")).expect("a link");
        let mut network = Command::new("unshare");
        network.args(["-rn", "sh", "-c", "ip link set lo up && echo up && exec sleep 3600"]);
        network.env("PATH", path(&programs)).stdout(Stdio::piped()).stderr(Stdio::null());
        let network = network.spawn().ok().and_then(|mut child| {
            let up = BufReader::new(child.stdout.take()?).lines().next().is_some();
            if !up {
                let _ = child.wait();
            }
            up.then_some(child)
        });
        Self { directory, network }
    }

    /// Whether others may use the same ports.
    pub fn shares_ports(&self) -> bool {
        self.network.is_none()
    }

    /// A path to something that the page writes.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("page").join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(network) = &mut self.network {
            let _ = network.kill();
            let _ = network.wait();
        }
    }
}

/// Where programs are: the page's, the user's, the administrators'.
fn path(programs: &Path) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{}:{path}:/usr/sbin:/sbin", programs.display())
}

/// A shell, and what it currently runs. It and everything it started are killed when it is dropped.
pub struct Terminal {
    shell: Child,
    stdin: ChildStdin,
    output: Receiver<String>,
    script: std::path::PathBuf,
    running: Option<String>,
}

impl Terminal {
    pub fn open(place: &Place, name: &str) -> Self {
        let mut command = match &place.network {
            Some(network) => {
                let mut enter = Command::new("nsenter");
                enter.args(["--preserve-credentials", "-U", "-n", "-t", &network.id().to_string()]);
                enter.arg("bash");
                enter
            }
            None => Command::new("bash"),
        };
        let names = std::env::vars().map(|(name, _)| name);
        for name in names.filter(|name| name.starts_with("EVENTLOG_") || name == "RUST_LOG") {
            command.env_remove(name);
        }
        command.args(["--norc", "--noprofile"]).current_dir(place.file("")).process_group(0);
        command.env("PATH", path(&place.directory.path().join("bin"))).env("HOME", place.file(""));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut shell = command.spawn().expect("bash");
        let output = lines(shell.stdout.take().expect("a pipe"));
        let mut stdin = shell.stdin.take().expect("a pipe");
        // As in a terminal: Ctrl-C ends the running command and not the shell, aliases work, curl shows no progress. On
        // a page, a non-zero exit status is a failure.
        let begin = "exec 2>&1; trap : INT TERM; shopt -s expand_aliases; set -o pipefail\n\
                     curl() { command curl -sS --fail-with-body \"$@\"; }\n";
        stdin.write_all(begin.as_bytes()).expect("bash reads");
        let script = place.directory.path().join(format!("{name}.sh"));
        Self { shell, stdin, output, script, running: None }
    }

    /// Types a command; returns once it has ended as the page says, or, if it keeps running, has shown what the page
    /// says.
    pub fn run(&mut self, command: &str, shown: &[String], stays: bool) -> Result<(), String> {
        if let Some(running) = &self.running {
            return Err(format!("`{running}` still runs there: a reader needs ^C first"));
        }
        std::fs::write(&self.script, format!("{command}\n")).expect("a file");
        let path = self.script.display();
        let line = format!(". '{path}' </dev/null; printf '\\036%d\\n' $?\n");
        self.stdin.write_all(line.as_bytes()).map_err(|_| "the shell has ended".to_owned())?;
        self.running = Some(command.to_owned());
        if stays {
            let serves = command.contains(" serve") && shown.is_empty();
            let listens = ["listening on …".to_owned()];
            return self.wait(if serves { &listens } else { shown });
        }
        let wanted = command.rsplit_once("# exit ").map_or("0", |(_, status)| status.trim());
        let (printed, status) = self.end(Instant::now() + PATIENCE)?;
        if status != wanted {
            return Err(format!(
                "exit status {status} instead of {wanted}:\n{}",
                printed.join("\n")
            ));
        }
        if !shown.is_empty() && !shown::all(shown, &printed) {
            return Err(format!(
                "it prints\n{}\ninstead of\n{}",
                printed.join("\n"),
                shown.join("\n")
            ));
        }
        Ok(())
    }

    /// Waits until the running command has printed these lines, with anything between them.
    pub fn wait(&mut self, shown: &[String]) -> Result<(), String> {
        let mut printed = String::new();
        let deadline = Instant::now() + PATIENCE;
        for wanted in shown.iter().filter(|line| !line.is_empty() && *line != "…") {
            loop {
                let line = self.line(deadline);
                let line = line.map_err(|why| format!("{why} {wanted:?}:\n{printed}"))?;
                if let Some((_, status)) = line.split_once(ENDED) {
                    self.running = None;
                    return Err(format!("it ended with {status} before {wanted:?}:\n{printed}"));
                }
                if shown::line(wanted, &line) {
                    break;
                }
                let _ = writeln!(printed, "{line}");
            }
        }
        Ok(())
    }

    /// Presses Ctrl-C, and waits for the running command to end.
    pub fn interrupt(&mut self) -> Result<(), String> {
        if self.running.is_none() {
            return Err("nothing runs there".to_owned());
        }
        let deadline = Instant::now() + PATIENCE;
        let mut signal = Signal::INT;
        loop {
            let _ = kill_process_group(Pid::from_child(&self.shell), signal);
            // The shell may not have started the command yet, or SIGINT may be ignored, as in a command behind `&`.
            signal = Signal::TERM;
            let again = (Instant::now() + Duration::from_secs(1)).min(deadline);
            match self.end(again) {
                Err(why) if why.starts_with(HANGS) && again < deadline => {}
                ended => return ended.map(drop),
            }
        }
    }

    /// The output until the running command ends, and its exit status.
    fn end(&mut self, deadline: Instant) -> Result<(Vec<String>, String), String> {
        let mut printed = vec![];
        loop {
            let line = self.line(deadline);
            let line = line.map_err(|why| format!("{why} its end:\n{}", printed.join("\n")))?;
            if let Some((rest, status)) = line.split_once(ENDED) {
                printed.extend((!rest.is_empty()).then(|| rest.to_owned()));
                self.running = None;
                return Ok((printed, status.to_owned()));
            }
            printed.push(line);
        }
    }

    fn line(&self, deadline: Instant) -> Result<String, &'static str> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.output.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => HANGS,
            RecvTimeoutError::Disconnected => "the shell has ended before",
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // All of it may have ended.
        let _ = kill_process_group(Pid::from_child(&self.shell), Signal::KILL);
        let _ = self.shell.wait();
    }
}
