//! A connection that reads feeds.

use std::io;

use bytes::BytesMut;
use eventlog_server::model::{PublicKey, Sequence};
use eventlog_server::protocol::msgpack::encode_ping;
use eventlog_server::protocol::rpc::Envelope;

use super::reader::{Answer, Element, MessageReader};
use super::socket::Socket;
use super::target::Target;
use crate::cli::peer::Protocol;

pub(super) struct Subscriber {
    protocol: Protocol,
    socket: Socket,
    reader: MessageReader,
    pings: u64,
    /// What has arrived so far.
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl Subscriber {
    /// Connects, and subscribes these keys from the sequence `first` on, which is not zero; that is sent at the first
    /// wait.
    pub(super) async fn open(
        target: &Target,
        keys: &[PublicKey],
        first: Sequence,
    ) -> io::Result<Self> {
        let protocol = target.protocol;
        let mut socket = target.connect(keys).await?;
        let mut reader = MessageReader::new(protocol);
        for key in keys {
            reader.subscribe(&mut socket, key, first);
        }
        Ok(Self { protocol, socket, reader, pings: 0, messages: 0, bytes: 0 })
    }

    /// The last sequence that every feed has reached.
    pub(super) fn reached(&self) -> u64 {
        self.reader.reached()
    }

    /// Sends all pending bytes, and waits until something arrives.
    pub(super) async fn wait(&mut self) -> io::Result<()> {
        self.socket.flush().await?;
        self.socket.receive().await
    }

    /// Takes what has arrived, and passes every entry to `each`.
    pub(super) fn take(&mut self, each: &mut impl FnMut(&Element<'_>)) -> io::Result<()> {
        while let Some(message) = self.socket.next_message()? {
            self.messages += 1;
            self.bytes += message.len() as u64;
            if let Answer::Refused(_, reason) = self.reader.read(message, each)? {
                return Err(io::Error::other(reason));
            }
        }
        self.reader.acknowledge(&mut self.socket);
        Ok(())
    }

    /// Sends a ping.
    pub(super) async fn ping(&mut self) -> io::Result<()> {
        self.pings += 1;
        let ping = match self.protocol {
            Protocol::Msgpack => {
                let mut ping = BytesMut::new();
                encode_ping(&mut ping, self.pings);
                ping.freeze()
            }
            Protocol::Rpc => Envelope::Ping.encode(),
        };
        self.socket.push(&ping);
        self.socket.flush().await
    }

    /// Waits until every ping is answered.
    pub(super) async fn pong(&mut self) -> io::Result<()> {
        while self.reader.pongs < self.pings {
            self.wait().await?;
            self.take(&mut |_| ())?;
        }
        // Sends the answers to the frames that were just taken.
        self.socket.flush().await
    }
}
