//! A server that is killed while its handlers are told what was erased: they are told after the next start, or by another node.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use eventlog_server::model::StoreId;
use eventlog_server::processing::{ErasedEntry, GroupOptions};
use eventlog_server::server::Erase;
use eventlog_server::services::Records;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::journal::{EventJournal, SledJournal};
use eventlog_server::services::records::SledRecords;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::Storage;
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};

use super::*;

/// Names the server's directory; if it is set, this process acts as a server.
const DIRECTORY: &str = "EVENTLOG_TEST_ERASE_DIRECTORY";
/// The URL of the database that it uses instead.
const DATABASE: &str = "EVENTLOG_TEST_ERASE_DATABASE";
/// Whether its handlers never finish hearing.
const HANGS: &str = "EVENTLOG_TEST_ERASE_HANGS";
const THIS_TEST: &str =
    "processing::erase_killed::handlers_that_were_being_told_at_a_kill_are_told_again";

#[tokio::test]
async fn handlers_that_were_being_told_at_a_kill_are_told_again() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        serve_until_killed(Path::new(&directory), std::env::var_os(HANGS).is_some()).await;
    }
    are_told_again(None).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn handlers_that_were_being_told_at_a_kill_are_told_again_by_another_node() {
    let Some(cluster) = crate::cluster::cluster() else { return };
    are_told_again(Some(&cluster.database())).await;
}

async fn are_told_again(database: Option<&str>) {
    let directory = tempfile::tempdir().expect("a directory");
    for hangs in [true, false] {
        let server = Killed::start(directory.path(), database, hangs);
        let wanted = if hangs { "begun team 1+3" } else { "heard team 1+3" };
        let patience = tokio::time::Instant::now() + Duration::from_secs(60);
        while !said(directory.path()).lines().any(|line| line == wanted) {
            let said = said(directory.path());
            let output = std::fs::read_to_string(directory.path().join("output"));
            let output = output.unwrap_or_default();
            assert!(tokio::time::Instant::now() < patience, "not {wanted}: {said}{output}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(server);
    }
    assert!(!said(directory.path()).contains("shown 1"), "what is told is erased already");
}

fn said(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("said")).unwrap_or_default()
}

/// A server in a process of its own, killed when it is dropped.
struct Killed(Child);

impl Killed {
    fn start(directory: &Path, database: Option<&str>, hangs: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args([THIS_TEST, "--exact", "--nocapture"]).env(DIRECTORY, directory);
        command.envs(database.map(|database| (DATABASE, database)));
        if hangs {
            command.env(HANGS, "1");
        }
        let output = File::create(directory.join("output")).expect("a file");
        command.stderr(output.try_clone().expect("a file")).stdout(output);
        let process = command.stdin(Stdio::piped()).spawn();
        Self(process.expect("a process"))
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // SIGKILL; fails only if it ended by itself, and then nothing was said.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

type Kept = (Arc<dyn Storage>, Arc<dyn EventJournal>, Arc<dyn Records>);

fn in_directory(directory: &Path) -> Kept {
    let database = Database::open(&directory.join("data"), DatabaseOptions::default());
    let database = database.expect("the data directory opens");
    let journal = Arc::new(SledJournal::new(database.clone()));
    let records = Arc::new(SledRecords::new(database.clone()));
    (Arc::new(SledStorage::new(database)), journal, records)
}

#[cfg(feature = "postgres")]
fn on_postgres(url: &str) -> Kept {
    use eventlog_server::services::journal::PostgresJournal;
    use eventlog_server::services::records::PostgresRecords;
    use eventlog_server::storage::postgres::{Postgres, PostgresOptions, PostgresStorage};

    let database = Postgres::open(&PostgresOptions::new(url)).expect("the database opens");
    let journal = Arc::new(PostgresJournal::new(database.clone()));
    let records = Arc::new(PostgresRecords::new(database.clone()));
    (Arc::new(PostgresStorage::new(database)), journal, records)
}

/// What the server of this process keeps.
fn kept(directory: &Path) -> Kept {
    match std::env::var(DATABASE) {
        #[cfg(feature = "postgres")]
        Ok(url) => on_postgres(&url),
        _ => in_directory(directory),
    }
}

async fn serve_until_killed(directory: &Path, hangs: bool) -> ! {
    std::thread::spawn(|| {
        // Ends with the process that started it.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let file = OpenOptions::new().create(true).append(true).open(directory.join("said"));
    let file = Arc::new(file.expect("a file"));
    // One write per line, which a kill cannot split.
    let hear = move |file: Arc<File>, store: StoreId, entries: Vec<ErasedEntry>| async move {
        let sequences: Vec<String> = entries.iter().map(|one| one.sequence.to_string()).collect();
        let line = format!("{store} {}", sequences.join("+"));
        (&*file).write_all(format!("begun {line}\n").as_bytes())?;
        if hangs {
            std::future::pending::<()>().await;
        }
        (&*file).write_all(format!("heard {line}\n").as_bytes())
    };
    let group = Todos::handlers(file.clone())
        .on(async |_, _: Committed<TodoAdded>| {})
        .on_erased(hear)
        .options(GroupOptions::named("the book"));
    let (storage, journal, records) = kept(directory);
    let processor = Processor::builder(journal).group(group).build().expect("one type per tag");
    let registry = Arc::new(MemoryRegistry::new());
    let builder = Server::builder(storage, registry, Arc::new(AllowAll));
    let builder = builder.processor(processor).records(records);
    let server = TestServer::start(builder, &[("alice", "team")]).await;
    if hangs {
        let entries = ["key", "other", "key"].map(|key| added(key, "some")).into();
        server.server.write_to_store(store("team"), entries, true).await.expect("written");
        processed(&server.server, "team", 3).await;
        let what = Erase::PrimaryKey("key".to_owned());
        // It never ends.
        let _ = server.server.erase(&store("team"), what).await;
    }
    // A node of a database may not be ready yet.
    let mut socket = loop {
        match Socket::try_connect(&server.url()).await {
            Some(socket) => break socket,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    // Its greeting.
    socket.next_message().await;
    socket.subscribe(&crate::support::key("alice"), 0).await;
    for (at, _) in socket.next_entries(1).await {
        (&*file).write_all(format!("shown {at}\n").as_bytes()).expect("written");
    }
    std::future::pending().await
}
