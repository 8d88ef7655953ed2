//! Handlers with a database of their own, where each effect is applied exactly once, whatever ends the process.
//!
//! `cargo run --example exactly_once -- 100` starts a server that pays money into accounts, kills it a hundred times while
//! it does, and then compares `SQLite` with what was committed. Each effect is in one transaction with the sequence of its entry.
//! At the start the group asks `SQLite` for its position.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::{RemoteId, Sequence, StoreId};
use eventlog_server::processing::{Committed, Event, EventGroup, Failure, Msgpack, Processor};
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::journal::SledJournal;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Paid {
    account: String,
    cents: i64,
}

impl Event for Paid {
    const TAG: &'static str = "Paid";
    fn primary_key(&self) -> String {
        self.account.clone()
    }
}

struct Payments;

impl EventGroup for Payments {
    type Events = (Paid,);
    type Codec = Msgpack;
}

type Bank = Mutex<Connection>;

const TABLES: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, cents INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS positions (store TEXT PRIMARY KEY, sequence INTEGER NOT NULL);";

/// The effect of an entry and its sequence, both or neither.
fn apply(bank: &Bank, paid: &Committed<Paid>) -> rusqlite::Result<()> {
    let mut bank = bank.lock();
    let transaction = bank.transaction()?;
    transaction.execute(
        "INSERT INTO accounts VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET cents = cents + ?2",
        params![paid.account, paid.cents],
    )?;
    transaction.execute(
        "INSERT INTO positions VALUES (?1, ?2) ON CONFLICT (store) DO UPDATE SET sequence = ?2",
        params![paid.store().as_str(), paid.sequence().get()],
    )?;
    transaction.commit()
}

/// The position in a store according to `SQLite`.
fn position(bank: &Bank, store: &StoreId) -> Result<Sequence, Box<dyn Error + Send + Sync>> {
    let select = "SELECT sequence FROM positions WHERE store = ?1";
    let found = bank.lock().query_row(select, [store.as_str()], |row| row.get(0)).optional()?;
    // A store that it does not know begins with its first entry.
    Ok(Sequence::new(found.unwrap_or(0))?)
}

fn start(directory: &Path, bank: Arc<Bank>) -> Result<(Server, Database), Box<dyn Error>> {
    let database = Database::open(&directory.join("data"), DatabaseOptions::default())?;
    let payments = Payments::handlers(bank)
        .on(async |bank, paid: Committed<Paid>| apply(&bank, &paid).map_err(Failure::retry))
        .own_position(async |bank, store: StoreId, _: RemoteId| position(&bank, &store).map(Some));
    let journal = Arc::new(SledJournal::new(database.clone()));
    let processor = Processor::builder(journal).group(payments).build()?;
    let storage = Arc::new(SledStorage::new(database.clone()));
    let server = Server::builder(storage, Arc::new(MemoryRegistry::new()), Arc::new(AllowAll));
    Ok((server.processor(processor).start()?, database))
}

fn open(directory: &Path) -> Result<Arc<Bank>, Box<dyn Error>> {
    let bank = Connection::open(directory.join("bank.sqlite"))?;
    bank.execute_batch(TABLES)?;
    Ok(Arc::new(Mutex::new(bank)))
}

/// Pays one cent at a time, until this process is killed.
pub async fn pay_until_killed(directory: &Path) -> Result<(), Box<dyn Error>> {
    let (server, _database) = start(directory, open(directory)?)?;
    let (writer, store) = (server.writer(&Payments), StoreId::new("bank")?);
    for number in 0_u64.. {
        let paid = Paid { account: format!("account {}", number % 7), cents: 1 };
        writer.write(&store, &paid).await?;
    }
    Ok(())
}

/// Starts `paying` again each time it is killed, and then compares; returns how many entries there are.
pub async fn run(directory: &Path, kills: u32, mut paying: Command) -> Result<u64, Box<dyn Error>> {
    let paying = paying.stdout(Stdio::null()).env(DIRECTORY, directory);
    for kill in 0..kills {
        let mut process = paying.spawn()?;
        tokio::time::sleep(Duration::from_millis(150 + u64::from(kill * 37 % 100))).await;
        process.kill()?;
        process.wait()?;
    }
    let (bank, store) = (open(directory)?, StoreId::new("bank")?);
    let (server, database) = start(directory, bank.clone())?;
    let head = server.head(&store).await?;
    server.processed(&store, head).await?;
    let sum = bank.lock().query_row("SELECT SUM(cents) FROM accounts", [], |row| row.get(0));
    let sum: Option<u64> = sum?;
    server.shutdown(Duration::from_secs(5)).await;
    database.close()?;
    if sum.unwrap_or(0) == head.get() {
        Ok(head.get())
    } else {
        Err(format!("{head} cents were paid, and {sum:?} are there").into())
    }
}

/// The environment variable that names the directory for the paying process.
pub const DIRECTORY: &str = "EXACTLY_ONCE_DIRECTORY";

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return pay_until_killed(Path::new(&directory)).await;
    }
    let kills = std::env::args().nth(1).map_or(Ok(100), |kills| kills.parse())?;
    let directory = tempfile::tempdir()?;
    let paying = Command::new(std::env::current_exe()?);
    let entries = run(directory.path(), kills, paying).await?;
    println!("{entries} entries, each applied once, over {kills} kills");
    Ok(())
}
