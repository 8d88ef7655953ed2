//! Unmodified clients of `effect` 4.1 against the binary, which is killed and restarted in between.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::tempdir;

use super::node;
use crate::support::process::{Process, binary};

/// The token for the admin API, which tells the script which stores there are.
const TOKEN: &str = "only-for-this-test";

fn serve(directory: &Path, listen: &str, flag: Option<&str>, more: &str) -> Process {
    let config = directory.join("eventlog.toml");
    let text = format!("auth.mode = \"allow-all\"\nadmin.token = \"{TOKEN}\"\n{more}");
    std::fs::write(&config, text).expect("a file");
    let mut command = binary();
    command.args(["serve", "--listen", listen]).args(flag);
    command.arg("--config").arg(config).arg("--data-dir").arg(directory.join("data"));
    Process::start(command)
}

/// Each `ok` that the script prints is a case; see the script.
#[test]
fn stock_clients_sync_through_the_server_and_its_restart() {
    run("stock_session.mjs", Some("--dev"), &mut |_| String::new());
}

/// The client that the README begins with.
#[test]
fn stock_clients_as_the_readme_shows_them_sync() {
    run("stock_readme.mjs", Some("--dev"), &mut |_| String::new());
}

/// The same here: `docs/KEYS.md` says what they must see.
#[test]
fn stock_clients_whose_key_is_to_move_lose_nothing_and_wait_for_nothing() {
    run("stock_moves.mjs", None, &mut |_| String::new());
}

/// An older copy of the data is restored, and healed.
#[test]
fn stock_clients_go_on_with_an_older_copy_that_was_healed() {
    let Some(mut command) = node::script("stock_heal.mjs") else { return };
    let directory = tempdir().expect("a directory");
    let (data, copy) = (directory.path().join("data"), directory.path().join("copy"));
    let mut server = Some(serve(directory.path(), "127.0.0.1:0", Some("--dev"), ""));
    let url = server.as_ref().expect("a server").url.clone();
    let address = url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    command.args([address, TOKEN]);
    let copied = |from: &Path, to: &Path| {
        let ended = Command::new("cp").arg("-r").args([from, to]).status().expect("cp");
        assert!(ended.success());
    };
    answer(command, |asked| {
        match asked {
            "copy" => {
                drop(server.take());
                copied(&data, &copy);
            }
            "restore" => {
                drop(server.take());
                std::fs::remove_dir_all(&data).expect("removed");
                copied(&copy, &data);
                let healed = binary().args(["heal", "--yes", "--data-dir"]).arg(&data).output();
                let healed = healed.expect("it runs");
                assert!(healed.status.success(), "{healed:?}");
            }
            other => panic!("it asks for {other}"),
        }
        server = Some(serve(directory.path(), address, Some("--dev"), ""));
    });
}

/// The beginning of their store is trimmed, whatever they are doing.
#[test]
fn stock_clients_go_on_in_a_store_that_is_trimmed() {
    run("stock_trim.mjs", Some("--dev"), &mut |_| String::new());
}

/// Entries of their store are erased, whatever they are doing.
#[test]
fn stock_clients_go_on_in_a_store_of_which_entries_are_erased() {
    run("stock_erase.mjs", Some("--dev"), &mut |_| String::new());
}

/// Whatever they wrote while they were offline.
#[test]
fn stock_clients_get_rid_of_all_that_they_wrote_offline() {
    run("stock_bulk.mjs", Some("--dev"), &mut |_| String::new());
}

/// The same here: `docs/QUOTAS.md` says what they do. After the restart the store may hold more.
#[test]
fn stock_clients_live_with_quotas() {
    run("stock_quota.mjs", Some("--dev"), &mut |starts| {
        let (stored, identities) = (1_000_000 * starts, 1 + starts);
        format!(
            "[quota.per_key]\nwrites_per_second = 2\nbytes_per_second = 20_000\nburst = \"1s\"\nsubscriptions = 2\n\
             [quota.per_store]\nbytes_stored = {stored}\n[limits]\nidentities_max = {identities}\n"
        )
    });
}

/// The same here: `docs/QUARANTINE.md` says what they do. After the restart an entry may be larger.
#[test]
fn stock_clients_live_with_an_entry_that_is_put_aside() {
    run("stock_quarantine.mjs", Some("--dev"), &mut |starts| {
        let bytes = if starts == 1 { 300_000 } else { 2_000_000 };
        format!("[limits]\nentry_bytes_max = {bytes}\n")
    });
}

/// Runs a script successfully to its end, against a server that is restarted where the script asks for that. `more` is
/// added to its configuration at each of its starts, counted from 1.
pub fn run(script: &str, flag: Option<&str>, more: &mut dyn FnMut(u32) -> String) {
    let Some(mut command) = node::script(script) else { return };
    let directory = tempdir().expect("a directory");
    let mut starts = 1;
    let mut server = Some(serve(directory.path(), "127.0.0.1:0", flag, &more(starts)));
    let url = server.as_ref().expect("a server").url.clone();
    let address = url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    command.args([address, TOKEN]);
    follow(command, || {
        // The old one is killed first, whatever it is doing.
        drop(server.take());
        starts += 1;
        server = Some(serve(directory.path(), address, flag, &more(starts)));
    });
}

pub fn follow(command: Command, mut restart: impl FnMut()) {
    answer(command, |asked| match asked {
        "restart" => restart(),
        other => panic!("it asks for {other}"),
    });
}

/// Runs a script successfully to its end. What it prints that is not a case is a request, which `carry_out` handles
/// before the script continues.
pub fn answer(command: Command, mut carry_out: impl FnMut(&str)) {
    answer_with(command, |asked| {
        carry_out(asked);
        String::new()
    });
}

/// The same for requests that are answered with a line.
pub fn answer_with(mut command: Command, mut carry_out: impl FnMut(&str) -> String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("node starts");
    let mut answers = child.stdin.take().expect("a pipe");
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("a pipe")).lines() {
        let line = line.expect("UTF-8");
        let asks = ["restart", "stop", "start", "copy", "restore", "beside"];
        if asks.contains(&line.as_str()) || line.starts_with("erase ") {
            let answer = carry_out(&line);
            writeln!(answers, "{answer}").expect("it waits for that");
        }
        said.push(line);
    }
    let status = child.wait().expect("it ends");
    assert!(status.success(), "{}", said.join("\n"));
}

const SECRET: &str = "a secret of more than 32 bytes, for this test";

/// The login server of the examples, and a server that trusts its tokens. Each `ok` that the script prints is a case.
#[test]
fn stock_clients_sync_with_the_tokens_of_the_login_of_the_examples() {
    let Some(mut command) = node::script("stock_login.mjs") else { return };
    let directory = tempdir().expect("a directory");
    let mut server = binary();
    server.env("EVENTLOG_AUTH_MODE", "jwt").env("EVENTLOG_AUTH_JWT_SECRET", SECRET);
    server.env("EVENTLOG_AUTH_JWT_LEEWAY", "0s").env("EVENTLOG_ADMIN_TOKEN", TOKEN);
    server.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.path());
    let server = Process::start(server);
    let (_login, login_url) = start_example("login.mjs", "5", ("EVENTLOG_AUTH_JWT_SECRET", SECRET));
    let address = server.url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    command.args([address, &login_url, TOKEN]);
    follow(command, || panic!("nothing is restarted"));
}

/// Starts an example that listens, with this time and this secret; returns its address.
fn start_example(name: &str, seconds: &str, (variable, secret): (&str, &str)) -> (Ended, String) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let mut example_command = Command::new("node");
    example_command.arg(example).args(["0", seconds]).env(variable, secret);
    let child = example_command.stdout(Stdio::piped()).spawn();
    let mut child = Ended(child.expect("node starts"));
    let mut line = String::new();
    let output = child.0.stdout.take().expect("a pipe");
    BufReader::new(output).read_line(&mut line).expect("it says where it listens");
    let (_, url) = line.trim().split_once(" at ").expect("that line");
    let url = url.to_owned();
    (child, url)
}

/// The application of the examples that identifies its users by a cookie. Each `ok` that the script prints is a case.
#[test]
fn stock_clients_sync_with_a_session_cookie_through_the_application_of_the_examples() {
    let Some(mut command) = node::script("stock_callback.mjs") else { return };
    let directory = tempdir().expect("a directory");
    let secret = ("EVENTLOG_AUTH_HTTP_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let (_application, application) = start_example("session.mjs", "2", secret);
    // Nobody else takes it before the script does.
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it").port();
    let mut server = binary();
    server.env("EVENTLOG_AUTH_MODE", "http").env(secret.0, secret.1);
    server.env("EVENTLOG_AUTH_HTTP_URL", format!("http://127.0.0.1:{port}/"));
    server.env("EVENTLOG_AUTH_HTTP_HEADERS", "cookie").env("EVENTLOG_AUTH_HTTP_TIMEOUT", "2s");
    server.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.path());
    let server = Process::start(server);
    let address = server.url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    command.args([address, &port.to_string(), &application]);
    follow(command, || panic!("nothing is restarted"));
}

/// Ends a process when it is dropped.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
