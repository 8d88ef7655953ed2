//! Exports entries of servers as lines, and imports lines into servers: running ones and stopped ones, and with files
//! that were cut.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use super::process::{Ended, Serve, data, run};

const TOKEN: &str = "only-for-this-test";

/// A server with an admin API, and its directory.
struct Place {
    directory: TempDir,
    server: Option<Serve>,
}

impl Place {
    fn new() -> Self {
        let directory = tempdir().expect("a directory");
        let config = directory.path().join("config.toml");
        std::fs::write(&config, format!("[admin]\ntoken = \"{TOKEN}\"\n")).expect("written");
        let mut place = Self { directory, server: None };
        place.start();
        place
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn start(&mut self) {
        let (config, data) = (self.path("config.toml"), self.path("data"));
        let arguments = ["--dev", "--config", &config, "--data-dir", &data];
        self.server = Some(Serve::start(&arguments, None));
    }

    fn stop(&mut self) {
        let server = self.server.take().expect("it runs");
        assert_eq!(server.end(rustix::process::Signal::TERM), Some(0));
    }

    /// Runs a command, on the running server or on its directory.
    fn command(&self, arguments: &[&str], input: &str) -> Ended {
        match &self.server {
            Some(server) => server.command(&[arguments, &["--token", TOKEN]].concat(), input),
            None => {
                let path = self.path("lines");
                std::fs::write(&path, input).expect("written");
                let data = self.path("data");
                let lines = if arguments[0] == "import" { vec![&*path] } else { vec![] };
                run(&[arguments, &["--data-dir", &data], &lines[..]].concat())
            }
        }
    }

    fn export(&self, more: &[&str]) -> String {
        self.command(&[&["export"], more].concat(), "").ok()
    }

    fn import(&self, more: &[&str], lines: &str) -> Ended {
        self.command(&[&["import"], more].concat(), lines)
    }
}

fn id(n: u64) -> String {
    format!("018bcfe5-6800-70e1-8101-{n:012x}")
}

/// Lines as a person would write them.
fn written(from: u64, to: u64) -> String {
    let line = |n: u64| {
        let (id, event) = (id(n), ["Note", "Todo"][n as usize % 2]);
        let entry = json!({ "id": id, "event": event, "primaryKey": format!("k{}", n % 3), "payloadHex": format!("{n:04x}") });
        format!("{entry}\n")
    };
    (from..to).map(line).collect()
}

/// Everything but the commit times, which are less exact for entries in the database.
fn without_times(lines: &str) -> String {
    let mut parts = lines.split(r#","committedBy":"#);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// The entries of each store without their sequences, writers and times.
fn entries(lines: &str) -> BTreeMap<String, Vec<Value>> {
    let (mut stores, mut store) = (BTreeMap::<_, Vec<Value>>::new(), String::new());
    for line in lines.lines() {
        let mut line: Value = serde_json::from_str(line).expect("JSON");
        if let Some(name) = line["storeId"].as_str() {
            name.clone_into(&mut store);
        } else if line["id"].is_string() {
            let fields = line.as_object_mut().expect("an object");
            for of_the_server in ["sequence", "origin", "committedBy"] {
                assert!(fields.remove(of_the_server).is_some(), "{of_the_server}");
            }
            stores.entry(store.clone()).or_default().push(line);
        }
    }
    stores
}

/// Names and payloads of every kind.
fn hostile() -> String {
    let payloads =
        [vec![], vec![0x81, 0xa1, b'a', 1], b"\xff\xfe\n\"".to_vec(), vec![b'x'; 3 << 20]];
    let names = ["Note", "a\nb\"\\\u{0}\u{202e}", "🦀{\"end\":", "\u{1b}[2J"];
    let mut lines = String::new();
    for (n, (payload, name)) in payloads.iter().zip(names).enumerate() {
        let bytes = BASE64.encode(payload);
        let entry = json!({ "id": id(9_000 + n as u64), "event": name, "primaryKey": name, "payloadBase64": bytes });
        lines.extend([&entry.to_string(), "\n"]);
    }
    lines
}

#[test]
fn whatever_was_exported_is_imported_elsewhere_running_or_stopped() {
    let mut here = Place::new();
    let odd = "te am/\"\n..%2F?é";
    here.import(&["--store", "team"], &written(0, 2_500)).ok();
    here.import(&["--store", odd], &hostile()).ok();
    let all = here.export(&[]);
    here.stop();
    let again = here.export(&[]);
    assert_eq!(without_times(&again), without_times(&all), "a stopped server says the same");
    assert_eq!(all.lines().count(), 2_504 + 2 * 2 + 1);
    assert!(all.ends_with("{\"complete\":true,\"stores\":2,\"entries\":2504}\n"));
    let had = entries(&all);
    assert_eq!((had["team"].len(), had[odd].len()), (2_500, 4));
    assert!(had["team"].iter().enumerate().all(|(n, it)| it["id"] == id(n as u64)));
    assert!(
        had[odd]
            .iter()
            .zip(["", "gaFhAQ==", "//4KIg=="])
            .all(|(it, bytes)| it["payloadBase64"] == bytes)
    );

    let mut there = Place::new();
    let told = there.import(&["--json"], &all).ok();
    let new = |store: &str, new: u64| {
        let count = had[store].len();
        format!("{}\n", json!({ "storeId": store, "entries": count, "new": new }))
    };
    assert_eq!(told, new(odd, 4) + &new("team", 2_500));
    assert_eq!(entries(&there.export(&[])), had);
    assert_eq!(there.import(&["--json"], &all).ok(), new(odd, 0) + &new("team", 0));
    there.stop();
    assert_eq!(there.import(&["--json"], &all).ok(), new(odd, 0) + &new("team", 0));
    assert_eq!(entries(&there.export(&[])), had);
    // Imports into another store, which already has some of them.
    there.import(&["--store", "copy"], &written(100, 200)).ok();
    let team = here.export(&["--store", "team"]);
    let told = there.import(&["--store", "copy"], &team).ok();
    assert_eq!(told, "copy  2500 entries: 2400 new, 100 were there already\n");
    there.start();
    let copied = &entries(&there.export(&["--store", "copy"]))["copy"];
    assert_eq!(copied.len(), 2_500);
}

#[test]
fn a_part_is_chosen_by_event_key_and_time() {
    let place = Place::new();
    place.import(&["--store", "team"], &written(0, 60)).ok();
    let sequences = |more: &[&str]| -> Vec<u64> {
        let lines = place.export(&[&["--store", "team"], more].concat());
        let numbers = lines.lines().filter_map(|line| {
            serde_json::from_str::<Value>(line).expect("JSON")["sequence"].as_u64()
        });
        numbers.collect()
    };
    assert!(sequences(&[]).into_iter().eq(1..=60));
    assert!(sequences(&["--from", "55"]).into_iter().eq(55..=60));
    assert_eq!(sequences(&["--from", "61"]), [0; 0]);
    assert_eq!(
        sequences(&["--event", "N*", "--primary-key", "k1", "--from", "40"]),
        [41, 47, 53, 59]
    );
    assert_eq!(sequences(&["--event", "nothing"]), [0; 0]);
    // All are from 2023-11-14T22:13:20Z.
    assert_eq!(sequences(&["--created-before", "2023-11-14T22:13:20Z"]), [0; 0]);
    assert_eq!(sequences(&["--created-from", "2023-11-14T22:13:20Z"]).len(), 60);
    // These are the commit times, which are now.
    let lines = place.export(&["--store", "team"]);
    let first = lines.lines().nth(1).expect("an entry");
    let by = serde_json::from_str::<Value>(first).expect("JSON")["committedBy"].as_u64();
    let by = by.expect("it is said");
    assert!(by > 1_700_000_000_000 + 86_400_000, "{by} is not of the id");
    assert_eq!(sequences(&["--committed-from", "2024-01-01T00:00:00Z"]).len(), 60);
    assert_eq!(sequences(&["--committed-before", "2024-01-01T00:00:00Z"]), [0; 0]);
    assert_eq!(sequences(&["--committed-from", "2100-01-01T00:00:00Z"]), [0; 0]);
    assert_eq!(sequences(&["--committed-before", "2100-01-01T00:00:00Z"]).len(), 60);
    let refused = place.command(&["export", "--store", "nobody"], "").failed(1);
    assert!(refused.contains("nobody"), "{refused}");
}

#[test]
fn a_file_that_was_cut_is_gone_on_with() {
    let mut place = Place::new();
    place.import(&["--store", "a"], &written(0, 30)).ok();
    place.import(&["--store", "b"], &written(30, 60)).ok();
    let whole = entries(&place.export(&[]));
    let out = place.path("out.jsonl");
    let exported = |place: &Place| {
        place.export(&["--out", &out]);
        std::fs::read_to_string(&out).expect("UTF-8")
    };
    let text = exported(&place);
    for n in 0..40 {
        if n == 20 {
            place.stop();
        }
        std::fs::write(&out, &text[..text.len() * n / 40]).expect("written");
        let again = exported(&place);
        assert_eq!(entries(&again), whole, "cut at {n}/40");
        assert!(
            again.ends_with("{\"complete\":true,\"stores\":2,\"entries\":60}\n"),
            "{n}: {again}"
        );
        assert_eq!(exported(&place), again, "what is complete is left as it is");
    }
    // A file of another server, of another selection, or of another kind is not continued.
    let cut = &text[..text.len() / 3];
    std::fs::write(&out, cut).expect("written");
    let other = Place::new();
    other.import(&["--store", "a"], &written(0, 30)).ok();
    for (place, more) in
        [(&other, &[][..]), (&place, &["--event", "N*"]), (&place, &["--store", "b"])]
    {
        let arguments = [&["export", "--out", &out], more].concat();
        place.command(&arguments, "").failed(1);
        assert_eq!(std::fs::read_to_string(&out).expect("UTF-8"), cut);
    }
    std::fs::write(&out, "my notes\n").expect("written");
    place.command(&["export", "--out", &out], "").failed(1);
    assert_eq!(std::fs::read_to_string(&out).expect("UTF-8"), "my notes\n");
}

/// It was taken for complete whosever it was, and whatever was written since.
#[test]
fn a_complete_file_is_compared_and_gone_on_with() {
    let mut place = Place::new();
    place.import(&["--store", "a"], &written(0, 30)).ok();
    place.import(&["--store", "b"], &written(30, 60)).ok();
    let out = place.path("out.jsonl");
    let read = || std::fs::read_to_string(&out).expect("UTF-8");
    let export = |place: &Place, more: &[&str]| {
        place.command(&[&["export", "--out", &out], more].concat(), "")
    };
    export(&place, &[]).ok();
    let text = read();
    let printed = place.command(&["export", "--out", "-"], "").ok();
    assert_eq!(printed, text, "it is no file of that name");
    assert!(!Path::new("-").exists());
    let other = Place::new();
    other.import(&["--store", "a"], &written(0, 30)).ok();
    other.import(&["--store", "b"], &written(30, 60)).ok();
    for (place, more, why) in [
        (&other, &[][..], "another server"),
        (&place, &["--event", "N*"], "everything"),
        (&place, &["--store", "b"], "\"a\""),
    ] {
        let refused = export(place, more).failed(1);
        assert!(refused.contains(why), "{refused}");
        assert_eq!(read(), text);
    }
    let told = export(&place, &[]);
    assert!(told.code == Some(0) && told.err.contains("is complete"), "{}", told.err);
    assert_eq!(read(), text, "nothing is new");
    for (stopped, from) in [(false, 100), (true, 200)] {
        place.import(&["--store", "a"], &written(from, from + 10)).ok();
        place.import(&["--store", &format!("new {from}")], &written(from, from + 1)).ok();
        if stopped {
            place.stop();
        }
        export(&place, &[]).ok();
        assert_eq!(entries(&read()), entries(&place.export(&[])));
        assert!(read().starts_with(text.lines().next().expect("a head")));
        assert_eq!(read().matches("\"complete\"").count(), 1);
    }
    assert!(read().ends_with("{\"complete\":true,\"stores\":4,\"entries\":82}\n"), "{}", read());
    // Of one store, and imported as it is.
    let there = Place::new();
    there.import(&[], &read()).ok();
    assert_eq!(entries(&there.export(&[])), entries(&read()));
    // What came while it was cut off comes as well, whichever store it is in.
    std::fs::write(&out, &text[..text.len() - 10]).expect("written");
    export(&place, &[]).ok();
    assert_eq!(entries(&read()), entries(&place.export(&[])));
}

#[test]
fn a_wrong_line_is_named_and_what_stands_before_it_is_there() {
    let mut place = Place::new();
    let (good, more) = (written(0, 1_500), written(2_000, 2_010));
    for stopped in [false, true] {
        if stopped {
            place.stop();
        }
        let store = if stopped { "two" } else { "one" };
        let lines = format!("{good}\n{{\"id\":1}}\n{more}");
        let ended = place.import(&["--store", store], &lines);
        assert_eq!(ended.code, Some(1));
        assert!(ended.err.contains("line 1502: "), "{}", ended.err);
        assert_eq!(ended.out, format!("{store}  1500 entries: 1500 new, 0 were there already\n"));
        let had = &entries(&place.export(&["--store", store]))[store];
        assert_eq!(had.len(), 1_500);
    }
    // Lines without a store, lines of several stores where one is expected, and lines in a wrong order.
    let refused = place.import(&[], &good).failed(1);
    assert!(refused.contains("line 1: ") && refused.contains("--store"), "{refused}");
    let two = place.export(&[]);
    let refused = place.import(&["--store", "three"], &two);
    let is_refused = refused.err.contains("nothing is imported") && refused.code == Some(1);
    assert!(is_refused && refused.out.is_empty(), "{}", refused.err);
    let mut lines: Vec<&str> = two.lines().collect();
    lines.swap(3, 4);
    let refused = place.import(&[], &lines.join("\n"));
    assert!(refused.err.contains("line 5: "), "{}", refused.err);
    // Some lines are missing.
    let without =
        [&two.lines().collect::<Vec<_>>()[..9], &two.lines().collect::<Vec<_>>()[10..]].concat();
    let ended = place.import(&[], &without.join("\n"));
    assert!(
        ended.code == Some(1) && ended.err.contains("1500") && ended.err.contains("1499"),
        "{}",
        ended.err
    );
    let cut = two.lines().take(1_000).collect::<Vec<_>>().join("\n");
    let ended = place.import(&[], &cut);
    assert!(ended.code == Some(1) && ended.err.contains("the export was cut"), "{}", ended.err);
}

#[test]
fn the_feed_of_another_server_is_imported_by_either_protocol() {
    let old = Place::new();
    let frame = |n| json!({ "id": id(n), "event": "E", "primaryKey": "", "payloadHex": "022068" });
    let frames: Vec<String> = (0..1_200).map(|n| frame(n).to_string()).collect();
    let frames = frames.join("\n");
    old.import(&["--store", "default"], &frames).ok();
    let url = old.server.as_ref().expect("it runs").url.clone();
    let mut new = Place::new();
    let import = |place: &Place, key: &str, url: &str, more: &[&str]| {
        let all = [&["--store", "copy", "--public-key", key, "--from-url", url], more].concat();
        place.import(&all, "")
    };
    let told = import(&new, "alice", &url, &["--from", "201"]).ok();
    assert_eq!(told, "copy  1000 entries: 1000 new, 0 were there already\n");
    let identity = new.path("bob.json");
    let rpc = url.replace("/eventlog", "/rpc");
    let told = import(&new, "bob", &rpc, &["--identity", &identity, "--idle", "2"]).ok();
    assert_eq!(told, "copy  1200 entries: 200 new, 1000 were there already\n");
    new.stop();
    let data = new.path("data");
    let all = [
        "import",
        "--store",
        "copy",
        "--public-key",
        "alice",
        "--from-url",
        &url,
        "--data-dir",
        &data,
    ];
    assert_eq!(run(&all).ok(), "copy  1200 entries: 0 new, 1200 were there already\n");
    drop(old);
    let refused = run(&all).failed(1);
    assert!(refused.contains("is the server running"), "{refused}");
}

#[test]
fn the_tables_of_effects_own_server_are_imported_by_the_command_of_the_help() {
    let help = run(&["import", "--help"]).ok();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let query = "SELECT json_object('id', lower(hex(entry_id)), 'event', event, 'primaryKey', primary_key, \
                 'payloadHex', hex(payload)) FROM effect_events WHERE store_id = 'team' AND event <> '' ORDER BY sequence";
    assert!(words(&help).contains(query), "{help}");
    let tables = rusqlite::Connection::open_in_memory().expect("a database");
    let made = "CREATE TABLE effect_events (store_id TEXT NOT NULL, sequence INTEGER NOT NULL, entry_id BLOB NOT NULL, \
                event TEXT NOT NULL, primary_key TEXT NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (store_id, sequence), \
                UNIQUE (store_id, entry_id))";
    tables.execute(made, []).expect("made");
    for n in 1..=20_u8 {
        let store = if n == 7 { "other" } else { "team" };
        let row = (store, n, vec![n; 16], format!("E\"{n}\n"), "ké", vec![2, 0x20, n]);
        let insert = "INSERT INTO effect_events VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        tables.execute(insert, row).expect("inserted");
    }
    let mut asked = tables.prepare(query).expect("a query");
    let lines = asked.query_map([], |row| row.get::<_, String>(0)).expect("rows");
    let lines: String = lines.map(|line| line.expect("a row") + "\n").collect();
    let place = Place::new();
    let told = place.import(&["--store", "team"], &lines).ok();
    assert_eq!(told, "team  19 entries: 19 new, 0 were there already\n");
    let had = &entries(&place.export(&[]))["team"];
    assert_eq!(had[0]["id"], "01010101-0101-0101-0101-010101010101");
    assert_eq!((&had[0]["event"], &had[0]["primaryKey"]), (&json!("E\"1\n"), &json!("ké")));
    assert_eq!(had[0]["payloadBase64"], "AiAB");
}

#[test]
fn a_directory_that_is_none_is_left_alone() {
    let directory = tempdir().expect("a directory");
    let nothing: &Path = &directory.path().join("nothing");
    for command in ["export", "import"] {
        let refused = run(&[command, "--data-dir", data(nothing), "--store", "a"]).failed(1);
        assert!(refused.contains("not a data directory") && !nothing.exists(), "{refused}");
    }
    let place = Place::new();
    let data = place.path("data");
    let refused = run(&["export", "--data-dir", &data]).failed(1);
    assert!(refused.contains("leave out --data-dir"), "{refused}");
}
