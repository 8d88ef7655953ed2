//! The commands on the directory of a stopped server, where an operator expects something else than it has: an archive
//! at another place, no archive, no damage, damaged copies.

use std::path::Path;

use rustix::process::Signal;
use tempfile::{TempDir, tempdir};

use super::process::{Ended, Serve, command, data, logged, run};

/// The directory of a stopped server with an entry for each of these primary keys.
fn stopped(keys: &[&str], more: &[&str]) -> TempDir {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("data");
    let server = Serve::start(&[&["--dev", "--data-dir", data(&path)], more].concat(), None);
    for key in keys {
        server
            .run(&["write", "--key", "a", "--event", "E", "--primary-key", key, "--payload", "1"])
            .ok();
    }
    assert_eq!(server.end(Signal::TERM), Some(0));
    directory
}

fn with_archive(arguments: &[&str], archive: &Path) -> Ended {
    let mut command = command(arguments);
    Ended::of(command.env("EVENTLOG_ARCHIVE_DIR", archive).spawn().expect("it runs"))
}

fn has_files(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.path().extension().is_some_and(|end| end == "zst"))
}

#[test]
fn every_command_on_a_directory_finds_the_archive_where_the_environment_says_it_is() {
    let directory = tempdir().expect("a directory");
    let (path, archive) = (directory.path().join("data"), directory.path().join("archive2"));
    let mut serve =
        command(&["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", data(&path)]);
    let server = Serve::of({
        serve.env("EVENTLOG_ARCHIVE_DIR", &archive);
        serve
    });
    server
        .run(&["write", "--key", "a", "--event", "E", "--primary-key", "p", "--payload", "1"])
        .ok();
    assert_eq!(server.end(Signal::TERM), Some(0));
    let backups = directory.path().join("backups");
    let commands: [&[&str]; 6] = [
        &["export"],
        &["erase", "--store", "default", "--primary-key", "p", "--yes"],
        &["erase", "--verify"],
        &["trim", "--store", "default", "--before", "1", "--yes"],
        &["compact"],
        &["backup", "--to", data(&backups)],
    ];
    for arguments in commands {
        let ended = with_archive(&[arguments, &["--data-dir", data(&path)]].concat(), &archive);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.err);
        assert!(!path.join("archive").exists(), "{arguments:?}");
    }
    assert!(has_files(&archive));
    // The directory says it as well.
    for arguments in commands {
        run(&[arguments, &["--data-dir", data(&path)]].concat()).ok();
        assert!(!path.join("archive").exists(), "{arguments:?}");
    }
    let said = run(&["verify", "--data-dir", data(&path)]).ok();
    assert!(said.ends_with("no faults\n") && !said.contains("note: there is no archive"), "{said}");
    // A copy of the directory is not to write to the archive of the original one.
    let copy = directory.path().join("copy");
    let copied = std::process::Command::new("cp").arg("-a").arg(&path).arg(&copy).status();
    assert!(copied.expect("cp").success());
    let before = std::fs::read_dir(&archive).expect("a folder").count();
    run(&["backup", "--to", data(&directory.path().join("more")), "--data-dir", data(&copy)]);
    assert_eq!(std::fs::read_dir(&archive).expect("a folder").count(), before);
    // On a running server the variable is no reason to ask for a directory.
    let server = Serve::dev(&directory.path().join("other"));
    let mut stores = command(&["export"]);
    stores.env("EVENTLOG_ARCHIVE_DIR", &archive).env("EVENTLOG_URL", &server.url);
    let ended = Ended::of(stores.spawn().expect("it runs"));
    assert!(!ended.err.contains("--data-dir <DIR>"), "{}", ended.err);
}

#[test]
fn files_of_an_archive_where_the_server_does_not_look_are_named_at_the_start() {
    let directory = stopped(&["p"], &[]);
    let (path, log) = (directory.path().join("data"), directory.path().join("log"));
    // That command puts the log to the archive.
    run(&["backup", "--to", data(&directory.path().join("b")), "--data-dir", data(&path)]).ok();
    assert!(has_files(&path.join("archive")));
    let archive = directory.path().join("archive2");
    let mut serve =
        command(&["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", data(&path)]);
    serve
        .env("EVENTLOG_ARCHIVE_DIR", &archive)
        .stderr(std::fs::File::create(&log).expect("a file"));
    let server = Serve::of(serve);
    let line = &logged(&log, "has files of an archive too", 1)[0];
    for name in [&archive, &path.join("archive")] {
        assert!(line.contains(data(name)), "{line}");
    }
    assert!(line.contains("ERROR") && line.contains("move each file"), "{line}");
    assert_eq!(server.end(Signal::TERM), Some(0));
}

#[test]
fn a_server_without_an_archive_has_no_fault() {
    let directory = tempdir().expect("a directory");
    let (path, config) = (directory.path().join("data"), directory.path().join("config.toml"));
    std::fs::write(&config, "[archive]\nenabled = false\n").expect("written");
    let arguments = ["--dev", "--config", data(&config), "--data-dir", data(&path)];
    for _ in 0..2 {
        let server = Serve::start(&arguments, None);
        server.run(&["write", "--key", "a", "--event", "E", "--payload", "1"]).ok();
        assert_eq!(server.end(Signal::TERM), Some(0));
    }
    let said = run(&["verify", "--data-dir", data(&path)]).ok();
    let note = "note: the archive is switched off";
    assert!(said.contains(note) && said.ends_with("no faults\n"), "{said}");
    assert!(!path.join("archive").exists(), "it only reads");
    let server = Serve::start(&arguments, None);
    let said = run(&["verify", "--data-dir", data(&path)]).ok();
    assert!(said.contains(note) && said.ends_with("no faults\n"), "{said}");
    assert_eq!(server.end(Signal::TERM), Some(0));
}

#[test]
fn a_whole_directory_has_no_loss_to_accept() {
    let directory = stopped(&["p"], &[]);
    let path = directory.path().join("data");
    let accept = ["accept-loss", "--yes", "--data-dir", data(&path)];
    let before = remote_id(&path);
    let complaint = run(&accept).failed(1);
    assert!(complaint.contains("nothing is damaged"), "{complaint}");
    assert!(complaint.contains(&format!("heal --data-dir {}`", data(&path))), "{complaint}");
    assert_eq!(remote_id(&path), before);
    std::fs::remove_dir_all(path.join("sled")).expect("removed");
    run(&accept).ok();
    assert_ne!(remote_id(&path), before);
}

fn remote_id(path: &Path) -> String {
    let told = run(&["export", "--data-dir", data(path)]).ok();
    let head = told.lines().next().expect("a line");
    let head: serde_json::Value = serde_json::from_str(head).expect("JSON");
    head["remoteId"].as_str().expect("a text").to_owned()
}

#[test]
fn each_missing_copy_is_a_fault() {
    let directory = stopped(&["p", "q"], &[]);
    let path = directory.path().join("data");
    run(&["erase", "--store", "default", "--primary-key", "p", "--yes", "--data-dir", data(&path)])
        .ok();
    let verify = ["verify", "--data-dir", data(&path)];
    assert!(run(&verify).ok().ends_with("no faults\n"));
    for name in ["heads.a", "heads.b", "witness.a", "erased.a", "erased.b", "archive/erased"] {
        let (file, aside) = (path.join(name), path.join("aside"));
        std::fs::rename(&file, &aside).expect(name);
        let ended = run(&verify);
        assert_eq!(ended.code, Some(1), "{name}: {}", ended.out);
        let line = format!("{}: it is missing", data(&file));
        assert!(ended.out.contains(&line), "{name}: {}", ended.out);
        std::fs::rename(&aside, &file).expect(name);
    }
    assert!(run(&verify).ok().ends_with("no faults\n"));
}

#[test]
fn an_import_of_nothing_says_so() {
    let directory = stopped(&[], &[]);
    let (path, lines) = (directory.path().join("data"), directory.path().join("lines"));
    std::fs::write(&lines, "").expect("written");
    let said = run(&["import", "--data-dir", data(&path), data(&lines)]).ok();
    assert!(said.starts_with("0 entries"), "{said}");
}

/// The first store was imported before it was found out.
#[test]
fn a_file_of_several_stores_is_not_imported_in_part_into_one() {
    let directory = stopped(&["p"], &[]);
    let (path, all) = (directory.path().join("data"), directory.path().join("all.jsonl"));
    let lines = directory.path().join("lines");
    let line = r#"{"id":"018bcfe5-6800-70e1-8101-010101010101","event":"E","primaryKey":"","payloadHex":""}"#;
    std::fs::write(&lines, line).expect("written");
    run(&["import", "--store", "other", "--data-dir", data(&path), data(&lines)]).ok();
    let told = run(&["export", "--json", "--out", data(&all), "--data-dir", data(&path)]).ok();
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((&told["stores"], &told["entries"]), (&2.into(), &2.into()), "{told}");
    let import = ["import", "--store", "one", "--data-dir", data(&path), data(&all)];
    let refused = run(&import).failed(1);
    assert!(refused.contains("nothing is imported") && refused.contains("\"other\""), "{refused}");
    let has = run(&["export", "--data-dir", data(&path)]).ok();
    assert!(has.contains("\"other\"") && !has.contains("\"one\""), "{has}");
}

#[test]
fn a_backup_that_was_kept_in_a_file_is_restored_from_it() {
    let directory = stopped(&["p"], &[]);
    let (path, file) = (directory.path().join("data"), directory.path().join("one.tar"));
    let mut backup = command(&["backup", "--json", "--to", "-", "--data-dir", data(&path)]);
    backup.stdout(std::fs::File::create(&file).expect("a file"));
    let ended = backup.output().expect("it runs");
    let told: serde_json::Value = serde_json::from_slice(&ended.stderr).expect("JSON");
    assert!(told["files"].as_u64() > Some(0), "{told}");
    let made = directory.path().join("made");
    let said = run(&["restore", "--from", data(&file), "--data-dir", data(&made)]).ok();
    assert!(said.starts_with("restored up to change"), "{said}");
    assert!(run(&["export", "--data-dir", data(&made)]).ok().contains("\"p\""));
}

/// A killed server leaves entries that only the log has. One frame of them is damaged.
#[test]
fn a_damaged_frame_is_named_by_verify_and_given_up_alone_by_accept_loss() {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("data");
    let server = Serve::dev(&path);
    for key in ["first", "second-one", "third"] {
        server
            .run(&["write", "--key", "a", "--event", "E", "--primary-key", key, "--payload", "1"])
            .ok();
    }
    server.end(Signal::KILL);
    damage(&path.join("log"), b"second-one");
    let verified = run(&["verify", "--data-dir", data(&path)]);
    assert_eq!(verified.code, Some(1), "{}", verified.out);
    assert!(!verified.out.contains("the next start brings them"), "{}", verified.out);
    assert!(verified.out.contains("the log has lost entry 2."), "{}", verified.out);
    let names = verified.out.matches("00000001.log").count();
    assert_eq!(names, 1, "the file is named twice: {}", verified.out);
    let mut serve =
        command(&["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", data(&path)]);
    let refused = Ended::of(serve.spawn().expect("it runs"));
    assert_ne!(refused.code, Some(0));
    let hint = format!("accept-loss --data-dir {}`", data(&path));
    assert!(refused.err.contains(&hint), "{}", refused.err);
    let said = run(&["accept-loss", "--yes", "--data-dir", data(&path)]).ok();
    assert!(said.contains("store \"default\" has lost entry 2\n"), "{said}");
    let kept = run(&["export", "--data-dir", data(&path)]).ok();
    assert!(kept.contains("\"first\"") && kept.contains("\"sequence\":3,"), "{kept}");
    assert!(kept.contains("\"third\"") && !kept.contains("\"second-one\""), "{kept}");
    assert!(run(&["verify", "--data-dir", data(&path)]).ok().ends_with("no faults\n"));
}

/// Changes a byte of this text, wherever a file of the folder has it.
fn damage(folder: &Path, text: &[u8]) {
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("a folder") {
        let path = file.expect("a file").path();
        let mut bytes = std::fs::read(&path).expect("read");
        while let Some(at) = bytes.windows(text.len()).position(|part| part == text) {
            for byte in &mut bytes[at..at + text.len()] {
                *byte ^= 0x55;
            }
            count += 1;
        }
        std::fs::write(&path, bytes).expect("written");
    }
    assert!(count > 0, "the text is nowhere");
}
