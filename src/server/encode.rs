//! Encodes JSON as a payload in the form that Effect's clients write, for callers who have no such client at hand.

use actix_web::HttpResponse;
use actix_web::web::{Json, ServiceConfig};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::{Answer, Failure};
use super::admin_operations::AdminEndpoint;
use crate::protocol::rpc::payload::json::infer;

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(AdminEndpoint::at("/schema-binary").post(encode).done());
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    json: Value,
}

async fn encode(Json(Wanted { json }): Json<Wanted>) -> Answer {
    let payload = infer(&json).map_err(|error| Failure::Invalid(error.to_string()))?;
    Ok(HttpResponse::Ok().json(json!({ "payload": BASE64.encode(payload) })))
}
