//! A path and its methods: `HEAD`, a trailing slash and other methods get the same treatment everywhere.

use actix_web::dev::Handler;
use actix_web::http::header::ALLOW;
use actix_web::{FromRequest, HttpResponse, Resource, Responder, Route, guard, web};

/// A path that says which methods it takes when it gets another one.
pub(super) struct Endpoint {
    resource: Resource,
    allowed: Vec<&'static str>,
}

impl Endpoint {
    /// At `path`, with or without a trailing slash.
    pub(super) fn at(path: &str) -> Self {
        let resource = web::resource([path.to_owned(), format!("{path}/")]);
        Self { resource, allowed: Vec::new() }
    }

    /// `GET`, and `HEAD` with the same answer without its body.
    pub(super) fn get<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let route = web::route().guard(guard::Any(guard::Get()).or(guard::Head()));
        self.on("GET, HEAD", route, handler)
    }

    /// `GET` only, where it becomes a WebSocket.
    pub(super) fn socket<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on("GET", web::get(), handler)
    }

    fn on<F, Args>(mut self, method: &'static str, route: Route, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.allowed.push(method);
        self.resource = self.resource.route(route.to(handler));
        self
    }

    /// The finished resource, ready to mount.
    pub(super) fn done(self) -> Resource {
        let allowed = self.allowed.join(", ");
        self.resource.default_service(web::to(move || {
            let refused = HttpResponse::MethodNotAllowed()
                .insert_header((ALLOW, allowed.clone()))
                .body(format!("this path takes {allowed}\n"));
            std::future::ready(refused)
        }))
    }
}
