//! The part of the admin API that writes entries of a store, and reads them.

use actix_web::http::header::{ACCEPT, CACHE_CONTROL};
use actix_web::web::{self, Json, Path, Query, ReqData, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::json;

use super::admin::{Answer, Failure, PAGE, PAGE_MAX, json_config, name};
use super::admin_operations::AdminEndpoint;
use super::following::EntriesPage;
use super::handle::Server;
use super::selection::Selection;
use crate::actors::audit::{self, By};
use crate::model::{Entry, EntryId, Sequence, StoreId};

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

/// How the entries of a store are wanted.
enum As {
    Page,
    Lines,
    Events,
}

impl As {
    fn asked(request: &HttpRequest) -> Self {
        let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
        let has = |media| accept.is_some_and(|accept| accept.contains(media));
        match () {
            () if has("text/event-stream") => Self::Events,
            () if has("application/x-ndjson") => Self::Lines,
            () => Self::Page,
        }
    }
}

/// What is wanted of a store.
async fn read(
    server: web::Data<Server>,
    by: ReqData<By>,
    request: HttpRequest,
    store: Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Answer {
    let store: StoreId = name(&store)?;
    let (mut wanted, mut limit, mut id) = (Selection::default(), PAGE, None);
    for (of, value) in &query {
        match of.as_str() {
            "limit" => {
                limit =
                    value.parse().map_err(|_| Failure::Invalid("limit: a number".to_owned()))?;
            }
            "id" => id = Some(name::<EntryId>(value)?),
            of => wanted.set(of, value).map_err(Failure::Invalid)?,
        }
    }
    if !server.has(&store).await? {
        return Err(Failure::NoSuchStore(store));
    }
    match As::asked(&request) {
        As::Page => page(&server, &store, wanted, limit.clamp(1, PAGE_MAX), id).await,
        // The audit is told: it is all that the store has.
        As::Lines => {
            audit::note(&by, format_args!("action=export store={store:?} from={}", wanted.from));
            let lines = server.export(&store, wanted).await?;
            Ok(HttpResponse::Ok().content_type("application/x-ndjson").streaming(lines))
        }
        As::Events => {
            let last = request.headers().get("last-event-id").and_then(|last| last.to_str().ok());
            if let Some(last) = last {
                let wrong = || Failure::Invalid("Last-Event-ID is a sequence".to_owned());
                let last = last.parse().ok().and_then(|last| Sequence::new(last).ok());
                wanted.from = last.ok_or_else(wrong)?.next();
            }
            let from = wanted.from;
            let events = server.events(&store, wanted).await?.ok_or(Failure::TooManyStreams)?;
            audit::note(&by, format_args!("action=follow store={store:?} from={from}"));
            let mut answer = HttpResponse::Ok();
            answer.content_type("text/event-stream").insert_header((CACHE_CONTROL, "no-store"));
            Ok(answer.streaming(events))
        }
    }
}

async fn page(
    server: &Server,
    store: &StoreId,
    mut wanted: Selection,
    mut limit: usize,
    id: Option<EntryId>,
) -> Answer {
    if let Some(id) = id {
        let at = server.sequence_of(store, id).await?;
        (wanted.from, limit) = (at.ok_or(Failure::NoSuchEntry(id))?, 1);
    }
    let EntriesPage { entries, next, head } = server.entries_page(store, &wanted, limit).await?;
    let next = next.filter(|_| id.is_none()).map(|next| format!(",\"next\":{next}"));
    let (entries, next) = (entries.join(","), next.unwrap_or_default());
    let body = format!("{{\"head\":{head},\"entries\":[{entries}]{next}}}");
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
}
