//! The to-do application of `examples/browser` in Chromium, against the binary.

use std::path::Path;
use std::process::Command;

use tempfile::tempdir;

use super::node;
use super::stock::answer;
use crate::server::embedding;
use crate::server::examples::browser as example;
use crate::support::process::{Process, binary};

const TOKEN: &str = "only-for-this-test";

/// What the tokens of the login are signed with.
const SECRET: &str = "a secret of more than 32 bytes, for tests";

/// Nobody is let in without a token of the login.
fn serve_with_login(directory: &Path) -> Process {
    let config = directory.join("login.toml");
    let text =
        format!("auth.mode = \"jwt\"\norigins = [\"*\"]\n[auth.jwt]\nsecret = \"{SECRET}\"\n");
    std::fs::write(&config, text).expect("a file");
    let mut command = binary();
    command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(config);
    command.arg("--data-dir").arg(directory.join("login"));
    Process::start(command)
}

fn serve(directory: &Path, listen: &str) -> Process {
    let config = directory.join("eventlog.toml");
    let text = format!("auth.mode = \"allow-all\"\nadmin.token = \"{TOKEN}\"\norigins = [\"*\"]\n");
    std::fs::write(&config, text).expect("a file");
    let mut command = binary();
    command.args(["serve", "--dev", "--listen", listen, "--config"]).arg(config);
    command.arg("--data-dir").arg(directory.join("data"));
    Process::start(command)
}

/// Each `ok` that the script prints is a case; see the script.
#[tokio::test]
async fn two_browsers_share_a_list_through_restarts_conflicts_and_a_removed_key() {
    let Some(mut command) = node::script("browser.mjs") else { return };
    let Some(chromium) = node::chromium("browser.mjs") else { return };
    let directory = tempdir().expect("a directory");
    let (backend, _database) =
        example::start(&directory.path().join("backend")).expect("it starts");
    let backend = embedding::serve(move |config| backend.configure(config)).await;
    let login = serve_with_login(directory.path());
    let server = serve(directory.path(), "127.0.0.1:0");
    let (url, at) = (server.url.clone(), address(&server));
    command.args([&at, TOKEN]).arg(chromium).args([&address(&login), SECRET, &backend.to_string()]);
    let played = tokio::task::spawn_blocking(move || {
        node::build_application();
        play(command, directory.path(), server, (&url, &at));
    });
    if let Err(failed) = played.await {
        std::panic::resume_unwind(failed.into_panic());
    }
}

/// Runs the script, and does what it asks for.
fn play(command: Command, directory: &Path, server: Process, (url, address): (&str, &str)) {
    let (data, backups) = (directory.join("data"), directory.join("backups"));
    let mut server = Some(server);
    answer(command, |asked| match asked {
        "stop" => drop(server.take()),
        "copy" => {
            let mut backup = binary();
            backup.env("EVENTLOG_ADMIN_TOKEN", TOKEN).args(["backup", "--url", url, "--to"]);
            let ended = backup.arg(&backups).output().expect("it runs");
            assert!(ended.status.success(), "{ended:?}");
        }
        "restore" => {
            drop(server.take());
            std::fs::remove_dir_all(&data).expect("removed");
            let mut restore = binary();
            restore.arg("restore").arg("--from").arg(&backups).arg("--data-dir").arg(&data);
            let ended = restore.output().expect("it runs");
            assert!(ended.status.success(), "{ended:?}");
            server = Some(serve(directory, address));
        }
        _ => server = Some(serve(directory, address)),
    });
}

fn address(server: &Process) -> String {
    server.url.trim_start_matches("ws://").trim_end_matches("/eventlog").to_owned()
}
