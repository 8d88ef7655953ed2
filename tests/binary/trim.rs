//! Trims as operators use them: by `[[retention]]`, and on the directory of a stopped server.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::tempdir;

use crate::support::process::{Process, binary};
use crate::support::socket::Socket;
use crate::support::{batch, entry, http, key};

const TOKEN: &str = "only-for-this-test";

fn serve(data: &Path, more: &str) -> Process {
    let config = data.with_extension("toml");
    std::fs::write(&config, more).expect("written");
    let mut command = binary();
    command.env("EVENTLOG_ADMIN_TOKEN", TOKEN);
    command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--config"]).arg(config);
    command.arg("--data-dir").arg(data);
    Process::start(command)
}

async fn write(server: &Process, count: usize) -> u64 {
    let entries: Vec<_> = (0..count).map(|n| entry("Note", &n.to_string(), &[1; 100])).collect();
    let mut socket = Socket::connect(&server.url).await;
    socket.write(&key("alice"), 1, &batch(&entries)).await;
    *socket.next_ack().await.1.last().expect("some")
}

/// The first sequence that a new reader gets.
async fn first(server: &Process) -> u64 {
    let mut socket = Socket::connect(&server.url).await;
    socket.subscribe(&key("bob"), 0).await;
    socket.next_changes().await[0].0
}

async fn begins_with(server: &Process, expected: u64) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let found = first(server).await;
        if found == expected {
            return;
        }
        assert!(tokio::time::Instant::now() < patience, "it begins with {found}, not {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn well(mut command: Command) -> String {
    let ended = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&[&ended.stdout[..], &ended.stderr].concat()).into_owned();
    assert!(ended.status.success(), "{said}");
    said
}

#[tokio::test]
async fn what_the_configuration_does_not_keep_is_trimmed_and_it_can_be_read_again() {
    let directory = tempdir().expect("a directory");
    let data = directory.path().join("data");
    let server = serve(&data, "");
    write(&server, 1_000).await;
    drop(server);
    let server = serve(&data, "[[retention]]\nstores = \"def*\"\nentries_max = 300");
    begins_with(&server, 701).await;
    assert_eq!(write(&server, 10).await, 1_010);
    std::fs::write(
        data.with_extension("toml"),
        "[[retention]]\nstores = \"other\"\nentries_max = 1\n[[retention]]\nstores = \"*\"\nentries_max = 50",
    )
    .expect("written");
    let address = server.url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    let answer = http::post(address.parse().expect("an address"), "/admin/reload", TOKEN).await;
    assert!(answer.contains("retention") && !answer.contains("needsRestart\":[\"retention"));
    begins_with(&server, 961).await;
}

/// What it says when somebody types this, and whether it did it.
fn answered(mut command: Command, answer: &str) -> (bool, String) {
    let pipe = std::process::Stdio::piped;
    let mut asked = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().expect("it runs");
    let mut input = asked.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut input, answer.as_bytes()).expect("typed");
    drop(input);
    let ended = asked.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[&ended.stdout[..], &ended.stderr].concat()).into_owned();
    (ended.status.success(), said)
}

#[tokio::test]
async fn a_trim_says_what_goes_and_asks() {
    let directory = tempdir().expect("a directory");
    let server = serve(&directory.path().join("data"), "");
    write(&server, 100).await;
    let trim = |before: &str| {
        let mut command = binary();
        command.env("EVENTLOG_ADMIN_TOKEN", TOKEN).args(["trim", "--url", &server.url]);
        command.args(["--store", "default", "--before", before]);
        command
    };
    let (done, said) = answered(trim("41"), "");
    assert!(
        !done && said.contains("40 entries") && said.contains("before entry 41, committed by"),
        "{said}"
    );
    assert!(said.contains("go on: \n") && said.contains("nothing was trimmed"), "{said}");
    assert_eq!(first(&server).await, 1);
    let (done, said) = answered(trim("41"), "yes\n");
    assert!(done && said.contains("what came before entry 41 is trimmed"), "{said}");
    let (done, said) = answered(trim("41"), "");
    assert!(done && said.contains("what came before entry 41 is trimmed"), "nothing goes: {said}");
    let (_, said) = answered(trim("51"), "no\n");
    assert!(said.contains("10 entries"), "{said}");
}

#[tokio::test]
async fn a_stopped_server_is_trimmed_by_its_directory() {
    let directory = tempdir().expect("a directory");
    let data = directory.path().join("data");
    let server = serve(&data, "");
    write(&server, 1_000).await;
    drop(server);
    let ask = |before: &str| {
        let mut command = binary();
        command.args(["trim", "--store", "default", "--before", before, "--data-dir"]).arg(&data);
        command
    };
    let trim = |before: &str| {
        let mut command = ask(before);
        command.arg("--yes");
        command
    };
    let (ended, said) = answered(ask("501"), "no\n");
    assert!(
        !ended && said.contains("500 entries") && said.contains("nothing was trimmed"),
        "{said}"
    );
    assert_eq!(well(trim("501")), "what came before entry 501 is trimmed\n");
    // Nothing is as old as that.
    assert_eq!(well(trim("2001-01-01T00:00:00Z")), "what came before entry 501 is trimmed\n");
    let mut inspect = binary();
    inspect.args(["inspect", "--data-dir"]).arg(&data);
    let said = well(inspect);
    assert!(said.contains("500 entries") && said.contains("trimmed up to 500"), "{said}");
    let mut verify = binary();
    verify.args(["verify", "--data-dir"]).arg(&data);
    assert!(well(verify).contains("500 entries"));
    let server = serve(&data, "");
    assert_eq!(first(&server).await, 501);
}
