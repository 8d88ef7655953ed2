//! Runs the binary: a server in the background, commands to their end, a `tail` that is read line by line.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Nothing here takes this long, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary with these arguments, and without our variables in its environment.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eventlog-server"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("EVENTLOG_") || text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ended {
    pub out: String,
    pub err: String,
    pub code: Option<i32>,
}

impl Ended {
    /// Waits for the end of `child`.
    pub fn of(mut child: Child) -> Self {
        let out = text(child.stdout.take());
        let err = text(child.stderr.take());
        let code = wait(&mut child);
        Self { out: out.join().expect("UTF-8"), err: err.join().expect("UTF-8"), code }
    }

    /// What it printed, if it succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }

    /// Its error message, with this exit code and nothing on standard output.
    pub fn failed(self, code: i32) -> String {
        assert_eq!((self.code, &*self.out), (Some(code), ""), "{}", self.err);
        self.err
    }
}

/// Runs a command to its end.
pub fn run(arguments: &[&str]) -> Ended {
    Ended::of(command(arguments).spawn().expect("it runs"))
}

/// Waits for the end of a process, which is killed if that takes too long; returns the exit code.
pub fn wait(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("it is ours") {
            return status.code();
        }
        if Instant::now() > deadline {
            child.kill().expect("it is ours");
            panic!("it does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A running `serve`. Killed when it is dropped.
pub struct Serve {
    child: Child,
    /// Its address, for `--url`.
    pub url: String,
}

impl Serve {
    /// Starts `serve` with these arguments and waits until it listens; at a free port, unless an address is given.
    pub fn start(arguments: &[&str], address: Option<&str>) -> Self {
        let address = address.unwrap_or("127.0.0.1:0");
        let arguments = [&["serve", "--listen", address], arguments].concat();
        let mut command = command(&arguments);
        // Its log is part of the test's output.
        command.stderr(Stdio::inherit());
        Self::of(command)
    }

    /// Starts this command, which is a `serve`, and waits until it listens.
    pub fn of(mut command: Command) -> Self {
        let mut child = command.spawn().expect("it starts");
        let lines = lines(child.stdout.take().expect("a pipe"));
        let line = lines.recv_timeout(PATIENCE).expect("it says where it listens");
        let url = line.strip_prefix("listening on ").expect("that line").to_owned();
        Self { child, url }
    }

    /// Like [`Serve::start`], with its log in the file `log`.
    pub fn logged(arguments: &[&str], log: &Path) -> Self {
        let mut command = command(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat());
        command.stderr(std::fs::File::create(log).expect("a file"));
        Self::of(command)
    }

    /// A server for everyone, with its data below `directory`.
    pub fn dev(directory: &Path) -> Self {
        Self::start(&["--dev", "--data-dir", data(directory)], None)
    }

    /// Address and port.
    pub fn address(&self) -> &str {
        let (_, address) = self.url.split_once("://").expect("a scheme");
        address.trim_end_matches("/eventlog")
    }

    /// Runs a command against it, with this on standard input.
    pub fn command(&self, arguments: &[&str], input: &str) -> Ended {
        let mut child = command(arguments)
            .env("EVENTLOG_URL", &self.url)
            .stdin(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A command that does not read its input may already be gone.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        Ended::of(child)
    }

    /// Runs a command against it.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.command(arguments, "")
    }

    /// How many files it has open.
    pub fn open_files(&self) -> usize {
        let listed = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        listed.expect("its files").count()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is there");
    }

    /// Waits for the end; returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        wait(&mut self.child)
    }

    /// How much memory it has, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("its memory");
        kib.parse::<u64>().expect("a number") * 1_024
    }

    /// Sends a signal and waits for the end; returns the exit code.
    pub fn end(mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        self.wait()
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that keeps printing. Killed when it is dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    pub fn start(server: &Serve, arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        let mut child = command.env("EVENTLOG_URL", &server.url).spawn().expect("it starts");
        let lines = lines(child.stdout.take().expect("a pipe"));
        Self { child, lines }
    }

    /// The next line that it prints.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("another line")
    }

    /// A line that it has already printed.
    pub fn line_now(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Kills it, and returns the error output.
    pub fn kill(&mut self) -> String {
        self.child.kill().expect("it runs");
        self.end().1
    }

    /// Waits for its end, and returns the exit code and the error output.
    pub fn end(&mut self) -> (Option<i32>, String) {
        let complaints = text(self.child.stderr.take());
        let code = wait(&mut self.child);
        let complaints = complaints.join().expect("UTF-8");
        (code, complaints)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything that comes out of a pipe, so that the process never waits for a reader.
fn text(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    let mut pipe = pipe.expect("a pipe");
    thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).expect("UTF-8");
        text
    })
}

/// The lines that come out of a pipe.
pub fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        // Ends with the output, or when nobody waits for lines any more.
        for line in lines {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// The lines of `log` that contain `word`, once there are this many.
pub fn logged(log: &Path, word: &str, count: usize) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(log).expect("UTF-8");
        let lines: Vec<_> = text.lines().filter(|line| line.contains(word)).collect();
        if lines.len() >= count {
            return lines.into_iter().map(ToOwned::to_owned).collect();
        }
        assert!(Instant::now() < deadline, "no {word:?} in\n{text}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// `directory` as an argument.
pub fn data(directory: &Path) -> &str {
    directory.to_str().expect("UTF-8")
}
