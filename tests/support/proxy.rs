//! A bad network: delays, splits, and cuts connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::random::Random;

/// Forwards connections until it is dropped; those that are open then are cut.
pub struct Proxy {
    pub addr: SocketAddr,
    /// While it is set, connections are delayed, split and cut.
    bad: Arc<AtomicBool>,
    cuts: Arc<AtomicU64>,
    server: Arc<Mutex<SocketAddr>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(server: SocketAddr, mut random: Random) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (bad, cuts) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let (is_bad, cut) = (bad.clone(), cuts.clone());
        let server = Arc::new(Mutex::new(server));
        let target = server.clone();
        let accepting = tokio::spawn(async move {
            let mut links = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = *target.lock().expect("no panic");
                links.spawn(link(client, server, random.split(), is_bad.clone(), cut.clone()));
            }
        });
        Self { addr, bad, cuts, server, accepting }
    }

    /// From now on it only forwards.
    pub fn behave(&self) {
        self.bad.store(false, Ordering::Relaxed);
    }

    /// Later connections go to this server.
    pub fn forward_to(&self, server: SocketAddr) {
        *self.server.lock().expect("no panic") = server;
    }

    /// How many connections it has cut.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn link(
    client: TcpStream,
    server: SocketAddr,
    mut random: Random,
    bad: Arc<AtomicBool>,
    cuts: Arc<AtomicU64>,
) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    for socket in [&client, &server] {
        socket.set_nodelay(true).expect("a socket");
    }
    let ((client_in, client_out), (server_in, server_out)) =
        (client.into_split(), server.into_split());
    // Some are cut before they have said hello, some live for seconds.
    let life_millis_max = if random.one_in(4) { 50 } else { 2_500 };
    let life = random.millis_below(life_millis_max);
    let cut = async {
        sleep(life).await;
        while !bad.load(Ordering::Relaxed) {
            sleep(Duration::from_secs(3_600)).await;
        }
        cuts.fetch_add(1, Ordering::Relaxed);
    };
    tokio::select! {
        () = forward(client_in, server_out, random.split(), &bad) => {}
        () = forward(server_in, client_out, random.split(), &bad) => {}
        () = cut => {}
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut random: Random,
    bad: &AtomicBool,
) {
    let mut buffer = vec![0; 64 * 1_024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let bad = bad.load(Ordering::Relaxed);
            if bad && random.one_in(20) {
                sleep(random.millis_below(30)).await;
            }
            let piece = if bad && random.one_in(3) {
                1 + random.below(rest.len() as u64) as usize
            } else {
                rest.len()
            };
            if to.write_all(&rest[..piece]).await.is_err() {
                return;
            }
            rest = &rest[piece..];
        }
    }
}
