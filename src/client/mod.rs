//! A client: writes to stores and follows their feeds, over one connection that it reopens when it breaks.
//!
//! [`EventLogRemote`] speaks over `ws://` and `wss://`, from any task of any tokio runtime: the protocol of
//! `docs/PROTOCOL.md`, or, with [`Protocol::Rpc`], that of Effect 4.1's event log (`docs/PROTOCOL-RPC.md`), with this server
//! or Effect's own.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use eventlog_server::client::{EventLogRemote, Options};
//! use eventlog_server::model::{Entry, EntryId, PublicKey, Sequence};
//! use futures_util::StreamExt;
//!
//! let remote = EventLogRemote::connect("ws://127.0.0.1:7420/eventlog", Options::default()).await?;
//! let alice = PublicKey::new("alice")?;
//! let mut changes = remote.changes(&alice, Sequence::FIRST);
//! let entry = Entry {
//!     id: EntryId::now(),
//!     event: "TodoAdded".to_owned(),
//!     primary_key: "todo-1".to_owned(),
//!     payload: (&b"milk"[..]).into(),
//! };
//! let sequences = remote.write(&alice, vec![entry]).await?;
//! while let Some(change) = changes.next().await {
//!     let change = change?;
//!     println!("{}: {}", change.remote_sequence, change.entry.event);
//!     if change.remote_sequence == sequences[0] {
//!         break;
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! Keeps: every write is answered once, however often the connection breaks; a stream has every entry of its feed from
//! its start on, those of this client included, in order, once. Leaves out: what the entries mean.
//!
//! # With an identity
//!
//! In the RPC protocol the client proves a public key by signing what the server sends. [`RpcOptions::identities`] has its
//! identities. Payloads are `SchemaBinary` frames there ([`payload::to_vec`](crate::protocol::rpc::payload::to_vec)).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use eventlog_server::client::{EventLogRemote, Identity, Options, Protocol, RpcOptions};
//! use eventlog_server::model::PublicKey;
//!
//! // A real program keeps its signing key, and makes the identity from it again.
//! let alice = Identity::generate(PublicKey::new("alice")?);
//! let rpc = RpcOptions { identities: vec![alice], store: None };
//! let options = Options { protocol: Protocol::Rpc(rpc), ..Options::default() };
//! let remote = EventLogRemote::connect("ws://127.0.0.1:7420/rpc", options).await?;
//! # Ok(()) }
//! ```
//!
//! # When the connection breaks
//!
//! The client reconnects, with growing pauses, and continues: streams after the last entry they received, and
//! unanswered writes are sent again. The server recognizes entries by their ids, so a write that was already stored
//! gets its existing sequences. From outside you only see the time that it takes.
//!
//! # When a stream is not polled
//!
//! [`Options::read_ahead_entries`] and [`Options::read_ahead_bytes`] bound what a stream holds undelivered. When it is
//! full, the client ends that subscription and skips what is still in progress. It subscribes again from the stream's
//! position once half of it has been taken. The other streams and the writes of the same connection continue meanwhile.

mod changes;
mod connection;
mod core;
mod driver;
mod entries;
mod error;
mod head;
mod options;
mod page;
mod queue;
mod remote;
mod socket;
mod state;
mod wire;

pub use crate::protocol::rpc::Identity;
pub use crate::tls::{ClientCertificate, WrongCertificate};
pub use changes::{Changes, Pages};
pub use error::{ConnectError, ErrorCode, HeadError, RemoteError};
pub use options::{Options, Protocol, RpcOptions};
pub use page::Page;
pub use remote::EventLogRemote;
pub use state::ConnectionState;
