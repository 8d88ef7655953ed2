//! The part of the admin API that compacts the storage.
//!
//! Keeps: one compaction at a time; the caller gets an answer at once, and asks later how it went. Leaves out: what is
//! compacted (`storage`).

use actix_web::HttpResponse;
use actix_web::web::{self, ReqData, ServiceConfig};
use serde::Serialize;

use super::admin::{Answer, Failure};
use super::admin_operations::AdminEndpoint;
use super::handle::Server;
use crate::actors::audit::{self, By};
use crate::storage::{Compacted, StorageError};

/// How the last compaction went, or is going.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CompactState {
    running: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// How large the files were, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<u64>,
    /// How large they are now.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    /// While it is running: how much is copied, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    copied: Option<u64>,
    /// How much that will be at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    copied_max: Option<u64>,
}

impl From<Result<Option<Compacted>, StorageError>> for CompactState {
    fn from(done: Result<Option<Compacted>, StorageError>) -> Self {
        match done {
            Ok(Some(Compacted { before, after })) => {
                Self { before: Some(before), after: Some(after), ..Self::default() }
            }
            Ok(None) => {
                let failure =
                    "this storage is compacted with its own tools: with PostgreSQL, VACUUM"
                        .to_owned();
                Self { failure: Some(failure), ..Self::default() }
            }
            Err(error) => Self { failure: Some(error.to_string()), ..Self::default() },
        }
    }
}

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(AdminEndpoint::at("/compact").post(begin).get(show).done());
}

fn state(server: &Server) -> HttpResponse {
    let mut state = server.inner().compacting.lock().clone();
    if state.running
        && let Some(work) = server.inner().storage.compacting()
    {
        (state.copied, state.copied_max) = (Some(work.done()), Some(work.total()));
    }
    HttpResponse::Ok().json(state)
}

async fn begin(server: web::Data<Server>, by: ReqData<By>) -> Answer {
    let is_first = {
        let mut state = server.inner().compacting.lock();
        let running = state.running;
        if !running {
            *state = CompactState { running: true, ..CompactState::default() };
        }
        !running
    };
    if is_first {
        audit::note(&by, format_args!("action=compact"));
        let of = server.clone();
        let work = move || {
            let done = of.inner().storage.compact();
            *of.inner().compacting.lock() = done.into();
        };
        // Nobody joins this thread.
        let begun = std::thread::Builder::new().name("compact".to_owned()).spawn(work);
        if let Err(error) = begun {
            let failed = StorageError::unavailable(error);
            *server.inner().compacting.lock() = Err(failed.clone()).into();
            return Err(Failure::Storage(failed));
        }
    }
    Ok(state(&server))
}

async fn show(server: web::Data<Server>) -> Answer {
    Ok(state(&server))
}
