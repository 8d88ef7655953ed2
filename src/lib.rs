//! A sync server for local-first applications: it stores events in one ordered log per store and streams them to every client.
//!
//! # The model
//!
//! A client appends **entries**: an id that the client makes (a UUIDv7), an event tag, a primary key, and a payload that
//! the server need not understand. A durable registry maps every client **public key** to a **store**. Each store is one
//! **feed**: its entries at the sequences 1, 2, 3, …, shared by all its keys.
//!
//! * A write is acknowledged once it is on disk, with one sequence per entry. A client that gets no answer writes
//!   again: an id that the store already has gets its existing sequence.
//! * A subscription delivers everything from its start, in order: first the backlog, then new entries.
//! * Once anyone has been told a sequence, it names the same entry forever.
//!
//! The server's own code can append to stores as well ([`server::Server::write_to_store`]). Handlers run on committed
//! entries ([`processing`]), and old history can be compacted while it is read ([`processing::compaction`]).
//!
//! # A server and a client in one program
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use eventlog_server::client::{EventLogRemote, Options};
//! use eventlog_server::model::{Entry, EntryId, PublicKey, Sequence, StoreId};
//! use eventlog_server::server::{Listen, Server, listen};
//! use eventlog_server::services::auth::AllowAll;
//! use eventlog_server::services::registry::MemoryRegistry;
//! use eventlog_server::storage::memory::MemoryStorage;
//! use futures_util::StreamExt;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! actix_web::rt::System::new().block_on(async {
//!     // Where entries are kept, which store a key has, what a key may do: a server has no default for these.
//!     let storage = Arc::new(MemoryStorage::new());
//!     let registry = Arc::new(MemoryRegistry::new());
//!     let server = Server::builder(storage, registry, Arc::new(AllowAll)).start()?;
//!
//!     let (alice, household) = (PublicKey::new("alice")?, StoreId::new("household")?);
//!     server.assign(alice.clone(), household).await?;
//!
//!     let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//!     let url = format!("ws://{}/eventlog", listener.local_addr()?);
//!     let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//!     let options = Listen { workers: 1, shutdown_timeout: Duration::from_secs(5) };
//!     let serving = actix_web::rt::spawn(listen(server, listener, options, async {
//!         let _ = stopped.await;
//!     }));
//!
//!     let remote = EventLogRemote::connect(&url, Options::default()).await?;
//!     let entry = Entry {
//!         id: EntryId::now(),
//!         event: "TodoAdded".to_owned(),
//!         primary_key: "todo-1".to_owned(),
//!         payload: "buy milk".into(),
//!     };
//!     let sequences = remote.write(&alice, &[entry][..]).await?;
//!     assert_eq!(sequences, [Sequence::FIRST]);
//!
//!     let mut changes = remote.changes(&alice, Sequence::FIRST);
//!     let first = changes.next().await.expect("the feed goes on for ever")?;
//!     assert_eq!(first.entry.primary_key, "todo-1");
//!
//!     remote.close().await;
//!     drop(stop);
//!     serving.await??;
//!     Ok(())
//! })
//! # }
//! ```
//!
//! # Modules
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`server`] | building a server and mounting it in an actix-web application |
//! | [`client`] | writing to a server and following its feeds |
//! | [`services`] | what the server asks (which store a key has, who may do what, …): traits and implementations |
//! | [`storage`] | where entries are kept: the trait, memory, sled, `PostgreSQL` |
//! | [`processing`] | handlers, reactivity, compaction |
//! | [`webhooks`] | handlers outside the process |
//! | [`model`] | ids, entries, sequences, and every limit |
//! | [`protocol`] | the two wire protocols, for those who write a client or a tool |
//! | `testing` | the contracts of storage, registry, identities and journal as tests, for those who write one |
//!
//! # Features
//!
//! The binary needs the default features. In a library, set `default-features = false` and turn on the features that you
//! use.
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `postgres` | `storage::postgres`, for several servers on one database, and the registry, identities, records and journal there; not finished |
//! | `sled` | `storage::sled`, and the registry, identities and journal on it; without it there are those in memory, and your own |
//! | `client` | `client`, with its TLS |
//! | `jwt` | `services::auth::jwt`: tokens that say who the caller is |
//! | `webhooks` | `webhooks` and `services::auth::http`, which make HTTP requests |
//! | `bucket` | nothing to the library: the binary's access to buckets |
//! | `console` | a page at `/console` for the admin API: docs/CONSOLE.md |
//! | `cli` | nothing to the library: the binary, with the crates that only it needs |
//! | `testing` | `testing`; for `[dev-dependencies]` |
//!
//! `docs/EMBEDDING.md` walks through the choices of an embedder, `docs/ARCHITECTURE.md` through the code.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod actors;
#[cfg(feature = "client")]
#[expect(clippy::disallowed_methods, reason = "it times its own connections")]
pub mod client;
#[cfg(feature = "console")]
mod console;
mod core;
pub mod model;
#[cfg(feature = "webhooks")]
mod outgoing;
pub mod processing;
pub mod protocol;
pub mod server;
pub mod services;
pub mod storage;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(any(feature = "client", feature = "webhooks"))]
mod tls;
#[cfg(feature = "webhooks")]
pub mod webhooks;
