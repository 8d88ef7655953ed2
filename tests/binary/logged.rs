//! A `serve` with a configuration file, which logs to a file at the level `trace`.

use std::fs::File;

use rustix::process::Signal;
use tempfile::{TempDir, tempdir};

use super::process::{Ended, Serve, command, data, logged};

/// The admin token, for configurations that have one.
pub const ADMIN: &str = "only-for-this-test";

pub struct Logged {
    directory: TempDir,
    serve: Option<Serve>,
}

impl Logged {
    pub fn start(configuration: &str) -> Self {
        let mut server = Self { directory: tempdir().expect("a directory"), serve: None };
        server.configure(configuration);
        server.serve = Some(server.spawn());
        server
    }

    /// Like [`start`](Self::start), with the contents of `data`, which are moved here.
    pub fn over(configuration: &str, data: &std::path::Path) -> Self {
        let mut server = Self { directory: tempdir().expect("a directory"), serve: None };
        std::fs::rename(data, server.path("data")).expect("moved");
        server.configure(configuration);
        server.serve = Some(server.spawn());
        server
    }

    /// Writes another configuration, which is read at the next start, or on request.
    pub fn configure(&self, configuration: &str) {
        std::fs::write(self.path("eventlog.toml"), configuration).expect("written");
    }

    fn spawn(&self) -> Serve {
        let [config, store] = ["eventlog.toml", "data"].map(|name| self.path(name));
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--config", &config];
        let mut command = command(&[&arguments[..], &["--data-dir", &store]].concat());
        let log = File::options().create(true).append(true).open(self.path("log")).expect("a log");
        command.env("EVENTLOG_LOG", "trace").stderr(log);
        Serve::of(command)
    }

    fn path(&self, name: &str) -> String {
        data(&self.directory.path().join(name)).to_owned()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).expect("a log")
    }

    /// Waits until the log has this.
    pub fn comes_to_log(&self, text: &str) {
        logged(self.path("log").as_ref(), text, 1);
    }

    /// What the lines of the log under the target `audit` say.
    pub fn audit(&self) -> Vec<String> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| line.split_once(" audit] "));
        lines.map(|(_, what)| what.to_owned()).collect()
    }

    pub fn restart(&mut self) {
        let ended = self.serve.take().expect("it runs").end(Signal::TERM);
        assert_eq!(ended, Some(0));
        self.serve = Some(self.spawn());
    }

    /// Kills it with whatever it is doing, and starts it again.
    pub fn kill(&mut self) {
        drop(self.serve.take());
        self.serve = Some(self.spawn());
    }

    pub fn serve(&self) -> &Serve {
        self.serve.as_ref().expect("it runs")
    }

    pub fn url(&self) -> &str {
        &self.serve().url
    }

    /// Runs `keys` with the admin token.
    pub fn keys(&self, arguments: &[&str]) -> Ended {
        self.serve().run(&[&["keys", "--token", ADMIN], arguments].concat())
    }
}
