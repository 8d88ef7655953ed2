//! Command lines and configurations that do not work, and the messages about them.

use tempfile::tempdir;

use super::process::{Ended, Serve, command, data, run};

#[test]
fn wrong_command_lines_exit_with_2_and_say_what_is_wrong() {
    for (arguments, word) in [
        (&["serve", "--listen", "7420"][..], "127.0.0.1:7420"),
        (&["srve"], "serve"),
        (&["write", "--event", "E", "--payload", "1"], "--key"),
        (&["write", "--key", "", "--event", "E", "--payload", "1"], "empty"),
        (&["write", "--key", "a", "--event", "E"], "--payload"),
        (&["write", "--key", "a", "--event", "", "--payload", "1"], "empty"),
        (&["write", "--key", "a", "--payload", "1"], "--event"),
        (&["write", "--key", "a", "--event", "E", "--payload", "{"], "JSON"),
        (&["write", "--key", "a", "--event", "E", "--payload-hex", "0"], "hexadecimal"),
        (
            &["write", "--key", "a", "--event", "E", "--payload", "1", "--payload-hex", "00"],
            "cannot be used",
        ),
        (&["write", "--key", "a", "--event", "E", "--payload", "1", "--id", "1"], "--id"),
        (&["tail", "--key", "a", "--from", "9007199254740992"], "2^53"),
        (&["tail", "--key", "a", "--url", "localhost"], "ws://"),
        (
            &["tail", "--key", "a", "--count", "0"],
            "--count <COUNT>': \"0\" is not a number from 1 on",
        ),
        (&["inspect", "--store", "a", "--count", "0"], "--count"),
        (
            &["write", "--key", "a", "--event", "E", "--payload", "@nowhere.json"],
            "nowhere.json cannot be read",
        ),
        (
            &["write", "--key", "a", "--event", "E", "--payload", "1", "--id", "nope"],
            "'--id <ID>': an id is a UUID",
        ),
        (&["entries", "--store", "a", "--id", "nope"], "'--id <ID>': an id is a UUID"),
        (&["entries", "--store", "a", "--last", "0"], "'--last <N>': it is a number from 1 on"),
        (&["erase", "--store", "a", "--id", "nope"], "'--id <ID>': an id is a UUID"),
        (&["backup", "--to", "a", "--keep", "0"], "'--keep <COUNT>': it is a number from 1 on"),
        (&["bench", "echo", "--url", "ws://h:1"], "--url"),
        (
            &["bench", "write", "--connections", "0"],
            "'--connections <CONNECTIONS>': expected a number from 1",
        ),
        (
            &["bench", "write", "--duration", "0"],
            "'--duration <DURATION>': expected more than 0 seconds",
        ),
        (&["keys", "assign", "a"], "<STORE>"),
        (&["inspect", "--from", "1"], "--store"),
    ] {
        let complaint = run(arguments).failed(2);
        assert!(complaint.contains(word), "{arguments:?}: {complaint}");
    }
}

#[test]
fn help_and_version_succeed() {
    for command in ["serve", "keys", "write", "tail", "inspect", "bench"] {
        let help = run(&[command, "--help"]).ok();
        assert!(help.contains("Examples:"), "{help}");
    }
    assert!(run(&["--version"]).ok().contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn without_an_auth_mode_the_server_does_not_start_and_leaves_nothing_behind() {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("data");
    let complaint = run(&["serve", "--data-dir", data(&path)]).failed(1);
    assert!(
        complaint.contains("mode = \"allow-all\"") && complaint.contains("--dev"),
        "{complaint}"
    );
    assert!(!path.exists());
}

#[test]
fn a_misspelt_setting_is_named_with_its_place() {
    let directory = tempdir().expect("a directory");
    let config = directory.path().join("eventlog.toml");
    std::fs::write(&config, "[limits]\nstal_timeout = \"30s\"\n").expect("written");
    let complaint = run(&["serve", "--dev", "--config", data(&config)]).failed(1);
    let words = ["eventlog.toml", "stal_timeout", "line 2", "stall_timeout"];
    assert!(words.iter().all(|word| complaint.contains(word)), "{complaint}");

    let mut misspelt = command(&["serve", "--dev"]);
    let ended = misspelt.env("EVENTLOG_LISSTEN", "x").output().expect("it runs");
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("EVENTLOG_LISSTEN"));
}

#[test]
fn a_server_that_is_not_there_is_named() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    drop(listener);
    for arguments in [
        &["tail", "--key", "a"][..],
        &["write", "--key", "a", "--event", "E", "--payload", "1"],
        &["keys", "--token", "t", "list"],
    ] {
        let complaint = run(&[arguments, &["--url", &url]].concat()).failed(1);
        let address = url.trim_start_matches("ws://");
        assert!(complaint.contains(address) && complaint.contains("running"), "{complaint}");
    }
}

/// What the environment had was shown as if it had to be typed.
#[test]
fn usage_has_what_must_be_typed() {
    let mut entries = command(&["entries"]);
    entries.env("EVENTLOG_URL", "ws://127.0.0.1:1").env("EVENTLOG_ADMIN_TOKEN", "secret");
    let complaint = Ended::of(entries.spawn().expect("it starts")).failed(2);
    assert!(complaint.contains("entries [OPTIONS] <STORE|--store <STORE>>\n"), "{complaint}");
    assert!(!complaint.contains("--token"), "{complaint}");
}

#[test]
fn a_directory_in_use_is_verified_as_far_as_that_goes_and_the_server_is_named_for_the_rest() {
    let directory = tempdir().expect("a directory");
    let path = data(directory.path());
    let server = Serve::start(&["--dev", "--data-dir", path], None);
    server.run(&["write", "--key", "a", "--event", "E", "--payload", "1"]).ok();
    let said = run(&["verify", "--data-dir", path]).ok();
    assert!(said.contains("of the commit log up to the last checkpoint\n"), "{said}");
    assert!(said.ends_with("no faults\n") && !said.contains("0 entries"), "{said}");
    let complaint = run(&["inspect", "--data-dir", path]).failed(1);
    assert!(complaint.contains("eventlog-server stores"), "{complaint}");
    assert_eq!(server.end(rustix::process::Signal::TERM), Some(0));
    let said = run(&["verify", "--data-dir", path]).ok();
    assert!(said.contains("1 entry in 1 store\n") && said.ends_with("no faults\n"), "{said}");
}

#[test]
fn a_command_for_a_data_directory_makes_none() {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("dta");
    for command in [&["verify"][..], &["rebuild"], &["accept-loss", "--yes"], &["inspect"]] {
        let complaint = run(&[command, &["--data-dir", data(&path)]].concat()).failed(1);
        assert!(complaint.contains("--data-dir says where one is"), "{command:?}: {complaint}");
        assert!(!path.exists(), "{command:?}");
    }
}
