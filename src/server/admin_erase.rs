//! The part of the admin API that erases entries.

use actix_web::HttpResponse;
use actix_web::web::{self, Json, Path, ReqData, ServiceConfig};
use serde::Deserialize;
use serde_json::json;

use super::admin::{Answer, Failure, name};
use super::admin_operations::AdminEndpoint;
use super::erasures::{Erase, Erased};
use super::handle::Server;
use crate::actors::audit::By;
use crate::model::StoreId;

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(AdminEndpoint::at("/stores/{store:.+}/erase").post(erase).done());
}

/// The entries to erase: exactly one of the two.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    ids: Option<Vec<String>>,
    primary_key: Option<String>,
}

async fn erase(
    server: web::Data<Server>,
    by: ReqData<By>,
    store: Path<String>,
    Json(asked): Json<Asked>,
) -> Answer {
    let store: StoreId = name(&store)?;
    let what = match (asked.ids, asked.primary_key) {
        (Some(ids), None) => Erase::Ids(ids.iter().map(|id| name(id)).collect::<Result<_, _>>()?),
        (None, Some(key)) => Erase::PrimaryKey(key),
        _ => return Err(Failure::Invalid("give either ids or primaryKey".to_owned())),
    };
    let Erased { entries, unknown, quarantined } =
        server.erase_by(by.into_inner(), &store, what).await?;
    let unknown: Vec<String> = unknown.iter().map(ToString::to_string).collect();
    Ok(HttpResponse::Ok().json(json!({
        "storeId": store,
        "erased": entries,
        "unknown": unknown,
        "quarantined": quarantined,
    })))
}
