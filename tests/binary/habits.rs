//! What people type, and what they see.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tempfile::tempdir;

use super::process::{Serve, command, data, run};

/// The help of a command, as shown in a terminal with this many columns.
fn help(arguments: &[&str], columns: &str) -> String {
    let mut help = command(&[arguments, &["--help"]].concat());
    let printed = help.env("COLUMNS", columns).output().expect("it runs");
    String::from_utf8(printed.stdout).expect("UTF-8")
}

/// Every command, with its subcommands.
const COMMANDS: [&[&str]; 20] = [
    &[],
    &["serve"],
    &["config"],
    &["config", "check"],
    &["health"],
    &["keys"],
    &["keys", "assign"],
    &["grants"],
    &["revoke"],
    &["groups"],
    &["write"],
    &["tail"],
    &["inspect"],
    &["backup"],
    &["restore"],
    &["verify"],
    &["rebuild"],
    &["bench"],
    &["bench", "write"],
    &["bench", "echo"],
];

/// Hand-broken lines are broken again in a narrower terminal: a few words, then a line of few.
#[test]
fn help_is_wrapped_to_the_terminal() {
    for arguments in COMMANDS {
        for (columns, width) in [("80", 80), ("100", 100)] {
            let help = help(arguments, columns);
            let lines: Vec<&str> = help.lines().collect();
            for pair in lines.windows(2) {
                let [line, next] = pair else { continue };
                let is_text = |line: &str| line.starts_with(|first: char| first.is_alphabetic());
                let first = next.split(' ').next().unwrap_or_default();
                if !is_text(line) || !is_text(next) || line.contains("  ") || line.ends_with(':') {
                    continue;
                }
                let would_fit = line.chars().count() + 1 + first.chars().count() <= width;
                assert!(!would_fit, "{arguments:?} in {columns} columns: {line:?}, then {next:?}");
            }
        }
    }
}

/// The commands among the examples of a help, each as the shell reads it.
fn examples(help: &str) -> Vec<String> {
    let is_head = |line: &&str| line.starts_with("Examples") || line.starts_with("Try it out");
    let block = help.lines().skip_while(|line| !is_head(line)).skip(1);
    let block: Vec<&str> = block.take_while(|line| line.starts_with("  ")).collect();
    let joined = block.join("\n").replace("\\\n", " ");
    let lines = joined.lines().map(|line| line.split(" # ").next().unwrap_or_default());
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    lines.map(words).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// Whoever copies an example from a narrow terminal gets all of it.
#[test]
fn an_example_that_is_wider_than_the_terminal_goes_on_behind_a_backslash() {
    let mut further = 0;
    for arguments in COMMANDS {
        let [narrow, wide] = ["60", "100"].map(|columns| help(arguments, columns));
        assert_eq!(examples(&narrow), examples(&wide), "{arguments:?}");
        for line in examples(&narrow) {
            let first = line.split(' ').next().unwrap_or_default();
            let is_command = ["eventlog-server", "export", "ssh", "echo"].contains(&first)
                || first.contains('=');
            assert!(is_command, "{arguments:?}: {line}");
        }
        further += narrow.matches("\\\n      ").count();
    }
    assert!(further > 10, "{further}");
}

#[test]
fn a_command_shows_its_own_options() {
    let echo = help(&["bench", "echo"], "100");
    for option in ["--url", "--token", "--floors", "--keys", "--stores", "--pid"] {
        assert!(!echo.contains(option), "{option}: {echo}");
    }
    assert!(echo.contains("--connections") && echo.contains("--json"), "{echo}");
}

#[test]
fn a_payload_keeps_its_order_and_may_be_in_a_file() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(&directory.path().join("data"));
    let address: SocketAddr = server.address().parse().expect("an address");
    let address = address.to_string();
    let write = |payload: &str| {
        let to = ["write", "--url", &address, "--key", "a", "--event", "E", "--payload", payload];
        run(&to).ok();
    };
    let file = directory.path().join("payload.json");
    std::fs::write(&file, r#"{"second":1,"first":2}"#).expect("written");
    // A server without a scheme is understood.
    write(r#"{"zebra":1,"apple":{"b":1,"a":2},"mango":3}"#);
    write(&format!("@{}", data(&file)));
    let tail = ["tail", "--url", &address, "--key", "a", "--count", "2", "--json"];
    let printed = run(&tail).ok();
    for payload in [r#"{"zebra":1,"apple":{"b":1,"a":2},"mango":3}"#, r#"{"second":1,"first":2}"#] {
        assert!(printed.contains(payload), "{payload}: {printed}");
    }
}

#[test]
fn the_start_says_what_comes_next_and_a_directory_without_stores_that_it_has_none() {
    let directory = tempdir().expect("a directory");
    let store = directory.path().join("data");
    let mut serve = command(&["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]);
    let mut child = serve.arg(&store).spawn().expect("it starts");
    let mut said = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    while !said.contains("eventlog-server write") {
        assert!(std::io::BufRead::read_line(&mut out, &mut said).expect("a line") > 0, "{said}");
    }
    for words in
        ["/eventlog\n  for ", "/rpc\n  for Effect", "survives a power cut", "tail --url 127.0.0.1:"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().expect("kill").success());
    child.wait().expect("it ends");
    let inspected = run(&["inspect", "--data-dir", data(&store)]);
    assert!(inspected.err.contains("no stores yet"), "{}", inspected.err);
    assert_eq!((inspected.code, &*inspected.out), (Some(0), ""));
    let missing =
        run(&["inspect", "--data-dir", data(&directory.path().join("nowhere"))]).failed(1);
    assert!(missing.contains("nowhere is not a data directory"), "{missing}");
}

#[test]
fn nothing_is_coloured_or_counted_where_there_is_no_terminal() {
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(&directory.path().join("data"));
    let refused = server.run(&["tail", "--key", "a", "--url", "127.0.0.1:1"]);
    assert!(
        refused.err.starts_with("error: ") && !refused.err.contains('\x1b'),
        "{:?}",
        refused.err
    );
    let lines = "{\"event\":\"E\",\"payload\":1}\n".repeat(2_000);
    let written = server.command(&["write", "--key", "a"], &lines);
    assert_eq!((written.code, &*written.err), (Some(0), ""));
    let mut forced = command(&["tail", "--key", "a", "--url", "127.0.0.1:1"]);
    let forced = forced.env("CLICOLOR_FORCE", "1").stdout(Stdio::null()).output().expect("it runs");
    let said = String::from_utf8_lossy(&forced.stderr).into_owned();
    assert!(said.starts_with("\x1b[1;31merror:"), "{said:?}");
}
