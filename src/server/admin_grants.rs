//! The part of the admin API that sets what keys may do.

use actix_web::HttpResponse;
use actix_web::web::{self, Json, Query, ReqData, ServiceConfig};
use serde::{Deserialize, Serialize};

use super::admin::{self, Answer, Failure, PageOf, name};
use super::admin_operations::AdminEndpoint;
use super::admin_path::Path;
use super::handle::Server;
use crate::actors::audit::By;
use crate::model::PublicKey;
use crate::services::auth::{Grant, GrantSource, ListedGrant};

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(AdminEndpoint::at("/grants").get(list).done())
        .service(AdminEndpoint::at("/grants/{key:.+}").get(show).put(set).delete(remove).done());
}

/// What a grant allows. What is left out is not allowed; without `events`, all events are.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGrant {
    #[serde(default)]
    write: bool,
    #[serde(default)]
    read: bool,
    events: Option<Vec<Box<str>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    #[serde(flatten)]
    grant: Grant,
    source: GrantSource,
    counts: bool,
}

impl From<ListedGrant> for Shown {
    fn from(ListedGrant { grant, source, counts }: ListedGrant) -> Self {
        Self { grant, source, counts }
    }
}

async fn list(server: web::Data<Server>, Query(page): Query<PageOf>) -> Answer {
    let after = page.after().map(name::<PublicKey>).transpose()?;
    let grants = server.grants(after.as_ref(), page.count())?;
    // The two grants of one grantee stay together, so a page may be shorter than asked for.
    let next = grants.last().map(|last| last.grant.public_key.clone());
    let next = match next {
        Some(last) if !server.grants(Some(&last), 1)?.is_empty() => Some(last.to_string()),
        Some(_) | None => None,
    };
    let grants: Vec<Shown> = grants.into_iter().map(Shown::from).collect();
    Ok(admin::page("grants", &grants, next))
}

/// The grant that counts for exactly this grantee.
async fn show(server: web::Data<Server>, key: Path<String>) -> Answer {
    let key: PublicKey = name(&key)?;
    let all = server.grants(None, usize::MAX)?;
    let found = all.into_iter().find(|one| one.counts && one.grant.public_key == key);
    let found = found.ok_or(Failure::NotGranted(key))?;
    Ok(HttpResponse::Ok().json(Shown::from(found)))
}

async fn set(
    server: web::Data<Server>,
    by: ReqData<By>,
    key: Path<String>,
    Json(NewGrant { write, read, events }): Json<NewGrant>,
) -> Answer {
    let grant = Grant { public_key: name(&key)?, write, read, events };
    server.set_grant_by(by.into_inner(), grant.clone()).await?;
    Ok(HttpResponse::Ok().json(Shown { grant, source: GrantSource::Api, counts: true }))
}

async fn remove(server: web::Data<Server>, by: ReqData<By>, key: Path<String>) -> Answer {
    let key: PublicKey = name(&key)?;
    let removed = server.remove_grant_by(by.into_inner(), &key).await?;
    let grant = removed.ok_or(Failure::NotGranted(key))?;
    Ok(HttpResponse::Ok().json(Shown { grant, source: GrantSource::Api, counts: false }))
}
