//! A bare WebSocket echo server of actix-web-actors: the most that any server built on it can do with such frames.

use std::any::Any;
use std::io;
use std::net::SocketAddr;

use actix::{Actor, StreamHandler};
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use actix_web::web::{self, Payload};
use actix_web::{App, HttpRequest, HttpServer};
use actix_web_actors::ws::{self, Message, ProtocolError, WebsocketContext};

use super::target::LISTENING;

const FRAME_BYTES_MAX: usize = 16 << 20;

struct Echo;

impl Actor for Echo {
    type Context = WebsocketContext<Self>;
}

impl StreamHandler<Result<Message, ProtocolError>> for Echo {
    fn handle(&mut self, message: Result<Message, ProtocolError>, ctx: &mut Self::Context) {
        match message {
            Ok(Message::Binary(bytes)) => ctx.binary(bytes),
            Ok(Message::Close(reason)) => ctx.close(reason),
            Ok(_) => {}
            Err(_) => actix::ActorContext::stop(ctx),
        }
    }
}

/// Serves until the process ends.
pub(super) fn serve(listen: SocketAddr) -> io::Result<()> {
    let echo = |request: HttpRequest, payload: Payload| async move {
        ws::WsResponseBuilder::new(Echo, &request, payload).frame_size(FRAME_BYTES_MAX).start()
    };
    let app = move || App::new().route("/eventlog", web::get().to(echo));
    let server = HttpServer::new(app).on_connect(send_at_once).bind(listen)?;
    for address in server.addrs() {
        println!("{LISTENING}ws://{address}/eventlog");
    }
    actix_web::rt::System::new().block_on(server.run())
}

/// As every server of small messages does.
fn send_at_once(connection: &dyn Any, _: &mut Extensions) {
    if let Some(stream) = connection.downcast_ref::<TcpStream>()
        && let Err(error) = stream.set_nodelay(true)
    {
        log::warn!("an echo may wait for the next one: {error}");
    }
}
