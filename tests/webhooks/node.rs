//! The receiver of `examples/`, in Node, with the library of the Standard Webhooks project; and the binary.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::js::node;
use crate::support::process::{Process, binary};

/// The receiver; killed when it is dropped.
struct Example {
    child: Child,
    url: String,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Example {
    fn start(mut command: Command) -> Self {
        command.env("WEBHOOK_SECRET", SECRET).env("PORT", "0");
        let mut child = command.stdout(Stdio::piped()).spawn().expect("node starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let line = lines.next().expect("a line").expect("UTF-8");
        let url = line.strip_prefix("listening on ").expect("it listens").to_owned();
        Self { child, url, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("it lives").expect("UTF-8")
    }
}

fn serve_with(directory: &Path, url: &str, secret: &str) -> Process {
    let file = directory.join("eventlog.toml");
    let config = format!(
        "listen = \"127.0.0.1:0\"\n[auth]\nmode = \"allow-all\"\n\
         [[assign]]\npublic_key = \"alice\"\nstore_id = \"team\"\n\
         [[webhook]]\nname = \"todos\"\nurl = \"{url}\"\nsecret = [\"{secret}\"]\nfrom = \"start\"\n\
         events = [\"Todo*\"]\n"
    );
    std::fs::write(&file, config).expect("written");
    let mut command = binary();
    command.arg("serve").arg("--config").arg(&file).arg("--data-dir").arg(directory.join("data"));
    Process::start(command)
}

async fn add(server: &Process, titles: &[&str]) {
    let mut socket = Socket::connect(&server.url).await;
    let payload = |title: &str| {
        [b"\x81\xa5title", &[0xa0 | title.len() as u8][..], title.as_bytes()].concat()
    };
    let entries: Vec<Entry> =
        titles.iter().map(|title| entry("TodoAdded", title, &payload(title))).collect();
    socket.write(&key("alice"), 1, &batch(&entries)).await;
    socket.next_ack().await;
}

/// The example prints what it accepted, each entry once, whatever happens to the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_in_node_verifies_and_takes_every_entry_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(command) = node::example("webhook.mjs", directory.path()) else { return };
    let mut receiver = Example::start(command);
    let server = serve_with(directory.path(), &receiver.url, SECRET);
    add(&server, &["Milk", "Bread"]).await;
    assert_eq!(receiver.line(), "team 1 TodoAdded Milk");
    assert_eq!(receiver.line(), "team 2 TodoAdded Bread");
    // Killed: what was sent before can come again.
    drop(server);
    let server = serve_with(directory.path(), &receiver.url, SECRET);
    add(&server, &["Eggs"]).await;
    assert_eq!(receiver.line(), "team 3 TodoAdded Eggs");
    drop(server);
    // If it is signed with another secret, nothing is accepted; with both, it is.
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let server = serve_with(directory.path(), &receiver.url, other);
    add(&server, &["Salt"]).await;
    drop(server);
    let both = format!("{other}\", \"{SECRET}");
    let server = serve_with(directory.path(), &receiver.url, &both);
    add(&server, &["Tea"]).await;
    assert_eq!(receiver.line(), "team 4 TodoAdded Salt");
    assert_eq!(receiver.line(), "team 5 TodoAdded Tea");
}
