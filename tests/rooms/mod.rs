//! The code follows the table of rooms in `docs/ARCHITECTURE.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A row: rooms that share it, and what they may use.
#[derive(Debug)]
struct Row {
    rooms: Vec<String>,
    may_use: BTreeSet<String>,
}

/// What is between backticks, without what follows its first `/` or `::`.
fn names(cell: &str) -> Vec<String> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.map(|name| name.split(['/', ':']).next().unwrap_or(name).to_owned()).collect()
}

/// The rows of the table below the heading "Rooms", from the one that uses nothing to the one that uses everything.
fn rows(page: &str) -> Vec<Row> {
    let table = page.split("## Rooms").nth(1).and_then(|text| text.split("\n## ").next());
    let lines = table.expect("a table of rooms").lines().filter(|line| line.starts_with("| `"));
    let mut above = BTreeSet::new();
    let mut rows = Vec::new();
    for line in lines {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        let [rooms, _, may_use] = cells[..] else { panic!("not three cells: {line}") };
        let (rooms, mut used) = (names(rooms), BTreeSet::from_iter(names(may_use)));
        assert!(used.is_subset(&above), "{rooms:?} use what does not stand above them: {used:?}");
        if may_use.contains("all above") {
            used.extend(above.iter().cloned());
        }
        above.extend(rooms.iter().cloned());
        rows.push(Row { rooms, may_use: used });
    }
    rows
}

/// Whether a file contains only tests.
fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_test.rs")
}

/// The rooms that a line names: those of `crate::` paths, and what the binary uses of the library. Comments do not
/// count. A macro at the root of the crate belongs to `testing`, which is the only one that has any.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let code = if line.trim_start().starts_with("//") { "" } else { line };
    ["crate::", "eventlog_server::"].into_iter().flat_map(move |root| {
        code.split(root).skip(1).map(move |path| {
            let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
            assert!(end > 0, "one room a line, please: {line}");
            if path[end..].starts_with('!') { "testing" } else { &path[..end] }
        })
    })
}

/// What a file of `room` names although the table does not permit it. Tests may also use `testing`.
fn broken(rows: &[Row], room: &str, path: &str, source: &str) -> Vec<String> {
    let Some(row) = rows.iter().find(|row| row.rooms.iter().any(|name| name == room)) else {
        return vec![format!("{path}: the table has no row for {room}")];
    };
    let mut tests = is_test(path);
    let mut faults = Vec::new();
    for (at, line) in (1..).zip(source.lines()) {
        tests |= line == "#[cfg(test)]";
        let may = |used: &str| {
            let own = row.rooms.iter().any(|name| name == used);
            own || row.may_use.contains(used) || (tests && used == "testing")
        };
        let forbidden = named(line).filter(|used| !may(used));
        faults.extend(forbidden.map(|used| format!("{path}:{at}: {room} may not use {used}")));
    }
    faults
}

/// Every source file below `directory`, as a path and its text.
fn sources(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            found.push((path.to_string_lossy().into_owned(), text));
        }
    }
}

#[test]
fn no_room_uses_another_than_the_architecture_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/ARCHITECTURE.md")).expect("the page");
    let rows = rows(&page);
    let src = root.join("src");
    let mut faults = Vec::new();
    for entry in fs::read_dir(&src).expect("a directory") {
        let path = entry.expect("an entry").path();
        let room = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let mut files = Vec::new();
        if path.is_dir() {
            sources(&path, &mut files);
        } else if room != "lib" {
            files.push((room.clone(), fs::read_to_string(&path).expect("a source file")));
        }
        for (file, source) in files {
            faults.extend(broken(&rows, &room, &file, &source));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    for room in rows.iter().flat_map(|row| &row.rooms) {
        let there = src.join(room).is_dir() || src.join(format!("{room}.rs")).is_file();
        assert!(there, "the table has a row for {room}, which is not there");
    }
}

const PAGE: &str = "## Rooms\n| room | what | may use |\n| --- | --- | --- |\n| `ground/` | a | std |\n\
    | `middle`, `side/` | b | `ground::one` |\n| `top/` | c | all above |\n\n## Next\n| `not/` | a | room |\n";

#[test]
fn an_arrow_back_is_found_wherever_it_stands() {
    let rows = rows(PAGE);
    let found = |room, source| broken(&rows, room, "src/a.rs", source);
    assert!(found("top", "use crate::ground::A;\nuse crate::side::B;").is_empty());
    assert!(
        found("middle", "use crate::side::B; // of the same row\nuse crate::middle::C;").is_empty()
    );
    assert!(found("middle", "/// See [`T`](crate::top::T).\nfn f() {}").is_empty());
    assert_eq!(found("ground", "\nuse crate::top::A;"), ["src/a.rs:2: ground may not use top"]);
    assert_eq!(found("side", "fn f(a: crate::ground::A) -> crate::top::B {").len(), 1);
    assert_eq!(found("middle", "use eventlog_server::top::A;").len(), 1);
    assert_eq!(found("not", "").len(), 1);
    assert_eq!(found("middle", "crate::contract_tests!(a);").len(), 1);
    assert!(
        found("middle", "#[cfg(test)]\nuse crate::testing::A;\ncrate::contract_tests!(a);")
            .is_empty()
    );
    assert!(broken(&rows, "middle", "src/middle/tests/a.rs", "use crate::testing::A;").is_empty());
}
