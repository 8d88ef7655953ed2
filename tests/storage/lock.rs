//! One data directory, two processes.

use eventlog_server::storage::sled::{Database, DatabaseOptions, OpenError};

use super::load::{Load, Writing};

#[test]
fn a_directory_in_use_by_another_process_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let writing = Writing::start(directory.path(), Load::Mixed);
    writing.wait_for_an_ack();
    let Err(error) = Database::open(directory.path(), DatabaseOptions::default()) else {
        panic!("two processes have it open")
    };
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"), "{error}");
    writing.kill();
    Database::open(directory.path(), DatabaseOptions::default()).expect("it is free now");
}
