//! A receiver of webhooks, or of authorization questions, that answers what a test wants.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    pub json: Value,
}

impl Received {
    pub fn entries(&self) -> &[Value] {
        self.json["entries"].as_array().expect("entries")
    }

    /// The store, and the sequences.
    pub fn line(&self) -> String {
        let sequences = self.entries().iter().map(|it| it["sequence"].to_string());
        let sequences: Vec<String> = sequences.collect();
        format!("{} {}", self.json["store"].as_str().expect("a store"), sequences.join(","))
    }
}

/// The answer: a status with its reason and maybe headers, or nothing.
#[derive(Clone, Debug)]
pub enum Reply {
    Now(&'static str),
    /// Once the semaphore has a permit.
    Held(&'static str, Arc<tokio::sync::Semaphore>),
    /// 200 with this body once the semaphore has a permit; then the counter goes down by one.
    HeldBody(&'static str, Arc<tokio::sync::Semaphore>, Arc<AtomicUsize>),
    /// 200 with this body.
    Body(String),
    /// A header every now and then, forever.
    SlowHeaders,
    Never,
    Endless,
}

type Answer = dyn Fn(&Received) -> Reply + Send + Sync;

pub struct Receiver {
    pub address: SocketAddr,
    pub received: Arc<Mutex<Vec<Received>>>,
    task: AbortHandle,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    pub async fn start(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("a port"), answer)
    }

    pub fn on(
        listener: TcpListener,
        answer: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("an address");
        let received = Arc::new(Mutex::new(Vec::new()));
        let (noted, answer): (_, Arc<Answer>) = (received.clone(), Arc::new(answer));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, noted.clone(), answer.clone()));
            }
        });
        Self { address, received, task: task.abort_handle() }
    }

    pub fn url(&self) -> String {
        format!("http://{}/in", self.address)
    }

    /// What has arrived so far, one line per request.
    pub fn lines(&self) -> Vec<String> {
        self.received.lock().iter().map(Received::line).collect()
    }

    /// Waits until this many requests have arrived.
    pub async fn requests(&self, count: usize) -> Vec<String> {
        self.requests_come(count).await;
        self.lines()
    }

    pub async fn requests_come(&self, count: usize) {
        let came = async {
            while self.received.lock().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), came).await;
        assert!(in_time.is_ok(), "{count} requests: {}", self.received.lock().len());
    }
}

async fn serve(
    socket: TcpStream,
    received: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Answer>,
) -> Option<()> {
    let (read, mut write) = socket.into_split();
    let mut read = BufReader::new(read);
    loop {
        let request = request(&mut read).await?;
        received.lock().push(request.clone());
        let (status, body) = match answer(&request) {
            Reply::Now(status) => (status, "ok".to_owned()),
            Reply::Body(body) => ("200 OK", body),
            Reply::Held(status, room) => {
                room.acquire().await.ok()?.forget();
                (status, "ok".to_owned())
            }
            Reply::HeldBody(body, room, under_way) => {
                room.acquire().await.ok()?.forget();
                under_way.fetch_sub(1, Ordering::SeqCst);
                ("200 OK", body.to_owned())
            }
            Reply::SlowHeaders => {
                write.write_all(b"HTTP/1.1 200 OK\r\n").await.ok()?;
                loop {
                    write.write_all(b"x-slow: 1\r\n").await.ok()?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Reply::Never => std::future::pending().await,
            Reply::Endless => {
                write
                    .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                    .await
                    .ok()?;
                loop {
                    write.write_all(b"1000\r\n").await.ok()?;
                    write.write_all(&[b'x'; 0x1000]).await.ok()?;
                    write.write_all(b"\r\n").await.ok()?;
                }
            }
        };
        let length = body.len();
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        write.write_all(text.as_bytes()).await.ok()?;
    }
}

async fn request(read: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Received> {
    let mut headers = HashMap::new();
    let mut first = String::new();
    read.read_line(&mut first).await.ok().filter(|bytes| *bytes > 0)?;
    assert!(first.starts_with("POST /in"), "{first}");
    loop {
        let mut line = String::new();
        read.read_line(&mut line).await.ok().filter(|bytes| *bytes > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().expect("a length")];
    read.read_exact(&mut body).await.ok()?;
    let json = serde_json::from_slice(&body).expect("JSON");
    Some(Received { headers, body, json })
}
