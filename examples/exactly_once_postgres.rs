//! Handlers that write their own tables in the server's `PostgreSQL`, exactly once, across several nodes, whatever ends
//! them.
//!
//! `cargo run --features postgres --example exactly_once_postgres -- postgres://eventlog@localhost/bank 100` starts two
//! nodes on that database that pay money into accounts, kills one of them at random a hundred times, and then compares
//! what the accounts have with what was committed. Each effect is written through the transaction in which the position
//! of the handlers moves, so nothing has to be remembered here.

use std::error::Error;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::StoreId;
use eventlog_server::processing::{Committed, Event, EventGroup, Failure, Msgpack, Processor};
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::journal::PostgresJournal;
use eventlog_server::services::registry::PostgresRegistry;
use eventlog_server::storage::postgres::{Postgres, PostgresOptions, PostgresStorage};
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

const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, cents BIGINT NOT NULL)";
const PAY: &str = "INSERT INTO accounts AS a VALUES ($1, $2) \
    ON CONFLICT (name) DO UPDATE SET cents = a.cents + EXCLUDED.cents";

/// Committed with the position of the group, or not at all.
async fn apply(paid: Committed<Paid>) -> Result<(), Failure> {
    let transaction = paid.transaction().ok_or_else(|| Failure::pause("no transaction"))?;
    let written = transaction.client().execute(PAY, &[&paid.account, &paid.cents]).await;
    written.map(|_| ()).map_err(|error| Failure::retry(error.to_string()))
}

fn start(url: &str) -> Result<Server, Box<dyn Error>> {
    let postgres = Postgres::open(&PostgresOptions::new(url))?;
    let payments = Payments::handlers(Arc::new(()))
        .on(async |_, paid: Committed<Paid>| apply(paid).await)
        .in_transaction();
    let journal = Arc::new(PostgresJournal::new(postgres.clone()));
    let processor = Processor::builder(journal).group(payments).build()?;
    let storage = Arc::new(PostgresStorage::new(postgres.clone()));
    let registry = Arc::new(PostgresRegistry::new(postgres));
    Ok(Server::builder(storage, registry, Arc::new(AllowAll)).processor(processor).start()?)
}

/// The environment variable that names the database for a paying process.
pub const DATABASE: &str = "EXACTLY_ONCE_DATABASE";

/// Pays one cent at a time, until this process is killed.
pub async fn pay_until_killed(url: &str) -> Result<(), Box<dyn Error>> {
    let (server, store) = (start(url)?, StoreId::new("bank")?);
    let writer = server.writer(&Payments);
    for number in 0_u64.. {
        let paid = Paid { account: format!("account {}", number % 7), cents: 1 };
        if let Err(error) = writer.write(&store, &paid).await {
            eprintln!("not paid: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// Keeps two nodes `paying`, and kills one of them this many times; then compares, and returns how many entries there
/// are.
pub async fn run(url: &str, kills: u32, mut paying: Command) -> Result<u64, Box<dyn Error>> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(TABLE).await?;
    let paying = paying.stdout(Stdio::null()).env(DATABASE, url);
    let mut nodes: [Child; 2] = [paying.spawn()?, paying.spawn()?];
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(700 + u64::from(kill * 379 % 2_000))).await;
        let node = &mut nodes[usize::from(kill % 3 == 1)];
        node.kill()?;
        node.wait()?;
        *node = paying.spawn()?;
    }
    for node in &mut nodes {
        node.kill()?;
        node.wait()?;
    }
    let (server, store) = (start(url)?, StoreId::new("bank")?);
    let head = server.head(&store).await?;
    let processed = server.processed(&store, head);
    tokio::time::timeout(Duration::from_secs(120), processed).await??;
    let row = client.query_one("SELECT coalesce(SUM(cents), 0)::bigint FROM accounts", &[]).await?;
    let sum: i64 = row.get(0);
    server.shutdown(Duration::from_secs(5)).await;
    if sum.cast_unsigned() == head.get() {
        Ok(head.get())
    } else {
        Err(format!("{head} cents were paid, and {sum} are there").into())
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Ok(url) = std::env::var(DATABASE) {
        return pay_until_killed(&url).await;
    }
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("name a database: postgres://…")?;
    let kills = arguments.next().map_or(Ok(100), |kills| kills.parse())?;
    let entries = run(&url, kills, Command::new(std::env::current_exe()?)).await?;
    println!("{entries} entries, each applied once, over {kills} kills");
    Ok(())
}
