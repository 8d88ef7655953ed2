//! A process that is killed while it writes.

use std::collections::HashMap;
use std::time::Duration;

use super::load::{Load, Writing, check};

#[test]
fn nothing_answered_is_lost_when_the_process_is_killed() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut acks, mut entries) = (HashMap::new(), 0);
    for round in 1..=4 {
        let writing = Writing::start(directory.path(), Load::Mixed);
        writing.wait_for_an_ack();
        std::thread::sleep(Duration::from_millis(round * 90));
        acks.extend(writing.kill());
        let now = check(directory.path(), &[Load::Mixed], &acks);
        assert!(now > entries, "round {round} wrote something");
        entries = now;
    }
}
