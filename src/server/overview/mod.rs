//! How the server is doing, for people who look: current figures, those of the last hour, and what is not well.
//!
//! Keeps: it costs the same however many stores and clients there are. Leaves out: what programs watch (`metrics`).

mod history;
mod notes;

use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use serde_json::{Value, json};

use self::history::FIELDS;
pub(super) use self::history::{History, start};
use self::notes::{Facts, notes};
use super::admin::Answer;
use super::admin_operations::AdminEndpoint;
use super::handle::Server;
use super::sse;
use crate::storage::Node;

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(AdminEndpoint::at("/overview").get(show).done());
}

/// The whole last hour; as a stream, only new rows.
async fn show(server: web::Data<Server>, request: HttpRequest) -> Answer {
    if sse::is_asked(&request) {
        return stream_of(&server, &request);
    }
    let mut answer = now(&server).await;
    let history = &server.inner().looking.history;
    answer["fields"] = json!(FIELDS);
    answer["rows"] = history.rows().iter().map(history::Row::values).collect();
    Ok(HttpResponse::Ok().json(answer))
}

fn stream_of(server: &Server, request: &HttpRequest) -> Answer {
    let place = sse::Place::take(server, request)?;
    let news = server.inner().looking.history.news();
    let events = stream::unfold((server.clone(), news), |(server, mut news)| async move {
        news.changed().await.ok()?;
        if server.inner().shared.connections.is_shut_down() {
            return None;
        }
        let mut event = now(&server).await;
        let last = server.inner().looking.history.last();
        event["row"] = last.as_ref().map_or(Value::Null, history::Row::values);
        let mut told = String::new();
        sse::put(&mut told, None, &event.to_string());
        Some((Ok(told.into()), (server, news)))
    });
    Ok(place.answer(Box::pin(events)))
}

/// What there is to say about this moment.
async fn now(server: &Server) -> Value {
    let inner = server.inner();
    let mut groups = Vec::new();
    let mut groups_failed = None;
    if let Some(all) = server.groups() {
        match all.list().await {
            Ok(listed) => groups = listed,
            Err(error) => groups_failed = Some(error.to_string()),
        }
    }
    let figures = inner.storage.figures();
    let facts = Facts {
        not_ready: inner.storage.ready().err().map(|error| error.to_string()),
        held_up: inner.storage.held_up(),
        draining: inner.draining.load(std::sync::atomic::Ordering::Relaxed),
        figures: &figures,
        groups: &groups,
        groups_failed,
        hour: inner.looking.history.troubles(),
        waiting: inner.shared.budget.waiting(),
    };
    let notes: Vec<Value> = notes(&facts).iter().map(notes::Note::to_json).collect();
    let figures = figures.iter().map(|figure| (figure.name.to_owned(), json!(figure.value)));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "remoteId": server.remote_id().to_string(),
        "strangers": inner.shared.strangers.counts().0,
        "replayLag": groups.iter().map(|group| group.lag).sum::<u64>(),
        "deadLetters": groups.iter().map(|group| group.dead_letters).sum::<usize>(),
        "nodes": nodes(server),
        "connectionsMax": inner.shared.limits.get().connections_max,
        "storage": figures.collect::<serde_json::Map<_, _>>(),
        "notes": notes,
    })
}

/// This server, and the others on its database that it has heard of.
fn nodes(server: &Server) -> Vec<Value> {
    let nodes = server.inner().storage.nodes();
    if nodes.is_empty() {
        return vec![json!({ "name": server.remote_id().to_string(), "isThis": true })];
    }
    let told = nodes.iter().map(|Node { name, heard }| match heard {
        None => json!({ "name": name, "isThis": true }),
        Some(heard) => {
            let millis = heard.as_millis() as u64;
            json!({ "name": name, "isThis": false, "heardMillisAgo": millis })
        }
    });
    told.collect()
}
