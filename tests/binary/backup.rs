//! The drill: a server is backed up under load, destroyed and restored, and its clients come back.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use eventlog_server::model::Entry;
use tempfile::tempdir;

use crate::support::history::History;
use crate::support::process::{Process, binary};
use crate::support::server::comes_to;
use crate::support::socket::Socket;
use crate::support::{batch, entry, http, key};

pub(crate) const TOKEN: &str = "only-for-this-test";
pub(crate) const JUMP: u64 = 1_000_000_000;

pub(crate) fn serve(data: &Path, more: &str) -> Process {
    let config = data.with_extension("toml");
    std::fs::write(&config, more).expect("written");
    let mut command = binary();
    command.env("EVENTLOG_ADMIN_TOKEN", TOKEN);
    command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--config"]).arg(config);
    command.arg("--data-dir").arg(data);
    Process::start(command)
}

/// Of a running server, to a folder.
pub(crate) fn backup(server: &Process, to: &Path) -> Command {
    let mut command = binary();
    command.env("EVENTLOG_ADMIN_TOKEN", TOKEN).args(["backup", "--url", &server.url]);
    command.arg("--to").arg(to).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn restore(from: &Path, to: &Path) -> Command {
    let mut command = binary();
    command.arg("restore").arg("--from").arg(from).arg("--data-dir").arg(to);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn well(ended: &Output) -> String {
    let said = String::from_utf8_lossy(&[&ended.stdout[..], &ended.stderr].concat()).into_owned();
    assert!(ended.status.success(), "{said}");
    said
}

/// A device with a journal: what it wrote, all of it.
pub(crate) struct Device {
    name: &'static str,
    journal: Vec<Entry>,
    sent: u64,
}

impl Device {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, journal: Vec::new(), sent: 0 }
    }

    /// The number of entries that it has written.
    pub(crate) fn count(&self) -> usize {
        self.journal.len()
    }

    /// Writes so many entries, one after the other.
    pub(crate) async fn write(&mut self, socket: &mut Socket, count: usize, history: &mut History) {
        for n in 0..count {
            let text = format!("{}-{}", self.name, self.journal.len());
            let one = entry("Note", &text, &[n as u8; 200]);
            self.journal.push(one.clone());
            self.send(socket, &[one], history).await;
        }
    }

    async fn send(&mut self, socket: &mut Socket, entries: &[Entry], history: &mut History) {
        self.sent += 1;
        socket.write(&key(self.name), self.sent, &batch(entries)).await;
        let (_, sequences) = socket.next_ack().await;
        for (sequence, entry) in sequences.iter().zip(entries) {
            history.acked(*sequence, &entry.primary_key);
        }
    }

    /// The client is opened again, on a server that it does not know.
    pub(crate) async fn send_all(&mut self, socket: &mut Socket, history: &mut History) {
        // No frame may be larger than a mebibyte.
        for part in self.journal.clone().chunks(1_000) {
            self.send(socket, part, history).await;
        }
    }
}

/// All there is of the store.
pub(crate) async fn feed(server: &Process, count: usize) -> Vec<(u64, String)> {
    let mut reader = Socket::connect(&server.url).await;
    reader.subscribe(&key("reader"), 0).await;
    let entries = if count > 0 { reader.next_joined_entries(count).await } else { Vec::new() };
    reader.nothing_comes().await;
    entries.into_iter().map(|(sequence, entry)| (sequence, entry.primary_key)).collect()
}

/// The number of entries in the store, from the admin API.
async fn count(server: &Process) -> usize {
    let addr = server.url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    let addr = addr.parse().expect("an address");
    let answer = http::get_with_token(addr, "/admin/stores/default", TOKEN).await;
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    let store: serde_json::Value = serde_json::from_str(body).expect("JSON");
    store["entries"].as_u64().unwrap_or(0) as usize
}

#[tokio::test]
async fn what_any_client_still_has_is_there_after_a_restore() {
    let directory = tempdir().expect("a directory");
    let (data, backups) = (directory.path().join("data"), directory.path().join("backups"));
    let mut history = History::default();
    let mut devices = [Device::new("alice"), Device::new("bob")];
    let mut server = serve(&data, "");
    let given = std::env::var("EVENTLOG_TEST_DRILLS").ok();
    let rounds = given.map_or(3, |text| text.parse().expect("a number of rounds"));
    for round in 1..=rounds {
        let mut sockets = [Socket::connect(&server.url).await, Socket::connect(&server.url).await];
        for part in 0..4 {
            // The server is under load.
            let under_way = backup(&server, &backups).spawn().expect("it starts");
            for (device, socket) in devices.iter_mut().zip(&mut sockets) {
                device.write(socket, 60, &mut history).await;
            }
            let said = well(&under_way.wait_with_output().expect("it ends"));
            assert!(said.contains("up to change"), "{part}: {said}");
        }
        // These are behind the last backup. They are lost, and so is the machine.
        for (device, socket) in devices.iter_mut().zip(&mut sockets) {
            device.write(socket, 40, &mut history).await;
        }
        let end = feed(&server, devices.iter().map(|one| one.journal.len()).sum()).await;
        let cursor = end.last().expect("some").0 + 1;
        history.check_feed(&end);
        server.signal("KILL");
        server.wait();
        drop(server);
        std::fs::remove_dir_all(&data).expect("removed");

        well(&restore(&backups, &data).output().expect("it runs"));
        server = serve(&data, "");
        let kept = feed(&server, count(&server).await).await;
        assert!(history.restored(&kept) >= 80, "something was lost");
        // A client that kept running. Its cursor is in the lost part.
        let mut running = Socket::connect(&server.url).await;
        running.subscribe(&key("running"), cursor).await;
        for device in &mut devices {
            let mut socket = Socket::connect(&server.url).await;
            device.send_all(&mut socket, &mut history).await;
        }
        history.check_nothing_is_lost();
        let all = devices.iter().map(|one| one.journal.len()).sum();
        let now = feed(&server, all).await;
        history.check_feed(&now);
        let new = now[kept.len()..].to_vec();
        assert!(new[0].0 > kept.last().expect("some").0 + JUMP / 2 && new[0].0 > round * JUMP);
        let seen = running.next_joined_entries(new.len()).await;
        let seen = seen.into_iter().map(|(sequence, entry)| (sequence, entry.primary_key));
        assert!(seen.eq(new), "a client that kept running misses nothing that is new");
        running.nothing_comes().await;
    }
}

#[tokio::test]
async fn a_backup_and_a_restore_that_are_killed_are_done_again() {
    let directory = tempdir().expect("a directory");
    let (data, backups) = (directory.path().join("data"), directory.path().join("backups"));
    let server = serve(&data, "");
    let mut socket = Socket::connect(&server.url).await;
    let mut history = History::default();
    let mut device = Device::new("alice");
    for round in 0..8 {
        device.write(&mut socket, 30, &mut history).await;
        let mut killed = backup(&server, &backups).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(round * 40));
        // The process may have ended.
        let _ = killed.kill();
        killed.wait().expect("it ends");
    }
    well(&backup(&server, &backups).output().expect("it runs"));
    let target = directory.path().join("target");
    for round in 0..8 {
        let mut killed = restore(&backups, &target).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(round * 20));
        let _ = killed.kill();
        let ended = killed.wait().expect("it ends");
        // Without the mark, the restore has not started or is complete. The end of the test checks that.
        if ended.success() || (target.exists() && !target.join("restoring").exists()) {
            break;
        }
    }
    if target.join("restoring").exists() {
        let mut command = binary();
        command.args(["inspect", "--data-dir"]).arg(&target);
        let refused = command.output().expect("it runs");
        assert!(!refused.status.success(), "it is not there yet");
    }
    if !target.join("sled").exists() || target.join("restoring").exists() {
        well(&restore(&backups, &target).output().expect("it runs"));
    }
    let restored = serve(&target, "");
    history.check_feed(&feed(&restored, 240).await);
}

#[tokio::test]
async fn a_pipe_takes_a_backup_and_a_damaged_one_is_refused() {
    let directory = tempdir().expect("a directory");
    let (data, file) = (directory.path().join("data"), directory.path().join("eventlog.tar"));
    let mut server = serve(&data, "");
    let mut socket = Socket::connect(&server.url).await;
    let mut history = History::default();
    Device::new("alice").write(&mut socket, 100, &mut history).await;
    let ended = backup(&server, Path::new("-")).output().expect("it runs");
    assert!(ended.status.success());
    let restore_from = |bytes: &[u8], name: &str| {
        std::fs::write(&file, bytes).expect("written");
        let target = directory.path().join(name);
        let from = std::fs::File::open(&file).expect("a file");
        let ended = restore(Path::new("-"), &target).stdin(from).output().expect("it runs");
        (ended.status.success(), target)
    };
    let mut flipped = ended.stdout.clone();
    flipped[2_000] ^= 1;
    assert!(!restore_from(&flipped, "flipped").0);
    assert!(!restore_from(&ended.stdout[..ended.stdout.len() / 2], "cut").0);
    let (is_made, target) = restore_from(&ended.stdout, "target");
    assert!(is_made);
    let restored = serve(&target, "");
    history.check_feed(&feed(&restored, 100).await);
    // The same for a stopped server, with its directory.
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let backups = directory.path().join("backups");
    let mut command = binary();
    command.args(["backup", "--data-dir"]).arg(&data).arg("--to").arg(&backups);
    well(&command.output().expect("it runs"));
    let ended = command.arg("--json").output().expect("it runs");
    let said: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("JSON");
    assert_eq!((said["files"].as_u64() >= Some(1), &said["newFiles"]), (true, &0.into()), "{said}");
    let again = directory.path().join("again");
    well(&restore(&backups, &again).output().expect("it runs"));
    history.check_feed(&feed(&serve(&again, ""), 100).await);
}

#[tokio::test]
async fn a_schedule_makes_backups_and_shows_whether_it_does() {
    let directory = tempdir().expect("a directory");
    let (data, backups) = (directory.path().join("data"), directory.path().join("backups"));
    let config = format!("[backup]\nevery = \"200ms\"\nto = \"{}\"\nkeep = 2\n", backups.display());
    std::fs::write(&backups, "in the way").expect("written");
    let server = serve(&data, &config);
    let addr = server.url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    let addr = addr.parse().expect("an address");
    let mut socket = Socket::connect(&server.url).await;
    let mut history = History::default();
    let mut device = Device::new("alice");
    device.write(&mut socket, 10, &mut history).await;
    comes_to(addr, "eventlog_storage_backup_fails", 1).await;
    std::fs::remove_file(&backups).expect("removed");
    comes_to(addr, "eventlog_storage_backup_fails", 0).await;
    device.write(&mut socket, 10, &mut history).await;
    let text = http::get(addr, "/metrics").await;
    assert!(text.contains("eventlog_storage_backup_made_seconds 1"), "{text}");
    // Waits until a backup has everything.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    for attempt in 0.. {
        let target = directory.path().join(format!("target {attempt}"));
        well(&restore(&backups, &target).output().expect("it runs"));
        let restored = serve(&target, "");
        if count(&restored).await == 20 {
            history.check_feed(&feed(&restored, 20).await);
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the last entries are in no backup");
    }
    let generation = std::fs::read_dir(&backups).expect("a folder").next().expect("one");
    let files = std::fs::read_dir(generation.expect("one").path()).expect("a folder");
    let names = files.map(|file| file.expect("one").file_name().to_string_lossy().into_owned());
    let manifests = names.filter(|name| name.ends_with(".manifest")).count();
    assert!(manifests <= 3, "{manifests}");
}

#[tokio::test]
async fn a_trimmed_server_is_restored_trimmed_and_to_what_it_was_before() {
    let directory = tempdir().expect("a directory");
    let (data, backups) = (directory.path().join("data"), directory.path().join("backups"));
    let server = serve(&data, "");
    let mut socket = Socket::connect(&server.url).await;
    let mut history = History::default();
    let mut device = Device::new("alice");
    device.write(&mut socket, 100, &mut history).await;
    let said = well(&backup(&server, &backups).output().expect("it runs"));
    let change = said.split("change ").nth(1).expect("which one");
    let change: String = change.chars().take_while(char::is_ascii_digit).collect();
    let mut trim = binary();
    trim.env("EVENTLOG_ADMIN_TOKEN", TOKEN).args(["trim", "--url", &server.url]);
    trim.args(["--store", "default", "--before", "61", "--yes"]);
    well(&trim.output().expect("it runs"));
    device.write(&mut socket, 10, &mut history).await;
    well(&backup(&server, &backups).output().expect("it runs"));

    let target = directory.path().join("target");
    well(&restore(&backups, &target).output().expect("it runs"));
    let restored = serve(&target, "");
    let found = feed(&restored, 50).await;
    assert!(found.iter().map(|(sequence, _)| *sequence).eq(61..=110), "{found:?}");
    // Trimmed entries are recognized, and are not stored again.
    let mut socket = Socket::connect(&restored.url).await;
    let mut unheard = History::default();
    device.send_all(&mut socket, &mut unheard).await;
    assert_eq!(count(&restored).await, 50);

    let before = directory.path().join("before");
    let mut command = restore(&backups, &before);
    command.args(["--until", &change]);
    well(&command.output().expect("it runs"));
    let restored = serve(&before, "");
    let found = feed(&restored, 100).await;
    assert!(found.iter().map(|(sequence, _)| *sequence).eq(1..=100), "{found:?}");
}

/// Copies the existing files elsewhere, like a tool that knows nothing about them.
fn copy_archive(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let name = entry.expect("one").file_name();
        let (from, new, to) = (from.join(&name), to.join(".under-way"), to.join(&name));
        let is_due = name.to_string_lossy().ends_with(".zst") || name == "directory";
        // A file may be gone by now.
        if is_due && !to.exists() && std::fs::copy(from, &new).is_ok() {
            std::fs::rename(new, to).expect("named");
        }
    }
}

#[tokio::test]
async fn a_copy_of_the_archive_that_another_tool_made_while_it_grew_is_restored() {
    let directory = tempdir().expect("a directory");
    let (data, backups) = (directory.path().join("data"), directory.path().join("backups"));
    let (archive, copy) = (data.join("archive"), directory.path().join("copy"));
    let server = serve(&data, "");
    let mut socket = Socket::connect(&server.url).await;
    let mut history = History::default();
    let mut device = Device::new("alice");
    for part in 0..4 {
        device.write(&mut socket, 50, &mut history).await;
        // This makes the server finish a file.
        let mut under_way = backup(&server, &backups).spawn().expect("it starts");
        while under_way.try_wait().expect("a process").is_none() {
            copy_archive(&archive, &copy);
            std::thread::sleep(Duration::from_millis(5));
        }
        copy_archive(&archive, &copy);
        let target = directory.path().join(format!("target {part}"));
        let said = well(&restore(&copy, &target).output().expect("it runs"));
        assert!(said.contains("restored up to change"), "{said}");
        let restored = serve(&target, "");
        let found = feed(&restored, device.journal.len()).await;
        history.check_feed(&found);
        // Each restore continues above the previous ones.
        let mut other = Socket::connect(&restored.url).await;
        other.write(&key("bob"), 1, &batch(&[entry("Note", "new", &[1])])).await;
        let sequence = other.next_ack().await.1[0];
        assert!(sequence > (part + 1) * JUMP, "{part}: {sequence}");
    }
    // A backup without a file in the middle is refused, and so is a damaged one.
    let mut files: Vec<_> = std::fs::read_dir(&copy)
        .expect("a folder")
        .map(|entry| entry.expect("one").path())
        .filter(|path| path.extension().is_some_and(|end| end == "zst"))
        .collect();
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    let middle = std::fs::read(&files[1]).expect("read");
    let mut flipped = middle.clone();
    flipped[600] ^= 1;
    std::fs::write(&files[1], flipped).expect("written");
    let refused = |name: &str| {
        let target = directory.path().join(name);
        assert!(!restore(&copy, &target).output().expect("it runs").status.success(), "{name}");
        let mut inspect = binary();
        inspect.args(["inspect", "--data-dir"]).arg(&target);
        assert!(!inspect.output().expect("it runs").status.success(), "{name} cannot be served");
    };
    refused("flipped");
    std::fs::remove_file(&files[1]).expect("removed");
    refused("missing");
}
