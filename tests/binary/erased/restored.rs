//! A directory that is restored from before an erasure: what is erased is known at once, and goes before the first backup.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{ERASE, Place, SECRET, files_with, is_clean, run, write};
use crate::support::s3::{BUCKET, S3, at, free_port};

/// Restores what was written up to a change, or everything.
fn restore(place: &Place, from: &str, until: Option<&str>) {
    let mut restore = place.command(&["restore", "--from", from, "--data-dir"]);
    restore.arg(place.data());
    if let Some(until) = until {
        restore.args(["--until", until]);
    }
    let (done, said) = run(restore);
    assert!(done, "{said}");
}

/// The directory of a server that wrote, and erased later, is replaced by one from before that. Returns the folder of its backups.
async fn restored(place: &Place) -> PathBuf {
    let backups = place.directory.path().join("backups");
    let to = backups.to_str().expect("text");
    let server = place.serve("0s");
    write(&server, "somebody").await;
    let said = place.well(&["backup", "--to", to], &server);
    let until = said.split(&[' ', ':']).nth(3).expect("a change").to_owned();
    place.well(&ERASE, &server);
    place.well(&["backup", "--to", to], &server);
    drop(server);
    std::fs::remove_dir_all(place.data()).expect("removed");
    restore(place, to, Some(&until));
    backups
}

#[tokio::test]
async fn what_is_erased_is_known_before_the_directory_is_opened() {
    let place = Place::new("");
    restored(&place).await;
    // Nobody has opened it, so the entry is there.
    assert!(!files_with(&place.data(), SECRET).is_empty());
    let (clean, said) = place.verify(None, &[]);
    assert!(!clean && said.contains("1 erased entry is known\n"), "{said}");
    assert!(said.contains("made when the directory is opened next"), "{said}");
    let shown = inspect(&place, &["--store", "default"]);
    assert!(!shown.contains("somebody") && shown.contains("1 entry was skipped"), "{shown}");
    let (_, said) = place.verify(None, &[]);
    assert!(said.contains("still have to be cleaned"), "{said}");
    // Without an archive it is known as well.
    std::fs::remove_dir_all(place.data().join("archive")).expect("removed");
    let (_, said) = place.verify(None, &[]);
    assert!(said.contains("1 erased entry is known\n"), "{said}");
}

#[tokio::test]
async fn an_earlier_moment_is_restored_from_an_archive_that_was_written_again() {
    let place = Place::new("");
    let to = place.directory.path().join("backups").to_str().expect("text").to_owned();
    let server = place.serve("0s");
    write(&server, "somebody").await;
    let other = place.directory.path().join("before").to_str().expect("text").to_owned();
    let said = place.well(&["backup", "--to", &other], &server);
    let until = said.split(&[' ', ':']).nth(3).expect("a change").to_owned();
    write(&server, "else").await;
    place.well(&ERASE, &server);
    is_clean(&server).await;
    place.well(&["backup", "--to", &to], &server);
    drop(server);
    let (clean, said) = place.verify(None, &["--text", SECRET, "--backups", &to]);
    assert!(clean, "{said}");
    let hashes = [Some(&*until), None].map(|until| {
        std::fs::remove_dir_all(place.data()).expect("removed");
        restore(&place, &to, until);
        assert_eq!(files_with(&place.data(), SECRET), Vec::<String>::new());
        let shown = inspect(&place, &["--store", "default"]);
        let count = if until.is_some() { 49 } else { 99 };
        assert!(shown.contains(&format!("printed {count} entries; 1 entry was skipped")));
        let mut verify = place.command(&["verify", "--data-dir"]);
        verify.arg(place.data());
        let (done, said) = run(verify);
        assert!(done, "{said}");
        inspect(&place, &[])
    });
    // The hash is that of what was written up to then.
    std::fs::remove_dir_all(place.data()).expect("removed");
    restore(&place, &other, None);
    let hash = |shown: &str| {
        shown.split_whitespace().find(|word| word.len() == 32).expect("a hash").to_owned()
    };
    assert_eq!(hash(&inspect(&place, &[])), hash(&hashes[0]));
}

fn inspect(place: &Place, arguments: &[&str]) -> String {
    let mut inspect = place.command(&["inspect", "--data-dir"]);
    inspect.arg(place.data()).args(arguments);
    let (done, shown) = run(inspect);
    assert!(done, "{shown}");
    shown
}

/// A backup in the folder that has a manifest of this directory.
fn has_backup(folder: &Path) -> bool {
    let Ok(generations) = std::fs::read_dir(folder) else { return false };
    generations.filter_map(|entry| std::fs::read_dir(entry.expect("an entry").path()).ok()).any(
        |mut files| {
            files.any(|file| {
                file.expect("a file").path().extension().is_some_and(|end| end == "manifest")
            })
        },
    )
}

async fn until_backed_up(folder: &Path) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !has_backup(folder) {
        assert!(Instant::now() < deadline, "no backup is made");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_first_backup_of_a_restored_server_has_nothing_of_what_is_erased() {
    let mut place = Place::new("");
    let old = restored(&place).await;
    let (scheduled, stopped) =
        (place.directory.path().join("scheduled"), place.directory.path().join("stopped"));
    place.more = format!("[backup]\nevery = \"1h\"\nto = {scheduled:?}\n");
    let server = place.serve("1h");
    until_backed_up(&scheduled).await;
    let scheduled = scheduled.to_str().expect("text");
    let (clean, said) = place.verify(Some(&server), &["--text", SECRET, "--backups", scheduled]);
    assert!(clean && said.contains("manifest: clean"), "{said}");
    drop(server);
    // A backup of the stopped directory is made after the files are cleaned, too.
    std::fs::remove_dir_all(place.data()).expect("removed");
    let until = oldest(&old);
    restore(&place, old.to_str().expect("text"), Some(&until));
    let to = stopped.to_str().expect("text");
    let mut backup = place.command(&["backup", "--to", to, "--data-dir"]);
    backup.arg(place.data());
    let (done, said) = run(backup);
    assert!(done, "{said}");
    let (clean, said) = place.verify(None, &["--text", SECRET, "--backups", to]);
    assert!(clean, "{said}");
    // The text is found in backups, also in what an interrupted one left.
    let old = old.to_str().expect("text");
    let (clean, said) = place.verify(None, &["--text", SECRET, "--backups", old]);
    assert!(!clean && said.contains("1 record, once the text; it has them until"), "{said}");
    let generation = std::fs::read_dir(to).expect("a folder").next().expect("one").expect("read");
    let some = zstd::encode_all(SECRET.as_bytes(), 1).expect("zstd");
    std::fs::write(generation.path().join("00000009.log.zst.new"), some).expect("written");
    let (clean, said) = place.verify(None, &["--text", SECRET, "--backups", to]);
    assert!(!clean && said.contains("00000009.log.zst.new: 0 records, once"), "{said}");
}

/// The last change of the oldest backup.
fn oldest(backups: &Path) -> String {
    let mut manifests: Vec<String> = Vec::new();
    for generation in std::fs::read_dir(backups).expect("a folder") {
        for file in std::fs::read_dir(generation.expect("one").path()).expect("a folder") {
            let name = file.expect("a file").file_name().to_string_lossy().into_owned();
            manifests.extend(name.strip_suffix(".manifest").map(ToOwned::to_owned));
        }
    }
    manifests.sort_unstable();
    manifests[0].trim_start_matches('0').to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_from_a_bucket_has_nothing_of_what_was_erased() {
    let Some(s3) = S3::start(free_port()).await else { return };
    let to = format!("s3://{BUCKET}/some");
    let mut place = Place::new(&format!("[archive]\nto = \"{to}\"\nship_every = \"100ms\"\n"));
    place.bucket = Some(s3.address);
    let server = place.serve("1h");
    write(&server, "somebody").await;
    let other = place.directory.path().join("b");
    let said = place.well(&["backup", "--to", other.to_str().expect("text")], &server);
    let until = said.split(&[' ', ':']).nth(3).expect("a change").to_owned();
    place.well(&ERASE, &server);
    // The ledger comes there with the next round.
    let deadline = Instant::now() + Duration::from_secs(120);
    while !s3.names().await.iter().any(|name| name.ends_with(".ledger")) {
        assert!(Instant::now() < deadline, "{:?}", s3.names().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(server);
    // All files there are from before the archive is written again, also at an earlier moment.
    for until in [Some(&*until), None] {
        std::fs::remove_dir_all(place.data()).expect("removed");
        let mut restore = place.command(&["restore", "--from", &to, "--data-dir"]);
        restore.arg(place.data());
        restore.args(until.iter().flat_map(|until| ["--until", *until]));
        at(&mut restore, s3.address);
        let (done, said) = run(restore);
        assert!(done, "{said}");
        let shown = inspect(&place, &["--store", "default"]);
        assert!(!shown.contains("somebody"), "{shown}");
        assert!(shown.contains("printed 49 entries; 1 entry was skipped"), "{shown}");
    }
}
