//! The server as a value: built from its services, mounted in an actix-web application, used from code.
//!
//! Keeps: nothing is global; two servers in one process share nothing but their code. Stores run on threads of the
//! server's own, sessions on the workers of the application that mounts it. Leaves out: configuration files, signals
//! and printing (the binary).

mod accept;
mod access;
mod admin;
mod admin_backup;
mod admin_compact;
mod admin_entries;
mod admin_erase;
mod admin_erased;
mod admin_failure;
mod admin_grants;
mod admin_groups;
mod admin_guard;
mod admin_keys;
mod admin_openapi;
mod admin_operations;
mod admin_path;
mod admin_quarantine;
mod admin_revocations;
mod admin_search;
mod admin_sessions;
mod admin_signing_keys;
mod admin_stores;
mod admin_tokens;
mod admin_tokens_list;
mod admin_trim;
mod arrived;
mod body;
mod builder;
mod caller;
mod compacted;
#[cfg(feature = "console")]
mod console;
mod encode;
mod endpoint;
mod erase_preview;
mod erase_store;
mod erased_again;
mod erasures;
mod export;
mod first_bytes;
mod following;
mod grants;
mod groups;
mod handle;
mod held_answers;
mod in_process;
mod listen;
mod looking;
mod metrics;
mod newest;
mod others;
mod overview;
mod pace;
mod pages;
mod quarantine;
mod rejections;
mod reload;
mod replay;
mod routes;
mod selection;
mod sever;
mod signing_keys;
mod socket;
mod sorted;
mod sse;
mod streams;
mod talk;
mod threads;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "otel")]
mod traces;
mod trims;
mod upgraded;
mod usage;
mod waits;
mod watchdog;
mod wire;
mod wrong_peers;

pub use access::RevokeError;
pub use admin_tokens::{AdminRight, AdminToken, InvalidTokenHash, UnknownRight};
pub use builder::{Builder, StartError};
pub use erasures::{Erase, EraseError, Erased};
pub use grants::GrantsError;
pub use groups::{Groups, Rewound};
pub use handle::Server;
pub use in_process::{Changes, ClientError};
#[cfg(feature = "tls")]
pub use listen::listen_tls;
pub use listen::{Listen, listen, listen_apart, listen_beside};
pub use quarantine::{InQuarantine, QuarantineError};
pub use reload::{ReloadError, Reloaded};
pub use routes::ServedPath;
pub use selection::Selection;
pub use sever::files_per_connection;
pub use socket::on_connect;
#[cfg(feature = "tls")]
pub use tls::{ClientCertificates, NewCertificates, Tls, TlsError, TlsFiles};
#[cfg(feature = "otel")]
pub use traces::{TraceError, TraceOptions, Traces};
pub use trims::{Before, Going, ServerTrimError, going};

pub use crate::actors::registry::{AppendFromServer, Assign, RegistryActor, Release, Remove};
pub use crate::core::validate::{EntryFault, InvalidBatch};
pub use crate::processing::Writer;
