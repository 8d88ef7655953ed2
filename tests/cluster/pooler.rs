//! A pooler between nodes and the database: `PgBouncer`, from Debian.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::one::refused;
use super::{Node, cluster};
use crate::support::process::binary;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

/// A running pooler, which ends when this is dropped.
struct Pooler {
    child: Child,
    port: u16,
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    let found = folders.into_iter().map(|folder| folder.join("pgbouncer")).find(|it| it.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "there is no PgBouncer: install the package pgbouncer"
        );
        let _ = writeln!(std::io::stderr(), "skipped: there is no pgbouncer on the path");
    }
    found
}

impl Pooler {
    fn start(program: &Path, folder: &Path, database: &str, mode: &str) -> Self {
        let port =
            TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it").port();
        let (host, _) = database.rsplit_once('/').expect("a name");
        let (_, behind) = host.rsplit_once(':').expect("a port");
        let config = folder.join(format!("{mode}.ini"));
        let users = folder.join("users.txt");
        std::fs::write(&users, "\"eventlog\" \"\"\n").expect("a file");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={behind}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = 30\n",
            users.display()
        );
        std::fs::write(&config, text).expect("a file");
        for path in [folder, &config, &users] {
            let everybody = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(path, everybody).expect("permissions");
        }
        let is_root =
            std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("it")) == 0;
        let mut command = if is_root {
            // It does not run as root.
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "nobody", "--clear-groups", "--inh-caps=-all"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let child =
            command.arg("-q").arg(&config).stderr(Stdio::null()).stdout(Stdio::null()).spawn();
        let pooler = Self { child: child.expect("it starts"), port };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the pooler does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        pooler
    }

    fn url(&self, database: &str) -> String {
        let (_, name) = database.rsplit_once('/').expect("a name");
        format!("postgres://eventlog@127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_pooler_in_session_mode_will_do_and_one_in_transaction_mode_is_refused_in_words() {
    let (Some(cluster), Some(program)) = (cluster(), program()) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let database = cluster.database();
    let pooler = Pooler::start(&program, folder.path(), &database, "transaction");
    let told = refused(&pooler.url(&database));
    assert!(told.contains("pooler in transaction mode"), "{told}");
    drop(pooler);
    let pooler = Pooler::start(&program, folder.path(), &database, "session");
    let mut nodes = [Node::dev(&pooler.url(&database)), Node::dev(&pooler.url(&database))];
    let mut reader = Socket::connect(&nodes[0].url()).await;
    reader.subscribe(&key("bob"), 0).await;
    let mut writer = Socket::connect(&nodes[1].url()).await;
    writer.write(&key("alice"), 1, &batch(&[entry("Noted", "n", b"\x02\x20a")])).await;
    assert_eq!(writer.next_ack().await, (1, vec![1]));
    assert_eq!(reader.next_entries(1).await[0].0, 1);
    let heal =
        || binary().args(["heal", "--yes", "--database", &database]).output().expect("it runs");
    let refused = heal();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("nodes are connected"), "{told}");
    nodes.iter_mut().for_each(|node| node.end("TERM"));
    // The pooler's own connections stay, and no node is behind them any more.
    let healed = heal();
    assert!(healed.status.success(), "{}", String::from_utf8_lossy(&healed.stderr));
}
