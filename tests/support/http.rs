//! HTTP requests, as plain as they are.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A whole answer, headers and body.
pub async fn request(addr: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    let length = body.len();
    let text = format!(
        "{head} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let text = text.replacen(
        " HTTP/1.1\r\n",
        " HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded\r\n",
        1,
    );
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

pub async fn get(addr: SocketAddr, path: &str) -> String {
    request(addr, &format!("GET {path}"), "").await
}
