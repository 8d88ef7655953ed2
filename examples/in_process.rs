//! What code in the server's own process can do without a socket: write as a client, follow a feed, read pages of it.
//!
//! `cargo run --example in_process` prints what it did.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use eventlog_server::model::{Entry, EntryId, PublicKey, Sequence, StoreId};
use eventlog_server::server::Server;
use eventlog_server::services::Caller;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::memory::MemoryStorage;
use futures_util::TryStreamExt;

fn note(text: &str) -> Entry {
    let (event, primary_key) = ("Noted".to_owned(), text.to_owned());
    Entry { id: EntryId::now(), event, primary_key, payload: Vec::new().into() }
}

/// Does it, and returns what happened, one line each.
pub async fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let (storage, registry) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryRegistry::new()));
    let server = Server::builder(storage, registry, Arc::new(AllowAll)).start()?;
    let (alice, team) = (PublicKey::new("alice")?, StoreId::new("team")?);
    server.assign(alice.clone(), team.clone()).await?;
    let mut said = Vec::new();

    // As the client with this key, for example a client that sends its events over HTTP: `Auth` is asked about this
    // caller.
    let caller = Caller::of("alice's session");
    let written = server.ingest_client(&caller, &alice, vec![note("one"), note("two")]).await?;
    said.push(format!("alice wrote {:?}", written.sequence_numbers));

    // The same feed that her devices get: the existing entries, then new ones.
    let mut feed = server.request_changes(&caller, &alice, Sequence::FIRST).await?;
    server.ingest_client(&caller, &alice, vec![note("three")]).await?;
    while let Some(next) = feed.try_next().await? {
        said.push(format!("the feed has {} {}", next.remote_sequence, next.entry.primary_key));
        if next.entry.primary_key == "three" {
            break;
        }
    }

    // For the application itself, without asking `Auth`: raw, and in pages.
    let page = server.entries(&team, Sequence::FIRST.next(), 10).await?;
    said.push(format!("a page from 2 on has {} entries", page.len()));
    for (store, head) in server.stores(None, 100).await? {
        said.push(format!("{store} has {head} entries"));
    }
    server.shutdown(Duration::from_secs(5)).await;
    Ok(said)
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run().await?.iter().for_each(|line| println!("{line}"));
    Ok(())
}
