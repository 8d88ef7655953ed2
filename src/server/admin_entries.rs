//! The part of the admin API that writes entries of a store and reads them.

use std::str::FromStr;

use actix_web::web::{self, Json, Query, ReqData, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::{Answer, Failure, PAGE, PAGE_MAX, json_config, name};
use super::admin_operations::AdminEndpoint;
use super::admin_path::{NAME, Path};
use super::following::EntriesPage;
use super::handle::Server;
use super::selection::Selection;
use super::sse::{self, Place};
use crate::actors::audit::{self, By};
use crate::model::{Entry, EntryId, Sequence, StoreId};

/// The most bytes that one byte of a name takes in JSON; a byte of a payload takes fewer.
const JSON_BYTES_MAX: usize = 6;

pub(super) fn configure(server: &Server, config: &mut ServiceConfig) {
    // Whatever a client could write can be written here too, with any names.
    let limits = server.inner().shared.limits.get();
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

/// The form in which the entries of a store are wanted.
#[derive(Clone, Copy)]
enum As {
    Page,
    Lines,
    Events,
}

impl As {
    fn asked(request: &HttpRequest) -> Self {
        match () {
            () if sse::is_asked(request) => Self::Events,
            () if sse::accepts(request, LINES) => Self::Lines,
            () => Self::Page,
        }
    }

    /// As the query says it, for links: a browser sends an `Accept` header of its own.
    fn said(value: &str) -> Result<Self, Failure> {
        match value {
            "page" => Ok(Self::Page),
            "lines" => Ok(Self::Lines),
            "events" => Ok(Self::Events),
            _ => Err(Failure::Invalid("as: page, lines or events".to_owned())),
        }
    }
}

/// Nobody asks for more of the newest entries.
const NEWEST_MAX: u64 = 1_000_000;

const LINES: &str = "application/x-ndjson";

/// What is wanted of a store.
struct Asked {
    wanted: Selection,
    form: As,
    limit: usize,
    id: Option<EntryId>,
    newest: Option<u64>,
    payload_max: usize,
    compacted: bool,
}

impl Asked {
    fn of(request: &HttpRequest, query: &[(String, String)]) -> Result<Self, Failure> {
        let mut asked = Self {
            wanted: Selection::default(),
            form: As::asked(request),
            limit: PAGE,
            id: None,
            newest: None,
            payload_max: usize::MAX,
            compacted: false,
        };
        for (of, value) in query {
            match of.as_str() {
                "as" => asked.form = As::said(value)?,
                // Of the store.
                NAME => {}
                "limit" => asked.limit = number(of, value)?,
                "id" => asked.id = Some(name(value)?),
                "newest" => asked.newest = Some(number(of, value)?),
                "payloadMax" => asked.payload_max = number(of, value)?,
                "compacted" => {
                    let wrong = |_| Failure::Invalid("compacted: true or false".to_owned());
                    asked.compacted = value.parse().map_err(wrong)?;
                }
                of => asked.wanted.set(of, value).map_err(Failure::Invalid)?,
            }
        }
        if let Some(last) = request.headers().get("last-event-id") {
            let wrong = || Failure::Invalid("Last-Event-ID is a sequence".to_owned());
            let last = last.to_str().ok().and_then(|last| last.parse().ok());
            let last = last.and_then(|last| Sequence::new(last).ok());
            asked.wanted.from = last.ok_or_else(wrong)?.next();
        }
        Ok(asked)
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, Failure> {
    value.parse().map_err(|_| Failure::Invalid(format!("{name}: a number")))
}

async fn read(
    server: web::Data<Server>,
    by: ReqData<By>,
    request: HttpRequest,
    store: Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Answer {
    let store: StoreId = name(&store)?;
    let asked = Asked::of(&request, &query)?;
    if !server.has(&store).await? {
        return Err(Failure::NoSuchStore(store));
    }
    if asked.wanted.asks_for_commits() && !matches!(asked.form, As::Lines) {
        let why = "committedFrom and committedBefore choose lines: accept application/x-ndjson";
        return Err(Failure::Invalid(why.to_owned()));
    }
    match asked.form {
        As::Page => page(&server, &store, asked).await,
        // The audit log records this: it is everything that the store has.
        As::Lines => {
            let wanted = asked.wanted;
            audit::note(&by, format_args!("action=export store={store:?} from={}", wanted.from));
            let lines = server.export(&store, wanted).await?;
            Ok(HttpResponse::Ok().content_type(LINES).streaming(lines))
        }
        As::Events => {
            let Asked { wanted, newest, payload_max, .. } = asked;
            let place = Place::take(&server, &request)?;
            if let Some(count) = newest {
                let shown = place.follows(&store);
                let events = server.newest(&store, wanted, (count, payload_max), shown);
                return Ok(place.answer(events));
            }
            let from = wanted.from;
            let events = server.events(&store, wanted, payload_max, place.follows(&store)).await?;
            audit::note(&by, format_args!("action=follow store={store:?} from={from}"));
            Ok(place.answer(events))
        }
    }
}

/// Whether an entry, in its shown form, has this sequence.
fn is_at(entry: &str, sequence: Sequence) -> bool {
    let number = entry.strip_prefix("{\"sequence\":").and_then(|rest| rest.split(',').next());
    number == Some(sequence.to_string().as_str())
}

async fn page(server: &Server, store: &StoreId, mut asked: Asked) -> Answer {
    if let Some(id) = asked.id {
        let at = server.sequence_of(store, id).await?;
        (asked.wanted.from, asked.limit) = (at.ok_or(Failure::NoSuchEntry(id))?, 1);
    }
    if let Some(newest) = asked.newest {
        let first = server.newest_entries(store, newest.clamp(1, NEWEST_MAX)).await?;
        asked.wanted.from = asked.wanted.from.max(first);
    }
    let most = (asked.limit.clamp(1, PAGE_MAX), asked.payload_max);
    let EntriesPage { entries, erased, next, head } = if asked.compacted {
        server.compacted_page(store, &asked.wanted, most).await?
    } else {
        server.entries_page(store, &asked.wanted, most).await?
    };
    if let Some(id) = asked.id
        && !entries.first().is_some_and(|entry| is_at(entry, asked.wanted.from))
    {
        // The id is known, but the entry was erased or trimmed.
        return Err(Failure::NoSuchEntry(id));
    }
    let next = next.filter(|_| asked.id.is_none()).map(|next| format!(",\"next\":{next}"));
    let (entries, next) = (entries.join(","), next.unwrap_or_default());
    let spans =
        erased.iter().map(|(first, last)| json!({ "first": first.get(), "last": last.get() }));
    let erased = if erased.is_empty() {
        String::new()
    } else {
        format!(",\"erased\":{}", spans.collect::<Value>())
    };
    let body = format!("{{\"head\":{head},\"entries\":[{entries}]{erased}{next}}}");
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
}
