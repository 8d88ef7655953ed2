//! The example with a database of its own, killed a few times. (It takes the number as an argument: 100, for instance.)

#[path = "../../examples/exactly_once.rs"]
mod example;

use std::path::Path;
use std::process::Command;

const THIS_TEST: &str = "processing::exactly_once::each_entry_is_applied_once_over_kills";

#[tokio::test]
async fn each_entry_is_applied_once_over_kills() {
    if let Some(directory) = std::env::var_os(example::DIRECTORY) {
        example::pay_until_killed(Path::new(&directory)).await.expect("it pays");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut paying = Command::new(std::env::current_exe().expect("this test"));
    paying.args([THIS_TEST, "--exact"]);
    let mut entries = 0;
    // On a very busy machine a process may be killed before it has begun.
    for _ in 0..20 {
        let mut again = Command::new(paying.get_program());
        again.args(paying.get_args());
        entries = example::run(directory.path(), 3, again).await.expect("exactly once");
        if entries > 50 {
            return;
        }
    }
    panic!("only {entries} entries were written");
}
