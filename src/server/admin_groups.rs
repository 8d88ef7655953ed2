//! The part of the admin API that sees to groups of handlers.

use actix_web::HttpResponse;
use actix_web::web::{self, Json, Path, Query, ServiceConfig};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::admin::{Answer, Failure, name};
use super::endpoint::Endpoint;
use super::groups::Groups;
use super::handle::Server;
use crate::model::{Sequence, StoreId};
use crate::processing::{DeadLetter, GroupError, GroupStatus};

/// A page of dead letters has so many unless the request says otherwise, and at most [`PAGE_MAX`].
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

pub(super) fn configure(config: &mut ServiceConfig) {
    let letters = Endpoint::at("/groups/{group}/dead-letters");
    config
        .service(Endpoint::at("/groups").get(list).done())
        .service(Endpoint::at("/groups/{group}").delete(forget).done())
        .service(Endpoint::at("/groups/{group}/pause").post(pause).done())
        .service(Endpoint::at("/groups/{group}/resume").post(resume).done())
        .service(Endpoint::at("/rewind").post(rewind).done())
        .service(letters.get(dead_letters).delete(dismiss).done())
        .service(Endpoint::at("/groups/{group}/dead-letters/retry").post(retry).done());
}

fn groups(server: &Server) -> Result<Groups, Failure> {
    let none = || GroupError::Unavailable("this server runs no groups of handlers".to_owned());
    Ok(server.groups().ok_or_else(none)?)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    name: &'a str,
    runs: bool,
    paused: bool,
    full: bool,
    dead_letters: usize,
    stores_behind: usize,
    lag: u64,
    refused: Vec<Refused<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused<'a> {
    store_id: &'a StoreId,
    error: &'a str,
}

impl<'a> Status<'a> {
    fn of(status: &'a GroupStatus) -> Self {
        let GroupStatus { name, runs, paused, full, dead_letters, stores_behind, lag, refused } =
            status;
        let refused = refused.iter().map(|(store_id, error)| Refused { store_id, error });
        let (runs, paused, full) = (*runs, *paused, *full);
        let (dead_letters, stores_behind, lag) = (*dead_letters, *stores_behind, *lag);
        let refused = refused.collect();
        Self { name, runs, paused, full, dead_letters, stores_behind, lag, refused }
    }
}

async fn list(server: web::Data<Server>) -> Answer {
    let listed = match server.groups() {
        Some(groups) => groups.list().await.map_err(GroupError::from)?,
        None => Vec::new(),
    };
    let listed: Vec<_> = listed.iter().map(Status::of).collect();
    Ok(HttpResponse::Ok().json(json!({ "groups": listed })))
}

async fn pause(server: web::Data<Server>, group: Path<String>) -> Answer {
    groups(&server)?.pause(&group).await?;
    Ok(HttpResponse::Ok().json(json!({ "name": *group, "paused": true })))
}

async fn resume(server: web::Data<Server>, group: Path<String>) -> Answer {
    groups(&server)?.resume(&group).await?;
    Ok(HttpResponse::Ok().json(json!({ "name": *group, "paused": false })))
}

async fn forget(server: web::Data<Server>, group: Path<String>) -> Answer {
    groups(&server)?.forget(&group).await?;
    Ok(HttpResponse::Ok().json(json!({ "name": *group })))
}

/// What is rewound, and where to.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rewind {
    /// All of them, if absent.
    group: Option<String>,
    /// All of them, if absent.
    store_id: Option<StoreId>,
    /// The sequence of the entry that comes next.
    from: u64,
}

fn sequence(number: u64) -> Result<Sequence, Failure> {
    Sequence::new(number).map_err(|error| Failure::Invalid(error.to_string()))
}

async fn rewind(server: web::Data<Server>, Json(rewind): Json<Rewind>) -> Answer {
    let Rewind { group, store_id, from } = &rewind;
    let from = sequence(*from)?;
    groups(&server)?.rewind(store_id.as_ref(), group.as_deref(), from).await?;
    Ok(HttpResponse::Ok().json(rewind))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Letter {
    store_id: StoreId,
    sequence: u64,
    id: String,
    event: String,
    error: String,
    unix_millis: u64,
}

/// Which part of the list: what comes behind this one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PageOf {
    after_store: Option<String>,
    after_sequence: Option<u64>,
    count: Option<usize>,
}

async fn dead_letters(
    server: web::Data<Server>,
    group: Path<String>,
    Query(page): Query<PageOf>,
) -> Answer {
    let PageOf { after_store, after_sequence, count } = page;
    let after = match (after_store, after_sequence) {
        (None, None) => None,
        (Some(store), Some(at)) => Some((name::<StoreId>(&store)?, sequence(at)?)),
        _ => {
            let both = "afterStore and afterSequence belong together";
            return Err(Failure::Invalid(both.to_owned()));
        }
    };
    let after = after.as_ref().map(|(store, at)| (store, *at));
    let count = count.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let found = groups(&server)?.dead_letters(&group, after, count).await?;
    let letter = |DeadLetter { store, sequence, id, event, error, unix_millis }| {
        let (id, sequence) = (id.to_string(), sequence.get());
        Letter { store_id: store, sequence, id, event, error, unix_millis }
    };
    let found: Vec<Letter> = found.into_iter().map(letter).collect();
    Ok(HttpResponse::Ok().json(json!({ "deadLetters": found })))
}

/// Names a dead letter.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Which {
    store_id: StoreId,
    sequence: u64,
}

/// Names one, or with `all` every one of the group.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Dismissed {
    store_id: Option<String>,
    sequence: Option<u64>,
    #[serde(default)]
    all: bool,
}

async fn dismiss(
    server: web::Data<Server>,
    group: Path<String>,
    Query(dismissed): Query<Dismissed>,
) -> Answer {
    let count = match dismissed {
        Dismissed { store_id: None, sequence: None, all: true } => {
            groups(&server)?.dismiss(&group, None).await?
        }
        Dismissed { store_id: Some(store), sequence: Some(at), all: false } => {
            let (store, at) = (name::<StoreId>(&store)?, sequence(at)?);
            groups(&server)?.dismiss(&group, Some((&store, at))).await?
        }
        _ => {
            let which = "say storeId and sequence, or all=true";
            return Err(Failure::Invalid(which.to_owned()));
        }
    };
    Ok(HttpResponse::Ok().json(json!({ "dismissed": count })))
}

async fn retry(
    server: web::Data<Server>,
    group: Path<String>,
    Json(Which { store_id, sequence: at }): Json<Which>,
) -> Answer {
    groups(&server)?.retry(&group, &store_id, sequence(at)?).await?;
    Ok(HttpResponse::Ok().json(json!({ "retried": 1 })))
}
