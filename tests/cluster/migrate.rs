//! A server is moved to PostgreSQL and back by the real command. Unmodified clients continue, and an interruption costs nothing.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventlog_server::model::{
    Batch, EntryId, EntryRef, Origin, PublicKey, SegmentBuilder, Sequence, StoreId,
};
use eventlog_server::storage::Storage;
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};

use super::cluster;
use crate::js::node;
use crate::js::stock::follow;
use crate::support::process::{Process, binary};

const TOKEN: &str = "only-for-this-test";
const PATIENCE: Duration = Duration::from_secs(120);

fn migrate(database: &str, arguments: &[&str]) -> Command {
    let mut command = binary();
    command.arg("migrate").args(arguments).env("EVENTLOG_STORAGE_URL", database);
    command
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn serve(data: &Path, listen: &str, database: Option<&str>) -> Process {
    let mut command = binary();
    command.args(["serve", "--dev", "--listen", listen, "--data-dir"]).arg(data);
    command.env("EVENTLOG_ADMIN_TOKEN", TOKEN);
    if let Some(database) = database {
        command.env("EVENTLOG_STORAGE_KIND", "postgres").env("EVENTLOG_STORAGE_URL", database);
    }
    Process::start(command)
}

#[test]
fn stock_clients_go_on_where_they_were_in_both_directions() {
    let Some(cluster) = cluster() else { return };
    let Some(mut clients) = node::script("stock_migrate.mjs") else { return };
    let (database, directory) = (cluster.database(), tempfile::tempdir().expect("a directory"));
    let (sled, node_dir) = (directory.path().join("data"), directory.path().join("node"));
    let mut server = Some(serve(&sled, "127.0.0.1:0", None));
    let url = server.as_ref().expect("a server").url.clone();
    let address = url.trim_start_matches("ws://").trim_end_matches("/eventlog").to_owned();
    clients.args([&address, TOKEN]);
    let mut moves = 0;
    follow(clients, || {
        let mut stopped = server.take().expect("a server");
        stopped.signal("TERM");
        stopped.wait();
        moves += 1;
        let path = sled.to_str().expect("UTF-8");
        server = Some(if moves % 2 == 1 {
            let told =
                done(&migrate(&database, &["--data-dir", path, "--to"]).output().expect("it runs"));
            assert!(told.contains("moved 1 store: ") && told.contains("is kept"), "{told}");
            assert!(told.contains("Next: start the nodes"), "{told}");
            serve(&node_dir, &address, Some(&database))
        } else {
            std::fs::remove_dir_all(&sled).expect("removed");
            let back = ["--from", "--to-data-dir", path];
            let told = done(&migrate(&database, &back).output().expect("it runs"));
            assert!(told.contains("moved 1 store: "), "{told}");
            assert!(told.contains("no node starts on the database any more"), "{told}");
            serve(&sled, &address, None)
        });
    });
    assert_eq!(moves, 3);
}

const STORES: usize = 8;
const ENTRIES: usize = 12_000;

/// A directory with some stores.
fn fill(path: &Path) {
    let database = Database::open(path, DatabaseOptions::default()).expect("it opens");
    let storage = SledStorage::new(database.clone());
    let origin = Origin::Client(PublicKey::new("alice").expect("a key"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for n in 0..STORES {
        let store = StoreId::new(format!("store {n}")).expect("a store");
        let log = storage.open(&store).expect("open");
        let mut builder = SegmentBuilder::new(Sequence::FIRST);
        for _ in 0..ENTRIES {
            let (id, payload) = (EntryId::now(), &[7; 100]);
            let entry = EntryRef { id, event: "Noted", primary_key: "n", payload };
            builder.push(Batch::from_entries([entry]).record(0).expect("a slot"), &origin);
        }
        runtime.block_on(log.append(builder.finish())).expect("appended");
    }
    drop::<Arc<dyn Storage>>(Arc::new(storage));
    database.close().expect("closed");
}

/// Starts the command, and kills it once `is_so` returns true.
fn kill_once(mut command: Command, mut is_so: impl FnMut() -> bool) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it does not come so far");
        if child.try_wait().expect("a process").is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("killed");
    child.wait().expect("it ended");
    true
}

#[test]
fn a_move_that_was_killed_goes_on_with_the_next_run() {
    let Some(cluster) = cluster() else { return };
    let (database, directory) = (cluster.database(), tempfile::tempdir().expect("a directory"));
    let (from, to) = (directory.path().join("data"), directory.path().join("back"));
    fill(&from);
    let up = ["--data-dir", from.to_str().expect("UTF-8"), "--to"];
    let count = "SELECT count(*) FROM effect_events";
    let stored = || {
        let made = "SELECT to_regclass('effect_events') IS NOT NULL";
        if cluster.sql(&database, made) == "t" { cluster.sql(&database, count) } else { "0".into() }
    };
    let mut before = 0;
    for _ in 0..3 {
        let all = STORES * ENTRIES;
        let killed = kill_once(migrate(&database, &up), || {
            let stored: usize = stored().parse().expect("a number");
            stored > before || stored == all
        });
        before = stored().parse().expect("a number");
        assert!(killed && before > 0, "it was killed with {before} of {all}");
        // Neither can be served by accident.
        let node = directory.path().join("node");
        let mut command = binary();
        command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&node);
        command.env("EVENTLOG_STORAGE_KIND", "postgres").env("EVENTLOG_STORAGE_URL", &database);
        let refused = command.output().expect("it runs");
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && told.contains("moved into it"), "{told}");
    }
    let told = done(&migrate(&database, &up).output().expect("it runs"));
    assert!(told.contains(&format!("moved {STORES} stores")), "{told}");
    assert_eq!(cluster.sql(&database, count), (STORES * ENTRIES).to_string());
    let again = done(&migrate(&database, &up).output().expect("it runs"));
    assert!(again.contains("nothing was changed"), "{again}");
    let back = ["--from", "--to-data-dir", to.to_str().expect("UTF-8")];
    let killed = kill_once(migrate(&database, &back), || to.join("renewing/sled/db").is_file());
    assert!(killed, "it was killed");
    let unfinished = binary().args(["serve", "--dev", "--data-dir"]).arg(&to).output();
    let told = String::from_utf8_lossy(&unfinished.expect("it runs").stderr).into_owned();
    assert!(told.contains("did not finish"), "{told}");
    let told = done(&migrate(&database, &back).output().expect("it runs"));
    assert!(told.contains(&format!("moved {STORES} stores")), "{told}");
    let verified = Database::verify(&to, &DatabaseOptions::default()).expect("read");
    assert_eq!(verified.faults, []);
    assert!(verified.entries >= (STORES * ENTRIES) as u64);
}
