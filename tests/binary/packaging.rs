//! What is shipped besides the binary, checked as whoever uses it would: the unit by systemd, the Dockerfile line by
//! line, the dashboard by a schema, the licences by the list of what is allowed, the package by its files.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::tempdir;

use super::process::run;
use crate::support::json_schema::faults;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The values of a directive of the unit.
fn directive(unit: &str, name: &str) -> Vec<String> {
    let values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values.map(ToOwned::to_owned).collect()
}

/// A reload reads the file that was changed, and not a copy that systemd made at the start.
#[test]
fn the_unit_reads_the_configuration_itself_so_that_a_reload_sees_changes() {
    let unit = read("dist/eventlog-server.service");
    assert_eq!(directive(&unit, "LoadCredential"), [""; 0]);
    let [start] = &directive(&unit, "ExecStart")[..] else { panic!("one command") };
    assert!(start.contains(" --config /etc/eventlog/eventlog.toml"), "{start}");
    assert_eq!(directive(&unit, "ExecReload"), ["/bin/kill -HUP $MAINPID"]);
    assert_eq!(directive(&unit, "Type"), ["notify"]);
    // Who may read that file.
    assert_eq!(directive(&unit, "SupplementaryGroups"), ["eventlog"]);
    assert!(unit.contains("install -D -m 640 -g eventlog eventlog.toml"), "{unit}");
    // The command line is one that the program takes.
    let arguments: Vec<_> = start.split(' ').skip(1).collect();
    let [command, rest @ ..] = &arguments[..] else { panic!("{start}") };
    let help = run(&[command, "--help"]).ok();
    for flag in rest.iter().filter(|argument| argument.starts_with("--")) {
        assert!(help.contains(flag), "{flag}");
    }
}

#[test]
fn systemd_knows_every_line_of_the_unit() {
    let directory = tempdir().expect("a directory");
    let verify = |unit: &str| {
        let path = directory.path().join("eventlog-server.service");
        std::fs::write(&path, unit).expect("written");
        Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(path).output()
    };
    // It has to be a program that exists.
    let binary = env!("CARGO_BIN_EXE_eventlog-server");
    let unit =
        read("dist/eventlog-server.service").replace("/usr/local/bin/eventlog-server", binary);
    let Ok(checked) = verify(&unit) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has to have systemd-analyze");
        let _ = writeln!(std::io::stderr(), "not run: there is no systemd-analyze");
        return;
    };
    let about_it = |said: &[u8]| {
        let said = String::from_utf8_lossy(said).into_owned();
        said.lines().filter(|line| line.contains("eventlog-server.service")).count()
    };
    assert_eq!(about_it(&checked.stderr), 0, "{}", String::from_utf8_lossy(&checked.stderr));
    // It would have said so.
    let wrong = verify(&unit.replace("ProtectClock=", "ProtectClok=")).expect("it runs");
    assert_eq!(about_it(&wrong.stderr), 1, "{}", String::from_utf8_lossy(&wrong.stderr));
}

/// The instructions of the Dockerfile.
fn instructions(text: &str) -> Vec<(String, Vec<String>)> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split_whitespace().map(ToOwned::to_owned);
            (words.next().expect("an instruction"), words.collect())
        })
        .collect()
}

/// What would make an image that does not build, or that one should not run.
fn lint(text: &str) -> Vec<String> {
    let (mut stages, mut base, mut found) = (Vec::new(), String::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for (instruction, words) in instructions(text) {
        match &*instruction {
            "FROM" => {
                base.clone_from(&words[0]);
                if !base.contains(':') && !stages.contains(&base) {
                    found.push(format!("{base} has no tag"));
                }
                if let [_, word, name] = &words[..] {
                    assert_eq!(word, "AS");
                    stages.push(name.clone());
                }
                seen.clear();
            }
            "COPY" => {
                let from = words.iter().find_map(|word| word.strip_prefix("--from="));
                let files: Vec<_> = words.iter().filter(|word| !word.starts_with("--")).collect();
                let (_, sources) = files.split_last().expect("a destination");
                match from {
                    Some(stage) if !stages.iter().any(|one| one == stage) => {
                        found.push(format!("there is no stage {stage}"));
                    }
                    Some(_) => {}
                    None => found.extend(
                        sources
                            .iter()
                            .filter(|source| !root().join(source).exists())
                            .map(|source| format!("there is no {source}")),
                    ),
                }
            }
            "ADD" => found.push("ADD unpacks and downloads: use COPY".to_owned()),
            "USER" if ["root", "0"].contains(&&*words[0]) => {
                found.push("it runs as root".to_owned());
            }
            "RUN" | "WORKDIR" | "USER" | "ENV" | "VOLUME" | "EXPOSE" | "STOPSIGNAL" => {}
            "HEALTHCHECK" | "ENTRYPOINT" | "CMD" => {
                let what = words.join(" ");
                let list = what.split_once('[').and_then(|(_, list)| {
                    serde_json::from_str::<Vec<String>>(&format!("[{list}")).ok()
                });
                if list.is_none() {
                    found.push(format!("{instruction} needs a shell, which is not there: {what}"));
                }
            }
            other => found.push(format!("what is {other}?")),
        }
        seen.insert(instruction);
    }
    for needed in ["HEALTHCHECK", "ENTRYPOINT", "STOPSIGNAL", "EXPOSE", "VOLUME"] {
        if !seen.contains(needed) {
            found.push(format!("the last stage has no {needed}"));
        }
    }
    if !base.ends_with(":nonroot") && !seen.contains("USER") {
        found.push("it runs as root".to_owned());
    }
    found
}

#[test]
fn the_dockerfile_builds_from_what_there_is_and_does_not_run_as_root() {
    let text = read("dist/Dockerfile");
    assert_eq!(lint(&text), [""; 0]);
    for (from, to, says) in [
        (":nonroot", ":latest", "it runs as root"),
        ("COPY . .", "COPY nowhere .", "there is no nowhere"),
        ("--from=build", "--from=built", "there is no stage built"),
        ("HEALTHCHECK", "# ", "the last stage has no HEALTHCHECK"),
        (
            "ENTRYPOINT [\"/usr/local/bin/eventlog-server\"]",
            "ENTRYPOINT eventlog-server",
            "needs a shell",
        ),
        ("rust:1-slim-bookworm", "rust", "rust has no tag"),
    ] {
        assert!(text.contains(from), "{from}");
        let found = lint(&text.replace(from, to));
        assert!(found.iter().any(|fault| fault.contains(says)), "{to}: {found:?}");
    }
}

#[test]
fn the_image_starts_and_asks_what_it_has_with_settings_that_are_taken() {
    let all = instructions(&read("dist/Dockerfile"));
    let of = |name: &str| -> Vec<String> {
        let words = all.iter().filter(|(one, _)| one == name).map(|(_, words)| words.join(" "));
        words.collect()
    };
    let list = |text: &str| -> Vec<String> {
        serde_json::from_str(&text[text.find('[').expect("a list")..]).expect("a list")
    };
    let program = list(&of("ENTRYPOINT")[0]);
    let copied = of("COPY").iter().any(|copy| copy.ends_with(&format!(" {}", program[0])));
    assert!(copied, "{program:?}");
    let health = list(&of("HEALTHCHECK")[0]);
    assert_eq!(health, [program[0].as_str(), "health"]);
    assert_eq!(list(&of("CMD")[0]), ["serve"]);
    // The port and the directory that others mount.
    let env = of("ENV").join(" ");
    let value = |name: &str| {
        let found = env.split(' ').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {name} in {env}")).to_owned()
    };
    assert_eq!(of("EXPOSE"), [value("EVENTLOG_LISTEN").rsplit(':').next().expect("a port")]);
    assert_eq!(of("VOLUME"), [value("EVENTLOG_DATA_DIR")]);
    let mut check = super::process::command(&["config", "check"]);
    for pair in env.split(' ') {
        let (name, value) = pair.split_once('=').expect("a setting");
        check.env(name, value);
    }
    let checked = check.env("EVENTLOG_AUTH_MODE", "allow-all").output().expect("it runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn grafana_takes_the_dashboard() {
    let schema: Value =
        serde_json::from_str(&read("tests/dist/grafana-dashboard.schema.json")).expect("JSON");
    let dashboard: Value =
        serde_json::from_str(&read("dist/grafana/eventlog-server.json")).expect("JSON");
    assert_eq!(faults(&schema, &dashboard), [""; 0]);
    let mut wrong = dashboard.clone();
    wrong["panels"][0]["gridPos"]["w"] = 25.into();
    wrong["panels"][1]["targets"][0].as_object_mut().expect("a target").remove("expr");
    wrong["panels"][2]["datasource"]["uid"] = "mine".into();
    assert_eq!(faults(&schema, &wrong).len(), 3, "{:?}", faults(&schema, &wrong));
    // What no schema says.
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let mut cells = BTreeSet::new();
    for panel in panels {
        let of = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        for (x, y) in (0..of("w")).flat_map(|x| (0..of("h")).map(move |y| (x, y))) {
            assert!(of("x") + x < 24, "{panel}");
            assert!(cells.insert((of("x") + x, of("y") + y)), "{panel} lies on another");
        }
        let targets = panel["targets"].as_array().expect("targets");
        let names: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str()).collect();
        assert_eq!(names.len(), targets.len(), "{panel}");
    }
}

fn cargo(arguments: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    let ended = cargo.args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).expect("UTF-8")
}

/// Whether a licence such as `(MIT OR Apache-2.0) AND ISC` permits what is allowed.
fn permits(licence: &str, allowed: &BTreeSet<String>) -> bool {
    let licence = licence.trim();
    // The last operator outside of parentheses; AND binds closer than OR.
    let parts = |operator: &str| -> Option<(String, String)> {
        let mut depth = 0;
        licence.char_indices().find_map(|(at, c)| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            let rest = licence[at..].strip_prefix(operator).filter(|_| depth == 0)?;
            Some((licence[..at].to_owned(), rest.to_owned()))
        })
    };
    if let Some((one, other)) = parts(" OR ").or_else(|| parts("/")) {
        return permits(&one, allowed) || permits(&other, allowed);
    }
    if let Some((one, other)) = parts(" AND ") {
        return permits(&one, allowed) && permits(&other, allowed);
    }
    match licence.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => permits(inner, allowed),
        None => allowed.contains(licence),
    }
}

fn names_in(list: &toml::Value) -> BTreeSet<String> {
    let names = list.as_array().expect("a list").iter().filter_map(toml::Value::as_str);
    names.map(ToOwned::to_owned).collect()
}

/// What `cargo deny check licenses bans sources` would say, as far as `cargo metadata` tells.
#[test]
fn every_dependency_is_one_that_is_allowed() {
    let deny: toml::Table = read("deny.toml").parse().expect("TOML");
    let allowed = names_in(&deny["licenses"]["allow"]);
    assert!(permits("(MIT OR GPL-3.0-only) AND ISC", &allowed));
    assert!(permits("Apache-2.0/MIT", &allowed) && !permits("MIT AND GPL-3.0-only", &allowed));
    let metadata = cargo(&["metadata", "--format-version", "1", "--offline", "--locked"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 100);
    let denied = deny["bans"]["deny"].as_array().expect("a list");
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let licence = package["license"].as_str().unwrap_or("no licence");
        assert!(permits(licence, &allowed), "{name}: {licence}");
        assert!(!denied.iter().any(|one| one["crate"].as_str() == Some(name)), "{name} is denied");
        let source = package["source"].as_str();
        let from_crates = source == Some("registry+https://github.com/rust-lang/crates.io-index");
        assert!(source.is_none() || from_crates, "{name}: {source:?}");
    }
    // Each of the licences is there for a reason, and each advisory is about something that is used.
    for one in &allowed {
        let used =
            |package: &Value| package["license"].as_str().is_some_and(|it| it.contains(&**one));
        assert!(packages.iter().any(used), "nothing has the licence {one}");
    }
}

#[test]
fn the_package_has_what_it_needs_and_nothing_else() {
    let list = cargo(&["package", "--list", "--allow-dirty", "--offline"]);
    let files: BTreeSet<&str> = list.lines().collect();
    for needed in [
        "Cargo.toml",
        "README.md",
        "config.example.toml",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "src/main.rs",
    ] {
        assert!(files.contains(needed), "{needed} is missing");
    }
    for file in &files {
        let path = PathBuf::from(file);
        let is_left_out = ["target", "node_modules", "fuzz", ".ci"]
            .iter()
            .any(|one| path.components().any(|part| part.as_os_str() == *one));
        assert!(!is_left_out, "{file}");
    }
}
