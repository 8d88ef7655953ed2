//! Stands between a server and its bucket: keeps each request, and may answer instead of the bucket.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Asked {
    /// The objects that it writes or removes.
    pub fn changes(&self) -> Vec<String> {
        let path = self.path.split('?').next().expect("a path").to_owned();
        match &*self.method {
            "GET" | "HEAD" => Vec::new(),
            "POST" if self.path.ends_with("?delete") => {
                let body = String::from_utf8_lossy(&self.body).into_owned();
                let names = body.split("<Key>").skip(1);
                names.map(|name| name.split('<').next().expect("a name").to_owned()).collect()
            }
            _ => vec![path.trim_start_matches('/').split_once('/').expect("a name").1.to_owned()],
        }
    }

    /// Whether it removes objects.
    pub fn removes(&self) -> bool {
        self.method == "DELETE" || self.path.ends_with("?delete")
    }
}

/// The status with its reason, and the text of an answer.
pub type Instead = Option<(&'static str, String)>;
type Answer = dyn Fn(&Asked) -> Instead + Send + Sync;

/// Forwards requests until it is dropped.
pub struct Between {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: AbortHandle,
}

impl Drop for Between {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Between {
    /// Forwards what `instead` does not answer to `to`.
    pub async fn start(
        to: SocketAddr,
        instead: impl Fn(&Asked) -> Instead + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (noted, instead): (_, Arc<Answer>) = (asked.clone(), Arc::new(instead));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, to, noted.clone(), instead.clone()));
            }
        });
        Self { address, asked, task: task.abort_handle() }
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }
}

/// One request of a connection, which ends then.
async fn serve(
    mut socket: TcpStream,
    to: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    instead: Arc<Answer>,
) -> Option<()> {
    let (read, mut write) = socket.split();
    let mut read = BufReader::new(read);
    let (mut line, mut headers, mut raw) = (String::new(), HashMap::new(), String::new());
    read.read_line(&mut line).await.ok().filter(|bytes| *bytes > 0)?;
    loop {
        let mut header = String::new();
        read.read_line(&mut header).await.ok().filter(|bytes| *bytes > 0)?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
        raw += &header;
    }
    let length = headers.get("content-length").map_or(0, |text| text.parse().expect("a number"));
    let mut body = vec![0; length];
    read.read_exact(&mut body).await.ok()?;
    let mut words = line.split(' ').map(ToOwned::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let one = Asked { method, path, headers, body };
    asked.lock().push(one.clone());
    let answer = if let Some((status, text)) = instead(&one) {
        let length = text.len();
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{text}")
            .into_bytes()
    } else {
        let mut there = TcpStream::connect(to).await.ok()?;
        there.write_all(format!("{line}connection: close\r\n{raw}\r\n").as_bytes()).await.ok()?;
        there.write_all(&one.body).await.ok()?;
        let mut answer = Vec::new();
        there.read_to_end(&mut answer).await.ok()?;
        answer
    };
    write.write_all(&answer).await.ok()?;
    write.shutdown().await.ok()
}
