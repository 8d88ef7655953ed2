//! One WebSocket connection, up to the server's `Hello`.

use std::sync::{Arc, OnceLock};

use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};

use super::core::Incoming;
use super::error::ConnectError;
use super::options::{Options, Protocol};
use super::wire::{self, Keyring, Wire};
use crate::model::RemoteId;
use crate::tls::showing;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Frames are collected up to this size before they are given to the operating system.
const WRITE_BUFFER_BYTES: usize = 128 * 1_024;

/// What a message may have in addition to the largest data in it.
const AROUND_DATA_BYTES: usize = 1_024;

/// A connection on which the server has said `Hello`.
pub(super) struct Link {
    pub(super) socket: Socket,
    pub(super) wire: Box<dyn Wire>,
}

/// Where to connect, and how.
pub(super) struct Target {
    request: Request,
    config: WebSocketConfig,
    /// Made when first needed: clients without TLS should not read 150 certificates.
    tls: OnceLock<Arc<ClientConfig>>,
    options: Options,
    identities: Keyring,
}

impl Target {
    /// Checks the URL and the headers.
    pub(super) fn new(url: &str, options: Options) -> Result<Self, ConnectError> {
        let invalid = |reason: String| ConnectError::InvalidOptions { url: url.to_owned(), reason };
        let mut request = url.into_client_request().map_err(|error| invalid(error.to_string()))?;
        if !matches!(request.uri().scheme_str(), Some("ws" | "wss")) {
            return Err(invalid("it does not begin with ws:// or wss://".to_owned()));
        }
        for (name, value) in &options.headers {
            let header = name.parse::<HeaderName>().ok().zip(value.parse::<HeaderValue>().ok());
            let Some((name, value)) = header else {
                return Err(invalid(format!("the header {name:?} is not one")));
            };
            request.headers_mut().append(name, value);
        }
        let message_bytes_max = Some(options.message_bytes_max.saturating_add(AROUND_DATA_BYTES));
        let config = WebSocketConfig::default()
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_message_size(message_bytes_max)
            .max_frame_size(message_bytes_max);
        let identities = match &options.protocol {
            Protocol::Msgpack => Keyring::default(),
            Protocol::Rpc(rpc) => {
                let named =
                    rpc.identities.iter().map(|one| (one.public_key().clone(), one.clone()));
                Keyring::new(named.collect())
            }
        };
        Ok(Self { request, config, tls: OnceLock::new(), options, identities })
    }

    pub(super) const fn options(&self) -> &Options {
        &self.options
    }

    /// Connects and waits for the `Hello`.
    pub(super) async fn connect(&self) -> Result<(Link, RemoteId), ConnectError> {
        let connecting = async {
            let wire = wire::connected(&self.options, &self.identities);
            let mut link = Link { socket: self.open().await?, wire };
            let remote_id = link.hello().await?;
            Ok((link, remote_id))
        };
        let in_time = tokio::time::timeout(self.options.connect_timeout, connecting).await;
        in_time.unwrap_or(Err(ConnectError::TimedOut))
    }

    async fn open(&self) -> Result<Socket, ConnectError> {
        let secure = self.request.uri().scheme_str() == Some("wss");
        let connector = if secure { Connector::Rustls(self.tls()) } else { Connector::Plain };
        let (request, config) = (self.request.clone(), Some(self.config));
        let opened = connect_async_tls_with_config(request, config, true, Some(connector)).await;
        let (socket, _response) = opened.map_err(Box::new)?;
        Ok(socket)
    }

    fn tls(&self) -> Arc<ClientConfig> {
        let Options { trusted_certificates, certificate, .. } = &self.options;
        let make = || Arc::new(showing(trusted_certificates, certificate.as_ref()));
        Arc::clone(self.tls.get_or_init(make))
    }
}

impl Link {
    /// Sends what the protocol requires first, and waits for the `Hello`.
    async fn hello(&mut self) -> Result<RemoteId, ConnectError> {
        let not_hello = |what: String| ConnectError::NotHello(what);
        while let Some(message) = self.wire.messages().pop_front() {
            self.socket.send(Message::Binary(message)).await.map_err(Box::new)?;
        }
        loop {
            match self.wire.next_incoming() {
                Ok(Some(Incoming::Hello { remote_id })) => return Ok(remote_id),
                Ok(Some(_)) => return Err(not_hello("another message came first".to_owned())),
                Ok(None) => {}
                Err(error) => return Err(not_hello(error.to_string())),
            }
            let message = self.socket.next().await.unwrap_or(Err(Error::ConnectionClosed));
            match message.map_err(Box::new)? {
                Message::Binary(message) => self.wire.accept(message),
                Message::Ping(_) | Message::Pong(_) => {}
                other @ (Message::Text(_) | Message::Close(_) | Message::Frame(_)) => {
                    return Err(not_hello(format!("it sent {other:?}")));
                }
            }
        }
    }
}
