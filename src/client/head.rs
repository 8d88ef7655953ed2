//! The head of a store, asked over a connection of its own.

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::error::{ConnectError, HeadError, RemoteError};
use super::options::{Options, Protocol};
use super::remote::EventLogRemote;
use super::socket::Target;
use crate::model::{PublicKey, Sequence};
use crate::protocol::msgpack::{Response, decode_response, encode_request_changes_with_ack};

impl EventLogRemote {
    /// The last sequence of the store of `key`; zero if the store is empty. Connects to `url` for this, and closes that
    /// connection.
    ///
    /// # Errors
    /// Besides what can go wrong with any request: the RPC protocol has no such request.
    pub async fn head(url: &str, options: Options, key: &PublicKey) -> Result<Sequence, HeadError> {
        if matches!(options.protocol, Protocol::Rpc(_)) {
            return Err(HeadError::NotSaid);
        }
        let timeout = options.connect_timeout;
        let target = Target::new(url, options)?;
        let asked = async {
            let (mut link, _) = target.connect().await?;
            let mut request = BytesMut::new();
            // After the last sequence: whatever is there, nothing of it is sent.
            encode_request_changes_with_ack(&mut request, key, Sequence::MAX);
            let lost = |error: Error| HeadError::Connect(ConnectError::from(Box::new(error)));
            link.socket.send(Message::Binary(request.freeze())).await.map_err(lost)?;
            loop {
                let message = link.socket.next().await.unwrap_or(Err(Error::ConnectionClosed));
                let Message::Binary(message) = message.map_err(lost)? else { continue };
                let not_understood =
                    |error| HeadError::Connect(ConnectError::NotHello(format!("{error}")));
                match decode_response(&message).map_err(not_understood)? {
                    Response::Subscribed { head, .. } => return Ok(head),
                    Response::Error { request_tag, code, message, .. } => {
                        let code = code.into();
                        return Err(RemoteError::Rejected { code, request_tag, message }.into());
                    }
                    _ => {}
                }
            }
        };
        let in_time = tokio::time::timeout(timeout * 2, asked).await;
        in_time.unwrap_or(Err(HeadError::Connect(ConnectError::TimedOut)))
    }
}
