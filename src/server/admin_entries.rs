//! The part of the admin API that writes entries of a store, and reads them.

use actix_web::HttpResponse;
use actix_web::web::{self, Json, Path, Query, ReqData, ServiceConfig};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::json;

use super::admin::{Answer, Failure, json_config, name};
use super::admin_operations::AdminEndpoint;
use super::handle::Server;
use super::selection::Selection;
use crate::actors::audit::{self, By};
use crate::model::{Entry, EntryId, StoreId};

/// A byte of a name is so many in JSON, at most; one of a payload is fewer.
const JSON_BYTES_MAX: usize = 6;

pub(super) fn configure(server: &Server, config: &mut ServiceConfig) {
    // What a client could write can be written here, too, whatever its names are.
    let limits = &server.inner().shared.limits;
    let largest = limits.message_bytes_max.saturating_mul(JSON_BYTES_MAX).saturating_add(1 << 20);
    let entries = AdminEndpoint::at("/stores/{store:.+}/entries").post(write).get(read);
    config.service(entries.app_data(json_config(largest)).done());
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewEntries {
    #[serde(default = "run_handlers_by_default")]
    run_handlers: bool,
    entries: Vec<NewEntry>,
}

const fn run_handlers_by_default() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewEntry {
    id: Option<String>,
    event: String,
    primary_key: String,
    payload: String,
}

impl NewEntry {
    fn into_entry(self, slot: usize) -> Result<Entry, Failure> {
        let invalid = |what: &str, error: &dyn std::fmt::Display| {
            Failure::Invalid(format!("entry {slot}: {what}: {error}"))
        };
        let id = match self.id {
            None => EntryId::now(),
            Some(text) => text.parse().map_err(|error| invalid("id is not a UUID", &error))?,
        };
        let payload = BASE64.decode(&self.payload);
        let payload = payload.map_err(|error| invalid("payload is not base64", &error))?.into();
        Ok(Entry { id, event: self.event, primary_key: self.primary_key, payload })
    }
}

async fn write(
    server: web::Data<Server>,
    by: ReqData<By>,
    store: Path<String>,
    Json(new): Json<NewEntries>,
) -> Answer {
    let entries = new.entries.into_iter().enumerate().map(|(slot, entry)| entry.into_entry(slot));
    let entries: Vec<Entry> = entries.collect::<Result<_, _>>()?;
    let (store, count): (StoreId, _) = (name(&store)?, entries.len());
    let written = server.write_to_store(store.clone(), entries, new.run_handlers).await?;
    let last = written.sequence_numbers.iter().max().map_or(0, |last| last.get());
    audit::note(&by, format_args!("action=write store={store:?} entries={count} last={last}"));
    let sequences: Vec<u64> = written.sequence_numbers.iter().map(|s| s.get()).collect();
    let fresh = written.committed.len();
    Ok(HttpResponse::Ok().json(json!({ "sequenceNumbers": sequences, "new": fresh })))
}

/// What is wanted of a store, as lines. The audit is told: it is all that the store has.
async fn read(
    server: web::Data<Server>,
    by: ReqData<By>,
    store: Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Answer {
    let store: StoreId = name(&store)?;
    let mut wanted = Selection::default();
    for (name, value) in &query {
        wanted.set(name, value).map_err(Failure::Invalid)?;
    }
    if !server.has(&store).await? {
        return Err(Failure::NoSuchStore(store));
    }
    audit::note(&by, format_args!("action=export store={store:?} from={}", wanted.from));
    let lines = server.export(&store, wanted).await?;
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").streaming(lines))
}
