//! Handlers that fail: a temporary failure is retried; a permanent one becomes a dead letter until somebody handles it.
//!
//! `cargo run --example retry` sends three mails: one at once, one when the mail server is back, and one to an address that is
//! wrong until it is corrected.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::StoreId;
use eventlog_server::processing::{Committed, Event, EventGroup, Failure, Msgpack, Processor};
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::journal::MemoryJournal;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::memory::MemoryStorage;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Invited {
    name: String,
}

impl Event for Invited {
    const TAG: &'static str = "Invited";
    fn primary_key(&self) -> String {
        self.name.clone()
    }
}

struct Invitations;

impl EventGroup for Invitations {
    type Events = (Invited,);
    type Codec = Msgpack;
}

/// A mail server that is down for a while, and what it has sent.
struct Mails {
    failures_left: u32,
    addresses: HashMap<&'static str, &'static str>,
    sent: Vec<String>,
}

fn send(mails: &Mutex<Mails>, invited: &Committed<Invited>) -> Result<(), Failure> {
    let mut mails = mails.lock();
    let address = mails.addresses.get(invited.name.as_str()).copied();
    match address {
        // Nothing to wait for: the next entry runs, and this one is kept.
        None => Err(Failure::failed("nobody knows the address")),
        // Only this group waits, and only in this store.
        Some(_) if mails.failures_left > 0 => {
            mails.failures_left -= 1;
            Err(Failure::retry_after(Duration::from_millis(20), "the mail server is down"))
        }
        Some(address) => {
            mails.sent.push(address.to_owned());
            Ok(())
        }
    }
}

/// Does it, and returns what happened, one line each.
pub async fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let addresses = HashMap::from([("ann", "ann@example.org"), ("ben", "ben@example.org")]);
    let mails = Arc::new(Mutex::new(Mails { failures_left: 3, addresses, sent: Vec::new() }));
    let handlers = Invitations::handlers(mails.clone())
        .named("invitations")
        .on(async |mails, invited: Committed<Invited>| send(&mails, &invited));
    let processor = Processor::builder(Arc::new(MemoryJournal::new())).group(handlers).build()?;
    let (storage, registry) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryRegistry::new()));
    let server = Server::builder(storage, registry, Arc::new(AllowAll));
    let server = server.processor(processor).start()?;
    let (team, writer) = (StoreId::new("team")?, server.writer(&Invitations));
    for name in ["ann", "cid", "ben"] {
        writer.write(&team, &Invited { name: name.to_owned() }).await?;
    }
    server.processed(&team, server.head(&team).await?).await?;
    let mut said = vec![format!("sent to {:?}", mails.lock().sent)];

    let groups = server.groups().ok_or("a server with groups")?;
    let letters = groups.dead_letters("invitations", None, 10).await?;
    for letter in &letters {
        said.push(format!("{} of {} failed: {}", letter.sequence, letter.store, letter.error));
    }
    // An operator has found the address; the same can be done with `eventlog-server groups` and over HTTP.
    mails.lock().addresses.insert("cid", "cid@example.org");
    for letter in &letters {
        groups.retry("invitations", &letter.store, letter.sequence).await?;
    }
    said.push(format!("sent to {:?}", mails.lock().sent));
    server.shutdown(Duration::from_secs(5)).await;
    Ok(said)
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run().await?.iter().for_each(|line| println!("{line}"));
    Ok(())
}
