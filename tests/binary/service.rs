//! What a service manager, a container and a shell need from the binary.

use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::tempdir;

use super::process::{Serve, command, data, run};

/// The next message to the service manager.
fn told(socket: &UnixDatagram) -> Vec<String> {
    let mut message = [0; 1_024];
    let length = socket.recv(&mut message).expect("a message");
    let text = String::from_utf8_lossy(&message[..length]).into_owned();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_service_manager_hears_of_the_start_a_reload_and_the_end() {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let mut serve = command(&["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]);
    serve.arg(directory.path().join("data")).env("NOTIFY_SOCKET", &path);
    let server = Serve::of(serve);
    let started = told(&socket);
    assert_eq!(started[0], "READY=1");
    assert!(started[1].contains(server.address()), "{started:?}");
    TcpStream::connect(server.address()).expect("the port is open");
    server.signal(Signal::HUP);
    let reloading = told(&socket);
    assert_eq!(reloading[0], "RELOADING=1");
    assert!(reloading[1].starts_with("MONOTONIC_USEC="), "{reloading:?}");
    assert_eq!(told(&socket)[0], "READY=1");
    assert_eq!(server.end(Signal::TERM), Some(0));
    assert_eq!(told(&socket)[0], "STOPPING=1");
}

#[test]
fn health_says_whether_the_server_of_a_configuration_takes_clients() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(&directory.path().join("data"));
    let port = server.address().rsplit_once(':').expect("a port").1;
    let health = |listen: &str| run(&["health", "--dev", "--listen", listen]);
    // If it listens on all addresses, it is asked on this machine.
    assert_eq!(health(&format!("0.0.0.0:{port}")).ok(), "");
    run(&["health", "--live", "--dev", "--listen", server.address()]).ok();
    let address = server.address().to_owned();
    assert_eq!(server.end(Signal::TERM), Some(0));
    let said = health(&address).failed(1);
    assert!(said.contains(&address) && said.contains("does not answer"), "{said}");
    // The settings about who may do what do not matter to it.
    let said = run(&["health", "--listen", &address]).failed(1);
    assert!(said.contains("does not answer") && !said.contains("nobody has said"), "{said}");
    let config = directory.path().join("wrong.toml");
    std::fs::write(&config, "listen = 7").expect("written");
    let said = run(&["health", "--config", data(&config)]).failed(1);
    assert!(said.contains("line 1") && said.contains("the server's own --config"), "{said}");
}

#[test]
fn the_configuration_is_shown_with_its_sources_and_without_its_secrets() {
    let directory = tempdir().expect("a directory");
    let config = directory.path().join("eventlog.toml");
    let file = "listen = \"127.0.0.1:1\"\nworkers = 7\n[auth]\nmode = \"allow-all\"\n[admin]\ntoken = \"CANARY\"\n";
    std::fs::write(&config, file).expect("written");
    let check = |file: &str| {
        let arguments = ["config", "check", "--config", file, "--listen", "127.0.0.1:2"];
        let mut command = command(&arguments);
        command.env("EVENTLOG_LIMITS_STALL_TIMEOUT", "7s");
        super::process::Ended::of(command.spawn().expect("it runs"))
    };
    let checked = check(data(&config));
    let has = |line: &str, source: &str| {
        let found = checked.out.lines().find(|found| found.starts_with(line));
        assert!(found.is_some_and(|found| found.ends_with(source)), "{line}: {}", checked.out);
    };
    has("listen = \"127.0.0.1:2\" ", "# --listen");
    has("workers = 7 ", "eventlog.toml, line 2");
    has("limits.stall_timeout = \"7s\" ", "# environment, EVENTLOG_LIMITS_STALL_TIMEOUT");
    has("limits.ping_interval = \"10s\" ", "# default");
    has("admin.token = \"***\" ", "eventlog.toml, line 6");
    assert!(checked.out.parse::<toml::Table>().is_ok(), "it is TOML: {}", checked.out);
    assert!(checked.err.contains("every user of this machine can read"), "{}", checked.err);
    assert!(!checked.out.contains("CANARY") && !checked.err.contains("CANARY"));
    assert_eq!(checked.code, Some(0));
    std::fs::write(
        &config,
        format!("{file}tokn = 1\n[limits]\nconnections_max = 0\n[auth.jwt]\nsecret = \"short\""),
    )
    .expect("written");
    let checked = check(data(&config));
    assert_eq!(checked.code, Some(1));
    for wrong in ["3 things", "`admin.tokn`", "connections_max", "[auth.jwt]"] {
        assert!(checked.err.contains(wrong), "{wrong}: {}", checked.err);
    }
    // The contents of a file of keys are checked as well.
    let jwt = "[auth]\nmode = \"jwt\"\n[auth.jwt]\npublic_key_file = \"does/not/exist.pem\"";
    std::fs::write(&config, jwt).expect("written");
    assert!(check(data(&config)).err.contains("does/not/exist.pem"));
}

#[test]
fn the_schema_the_completions_and_the_manual_are_printed() {
    let schema: serde_json::Value =
        serde_json::from_str(&run(&["config", "schema"]).ok()).expect("JSON");
    assert!(schema["properties"]["limits"]["properties"]["stall_timeout"].is_object());
    for (shell, word) in [("bash", "complete"), ("zsh", "#compdef"), ("fish", "complete -c")] {
        let script = run(&["completions", shell]).ok();
        assert!(script.contains(word) && script.contains("accept-loss"), "{shell}");
    }
    assert!(run(&["man"]).ok().contains(".TH eventlog-server 1"));
    let pages = tempdir().expect("a directory");
    run(&["man", "--out", data(pages.path())]).ok();
    for page in ["eventlog-server.1", "eventlog-server-serve.1", "eventlog-server-keys-assign.1"] {
        assert!(pages.path().join(page).exists(), "{page}");
    }
}
