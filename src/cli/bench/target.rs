//! The server that is measured: a running one, or a child process in a temporary directory.

use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use eventlog_server::model::PublicKey;
use serde::de::IgnoredAny;
use tempfile::TempDir;

use super::args::TargetArgs;
use super::process::{Usage, Usages};
use super::rpc;
use super::socket::Socket;
use crate::cli::address::ServerUrl;
use crate::cli::admin::Admin;
use crate::cli::peer::Protocol;

/// What a server prints once it listens, before the address.
pub(super) const LISTENING: &str = "listening on ";
/// How many keys are assigned at a time.
const ASSIGN_THREADS: usize = 8;

/// The server that is measured; a child is killed when this is dropped.
pub(super) struct Target {
    pub(super) addr: SocketAddr,
    pub(super) path: String,
    rpc_path: String,
    pub(super) protocol: Protocol,
    admin: Option<Admin>,
    /// Its process, if known.
    pid: Option<u32>,
    own: Option<OwnServer>,
}

struct OwnServer {
    child: Child,
    directory: TempDir,
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // It may have ended already; nothing is lost in either case.
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
        let rpc_path = address(&url.of(Protocol::Rpc))?.1;
        Ok(Self { addr, path, rpc_path, protocol, admin, pid: args.pid, own: None })
    }

    fn start(args: &TargetArgs) -> io::Result<Self> {
        let directory = args.temporary_directory()?;
        let token = eventlog_server::model::RemoteId::random().to_string();
        let mut command = Command::new(std::env::current_exe()?);
        // It is measured with its own settings, not with the environment of this process.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("EVENTLOG_") {
                command.env_remove(name);
            }
        }
        command.env("EVENTLOG_ADMIN_TOKEN", &token).env("RUST_LOG", "error");
        command.args(["serve", "--dev", "--data-dir"]).arg(directory.path().join("data"));
        command.args(&args.server_arg);
        Self::spawn(command, directory, args.protocol(), &token)
    }

    /// A bare echo server as a child process.
    pub(super) fn start_echo() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "echo-server"]);
        Self::spawn(command, TempDir::with_prefix("eventlog-bench-")?, Protocol::Msgpack, "")
    }

    /// A child that prints where it listens, once it does.
    fn spawn(
        mut command: Command,
        directory: TempDir,
        protocol: Protocol,
        token: &str,
    ) -> io::Result<Self> {
        command.args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut own = OwnServer { child: command.spawn()?, directory };
        let mut said = String::new();
        if let Some(output) = own.child.stdout.take() {
            BufReader::new(output).read_line(&mut said)?;
        }
        let url: Option<ServerUrl> =
            said.trim().strip_prefix(LISTENING).and_then(|url| url.parse().ok());
        let url = url.ok_or_else(|| io::Error::other("the server did not start"))?;
        let (addr, path) = address(&url.of(protocol))?;
        let (admin, pid) = (Some(Admin::new(&url, token)), Some(own.child.id()));
        let rpc_path = address(&url.of(Protocol::Rpc))?.1;
        Ok(Self { addr, path, rpc_path, protocol, admin, pid, own: Some(own) })
    }

    /// A connection on which requests for `keys` may be made.
    pub(super) async fn connect<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a PublicKey>,
    ) -> io::Result<Socket> {
        let mut socket = Socket::connect(self.addr, &self.path).await?;
        if self.protocol == Protocol::Rpc {
            rpc::prove(&mut socket, keys).await?;
        }
        Ok(socket)
    }

    /// A connection in the RPC protocol on which `key` is proved.
    pub(super) async fn prove(&self, key: &PublicKey) -> io::Result<Socket> {
        let mut socket = Socket::connect(self.addr, &self.rpc_path).await?;
        rpc::prove(&mut socket, [key]).await?;
        Ok(socket)
    }

    /// Where a server that was started here keeps its data; `None` for one that was already running.
    pub(super) fn data_dir(&self) -> Option<PathBuf> {
        self.own.as_ref().map(|own| own.directory.path().join("data"))
    }

    /// Maps every key to a store, through the admin API. Without a token nothing is assigned: a server in development
    /// mode then maps every key to one store.
    pub(super) fn assign(&self, keys: &[(PublicKey, String)]) -> io::Result<()> {
        let Some(admin) = &self.admin else { return Ok(()) };
        let assign = |(key, store): &(PublicKey, String)| {
            let body = serde_json::json!({ "storeId": store });
            let path = format!("/admin/keys/{key}");
            let assigned: Result<IgnoredAny, _> = admin.request("PUT", &path, Some(&body));
            assigned.map(drop).map_err(io::Error::other)
        };
        std::thread::scope(|scope| {
            let shares = keys.chunks(keys.len().div_ceil(ASSIGN_THREADS).max(1));
            let threads: Vec<_> =
                shares.map(|keys| scope.spawn(move || keys.iter().try_for_each(assign))).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("assigning keys failed")))
            })
        })
    }

    /// What the server and this process have used so far.
    pub(super) fn usages(&self) -> Usages {
        [self.pid, Some(std::process::id())].map(|pid| pid.and_then(Usage::of))
    }

    /// Whether keys are assigned, so that stores can be chosen.
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
