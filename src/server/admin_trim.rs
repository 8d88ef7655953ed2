//! The part of the admin API that trims stores.

use actix_web::HttpResponse;
use actix_web::web::{self, Json, ReqData, ServiceConfig};
use serde::Deserialize;
use serde_json::json;

use super::admin::{Answer, Failure, name};
use super::admin_operations::AdminEndpoint;
use super::admin_path::Path;
use super::handle::Server;
use super::trims::Before;
use crate::actors::audit::By;
use crate::model::{Sequence, StoreId};

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(AdminEndpoint::at("/stores/{store:.+}/trim").post(trim).done());
}

/// Up to where: exactly one of the two.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Trim {
    /// The first sequence that is kept.
    before: Option<u64>,
    /// What was committed at this time or later is kept.
    before_millis: Option<u64>,
    #[serde(default)]
    force: bool,
    /// Only says what would go.
    #[serde(default)]
    dry_run: bool,
}

async fn trim(
    server: web::Data<Server>,
    by: ReqData<By>,
    store: Path<String>,
    Json(asked): Json<Trim>,
) -> Answer {
    let store: StoreId = name(&store)?;
    let before = match (asked.before, asked.before_millis) {
        (Some(first), None) => {
            let first = Sequence::new(first);
            Before::Sequence(first.map_err(|error| Failure::Invalid(error.to_string()))?)
        }
        (None, Some(millis)) => Before::Millis(millis),
        _ => return Err(Failure::Invalid("give either before or beforeMillis".to_owned())),
    };
    if asked.dry_run {
        let going = server.going(&store, before).await?;
        return Ok(HttpResponse::Ok().json(json!({
            "storeId": store,
            "wanted": going.last.get(),
            "entries": going.entries,
            "committedBy": going.committed_by,
        })));
    }
    let trimmed = server.trim_by(by.into_inner(), &store, before, asked.force).await?;
    let behind: Vec<_> = trimmed
        .behind
        .iter()
        .map(|group| json!({ "name": &*group.name, "position": group.position.get() }))
        .collect();
    Ok(HttpResponse::Ok().json(json!({
        "storeId": store,
        "trimmed": trimmed.trimmed.get(),
        "wanted": trimmed.wanted.get(),
        "behind": behind,
    })))
}
