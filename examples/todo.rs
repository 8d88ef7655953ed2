//! A to-do list that several people share: an actix-web application with an event log server inside.
//!
//! `cargo run --example todo`, then open <http://127.0.0.1:8080/?key=alice> and `?key=bob`. The pages write events over
//! the WebSocket; handlers keep the list that `/todos` shows; `/changes` tells the pages when to look again; and the
//! application writes events itself: reminders of what is still open.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::signal::ctrl_c;
use actix_web::web::{Bytes, Data, Html, Json};
use actix_web::{App, HttpResponse, HttpServer, get};
use eventlog_server::model::{PublicKey, StoreId};
use eventlog_server::processing::{Committed, Event, EventGroup, Handlers, Msgpack, Processor};
use eventlog_server::server::{Server, on_connect};
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::journal::MemoryJournal;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::memory::MemoryStorage;
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Added {
    id: String,
    title: String,
}

#[derive(Serialize, Deserialize)]
struct Done {
    id: String,
}

#[derive(Serialize, Deserialize)]
struct Reminded {
    id: String,
}

macro_rules! events_by_id {
    ($($event:ident),*) => {$(
        impl Event for $event {
            const TAG: &'static str = stringify!($event);
            fn primary_key(&self) -> String {
                self.id.clone()
            }
        }
    )*};
}
events_by_id!(Added, Done, Reminded);

struct Todos;

impl EventGroup for Todos {
    type Events = (Added, Done, Reminded);
    type Codec = Msgpack;
}

/// What the handlers keep, by id.
type Model = Mutex<BTreeMap<String, Todo>>;

#[derive(Clone, Default, Serialize)]
struct Todo {
    title: String,
    done: bool,
    reminders: u32,
}

fn handlers(model: Arc<Model>) -> Handlers<Todos, Model, ()> {
    Todos::handlers(model)
        .on(async |model, added: Committed<Added>| {
            // A conflict is a later title that was committed earlier.
            if added.conflicts().is_empty() {
                let Added { id, title } = added.into_payload();
                model.lock().entry(id).or_default().title = title;
            }
        })
        .on(async |model, done: Committed<Done>| {
            model.lock().entry(done.into_payload().id).or_default().done = true;
        })
        .on(async |model, reminded: Committed<Reminded>| {
            model.lock().entry(reminded.into_payload().id).or_default().reminders += 1;
        })
        .invalidates(["todos"])
}

#[get("/")]
async fn page() -> Html {
    Html::new(include_str!("todo.html"))
}

#[get("/todos")]
async fn list(model: Data<Model>) -> Json<BTreeMap<String, Todo>> {
    Json(model.lock().clone())
}

#[get("/changes")]
async fn changes(server: Data<Server>) -> HttpResponse {
    let observer = server.reactivity().map(|reactivity| reactivity.observe("todos"));
    let told = futures_util::stream::iter(observer).flatten();
    let events = told.map(|_| Ok::<_, Infallible>(Bytes::from_static(b"data: todos\n\n")));
    HttpResponse::Ok().content_type("text/event-stream").streaming(events)
}

/// Reminds users of what is still open, three times each.
async fn remind(server: Server, model: Data<Model>, team: StoreId, every: Duration) {
    let writer = server.writer(&Todos);
    loop {
        actix_web::rt::time::sleep(every).await;
        let todos = model.lock().clone();
        for (id, _) in todos.into_iter().filter(|(_, todo)| !todo.done && todo.reminders < 3) {
            if let Err(error) = writer.write(&team, &Reminded { id }).await {
                log::warn!("no reminder: {error}");
            }
        }
    }
}

/// Serves at `listener` until the process is told to stop.
pub async fn run(listener: TcpListener, remind_every: Duration) -> Result<(), Box<dyn Error>> {
    let model = Data::new(Model::default());
    let journal = Arc::new(MemoryJournal::new());
    let handlers = handlers(model.clone().into_inner());
    let processor = Processor::builder(journal).group(handlers).build()?;
    let (storage, registry) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryRegistry::new()));
    let builder = Server::builder(storage, registry, Arc::new(AllowAll));
    let server = builder.processor(processor).start()?;
    let team = StoreId::new("team")?;
    server.assign(PublicKey::new("alice")?, team.clone()).await?;
    server.assign(PublicKey::new("bob")?, team.clone()).await?;
    actix_web::rt::spawn(remind(server.clone(), model.clone(), team, remind_every));
    let mounted = server.clone();
    let app = move || {
        let app = App::new().app_data(model.clone()).app_data(Data::new(mounted.clone()));
        app.configure(|config| mounted.configure(config)).service((page, list, changes))
    };
    // First the server closes its sockets, then actix the rest.
    let stop = async move {
        if ctrl_c().await.is_ok() {
            server.shutdown(Duration::from_secs(5)).await;
        }
    };
    let http = HttpServer::new(app).on_connect(on_connect).shutdown_signal(stop);
    http.listen(listener)?.run().await?;
    Ok(())
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run(TcpListener::bind("127.0.0.1:8080")?, Duration::from_secs(10)).await
}
