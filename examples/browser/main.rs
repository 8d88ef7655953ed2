//! The backend of the to-do application in this folder: an actix-web application with the sync server inside. It
//! handles what its users do, and writes events itself.
//!
//! Run `cargo run --example browser`, and the pages as README.md says. If somebody adds "Trip to Rome", the backend
//! adds to the list what to pack.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpServer};
use eventlog_server::model::StoreId;
use eventlog_server::processing::{Committed, Event, EventGroup, Failure, Processor, SchemaBinary};
use eventlog_server::server::{Server, on_connect};
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::identities::SledIdentities;
use eventlog_server::services::journal::SledJournal;
use eventlog_server::services::origin_policy::OriginPolicy;
use eventlog_server::services::registry::{DEV_STORE, DevRegistry, SledRegistry};
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};
use serde::{Deserialize, Serialize};

/// As in `src/todos.ts`, with the fields in the same order.
#[derive(Serialize, Deserialize)]
struct TodoAdded {
    id: String,
    title: String,
}

impl Event for TodoAdded {
    const TAG: &'static str = "TodoAdded";
    fn primary_key(&self) -> String {
        self.id.clone()
    }
}

struct Todos;

/// This backend does not need the other events of the application.
impl EventGroup for Todos {
    type Events = (TodoAdded,);
    type Codec = SchemaBinary;
}

/// What to pack for a trip. The ids are derived from the trip's, so an event that is handled again after a crash adds
/// nothing twice.
async fn pack(_: Arc<()>, added: Committed<TodoAdded>) -> Result<(), Failure> {
    if !added.title.starts_with("Trip ") {
        return Ok(());
    }
    let writer = added.writer(&Todos);
    for what in ["passport", "tickets", "toothbrush"] {
        let todo = TodoAdded { id: format!("{}/{what}", added.id), title: format!("Pack: {what}") };
        writer.write(added.store(), &todo).await.map_err(Failure::retry)?;
    }
    Ok(())
}

/// The server, with its data in `directory`. Everybody shares one list: a real application has an `Auth` and a registry
/// of its own.
pub fn start(directory: &Path) -> Result<(Server, Database), Box<dyn Error>> {
    let database = Database::open(directory, DatabaseOptions::default())?;
    let handlers = Todos::handlers(Arc::new(())).named("packing").on(pack);
    let journal = Arc::new(SledJournal::new(database.clone()));
    let processor = Processor::builder(journal).group(handlers).build()?;
    let registry = Arc::new(SledRegistry::new(database.clone()));
    let registry = DevRegistry::new(registry, StoreId::new(DEV_STORE)?);
    let storage = Arc::new(SledStorage::new(database.clone()));
    let server = Server::builder(storage, Arc::new(registry), Arc::new(AllowAll))
        .identities(Arc::new(SledIdentities::new(database.clone())))
        .origins(OriginPolicy::Any)
        .processor(processor)
        .start()?;
    Ok((server, database))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (server, database) = start("data-browser".as_ref())?;
    let (mounted, ending) = (server.clone(), server);
    HttpServer::new(move || App::new().configure(|config| mounted.configure(config)))
        .on_connect(on_connect)
        .shutdown_signal(async move {
            // If that fails, there is no other way to be told.
            let _ = actix_web::rt::signal::ctrl_c().await;
            ending.shutdown(Duration::from_secs(10)).await;
        })
        .bind(("127.0.0.1", 7420))?
        .run()
        .await?;
    database.close()?;
    Ok(())
}
