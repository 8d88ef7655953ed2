//! The console in Chromium, against the binary.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;

use tempfile::tempdir;

use super::node;
use super::stock::answer;
use crate::support::process::{Process, binary};

const TOKEN: &str = "only-for-this-test";
const READER: &str = "looks-only";

/// A receiver of webhooks that refuses everything for good: each entry of the event `Doomed` becomes a dead letter.
fn refusing_receiver() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _ = stream
                .write_all(b"HTTP/1.1 422 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    format!("http://{address}/")
}

fn serve(directory: &Path, listen: &str, receiver: &str) -> Process {
    let config = directory.join("eventlog.toml");
    let text = format!(
        "auth.mode = \"allow-all\"\nadmin.token = \"{TOKEN}\"\n\
         [[admin.tokens]]\nname = \"reader\"\nrights = \"read\"\ntoken = \"{READER}\"\n\
         [[compaction]]\nevents = [\"Added\", \"Renamed\"]\nolder_than = \"1s\"\nstrategy = \"keep-latest\"\n\
         [[webhook]]\nname = \"mail\"\nurl = \"{receiver}\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\nevents = [\"Doomed\"]\nfrom = \"start\"\n"
    );
    std::fs::write(&config, text).expect("a file");
    let mut command = binary();
    command.args(["serve", "--dev", "--listen", listen, "--config"]).arg(config);
    command.arg("--data-dir").arg(directory.join("data"));
    Process::start(command)
}

/// Each `ok` that the script prints is a case; see the script.
#[test]
fn the_console_shows_each_view_and_does_what_it_may_and_nothing_else() {
    let Some(mut command) = node::script("console.mjs") else { return };
    let Some(chromium) = node::chromium("console.mjs") else { return };
    let directory = tempdir().expect("a directory");
    let receiver = refusing_receiver();
    let mut server = Some(serve(directory.path(), "127.0.0.1:0", &receiver));
    let url = server.as_ref().expect("a server").url.clone();
    let address = url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    command.args([address, TOKEN, READER]).arg(chromium);
    answer(command, |asked| match asked {
        "stop" => drop(server.take()),
        _ => server = Some(serve(directory.path(), address, &receiver)),
    });
}
