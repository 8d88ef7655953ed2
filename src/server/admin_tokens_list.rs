//! The part of the admin API that lists its tokens.

use actix_web::HttpResponse;
use actix_web::web::{self, ServiceConfig};
use serde_json::{Value, json};

use super::admin::Answer;
use super::admin_operations::AdminEndpoint;
use super::admin_tokens::AdminToken;
use super::handle::Server;

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(AdminEndpoint::at("/tokens").get(list).done());
}

async fn list(server: web::Data<Server>) -> Answer {
    let tokens = server.inner().admin_tokens.read();
    let tokens: Vec<Value> = tokens.0.iter().map(|token| shown(&server, token)).collect();
    Ok(HttpResponse::Ok().json(json!({ "tokens": tokens })))
}

/// Everything except the token itself.
fn shown(server: &Server, token: &AdminToken) -> Value {
    let rights: Vec<&str> = token.rights().iter().map(|right| right.as_str()).collect();
    json!({ "name": token.name(), "rights": rights, "consoleSessions": sessions(server, token) })
}

#[cfg(feature = "console")]
fn sessions(server: &Server, token: &AdminToken) -> usize {
    server.inner().looking.sessions.count(token)
}

#[cfg(not(feature = "console"))]
fn sessions(_: &Server, _: &AdminToken) -> usize {
    0
}
