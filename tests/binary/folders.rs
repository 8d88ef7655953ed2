//! Folders with several backups, as an operator sees them: the servers that they belong to, and the moments that can be restored.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::tempdir;

use super::backup::{Device, TOKEN, backup, feed, restore, serve, well};
use crate::support::history::History;
use crate::support::process::binary;
use crate::support::socket::Socket;

/// What a folder with backups has: a line for each generation, the newest one last. Below each, there is a line for
/// each of its backups.
fn list(from: &Path) -> Vec<String> {
    let mut command = binary();
    command.args(["restore", "--list", "--from"]).arg(from);
    let ended = command.output().expect("it runs");
    well(&ended);
    let said = String::from_utf8(ended.stdout).expect("UTF-8");
    let mut lines = said.lines();
    let mut generations = Vec::new();
    while let Some(line) = lines.next() {
        let count = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        let each: Vec<&str> = lines.by_ref().take(count).collect();
        assert!(each.iter().all(|line| line.starts_with("  up to change ")), "{said}");
        generations.push(line.to_owned());
    }
    generations
}

fn generation_in(line: &str) -> String {
    line.split_whitespace().next().expect("a generation").to_owned()
}

fn refused(mut command: Command) -> String {
    let ended = command.output().expect("it runs");
    assert!(!ended.status.success() && ended.stdout.is_empty(), "{ended:?}");
    String::from_utf8(ended.stderr).expect("text")
}

/// The newer backup was taken, even if it was of another server.
#[tokio::test]
async fn of_two_servers_in_one_folder_the_operator_says_which() {
    let directory = tempdir().expect("a directory");
    let backups = directory.path().join("backups");
    for (name, count) in [("one", 3), ("two", 5)] {
        let server = serve(&directory.path().join(name), "");
        let mut socket = Socket::connect(&server.url).await;
        Device::new("alice").write(&mut socket, count, &mut History::default()).await;
        let ended = backup(&server, &backups).output().expect("it runs");
        let said = well(&ended);
        assert_eq!(said.contains("backups of other servers"), name == "two", "{said}");
    }
    let generations: Vec<String> = list(&backups).iter().map(|line| generation_in(line)).collect();
    assert_eq!(generations.len(), 2);
    let target = directory.path().join("target");
    let said = refused(restore(&backups, &target));
    assert!(said.contains("--generation") && !target.exists(), "{said}");
    assert!(generations.iter().all(|generation| said.contains(generation)), "{said}");
    let said = refused({
        let mut command = restore(&backups, &target);
        command.args(["--generation", &"0".repeat(32)]);
        command
    });
    assert!(generations.iter().all(|generation| said.contains(generation)), "{said}");
    for (generation, count) in generations.iter().zip([3, 5]) {
        let target = directory.path().join(generation);
        let mut command = restore(&backups, &target);
        command.args(["--generation", generation]);
        well(&command.output().expect("it runs"));
        assert_eq!(feed(&serve(&target, ""), count).await.len(), count);
    }
}

/// After a restore into service, the newest backups knew nothing about earlier times.
#[tokio::test]
async fn moments_before_a_restore_are_reached_by_their_generation() {
    let directory = tempdir().expect("a directory");
    let backups = directory.path().join("backups");
    let moment = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let millis = now.expect("after 1970").as_millis() as i64;
        jiff::Timestamp::from_millisecond(millis).expect("a time").to_string()
    };
    let before_all = moment();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut device = Device::new("alice");
    let mut history = History::default();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    let server = serve(&one, "");
    let mut socket = Socket::connect(&server.url).await;
    device.write(&mut socket, 10, &mut history).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let then = moment();
    tokio::time::sleep(Duration::from_millis(20)).await;
    device.write(&mut socket, 10, &mut history).await;
    well(&backup(&server, &backups).output().expect("it runs"));
    drop(server);
    well(&restore(&backups, &two).output().expect("it runs"));
    let server = serve(&two, "");
    let mut socket = Socket::connect(&server.url).await;
    device.write(&mut socket, 5, &mut history).await;
    let said = well(&backup(&server, &backups).output().expect("it runs"));
    assert!(!said.contains("other servers"), "it is the one that was restored: {said}");

    let generations: Vec<String> = list(&backups).iter().map(|line| generation_in(line)).collect();
    let until = |name: &str, time: &str, generation: Option<&String>| {
        let mut command = restore(&backups, &directory.path().join(name));
        command.args(["--until", time]);
        generation.into_iter().for_each(|one| {
            command.args(["--generation", one]);
        });
        command
    };
    let said = refused(until("too early", &then, None));
    assert!(said.contains(&format!("--generation {}", generations[0])), "{said}");
    well(&until("then", &then, Some(&generations[0])).output().expect("it runs"));
    let restored = feed(&serve(&directory.path().join("then"), ""), 10).await;
    assert_eq!(restored.len(), 10);
    // The newest one continues the other one.
    well(&restore(&backups, &directory.path().join("newest")).output().expect("it runs"));
    assert_eq!(feed(&serve(&directory.path().join("newest"), ""), 25).await.len(), 25);
    // Nobody wants an empty directory, so the message names the earliest moment.
    let said = refused(until("nothing", &before_all, Some(&generations[0])));
    assert!(said.contains("earliest") && said.contains('Z'), "{said}");
    assert!(!directory.path().join("nothing").exists());
    let said = refused(until("nothing", "0", Some(&generations[0])));
    assert!(said.contains("change 1"), "{said}");

    // The newest entries are found after the gap that a restore leaves.
    let target = directory.path().join("once more");
    well(&restore(&backups, &target).output().expect("it runs"));
    let server = serve(&target, "");
    let entries = |more: &[&str]| {
        let mut command = binary();
        command.env("EVENTLOG_ADMIN_TOKEN", TOKEN);
        command.args(["entries", "--store", "default", "--url", &server.url]).args(more);
        well(&command.output().expect("it runs")).lines().count()
    };
    assert_eq!((entries(&[]), entries(&["--last", "7"]), entries(&["--last", "50"])), (20, 7, 25));
    let mut erase = binary();
    erase.env("EVENTLOG_ADMIN_TOKEN", TOKEN).args(["erase", "--store", "default", "--yes"]);
    erase.args(["--primary-key", "alice-24", "--url", &server.url]);
    well(&erase.output().expect("it runs"));
    assert_eq!((entries(&["--last", "1"]), entries(&["--last", "50"])), (1, 24));
}

/// Everything is only in the commit log at that time.
#[tokio::test]
async fn a_directory_of_a_server_that_was_killed_is_verified_with_its_log() {
    let directory = tempdir().expect("a directory");
    let data = directory.path().join("data");
    let mut server = serve(&data, "");
    let mut socket = Socket::connect(&server.url).await;
    Device::new("alice").write(&mut socket, 12, &mut History::default()).await;
    server.signal("KILL");
    server.wait();
    let verify = || {
        let mut command = binary();
        command.args(["verify", "--data-dir"]).arg(&data);
        well(&command.output().expect("it runs"))
    };
    let said = verify();
    assert!(said.contains("12 entries that only the commit log has yet"), "{said}");
    drop(server);
    drop(serve(&data, ""));
    let said = verify();
    assert!(said.contains("12 entries"), "{said}");
}

/// One damaged manifest made all backups in its folder unusable.
#[tokio::test]
async fn a_damaged_manifest_costs_its_own_backup_only_and_nobody_gets_an_older_one_unasked() {
    let directory = tempdir().expect("a directory");
    let backups = directory.path().join("backups");
    let server = serve(&directory.path().join("data"), "");
    let (mut device, mut history) = (Device::new("alice"), History::default());
    for _ in 0..2 {
        let mut socket = Socket::connect(&server.url).await;
        device.write(&mut socket, 3, &mut history).await;
        well(&backup(&server, &backups).output().expect("it runs"));
    }
    let generation = generation_in(&list(&backups)[0]);
    let manifests = || {
        let files = std::fs::read_dir(backups.join(&generation)).expect("a folder");
        let paths = files.map(|file| file.expect("a file").path());
        let mut found: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|end| end == "manifest")).collect();
        found.sort();
        found
    };
    let newest = manifests().pop().expect("two");
    let file = std::fs::File::options().write(true).open(&newest).expect("a file");
    file.set_len(100).expect("cut");
    let name = newest.file_name().expect("a name").to_str().expect("UTF-8");
    let listed = list(&backups);
    assert!(listed.len() == 1 && listed[0].contains("1 backup,"), "{listed:?}");
    let target = directory.path().join("target");
    let said = refused(restore(&backups, &target));
    assert!(said.contains(name) && said.contains("--until ") && !target.exists(), "{said}");
    let number = said.split("--until ").nth(1).expect("a number").split('`').next();
    let mut older = restore(&backups, &target);
    let said = well(&older.args(["--until", number.expect("a number")]).output().expect("it runs"));
    assert!(said.contains(name) && said.contains("restored up to change"), "{said}");
    // Removing surplus backups goes on, and so does making them.
    let mut another = backup(&server, &backups);
    device.write(&mut Socket::connect(&server.url).await, 1, &mut history).await;
    well(&another.args(["--keep", "2"]).output().expect("it runs"));
    well(&backup(&server, &backups).args(["--keep", "1"]).output().expect("it runs"));
    assert_eq!(manifests().len(), 1);
    well(&restore(&backups, &directory.path().join("whole")).output().expect("it runs"));
}
