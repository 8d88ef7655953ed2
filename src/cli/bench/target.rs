//! The server that is measured: one that runs already, or a child process in a temporary directory.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use eventlog_server::model::PublicKey;
use serde::de::IgnoredAny;
use tempfile::TempDir;

use super::args::TargetArgs;
use super::process::Usage;
use super::rpc;
use super::socket::Socket;
use crate::cli::address::{ServerUrl, path};
use crate::cli::admin::Admin;
use crate::cli::peer::Protocol;

const START_PATIENCE: Duration = Duration::from_secs(30);
/// Keys are assigned so many at a time.
const ASSIGN_THREADS: usize = 8;

/// The server that is measured; a child is killed when this is dropped.
pub(super) struct Target {
    pub(super) addr: SocketAddr,
    pub(super) path: String,
    pub(super) protocol: Protocol,
    admin: Option<Admin>,
    /// Its process, if that is known.
    pub(super) pid: Option<u32>,
    own: Option<OwnServer>,
}

struct OwnServer {
    child: Child,
    directory: TempDir,
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // It may have ended already; nothing is lost either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Target {
    /// The server that `args` name, or a fresh one.
    pub(super) fn open(args: &TargetArgs) -> io::Result<Self> {
        let Some(url) = &args.url else { return Self::start(args) };
        let protocol = args.protocol();
        let (addr, path) = address(&url.of(protocol))?;
        let admin = args.admin_token.as_ref().map(|token| Admin::new(url, token));
        Ok(Self { addr, path, protocol, admin, pid: args.pid, own: None })
    }

    fn start(args: &TargetArgs) -> io::Result<Self> {
        let directory = args.temporary_directory()?;
        let token = eventlog_server::model::RemoteId::random().to_string();
        let config = directory.path().join("bench.toml");
        std::fs::write(&config, format!("[admin]\ntoken = \"{token}\"\n"))?;
        let addr = free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        // It is measured as it is, not as this process is told to speak to others.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("EVENTLOG_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(["serve", "--dev", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .args(["--listen", &addr.to_string()])
            .args(&args.server_arg)
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        Self::wait_for(child, directory, addr, args.protocol(), &token)
    }

    /// A bare echo server as a child process.
    pub(super) fn start_echo() -> io::Result<Self> {
        let directory = TempDir::with_prefix("eventlog-bench-")?;
        let addr = free_address()?;
        let child = Command::new(std::env::current_exe()?)
            .args(["bench", "echo-server", "--listen", &addr.to_string()])
            .stdin(Stdio::null())
            .spawn()?;
        Self::wait_for(child, directory, addr, Protocol::Msgpack, "")
    }

    /// The child, once it is ready.
    fn wait_for(
        child: Child,
        directory: TempDir,
        addr: SocketAddr,
        protocol: Protocol,
        token: &str,
    ) -> io::Result<Self> {
        let url: ServerUrl = format!("ws://{addr}").parse().map_err(io::Error::other)?;
        let admin = Admin::new(&url, token);
        let pid = Some(child.id());
        let mut own = OwnServer { child, directory };
        let deadline = Instant::now() + START_PATIENCE;
        while !admin.is_ready() {
            if let Some(status) = own.child.try_wait()? {
                return Err(io::Error::other(format!("the server did not start: {status}")));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the server did not become ready in time"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let path = path(protocol).to_owned();
        Ok(Self { addr, path, protocol, admin: Some(admin), pid, own: Some(own) })
    }

    /// A connection on which requests for `keys` may be made.
    pub(super) async fn connect(&self, keys: &[&PublicKey]) -> io::Result<Socket> {
        let mut socket = Socket::connect(self.addr, &self.path).await?;
        if self.protocol == Protocol::Rpc {
            rpc::prove(&mut socket, keys).await?;
        }
        Ok(socket)
    }

    /// Where its own server keeps its data; `None` for one that ran already.
    pub(super) fn data_dir(&self) -> Option<PathBuf> {
        self.own.as_ref().map(|own| own.directory.path().join("data"))
    }

    /// Maps every key to a store, through the admin API. Without a token nothing is assigned: a server in
    /// development mode then takes every key to one store.
    pub(super) fn assign(&self, keys: &[(PublicKey, String)]) -> io::Result<()> {
        let Some(admin) = &self.admin else { return Ok(()) };
        let assign = |(key, store): &(PublicKey, String)| {
            let body = serde_json::json!({ "storeId": store });
            let path = format!("/admin/keys/{key}");
            admin
                .request("PUT", &path, Some(&body))
                .map(|_: IgnoredAny| ())
                .map_err(io::Error::other)
        };
        std::thread::scope(|scope| {
            let share = keys.len().div_ceil(ASSIGN_THREADS).max(1);
            let threads: Vec<_> = keys
                .chunks(share)
                .map(|keys| scope.spawn(move || keys.iter().try_for_each(assign)))
                .collect();
            let joined = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("assigning keys failed")))
            });
            joined.collect()
        })
    }

    /// What the server has used so far, and this process; what the system does not tell is not there.
    pub(super) fn usage(&self) -> (Option<Usage>, Option<Usage>) {
        (self.pid.and_then(Usage::of), Usage::own())
    }

    /// Whether keys are assigned, and so stores can be chosen.
    pub(super) const fn assigns(&self) -> bool {
        self.admin.is_some()
    }
}

/// Where to connect for `url`, and the path there.
fn address(url: &ServerUrl) -> io::Result<(SocketAddr, String)> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    let url = url.websocket();
    let rest = url.strip_prefix("ws://").ok_or_else(|| invalid("the generator has no TLS"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let port = if authority.contains(':') { "" } else { ":80" };
    let addr = format!("{authority}{port}").to_socket_addrs()?.next();
    Ok((addr.ok_or_else(|| invalid("no such host"))?, path.to_owned()))
}

/// A local address that nobody listens on.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Bytes of all files below `directory`. Files that vanish meanwhile do not count.
pub(super) fn disk_bytes(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path())?,
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}
