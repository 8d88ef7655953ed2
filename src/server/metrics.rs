//! Shows what is counted, as Prometheus text.

use actix_web::HttpResponse;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::handle::Server;

/// The media type of the text that is encoded here.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn show(server: &Server) -> HttpResponse {
    let mut registry = Registry::with_prefix("eventlog");
    server.inner().shared.metrics.register(&mut registry);
    if let Some(processor) = server.processor() {
        processor.register(&mut registry);
    }
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => HttpResponse::Ok().content_type(CONTENT_TYPE).body(text),
        Err(error) => HttpResponse::InternalServerError().body(format!("{error}\n")),
    }
}
