//! Plain HTTP requests.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The whole answer to a request, headers and body; each of `headers` ends its line.
pub async fn request(addr: SocketAddr, line: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    let length = body.len();
    let text = format!(
        "{line} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Like [`request`], over TLS with a server on this machine.
pub async fn request_tls(
    address: &str,
    config: &Arc<ClientConfig>,
    line: &str,
    headers: &str,
    body: &str,
) -> String {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let connector = TlsConnector::from(Arc::clone(config));
    let mut stream = connector.connect(name, stream).await.expect("TLS");
    let length = body.len();
    let text = format!(
        "{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    // The end may be announced or not.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub async fn get(addr: SocketAddr, path: &str) -> String {
    request(addr, &format!("GET {path}"), "", "").await
}

/// Like [`get`], with a bearer token.
pub async fn get_with_token(addr: SocketAddr, path: &str, token: &str) -> String {
    let header = format!("authorization: Bearer {token}\r\n");
    request(addr, &format!("GET {path}"), &header, "").await
}

/// Like [`get_with_token`], but a POST without a body.
pub async fn post(addr: SocketAddr, path: &str, token: &str) -> String {
    let header = format!("authorization: Bearer {token}\r\n");
    request(addr, &format!("POST {path}"), &header, "").await
}

/// Like [`get`], with only these headers, each with its line end.
pub async fn get_with(addr: &str, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    let text = format!("GET {path} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}
