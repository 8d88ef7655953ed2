//! A WebSocket client that costs as little as it can: many messages per system call, in both directions.
//!
//! Keeps: a message is handed out where it lies in the read buffer; sending is appending to a buffer. Frames are masked
//! with zeros, which a server unmasks like any other mask and which costs the generator nothing. Leaves out: TLS and
//! compression, and fragmented messages, which no server of this protocol sends.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// What the read buffer starts with: thousands of connections may be idle.
const READ_BYTES: usize = 4 * 1_024;
/// What it grows to while reads fill it. For a larger message it grows further.
const READ_BYTES_BUSY: usize = 256 * 1_024;
/// No message of this protocol comes near it.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A server that cannot take any more connections may not say so.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const MASKED: u8 = 0x80;

/// An open WebSocket.
pub(super) struct Socket {
    stream: TcpStream,
    read: Vec<u8>,
    unread: Range<usize>,
    out: Vec<u8>,
    written: usize,
}

impl Socket {
    /// Connects to `addr` and upgrades at `path`; fails if that takes too long.
    pub(super) async fn connect(addr: SocketAddr, path: &str) -> io::Result<Self> {
        let connected = tokio::time::timeout(CONNECT_PATIENCE, Self::connect_to(addr, path)).await;
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn connect_to(addr: SocketAddr, path: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let (read, out) = (vec![0; READ_BYTES], Vec::new());
        let mut socket = Self { stream, read, unread: 0..0, out, written: 0 };
        loop {
            let received = &socket.read[socket.unread.clone()];
            if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                if !received.starts_with(b"HTTP/1.1 101 ") {
                    let answer = String::from_utf8_lossy(&received[..end]);
                    let line = answer.lines().next().unwrap_or_default();
                    return Err(io::Error::other(format!("no upgrade: {line}")));
                }
                socket.unread.start += end + 4;
                return Ok(socket);
            }
            socket.receive().await?;
        }
    }

    /// Adds a binary message.
    pub(super) fn push(&mut self, message: &[u8]) {
        self.push_header(BINARY, message.len());
        self.out.extend_from_slice(message);
    }

    /// Waits until everything is handed to the system.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_write(cx)).await
    }

    /// Waits until something comes.
    pub(super) async fn receive(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_read(cx)).await
    }

    /// How many bytes wait to be sent.
    pub(super) fn unsent(&self) -> usize {
        self.out.len() - self.written
    }

    /// Hands bytes to the system until it takes no more, or none are left.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let rest = &self.out[self.written..];
            self.written += ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads what there is, once; ready when something came.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.make_room();
        let mut room = ReadBuf::new(&mut self.read[self.unread.end..]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        self.unread.end += count;
        if self.unread.end == self.read.len() && self.read.len() < READ_BYTES_BUSY {
            self.read.resize(self.read.len() * 4, 0);
        }
        Poll::Ready(if count > 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) })
    }

    /// The next whole message that was read. Answers pings.
    pub(super) fn next_message(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let Some((opcode, payload)) = self.next_frame()? else { return Ok(None) };
            match opcode {
                BINARY => return Ok(Some(&self.read[payload])),
                PING => {
                    self.push_header(PONG, payload.len());
                    self.out.extend_from_slice(&self.read[payload]);
                }
                PONG => {}
                CLOSE => return Err(closed(&self.read[payload])),
                other => return Err(invalid(&format!("a frame that begins with {other:#04x}"))),
            }
        }
    }

    fn next_frame(&mut self) -> io::Result<Option<(u8, Range<usize>)>> {
        let unread = &self.read[self.unread.clone()];
        let Some((header, length)) = frame_length(unread) else { return Ok(None) };
        if length > MESSAGE_BYTES_MAX as u64 {
            return Err(invalid("an absurdly large frame"));
        }
        let (opcode, end) = (unread[0], header + length as usize);
        if unread.len() < end {
            self.reserve(end);
            return Ok(None);
        }
        let payload = self.unread.start + header..self.unread.start + end;
        self.unread.start = payload.end;
        Ok(Some((opcode, payload)))
    }

    /// Has room for a frame of `len` bytes from where the unread bytes start.
    fn reserve(&mut self, len: usize) {
        if self.read.len() < len {
            // Twice, so that not every read of a stream of such frames ends within one.
            self.read.resize(len * 2, 0);
        }
    }

    /// Moves what is unread to the front once the rest is too short to read into.
    fn make_room(&mut self) {
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.unread.start > 0 && self.unread.end > self.read.len() / 2 {
            self.read.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
    }

    fn push_header(&mut self, first: u8, len: usize) {
        match len {
            0..126 => self.out.extend_from_slice(&[first, MASKED | len as u8]),
            126..=0xffff => {
                self.out.extend_from_slice(&[first, MASKED | 0x7e]);
                self.out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            _ => {
                self.out.extend_from_slice(&[first, MASKED | 0x7f]);
                self.out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        self.out.extend_from_slice(&[0; 4]);
    }
}

/// The lengths of a frame's header and payload, if the header is there.
fn frame_length(bytes: &[u8]) -> Option<(usize, u64)> {
    let (_, rest) = bytes.split_first()?;
    let (short, rest) = rest.split_first()?;
    Some(match short {
        126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*rest.first_chunk()?)),
        _ => (2, u64::from(*short)),
    })
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server sent {what}"))
}

fn closed(payload: &[u8]) -> io::Error {
    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
    let text = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
    io::Error::other(format!("the server closed the connection: {code} {text}"))
}
