//! The part of the admin API that manages the signing keys of public keys.

use actix_web::HttpResponse;
use actix_web::web::{self, Json, ReqData, ServiceConfig};
use serde::{Deserialize, Serialize};

use super::admin::{Answer, Failure, name, signing_key};
use super::admin_operations::AdminEndpoint;
use super::admin_path::Path;
use super::handle::Server;
use crate::actors::audit::By;
use crate::model::PublicKey;
use crate::services::identities::{SigningKey, signing_key_to_hex};

pub(super) fn configure(config: &mut ServiceConfig) {
    let of_key = AdminEndpoint::at("/keys/{key:.+}/signing-key");
    config.service(of_key.get(show).put(pin).delete(unpin).done());
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Shown {
    signing_key: String,
}

/// The signing key that `key` has, or had.
fn answer(key: PublicKey, bound: Option<SigningKey>) -> Answer {
    let bound = bound.ok_or(Failure::NotBound(key))?;
    Ok(HttpResponse::Ok().json(Shown { signing_key: signing_key_to_hex(&bound) }))
}

async fn show(server: web::Data<Server>, key: Path<String>) -> Answer {
    let key: PublicKey = name(&key)?;
    let bound = server.signing_key(&key).await?;
    answer(key, bound)
}

async fn pin(
    server: web::Data<Server>,
    by: ReqData<By>,
    key: Path<String>,
    Json(shown): Json<Shown>,
) -> Answer {
    let (key, pinned): (PublicKey, _) = (name(&key)?, signing_key(&shown.signing_key)?);
    server.pin_by(&by, &key, Some(&pinned)).await?;
    answer(key, Some(pinned))
}

async fn unpin(server: web::Data<Server>, by: ReqData<By>, key: Path<String>) -> Answer {
    let key: PublicKey = name(&key)?;
    let before = server.pin_by(&by, &key, None).await?;
    answer(key, before)
}
