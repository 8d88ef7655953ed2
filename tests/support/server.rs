//! A server in this process, on a port of its own.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use eventlog_server::model::Limits;
use eventlog_server::server::{Builder, Listen, Server, listen};
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::memory::MemoryStorage;
use tokio::sync::oneshot;

use super::{key, store};

/// Stops when it is dropped.
pub struct TestServer {
    pub server: Server,
    pub addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A builder over memory, with allow-all authorization and no key assigned.
pub fn in_memory() -> Builder {
    let storage = Arc::new(MemoryStorage::new());
    Server::builder(storage, Arc::new(MemoryRegistry::new()), Arc::new(AllowAll))
}

impl TestServer {
    /// A server over memory in which these keys map to these stores.
    pub async fn with_keys(keys: &[(&str, &str)]) -> Self {
        Self::start(in_memory(), keys).await
    }

    pub async fn with_limits(limits: Limits, keys: &[(&str, &str)]) -> Self {
        Self::start(in_memory().limits(limits), keys).await
    }

    pub async fn start(builder: Builder, keys: &[(&str, &str)]) -> Self {
        let server = builder.start().expect("the server starts");
        for (public_key, store_id) in keys {
            server.assign(key(public_key), store(store_id)).await.expect("an assignment");
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let serving = server.clone();
        let thread = std::thread::spawn(move || {
            let options = Listen { workers: 2, shutdown_timeout: Duration::from_secs(5) };
            let stopped = async move {
                // When a test is done, it drops the sender.
                let _ = stopped.await;
            };
            let served =
                actix_web::rt::System::new().block_on(listen(serving, listener, options, stopped));
            served.expect("the server serves");
        });
        Self { server, addr, stop: Some(stop), thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/eventlog", self.addr)
    }

    /// Where clients of the RPC protocol connect.
    pub fn rpc_url(&self) -> String {
        format!("ws://{}/rpc", self.addr)
    }

    /// The value of a metric, as `/metrics` shows it.
    pub async fn metric(&self, name: &str) -> f64 {
        metric(self.addr, name).await
    }

    /// Waits until a counting metric has this value.
    pub async fn comes_to(&self, name: &str, value: u32) {
        comes_to(self.addr, name, value).await;
    }

    /// Stops it and waits until it has.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server's thread");
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

async fn metric(addr: SocketAddr, name: &str) -> f64 {
    let text = super::http::get(addr, "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
}

/// Waits until a counting metric has this value at `addr`.
pub async fn comes_to(addr: SocketAddr, name: &str, value: u32) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let found = metric(addr, name).await;
        if (found - f64::from(value)).abs() < 0.5 {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{name} is {found}, not {value}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
