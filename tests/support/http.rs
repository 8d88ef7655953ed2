//! HTTP requests, as plain as they are.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A whole answer, headers and body.
async fn request(addr: SocketAddr, line: &str, header: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    let text = format!("{line} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n{header}\r\n");
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

pub async fn get(addr: SocketAddr, path: &str) -> String {
    request(addr, &format!("GET {path}"), "").await
}

/// As [`get`], with a bearer token.
pub async fn get_with_token(addr: SocketAddr, path: &str, token: &str) -> String {
    request(addr, &format!("GET {path}"), &format!("authorization: Bearer {token}\r\n")).await
}
