//! The part of the admin API that erases entries.

use actix_web::HttpResponse;
use actix_web::web::{self, Json, ReqData, ServiceConfig};
use serde::Deserialize;
use serde_json::json;

use super::admin::{Answer, Failure, name};
use super::admin_operations::AdminEndpoint;
use super::admin_path::Path;
use super::erase_preview::Preview;
use super::erasures::{Erase, Erased};
use super::handle::Server;
use crate::actors::audit::By;
use crate::model::StoreId;

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(AdminEndpoint::at("/stores/{store:.+}/erase").post(erase).done());
}

/// The entries to erase: exactly one of the first three.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    ids: Option<Vec<String>>,
    primary_key: Option<String>,
    whole: Option<bool>,
    dry_run: Option<bool>,
}

async fn erase(
    server: web::Data<Server>,
    by: ReqData<By>,
    store: Path<String>,
    Json(asked): Json<Asked>,
) -> Answer {
    let store: StoreId = name(&store)?;
    let whole = asked.whole.unwrap_or(false);
    let what = match (asked.ids, asked.primary_key) {
        (None, None) if whole => Erase::Store,
        (Some(ids), None) if !whole => {
            Erase::Ids(ids.iter().map(|id| name(id)).collect::<Result<_, _>>()?)
        }
        (None, Some(key)) if !whole => Erase::PrimaryKey(key),
        _ => {
            return Err(Failure::Invalid(
                "give either ids or primaryKey, or whole: true".to_owned(),
            ));
        }
    };
    if asked.dry_run.unwrap_or(false) {
        let Preview { entries, quarantined } = server.would_erase(&store, what).await?;
        let answer = json!({ "storeId": store, "entries": entries, "quarantined": quarantined });
        return Ok(HttpResponse::Ok().json(answer));
    }
    let Erased { entries, unknown, quarantined, keys } =
        server.erase_by(by.into_inner(), &store, what).await?;
    let unknown: Vec<String> = unknown.iter().map(ToString::to_string).collect();
    let mut answer = json!({
        "storeId": store,
        "erased": entries,
        "unknown": unknown,
        "quarantined": quarantined,
    });
    if whole {
        answer["keys"] = keys.into();
    }
    if let Some(kept) = server.inner().storage.kept_elsewhere() {
        answer["keptElsewhere"] = (*kept).into();
    }
    Ok(HttpResponse::Ok().json(answer))
}
