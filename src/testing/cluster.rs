//! A PostgreSQL for tests: one temporary cluster per process, on a free port, and a database for each test.
//!
//! It is the one that `EVENTLOG_TEST_POSTGRES` names (the URL of a server on which databases may be created), otherwise
//! one from the path or Debian's folders. If there is none, the tests say so and pass; with `CI=true` they fail. This
//! file depends on nothing else, because both the library's tests and the binary's include it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A server that tests have for themselves.
pub struct Cluster {
    /// Where `psql` is.
    programs: PathBuf,
    /// The URL without a database.
    base: String,
    /// The one that was started here; it ends when this is closed.
    started: Option<Started>,
}

struct Started {
    directory: PathBuf,
    port: u16,
    /// The system closes it when this process ends, in whatever way; then the server ends.
    alive: Vec<ChildStdin>,
    child: Child,
}

/// The cluster of this process; `None` if there is no PostgreSQL.
pub fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| match std::env::var("EVENTLOG_TEST_POSTGRES") {
        Ok(base) => {
            let base = base.trim_end_matches('/').to_owned();
            Some(Cluster { programs: programs().unwrap_or_default(), base, started: None })
        }
        Err(_) => programs().map(|programs| Cluster::start(&programs)),
    });
    if cluster.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "there is no PostgreSQL: install the package postgresql"
        );
        eprintln!(
            "skipped: there is no PostgreSQL (initdb) on the path, and EVENTLOG_TEST_POSTGRES names none"
        );
    }
    cluster.as_ref()
}

/// Where PostgreSQL's programs are.
fn programs() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect());
    let mut folders: Vec<PathBuf> = on_path.unwrap_or_default();
    let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql").map_or_else(
        |_| Vec::new(),
        |versions| versions.filter_map(|one| Some(one.ok()?.path().join("bin"))).collect(),
    );
    debian.sort();
    folders.extend(debian.into_iter().rev());
    folders.into_iter().find(|folder| {
        ["initdb", "postgres", "psql"].iter().all(|name| folder.join(name).is_file())
    })
}

/// Runs `program` as a user that PostgreSQL accepts: it does not run as root.
fn as_user(program: &Path) -> Command {
    let is_root = std::fs::metadata("/proc/self")
        .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !is_root {
        return Command::new(program);
    }
    let user = if user_exists("postgres") { "postgres" } else { "nobody" };
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--clear-groups", "--inh-caps=-all"]).arg(program);
    command
}

fn user_exists(name: &str) -> bool {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    users.lines().any(|line| line.split(':').next() == Some(name))
}

impl Cluster {
    /// A separate cluster, for tests that stop the server.
    pub fn own() -> Option<Self> {
        cluster()?;
        Some(Self::start(&programs()?))
    }

    fn start(programs: &Path) -> Self {
        let directory = make_directory();
        let initdb = as_user(&programs.join("initdb"))
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=eventlog",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "-D",
            ])
            .arg(directory.join("data"))
            .current_dir("/")
            .output()
            .expect("initdb");
        assert!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
        let port = free_port();
        let started = Some(Started::start(programs, directory, port));
        let base = format!("postgres://eventlog@127.0.0.1:{port}");
        let cluster = Self { programs: programs.to_owned(), base, started };
        cluster.wait_until_it_answers();
        cluster
    }

    /// A standby of this one, a server of its own at `port` or at a free port; it is running and streaming.
    pub fn standby(&self, port: Option<u16>) -> Self {
        let directory = make_directory();
        self.copy_to(&directory.join("data"), &["--write-recovery-conf"]);
        let port = port.unwrap_or_else(free_port);
        let started = Some(Started::start(&self.programs, directory, port));
        let base = format!("postgres://eventlog@127.0.0.1:{port}");
        let standby = Self { programs: self.programs.clone(), base, started };
        standby.wait_until_it_answers();
        standby
    }

    /// Makes a standby the primary.
    pub fn promote(&self) {
        assert_eq!(self.sql("postgres", "SELECT pg_promote(true, 60)"), "t");
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.started.as_ref().map_or(5_432, |started| started.port)
    }

    /// Starts it again on its port after [`Cluster::stop_now`].
    pub fn start_again(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Some(before) = self.started.take() {
                let Started { directory, port, alive, .. } = before;
                let mut started = Started::start(&self.programs, directory, port);
                // Closing it would remove the folder.
                started.alive.extend(alive);
                self.started = Some(started);
            }
            if self.answers() {
                return;
            }
            // Somebody's outgoing connection may have been given its port meanwhile.
            assert!(Instant::now() < deadline, "PostgreSQL does not start again");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until it answers; `false` if it has ended instead.
    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.try_sql("postgres", "SELECT 1").is_err() {
            let ended = self.started.as_mut().map(|started| started.child.try_wait());
            if matches!(ended, Some(Ok(Some(_)))) {
                return false;
            }
            assert!(Instant::now() < deadline, "PostgreSQL does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }

    fn wait_until_it_answers(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.try_sql("postgres", "SELECT 1").is_err() {
            assert!(Instant::now() < deadline, "PostgreSQL does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the server, and starts it again.
    pub fn crash(&mut self) {
        self.stop_now();
        self.start_again();
    }

    /// Kills the server.
    pub fn stop_now(&mut self) {
        let Some(started) = &mut self.started else { panic!("not ours to end") };
        let first = std::fs::read_to_string(started.directory.join("data/postmaster.pid"));
        let first = first.expect("it runs").lines().next().map(ToOwned::to_owned).expect("its id");
        // Kills all of its processes, so that none is in the way of the next start; the first one is stopped first, so
        // that it starts no more.
        let killed = Command::new("sh")
            .args([
                "-c",
                "kill -STOP \"$0\"; kill -9 $(ps -o pid= --ppid \"$0\") \"$0\" 2>/dev/null; true",
                &first,
            ])
            .status();
        assert!(killed.expect("kill").success());
        started.child.wait().expect("it ended");
    }

    /// A database with nothing in it, and its URL.
    pub fn database(&self) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("eventlog_test_{}_{number}", std::process::id());
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        format!("{}/{name}", self.base)
    }

    /// The result of `sql` in the database with this name or URL: rows as lines, with a bar between columns.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// What `pg_dump` makes of the database with this URL, also while it is used.
    pub fn dump(&self, url: &str) -> Vec<u8> {
        let dumped = Command::new(self.program("pg_dump")).arg(url).output().expect("pg_dump");
        assert!(dumped.status.success(), "dump: {}", String::from_utf8_lossy(&dumped.stderr));
        dumped.stdout
    }

    /// Replaces what is in the database with this URL by a dump. Nobody may use it.
    pub fn restore(&self, url: &str, dump: &[u8]) {
        self.sql(url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        let mut psql = Command::new(self.program("psql"))
            .args(["-Xq", "-v", "ON_ERROR_STOP=1", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("psql");
        psql.stdin.take().expect("its input").write_all(dump).expect("written");
        assert!(psql.wait().expect("psql").success(), "the dump is not restored");
    }

    /// Keeps a copy of all WAL from now on; restarts the server for that.
    pub fn archive(&mut self) {
        self.run_script(r#"mkdir "$1/archive""#, &[]);
        let to = self.directory().join("archive").join("%f");
        self.sql("postgres", "ALTER SYSTEM SET archive_mode = 'on'");
        let command = format!("cp %p {}", to.display());
        self.sql("postgres", &format!("ALTER SYSTEM SET archive_command = '{command}'"));
        self.crash();
    }

    /// Makes a base backup, also while the server is used. It replaces the one before.
    pub fn base_backup(&self) {
        self.run_script(r#"rm -rf "$1/base""#, &[]);
        self.copy_to(&self.directory().join("base"), &[]);
    }

    fn copy_to(&self, directory: &Path, options: &[&str]) {
        let port = self.port().to_string();
        let done = as_user(&self.programs.join("pg_basebackup"))
            .args(["--no-sync", "--checkpoint=fast"])
            .args(options)
            .args(["-U", "eventlog", "-h", "127.0.0.1", "-p", &port, "-D"])
            .arg(directory)
            .current_dir("/")
            .output()
            .expect("pg_basebackup");
        assert!(done.status.success(), "copy: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// A position in the WAL, up to which [`Cluster::recover`] can recover.
    pub fn archived_up_to_now(&self) -> String {
        let position = self.sql("postgres", "SELECT pg_current_wal_insert_lsn()");
        let file = self.sql("postgres", "SELECT pg_walfile_name(pg_switch_wal())");
        let done =
            format!("SELECT coalesce(last_archived_wal >= '{file}', false) FROM pg_stat_archiver");
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.sql("postgres", &done) != "t" {
            assert!(Instant::now() < deadline, "{file} is not archived");
            std::thread::sleep(Duration::from_millis(50));
        }
        position
    }

    /// Kills the server, and starts it with its last base backup and the WAL that was archived, up to `position`.
    pub fn recover(&mut self, position: &str) {
        self.stop_now();
        let from = self.directory().join("archive").join("%f");
        let settings = format!(
            "restore_command = 'cp {} %p'\nrecovery_target_lsn = '{position}'\nrecovery_target_action = 'promote'\n",
            from.display()
        );
        let script = r#"cd "$1" && rm -rf data && cp -a base data && printf '%s' "$2" >> data/postgresql.auto.conf && touch data/recovery.signal"#;
        self.run_script(script, &[&settings]);
        self.start_again();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            // While it recovers, it may close a connection.
            let recovers = self.try_sql("postgres", "SELECT pg_is_in_recovery()");
            if recovers.as_deref() == Ok("f") {
                break;
            }
            assert!(Instant::now() < deadline, "it goes on recovering: {recovers:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn directory(&self) -> &Path {
        let Some(started) = &self.started else { panic!("its files are not ours") };
        &started.directory
    }

    /// Runs a script as the user of the server; `$1` is the folder of the server, and `more` follows.
    fn run_script(&self, script: &str, more: &[&str]) {
        let done = as_user(Path::new("/bin/sh"))
            .args(["-c", script, "sh"])
            .arg(self.directory())
            .args(more)
            .current_dir("/")
            .output()
            .expect("a shell");
        assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn program(&self, name: &str) -> PathBuf {
        // Otherwise it is the one on the path.
        if self.programs.as_os_str().is_empty() { name.into() } else { self.programs.join(name) }
    }

    fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let url = if database.contains("://") {
            database.to_owned()
        } else {
            format!("{}/{database}", self.base)
        };
        let psql = self.program("psql");
        let done =
            Command::new(psql).args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, &url]).output();
        let done = done.map_err(|error| error.to_string())?;
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned())
    }
}

impl Started {
    fn start(programs: &Path, directory: PathBuf, port: u16) -> Self {
        // The shell stops the server when nobody holds the other end of its input any more, and cleans up if the tests
        // are over.
        let script = r#""$0" -D "$1/data" -p "$2" -k "$1" -c listen_addresses=127.0.0.1 -c max_connections=300 \
            -c shared_buffers=64MB -c max_wal_size=256MB -c autovacuum=off -c log_min_messages=panic &
            p=$!; { read -r _ <&3; kill -INT $p 2>/dev/null; sleep 2; rm -rf "$1"; } >/dev/null 2>&1 & wait $p"#;
        let mut child = as_user(Path::new("/bin/sh"))
            .args(["-c", &format!("exec 3<&0; {script}")])
            .arg(programs.join("postgres"))
            .arg(&directory)
            .arg(port.to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres starts");
        let alive = child.stdin.take().expect("its input");
        Self { directory, port, alive: vec![alive], child }
    }
}

fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    free.expect("a port").port()
}

/// A folder that belongs to the user that runs the server.
fn make_directory() -> PathBuf {
    let mut template = std::env::temp_dir().join("eventlog-postgres-XXXXXX");
    if !template.is_absolute() {
        template = Path::new("/tmp").join("eventlog-postgres-XXXXXX");
    }
    let mut made = as_user(Path::new("/usr/bin/mktemp"))
        .arg("-d")
        .arg(&template)
        .current_dir("/")
        .stdout(Stdio::piped())
        .spawn()
        .expect("mktemp");
    let mut path = String::new();
    made.stdout.take().expect("its output").read_to_string(&mut path).expect("a path");
    assert!(made.wait().expect("mktemp").success(), "no folder {}", template.display());
    PathBuf::from(path.trim_end())
}
