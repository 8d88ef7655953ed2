//! The part of the admin API that manages groups of handlers.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::{self, Json, Path, Query, ReqData, ServiceConfig};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::admin::{Answer, Failure, PageOf, name};
use super::admin_operations::AdminEndpoint;
use super::groups::Groups;
use super::handle::Server;
use crate::actors::audit::By;
use crate::model::{Sequence, StoreId};
use crate::processing::{DeadLetter, GroupError, GroupStatus};

pub(super) fn configure(config: &mut ServiceConfig) {
    let letters = AdminEndpoint::at("/groups/{group}/dead-letters");
    config
        .service(AdminEndpoint::at("/groups").get(list).done())
        .service(AdminEndpoint::at("/groups/{group}").delete(forget).done())
        .service(AdminEndpoint::at("/groups/{group}/pause").post(pause).done())
        .service(AdminEndpoint::at("/groups/{group}/resume").post(resume).done())
        .service(AdminEndpoint::at("/rewind").post(rewind).done())
        .service(letters.get(dead_letters).delete(dismiss).done())
        .service(AdminEndpoint::at("/groups/{group}/dead-letters/retry").post(retry).done());
}

fn groups(server: &Server, by: ReqData<By>) -> Result<Groups, Failure> {
    let none = || GroupError::Unavailable("this server runs no groups of handlers".to_owned());
    Ok(server.groups_by(by.into_inner()).ok_or_else(none)?)
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
    /// Where it is in the store that was asked for; absent without one, and for a group that does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused<'a> {
    store_id: &'a StoreId,
    error: &'a str,
}

impl<'a> Status<'a> {
    fn of(status: &'a GroupStatus, positions: &[(Arc<str>, Sequence)]) -> Self {
        let GroupStatus { name, runs, paused, full, dead_letters, stores_behind, lag, refused } =
            status;
        let refused = refused.iter().map(|(store_id, error)| Refused { store_id, error });
        let (runs, paused, full) = (*runs, *paused, *full);
        let (dead_letters, stores_behind, lag) = (*dead_letters, *stores_behind, *lag);
        let refused = refused.collect();
        let position = positions.iter().find(|(of, _)| of == name).map(|(_, at)| at.get());
        Self { name, runs, paused, full, dead_letters, stores_behind, lag, refused, position }
    }
}

/// Which groups, or which dead letters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Listed {
    after: Option<String>,
    limit: Option<usize>,
    /// The store of which the positions of groups are told, or of which dead letters are listed.
    store_id: Option<StoreId>,
}

async fn list(server: web::Data<Server>, Query(asked): Query<Listed>) -> Answer {
    let Listed { after, limit, store_id } = asked;
    let page = PageOf::new(after, limit);
    let positions = match (store_id, server.processor()) {
        (Some(store), Some(processor)) => {
            processor.positions_in(&store).await.map_err(GroupError::from)?
        }
        _ => Vec::new(),
    };
    let mut listed = match server.groups() {
        Some(groups) => groups.list().await.map_err(GroupError::from)?,
        None => Vec::new(),
    };
    listed.sort_by(|one, other| one.name.cmp(&other.name));
    let is_behind = |status: &&GroupStatus| page.after().is_none_or(|after| *status.name > *after);
    let listed = listed.iter().filter(is_behind).take(page.count() + 1);
    let listed = listed.map(|status| Status::of(status, &positions));
    Ok(page.answer("groups", listed.collect(), |status: &Status<'_>| status.name.to_owned()))
}

async fn pause(server: web::Data<Server>, by: ReqData<By>, group: Path<String>) -> Answer {
    groups(&server, by)?.pause(&group).await?;
    Ok(HttpResponse::Ok().json(json!({ "name": *group, "paused": true })))
}

async fn resume(server: web::Data<Server>, by: ReqData<By>, group: Path<String>) -> Answer {
    groups(&server, by)?.resume(&group).await?;
    Ok(HttpResponse::Ok().json(json!({ "name": *group, "paused": false })))
}

async fn forget(server: web::Data<Server>, by: ReqData<By>, group: Path<String>) -> Answer {
    groups(&server, by)?.forget(&group).await?;
    Ok(HttpResponse::Ok().json(json!({ "name": *group })))
}

/// What is rewound, and to where.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rewind {
    /// All groups if absent.
    group: Option<String>,
    /// All stores if absent.
    store_id: Option<StoreId>,
    /// The sequence of the entry that comes next.
    from: u64,
}

fn sequence(number: u64) -> Result<Sequence, Failure> {
    Sequence::new(number).map_err(|error| Failure::Invalid(error.to_string()))
}

async fn rewind(server: web::Data<Server>, by: ReqData<By>, Json(rewind): Json<Rewind>) -> Answer {
    let Rewind { group, store_id, from } = &rewind;
    let from = sequence(*from)?;
    let rewound = groups(&server, by)?.rewind(store_id.as_ref(), group.as_deref(), from).await?;
    let mut answer = json!(rewind);
    if !rewound.later.is_empty() {
        let later = rewound.later.iter();
        let later = later.map(|(store, at)| json!({ "storeId": store, "from": at.get() }));
        answer["later"] = later.collect();
    }
    Ok(HttpResponse::Ok().json(answer))
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

/// The cursor of a page of dead letters: `7:team`.
fn after(text: &str) -> Result<(StoreId, Sequence), Failure> {
    let wrong = || Failure::Invalid("`after` is what `next` was".to_owned());
    let (number, store) = text.split_once(':').ok_or_else(wrong)?;
    Ok((name(store)?, sequence(number.parse().map_err(|_| wrong())?)?))
}

async fn dead_letters(
    server: web::Data<Server>,
    by: ReqData<By>,
    group: Path<String>,
    Query(asked): Query<Listed>,
) -> Answer {
    let Listed { after: cursor, limit, store_id } = asked;
    let page = PageOf::new(cursor, limit);
    let after = page.after().map(after).transpose()?;
    // Those of one store follow each other.
    let before_first = store_id.as_ref().map(|store| (store, Sequence::ZERO));
    let after = after.as_ref().map(|(store, at)| (store, *at)).or(before_first);
    let mut found = groups(&server, by)?.dead_letters(&group, after, page.count() + 1).await?;
    if let Some(wanted) = store_id {
        let others = found.iter().position(|letter| letter.store != wanted);
        found.truncate(others.unwrap_or(found.len()));
    }
    let letter = |DeadLetter { store, sequence, id, event, error, unix_millis }| {
        let (id, sequence) = (id.to_string(), sequence.get());
        Letter { store_id: store, sequence, id, event, error, unix_millis }
    };
    let found = found.into_iter().map(letter).collect();
    let next = |last: &Letter| format!("{}:{}", last.sequence, last.store_id);
    Ok(page.answer("deadLetters", found, next))
}

/// Names a dead letter.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Which {
    store_id: StoreId,
    sequence: u64,
}

/// Names one dead letter, or with `all` every one of the group.
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
    by: ReqData<By>,
    group: Path<String>,
    Query(dismissed): Query<Dismissed>,
) -> Answer {
    let count = match dismissed {
        Dismissed { store_id: None, sequence: None, all: true } => {
            groups(&server, by)?.dismiss(&group, None).await?
        }
        Dismissed { store_id: Some(store), sequence: Some(at), all: false } => {
            let (store, at) = (name::<StoreId>(&store)?, sequence(at)?);
            groups(&server, by)?.dismiss(&group, Some((&store, at))).await?
        }
        _ => {
            let which = "give storeId and sequence, or all=true";
            return Err(Failure::Invalid(which.to_owned()));
        }
    };
    Ok(HttpResponse::Ok().json(json!({ "dismissed": count })))
}

async fn retry(
    server: web::Data<Server>,
    by: ReqData<By>,
    group: Path<String>,
    Json(Which { store_id, sequence: at }): Json<Which>,
) -> Answer {
    groups(&server, by)?.retry(&group, &store_id, sequence(at)?).await?;
    Ok(HttpResponse::Ok().json(json!({ "retried": 1 })))
}
