//! Shows what is counted, as Prometheus text.

use actix_web::HttpResponse;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::handle::Server;
use crate::storage::{Figure, Storage};

/// The media type of the text that is encoded here.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn show(server: &Server) -> HttpResponse {
    let mut registry = Registry::with_prefix("eventlog");
    server.inner().shared.metrics.register(&mut registry);
    if let Some(processor) = server.processor() {
        processor.register(&mut registry);
    }
    register_storage(&*server.inner().storage, &mut registry);
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => HttpResponse::Ok().content_type(CONTENT_TYPE).body(text),
        Err(error) => HttpResponse::InternalServerError().body(format!("{error}\n")),
    }
}

fn register_storage(storage: &dyn Storage, registry: &mut Registry) {
    let registry = registry.sub_registry_with_prefix("storage");
    let help = "1 while writes are taken";
    let ready = Figure { name: "is_ready", help, value: u64::from(storage.ready().is_ok()) };
    for Figure { name, help, value } in [ready].into_iter().chain(storage.figures()) {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
}
