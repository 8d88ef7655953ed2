//! When a connection over HTTP is no longer a stranger.
//!
//! Keeps: accepted connections are bounded in number as well. Leaves out: who is accepted (`admin_guard`, applications).

use std::sync::Arc;

use actix_web::HttpRequest;

use super::caller::address_of;
use super::handle::Server;
use super::sever::Severable;
use crate::actors::strangers::Stranger;

impl Server {
    /// Says that your application knows who sent `request`: until then, its connection is a stranger under
    /// [`listen_beside`](super::listen_beside), of which there may be `Limits::strangers_max`, whose requests have up to
    /// 32 KiB and 5 seconds each. From then on its requests may be longer, and there may be
    /// `Limits::admin_connections_max` such connections.
    ///
    /// Returns `false` if there are too many of these, and all are active; answer with 503 then. Call it for each
    /// request that you have authenticated; after the first one of a connection it does nothing. Under an `HttpServer`
    /// it does nothing, and returns `true`.
    pub fn accept(&self, request: &HttpRequest) -> bool {
        let Some(stranger) = request.conn_data::<Arc<Stranger>>() else { return true };
        let address = address_of(request, &self.inner().trusted_proxies);
        let severable = request.conn_data::<Severable>().cloned();
        let push_out = move || {
            // Without one, it goes when its client closes it.
            severable.as_ref().map(Severable::sever);
        };
        stranger.shows_token(&self.inner().shared.token_holders, address, push_out).is_ok()
    }
}
