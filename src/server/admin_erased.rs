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
use crate::storage::{ErasedReport, ErasedTable, StorageError};

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

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    entries: u64,
    /// What the erasure ledger cannot tell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unread: Vec<String>,
    is_due: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    erased_millis: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clean_millis: Option<u64>,
    places: Vec<Place>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tables: Vec<Table>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    elsewhere: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<String>>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    name: String,
    bytes: u64,
    rows: u64,
    texts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    vacuumed_millis: Option<u64>,
    needs_vacuum: bool,
}

impl From<ErasedTable> for Table {
    fn from(table: ErasedTable) -> Self {
        let ErasedTable { name, bytes, rows, texts, vacuumed_millis, needs_vacuum } = table;
        Self { name, bytes, rows, texts, vacuumed_millis, needs_vacuum }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
struct Place {
    name: &'static str,
    files: u64,
    bytes: u64,
    held: u64,
    named: Vec<Named>,
}

#[derive(Clone, Debug, Serialize)]
struct Named {
    path: String,
    records: u64,
    texts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

impl Found {
    fn new(report: ErasedReport, with_ids: bool) -> Self {
        let ErasedReport { entries, ids, unread, is_due, erased_millis, clean_millis, .. } = report;
        let tables = report.tables.into_iter().map(Table::from).collect();
        let elsewhere = report.elsewhere;
        let places = report.places.into_iter().map(|place| Place {
            name: place.name,
            files: place.files,
            bytes: place.bytes,
            held: place.held,
            named: place
                .named
                .into_iter()
                .map(|file| Named {
                    path: file.path.display().to_string(),
                    records: file.records,
                    texts: file.texts,
                    until: file.until,
                })
                .collect(),
        });
        let places = places.collect();
        let ids = with_ids.then(|| ids.iter().map(ToString::to_string).collect());
        Self {
            entries,
            unread,
            is_due,
            erased_millis,
            clean_millis,
            places,
            tables,
            elsewhere,
            ids,
        }
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
