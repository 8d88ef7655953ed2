//! The part of the admin API that reports whether files still have content of erased entries.
//!
//! Keeps: only one check of the files runs at a time; the caller gets an answer at once, and requests the result later. Leaves out: the check
//! itself (`storage`).

use actix_web::HttpResponse;
use actix_web::web::{self, Json, ReqData, ServiceConfig};
use serde::{Deserialize, Serialize};

use super::admin::{Answer, Failure};
use super::admin_operations::AdminEndpoint;
use super::handle::Server;
use crate::actors::audit::{self, By};
use crate::storage::{ErasedReport, StorageError};

/// The last result, or that a check is running.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ErasedState {
    running: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    found: Option<Found>,
}

#[derive(Clone, Debug, Serialize)]
struct Found {
    #[serde(flatten)]
    report: ErasedReport,
    /// The ids of erased entries, if they were wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<String>>,
}

impl Found {
    fn new(mut report: ErasedReport, with_ids: bool) -> Self {
        let ids = std::mem::take(&mut report.ids);
        let ids = with_ids.then(|| ids.iter().map(ToString::to_string).collect());
        Self { report, ids }
    }
}

/// The text to look for in addition.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    text: Option<String>,
    ids: Option<bool>,
}

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(AdminEndpoint::at("/erased").post(begin).get(show).done());
}

fn state(server: &Server) -> HttpResponse {
    HttpResponse::Ok().json(server.inner().verifying.lock().clone())
}

async fn begin(server: web::Data<Server>, by: ReqData<By>, Json(asked): Json<Asked>) -> Answer {
    {
        let mut state = server.inner().verifying.lock();
        if state.running {
            let why = "the files are being looked through already: ask for that with GET";
            return Err(Failure::Invalid(why.to_owned()));
        }
        *state = ErasedState { running: true, ..ErasedState::default() };
    }
    // The text itself may be erased content, so it is not logged.
    audit::note(&by, format_args!("action=verify-erased"));
    let of = server.clone();
    let work = move || {
        let done = of.inner().storage.verify_erased(asked.text.as_deref());
        let state = match done {
            Ok(Some(report)) => {
                let found = Found::new(report, asked.ids.unwrap_or(false));
                ErasedState { found: Some(found), ..ErasedState::default() }
            }
            Ok(None) => failed("this storage has neither files nor tables of its own"),
            Err(error) => failed(error),
        };
        *of.inner().verifying.lock() = state;
    };
    // Nobody joins this thread.
    let begun = std::thread::Builder::new().name("erased".to_owned()).spawn(work);
    if let Err(error) = begun {
        let error = StorageError::unavailable(error);
        *server.inner().verifying.lock() = failed(&error);
        return Err(Failure::Storage(error));
    }
    Ok(state(&server))
}

fn failed(why: impl std::fmt::Display) -> ErasedState {
    ErasedState { failure: Some(why.to_string()), ..ErasedState::default() }
}

async fn show(server: web::Data<Server>) -> Answer {
    Ok(state(&server))
}
