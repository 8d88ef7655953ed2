//! How long erased content stays in each place: no longer than `[erase]` says, and the work itself takes.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{ERASE, Place, SECRET, files_with, write};

/// The time from the configuration, in seconds.
const CLEAN_AFTER: u64 = 3;
const KEPT_ASIDE: u64 = 12;
/// What the work may take on a busy machine.
const WORK: Duration = Duration::from_secs(120);

/// Where the text is.
fn place_of(file: &str, data: &Path) -> &'static str {
    let below =
        file.strip_prefix(&format!("{}/", data.display())).expect("a file of the directory");
    ["log", "sled", "archive", "sled.damaged-1", "before-format-3"]
        .into_iter()
        .find(|place| below.starts_with(&format!("{place}/")))
        .unwrap_or_else(|| panic!("{file} has it"))
}

#[tokio::test]
async fn each_place_is_clean_within_the_time_that_is_promised() {
    let place = Place::new(&format!("kept_aside = \"{KEPT_ASIDE}s\"\n"));
    let data = place.data();
    let server = place.serve(&format!("{CLEAN_AFTER}s"));
    write(&server, "somebody").await;
    // Sled and the archive get it, and the log goes on with the next file.
    place.well(
        &["backup", "--to", place.directory.path().join("b").to_str().expect("text")],
        &server,
    );
    for aside in ["sled.damaged-1", "before-format-3"] {
        std::fs::create_dir(data.join(aside)).expect("made");
        std::fs::write(data.join(aside).join("db"), SECRET).expect("written");
    }
    write(&server, "somebody").await;
    let begun = Instant::now();
    place.well(&ERASE, &server);
    let mut last_seen = std::collections::BTreeMap::new();
    loop {
        let found = files_with(&data, SECRET);
        for file in &found {
            last_seen.insert(place_of(file, &data), begun.elapsed());
        }
        if found.is_empty() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(KEPT_ASIDE) + 2 * WORK, "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("clean after {:?}; last seen: {last_seen:?}", begun.elapsed());
    for (place, seen) in &last_seen {
        let is_aside = ["sled.damaged-1", "before-format-3"].contains(place);
        let promised = Duration::from_secs(if is_aside { KEPT_ASIDE } else { CLEAN_AFTER });
        assert!(*seen < promised + WORK, "{place}: {seen:?}");
        // What an operator may still need stays as long as the configuration says.
        assert!(!is_aside || *seen + Duration::from_secs(2) > promised, "{place}: {seen:?}");
    }
    let places: Vec<_> = last_seen.into_keys().collect();
    for expected in ["archive", "before-format-3", "log", "sled.damaged-1"] {
        assert!(places.contains(&expected), "{expected} never had it: {places:?}");
    }
    let (clean, said) = place.verify(Some(&server), &["--text", SECRET]);
    assert!(clean, "{said}");
}
