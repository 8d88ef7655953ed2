//! How many of the files that a system permits are used by a server's connections.

use std::os::fd::AsRawFd;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tempfile::tempdir;

use super::process::Serve;
use crate::support::{key, socket::Socket};

/// Whether a process may duplicate its own descriptors by number here; the server needs that.
fn duplicates_by_number() -> bool {
    let process = pidfd_open(getpid(), PidfdFlags::empty());
    process.is_ok_and(|process| {
        pidfd_getfd(&process, process.as_raw_fd(), PidfdGetfdFlags::empty()).is_ok()
    })
}

#[tokio::test]
async fn a_connection_takes_one_descriptor() {
    if !duplicates_by_number() {
        eprintln!("skipped: the system does not let a process duplicate by number");
        return;
    }
    let directory = tempdir().expect("a directory");
    let server = Serve::dev(directory.path());
    let mut clients = Vec::new();
    let mut open = Vec::new();
    for count in [1, 51] {
        while clients.len() < count {
            let mut client = Socket::connect(&server.url).await;
            client.subscribe(&key("alice"), 0).await;
            clients.push(client);
        }
        open.push(server.open_files());
    }
    assert_eq!(open[1] - open[0], 50, "{open:?}");
}
