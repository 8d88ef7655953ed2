//! What was trimmed is not shown any more, but the archive has it: erasing finds it there.

use super::*;

const TRIM: [&str; 6] = ["trim", "--yes", "--store", "default", "--before", "30"];

#[tokio::test]
async fn what_was_trimmed_before_is_found_by_its_primary_key_and_leaves_the_files() {
    let place = Place::new("");
    let server = place.serve("100ms");
    write(&server, "somebody").await;
    write(&server, "nobody").await;
    place.well(&TRIM, &server);
    assert!(!files_with(&place.data(), SECRET).is_empty(), "files have it");
    let (done, said) = place.verify(Some(&server), &["--text", SECRET]);
    assert!(!done, "{said}");
    let said = place.well(&ERASE, &server);
    assert!(said.contains("1 entry is erased"), "{said}");
    let said = place.well(&ERASE, &server);
    assert!(said.contains("0 entries are erased"), "{said}");
    is_clean(&server).await;
    assert_eq!(files_with(&place.data(), SECRET), Vec::<String>::new());
    let (done, said) = place.verify(Some(&server), &["--text", SECRET]);
    assert!(done, "{said}");
    // What was written after it is still there.
    let mut reader = Socket::connect(&server.url).await;
    reader.subscribe(&key("bob"), 0).await;
    assert_eq!(reader.next_entries(71).await[0].0, 30);
}

#[tokio::test]
async fn the_command_finds_it_in_the_directory_of_a_stopped_server_too() {
    let place = Place::new("");
    let mut server = place.serve("1h");
    write(&server, "somebody").await;
    write(&server, "nobody").await;
    place.well(&TRIM, &server);
    server.signal("TERM");
    server.wait();
    let mut erase = place.command(&ERASE);
    erase.arg("--data-dir").arg(place.data());
    let (done, said) = run(erase);
    assert!(done && said.contains("1 entry is erased"), "{said}");
    assert_eq!(files_with(&place.data(), SECRET), Vec::<String>::new());
    let (done, said) = place.verify(None, &["--text", SECRET]);
    assert!(done, "{said}");
}
