//! Does what README and the pages of `docs/` say, as a reader would: types each command in order, in as many terminals
//! as the page has, and compares the output. `CONTRIBUTING.md` says how to write a page for that.
//!
//! `TOUR=docs/AUTH.md cargo test --test main tour` runs one page. A page whose programs are not all installed is
//! skipped with a message; with `CI=true` in the environment that is a failure.

mod page;
mod reads;
mod shown;
mod terminal;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use page::{Page, Step};
use terminal::{Place, Terminal};

use crate::binary::process::{command, run};
use crate::js::node::packages;

/// Programs that a machine may lack.
const PROGRAMS: [&str; 8] =
    ["curl", "haproxy", "jq", "nginx", "node", "openssl", "sqlite3", "python3"];
/// Held by a page that has no network of its own.
static PORTS: Mutex<()> = Mutex::new(());

#[test]
fn every_command_of_every_page_does_what_the_page_says() {
    let pages = Mutex::new(pages());
    let faults = Mutex::new(Vec::new());
    let next = || pages.lock().expect("no panic").pop();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(name) = next() {
                    let found = faults_of(&name);
                    let found = found.into_iter().map(|fault| format!("{name}:{fault}"));
                    faults.lock().expect("no panic").extend(found);
                }
            });
        }
    });
    let faults = faults.into_inner().expect("no panic");
    assert!(faults.is_empty(), "{} faults:\n\n{}", faults.len(), faults.join("\n\n"));
}

/// The pages, from the root of the repository.
fn pages() -> Vec<String> {
    if let Ok(page) = std::env::var("TOUR") {
        return vec![page];
    }
    let mut pages: Vec<_> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned).into();
    for place in ["docs", "docs/dev", "examples/browser"] {
        let entries = std::fs::read_dir(root().join(place)).into_iter().flatten();
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let names = names.map(|name| format!("{place}/{}", name.to_string_lossy()));
        pages.extend(names.filter(|name| Path::new(name).extension().is_some_and(|e| e == "md")));
    }
    pages
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The test's own output is hidden when it passes.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// What differs from the page, each with its line.
fn faults_of(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(name)).expect("the page");
    let page = page::read(&text);
    let mut faults = page.faults.clone();
    faults.extend(wrong_options(&page));
    let used = programs(&page);
    let missing: Vec<_> = used.iter().copied().filter(|program| !installed(program)).collect();
    if missing.is_empty() {
        // Examples need them; they are linked to from where a page runs.
        let _ = used.contains("node") && packages(name);
        faults.extend(walk(name, &page));
    } else {
        let text = format!("there is no {}", missing.join(", "));
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{name}: {text}");
        say(&format!("not run: {name}, {text}"));
    }
    faults
}

fn installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    path.split(':').any(|place| Path::new(place).join(program).is_file())
}

/// The programs that a page needs and a machine may lack.
fn programs(page: &Page) -> BTreeSet<&'static str> {
    let calls = page.steps.iter().filter_map(|(_, step)| match step {
        Step::Run { command, .. } => Some(words::commands(command)),
        _ => None,
    });
    let used = calls.flatten().flatten().collect::<BTreeSet<_>>();
    PROGRAMS.into_iter().filter(|program| used.contains(*program)).collect()
}

/// Options of this program on a page, in commands that are run or not, that its help does not know.
fn wrong_options(page: &Page) -> Vec<String> {
    let steps = page.steps.iter().filter_map(|(number, step)| match step {
        Step::Run { command, .. } | Step::Leave { command, .. } => Some((*number, command)),
        _ => None,
    });
    let mentioned = page.mentioned.iter().map(|(number, command)| (*number, command));
    let mut faults = Vec::new();
    for (number, line) in steps.chain(mentioned) {
        for words in words::commands(line) {
            let Some(words) = words::ours(&words) else { continue };
            let options = words.iter().map(|word| word.trim_start_matches('['));
            let options = options.filter(|word| word.starts_with("--") && word.len() > 2);
            for option in options {
                let option = option.split(['=', ']', ',']).next().unwrap_or_default();
                if !help(words).split([' ', '\n', ',', '=']).any(|known| known == option) {
                    faults.push(format!("{number}: there is no {option} in `{line}`"));
                }
            }
        }
    }
    faults
}

/// The help of the command that these words begin with.
fn help(words: &[String]) -> String {
    static KNOWN: Mutex<BTreeMap<Vec<String>, String>> = Mutex::new(BTreeMap::new());
    let is_name = |word: &&String| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let names = words.iter().take_while(|word| !word.starts_with('-')).take_while(is_name).take(3);
    let mut names = names.cloned().collect::<Vec<_>>();
    let mut known = KNOWN.lock().expect("no panic");
    loop {
        let text = known.entry(names.clone()).or_insert_with(|| {
            let arguments = names.iter().map(String::as_str);
            run(&["help"].into_iter().chain(arguments).collect::<Vec<_>>()).out
        });
        if !text.is_empty() || names.pop().is_none() {
            return text.clone();
        }
    }
}

/// Does what a page says.
fn walk(name: &str, page: &Page) -> Vec<String> {
    let place = Place::new();
    let _alone = place.shares_ports().then(|| PORTS.lock().unwrap_or_else(PoisonError::into_inner));
    let mut terminals = BTreeMap::new();
    let mut faults = Vec::new();
    for (number, step) in &page.steps {
        let done = match step {
            Step::Run { terminal, command, shown, stays } => {
                open(&mut terminals, &place, terminal).run(command, shown, *stays)
            }
            Step::Await { terminal, shown } => open(&mut terminals, &place, terminal).wait(shown),
            Step::Interrupt { terminal } => open(&mut terminals, &place, terminal).interrupt(),
            Step::File { name, text } => {
                std::fs::write(place.file(name), text).map_err(|error| error.to_string())
            }
            Step::Check { language, text } => check(language, text, &place),
            Step::Leave { command, reason } => {
                say(&format!("{name}:{number}: not run, {reason}: {command}"));
                syntax(command)
            }
        };
        if let Err(fault) = done {
            let what = match step {
                Step::Run { command, .. } | Step::Leave { command, .. } => command.as_str(),
                _ => "",
            };
            faults.push(format!("{number}: {what}\n{fault}"));
            if fault.starts_with(terminal::HANGS) {
                break;
            }
        }
    }
    faults
}

/// The terminal of this name, opened when it is first used.
fn open<'a>(
    terminals: &'a mut BTreeMap<String, Terminal>,
    place: &Place,
    name: &str,
) -> &'a mut Terminal {
    terminals.entry(name.to_owned()).or_insert_with(|| Terminal::open(place, name))
}

/// Whether a shell could parse it.
fn syntax(line: &str) -> Result<(), String> {
    let checked = Command::new("bash").args(["-n", "-c", line]).output();
    let checked = checked.map_err(|error| error.to_string())?;
    let complaint = String::from_utf8_lossy(&checked.stderr).into_owned();
    if checked.status.success() && complaint.is_empty() { Ok(()) } else { Err(complaint) }
}

/// Whether it is what it claims to be; TOML has to be part of a configuration, unless it is Cargo's.
fn check(language: &str, text: &str, place: &Place) -> Result<(), String> {
    if language == "json" {
        return serde_json::from_str::<serde_json::Value>(text)
            .map(drop)
            .map_err(|error| format!("{error} in\n{text}"));
    }
    if ["[package]", "[dependencies]"].iter().any(|table| text.contains(table)) {
        return toml::from_str::<toml::Table>(text).map(drop).map_err(|error| error.to_string());
    }
    let file = place.directory.path().join("part.toml");
    std::fs::write(&file, text).expect("a file");
    let mut check = command(&["config", "check", "--config"]);
    check.arg(file).current_dir(place.file("")).env("EVENTLOG_ADMIN_TOKEN", "a-token");
    if !text.contains("mode = ") {
        check.env("EVENTLOG_AUTH_MODE", "allow-all");
    }
    let checked = check.output().expect("it runs");
    let complaint = String::from_utf8_lossy(&checked.stderr).into_owned();
    if checked.status.success() { Ok(()) } else { Err(format!("{complaint} in\n{text}")) }
}
