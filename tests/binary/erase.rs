//! Erasing as operators see it: on a running server, on a server that is killed, and on the directory of a stopped
//! server.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::tempdir;

use crate::support::process::{Process, binary};
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

const TOKEN: &str = "only-for-this-test";

fn serve(data: &Path) -> Process {
    let mut command = binary();
    command.env("EVENTLOG_ADMIN_TOKEN", TOKEN);
    command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
    Process::start(command)
}

/// Runs `command` with this input, and returns its output.
fn run(mut command: Command, said: &str) -> (bool, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().expect("it runs");
    let mut input = running.stdin.take().expect("a pipe");
    // The command may not read its input.
    let _ = input.write_all(said.as_bytes());
    drop(input);
    let ended = running.wait_with_output().expect("it ends");
    let printed =
        String::from_utf8_lossy(&[&ended.stdout[..], &ended.stderr].concat()).into_owned();
    (ended.status.success(), printed)
}

fn erase(arguments: &[&str], server: Option<&Process>) -> Command {
    let mut command = binary();
    command.args(["erase", "--store", "default"]).args(arguments);
    command.env("EVENTLOG_ADMIN_TOKEN", TOKEN);
    if let Some(server) = server {
        command.args(["--url", &server.url]);
    }
    command
}

async fn read(server: &Process, count: usize) -> Vec<u64> {
    let mut socket = Socket::connect(&server.url).await;
    socket.subscribe(&key("bob"), 0).await;
    let read = socket.next_entries(count).await;
    socket.nothing_comes().await;
    read.iter().map(|(at, _)| *at).collect()
}

#[tokio::test]
async fn what_is_erased_stays_so_whoever_erases_it_and_whatever_kills_the_server() {
    let directory = tempdir().expect("a directory");
    let data = directory.path().join("data");
    let server = serve(&data);
    let entries: Vec<_> = (0..30).map(|n| entry("Note", &(n % 3).to_string(), &[1; 100])).collect();
    let mut socket = Socket::connect(&server.url).await;
    socket.write(&key("alice"), 1, &batch(&entries)).await;
    socket.next_ack().await;

    // It asks first, and every answer but yes means no.
    let (done, said) = run(erase(&["--primary-key", "0"], Some(&server)), "y\n");
    assert!(!done && said.contains("nothing was erased"), "{said}");
    assert!(
        said.contains("10 entries of store \"default\" with the primary key \"0\" lose"),
        "{said}"
    );
    let (done, said) = run(erase(&["--id", &entries[1].id.to_string()], Some(&server)), "");
    assert!(!done && said.contains("1 entry of store \"default\" loses its content"), "{said}");
    let (done, said) = run(erase(&[], Some(&server)), "");
    let whole = "30 entries of store \"default\" lose their content, and the keys of the store";
    assert!(!done && said.contains(whole), "{said}");
    let (done, said) = run(erase(&["--primary-key", "*", "--yes"], Some(&server)), "");
    assert!(done && said.contains("0 entries are erased\n  --primary-key is exact"), "{said}");
    assert_eq!(read(&server, 30).await.len(), 30);
    let (done, said) = run(erase(&["--primary-key", "0"], Some(&server)), "yes\n");
    assert!(done && said.contains("10 entries are erased"), "{said}");
    let ids = [entries[1].id.to_string(), entries[4].id.to_string()];
    let arguments =
        ["--yes", "--id", &ids[0], "--id", &ids[1], "--id", "018bcfe5-6800-70e1-8101-010101010101"];
    let (done, said) = run(erase(&arguments, Some(&server)), "");
    assert!(
        done && said.contains("2 entries are erased\n  the store does not know 018bcfe5"),
        "{said}"
    );
    let shown = |id: &str| {
        let mut entries = binary();
        entries.args(["entries", "--store", "default", "--id", id, "--url", &server.url]);
        entries.env("EVENTLOG_ADMIN_TOKEN", TOKEN);
        run(entries, "")
    };
    let (done, said) = shown(&ids[0]);
    assert!(!done && said.contains("is erased"), "not the one that follows: {said}");
    assert!(shown(&entries[2].id.to_string()).0);
    let left: Vec<u64> = (1..=30).filter(|at| at % 3 != 1 && ![2, 5].contains(at)).collect();
    assert_eq!(read(&server, left.len()).await, left);

    // The server is killed before any checkpoint.
    drop(server);
    let server = serve(&data);
    assert_eq!(read(&server, left.len()).await, left);
    let mut socket = Socket::connect(&server.url).await;
    socket.write(&key("alice"), 2, &batch(&entries)).await;
    assert!(socket.next_ack().await.1.into_iter().eq(1..=30), "it does not come back");
    assert_eq!(read(&server, left.len()).await, left);
    drop(server);

    let path = data.to_str().expect("text");
    let (done, said) = run(erase(&["--data-dir", path, "--primary-key", "1"], None), "");
    assert!(!done && said.contains("8 entries of store") && said.contains("nothing was"), "{said}");
    let (done, said) = run(erase(&["--yes", "--data-dir", path, "--primary-key", "1"], None), "");
    assert!(done && said.contains("8 entries are erased"), "{said}");
    let mut verify = binary();
    verify.args(["verify", "--data-dir", path]);
    let (done, said) = run(verify, "");
    assert!(done, "{said}");
    let server = serve(&data);
    let left: Vec<u64> = (1..=30).filter(|at| at % 3 == 0).collect();
    assert_eq!(read(&server, left.len()).await, left);

    // The whole store: its name has to be typed.
    let (done, said) = run(erase(&[], Some(&server)), "yes\n");
    assert!(!done && said.contains("Type default to go on"), "{said}");
    let (done, said) = run(erase(&[], Some(&server)), "default\n");
    assert!(done && said.contains("10 entries are erased\n2 keys are removed"), "{said}");
    let mut socket = Socket::connect(&server.url).await;
    socket.write(&key("carol"), 1, &batch(&[entry("Note", "new", &[2])])).await;
    assert_eq!(socket.next_ack().await.1, [31]);
    assert_eq!(read(&server, 1).await, [31]);
    drop(server);
    let (done, said) = run(erase(&["--yes", "--data-dir", path], None), "");
    assert!(done && said.contains("1 entry is erased\n2 keys are removed"), "{said}");
    let server = serve(&data);
    let mut socket = Socket::connect(&server.url).await;
    socket.write(&key("carol"), 1, &batch(&entries)).await;
    assert!(socket.next_ack().await.1.into_iter().eq(1..=30), "it does not come back");
}
