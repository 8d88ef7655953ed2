//! A bucket has everything that a lost machine had: the archive as it is written, and the entries that are not archived
//! yet.

mod requests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::{TempDir, tempdir};

use super::process::{Serve, command, data};
use crate::support::s3::{BUCKET, S3, SECRET, at, free_port};
use crate::support::server::comes_to;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

const TOKEN: &str = "only-for-this-test";

/// A server that ships its archive to the bucket.
struct Place {
    directory: TempDir,
    bucket: SocketAddr,
    /// Instead of the credentials of all.
    environment: Vec<(&'static str, String)>,
    server: Option<Serve>,
}

impl Place {
    fn new(bucket: SocketAddr) -> Self {
        Self::with(bucket, Vec::new())
    }

    fn with(bucket: SocketAddr, environment: Vec<(&'static str, String)>) -> Self {
        let directory = tempdir().expect("a directory");
        let config = format!(
            "[admin]\ntoken = \"{TOKEN}\"\n[archive]\nto = \"s3://{BUCKET}/all/of it\"\nship_every = \"200ms\"\n"
        );
        let config = config.replace("of it", "of-it");
        std::fs::write(directory.path().join("config.toml"), config).expect("written");
        let mut place = Self { directory, bucket, environment, server: None };
        place.start();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&mut self) {
        let (config, folder) = (self.path("config.toml"), self.path("data"));
        let mut serve = command(&["serve", "--dev", "--listen", "127.0.0.1:0"]);
        serve.args(["--config", data(&config), "--data-dir", data(&folder)]);
        serve.env("EVENTLOG_LOG", "trace");
        let log = std::fs::File::options().create(true).append(true).open(self.path("log"));
        serve.stderr(log.expect("a file"));
        at(&mut serve, self.bucket);
        if !self.environment.is_empty() {
            serve.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        }
        serve.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        self.server = Some(Serve::of(serve));
    }

    fn url(&self) -> &str {
        &self.server.as_ref().expect("it runs").url
    }

    fn address(&self) -> SocketAddr {
        self.server.as_ref().expect("it runs").address().parse().expect("an address")
    }

    async fn write(&self, from: usize, to: usize) {
        let mut socket = Socket::connect(self.url()).await;
        for n in from..to {
            let one = entry("Note", &n.to_string(), &[7; 300]);
            socket.write(&key("alice"), n as u64, &batch(&[one])).await;
            socket.next_ack().await;
        }
    }

    /// Loses the machine.
    fn lose(&mut self) {
        let server = self.server.take().expect("it runs");
        server.end(Signal::KILL);
        std::fs::remove_dir_all(self.path("data")).expect("removed");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).expect("UTF-8")
    }
}

/// Restores the content of the bucket. Returns the primary keys in the order of the feed, or the output of a failure.
fn restored(bucket: SocketAddr, to: &Path, more: &[&str]) -> Result<Vec<String>, String> {
    let from = format!("s3://{BUCKET}/all/of-it");
    let mut restore = command(&["restore", "--from", &from, "--data-dir", data(to)]);
    restore.args(more);
    at(&mut restore, bucket);
    let ended = restore.output().expect("it runs");
    if !ended.status.success() {
        return Err(String::from_utf8_lossy(&ended.stderr).into_owned());
    }
    let listed = command(&["inspect", "--json", "--store", "default", "--data-dir", data(to)]);
    let listed = { listed }.output().expect("it runs");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let key = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        line["primaryKey"].as_str().expect("a text").to_owned()
    };
    Ok(text.lines().map(key).collect())
}

/// Waits until the bucket has all entries up to `count`. Until then, each restore returns the first entries.
fn has_all(bucket: SocketAddr, directory: &Path, count: usize, more: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(120);
    for attempt in 0.. {
        let target = directory.join(format!("target {attempt}"));
        match restored(bucket, &target, more) {
            Ok(keys) => {
                assert!(
                    keys.iter()
                        .eq((0..keys.len()).map(|n| n.to_string()).collect::<Vec<_>>().iter())
                );
                if keys.len() == count {
                    return;
                }
                assert!(Instant::now() < deadline, "it has only {}", keys.len());
            }
            Err(said) => assert!(Instant::now() < deadline, "{said}"),
        }
        std::fs::remove_dir_all(&target).unwrap_or_default();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_machine_had_comes_back_from_the_bucket() {
    let Some(s3) = S3::start(free_port()).await else { return };
    let mut place = Place::new(s3.address);
    place.write(0, 60).await;
    has_all(s3.address, place.directory.path(), 60, &[]);
    // Archived entries replace tails.
    let mut backup = command(&["backup", "--url", place.url(), "--token", TOKEN]);
    backup.args(["--to", &format!("s3://{BUCKET}/all/of-it")]);
    at(&mut backup, s3.address);
    let ended = backup.output().expect("it runs");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    place.write(60, 90).await;
    has_all(s3.address, place.directory.path(), 90, &[]);
    place.lose();
    let target = place.path("back");
    let keys = restored(s3.address, &target, &[]).expect("it is whole");
    assert_eq!(keys.len(), 90);
    // The restored data is another generation, which is shipped as well.
    std::fs::rename(&target, place.path("data")).expect("moved");
    place.start();
    place.write(90, 100).await;
    has_all(s3.address, place.directory.path(), 100, &[]);
    let server = place.server.take().expect("it runs");
    assert_eq!(server.end(Signal::TERM), Some(0));
    let log = place.log();
    assert!(
        log.contains("the archive is copied to") && log.contains("hyper") && !log.contains(SECRET),
        "a secret is in the log"
    );
    let names = s3.names().await;
    let folders: std::collections::BTreeSet<_> =
        names.iter().map(|name| name.split('/').nth(2).expect("a generation")).collect();
    assert_eq!(folders.len(), 2, "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_prefix_do_not_touch_each_other() {
    let Some(s3) = S3::start(free_port()).await else { return };
    let mut first = Place::new(s3.address);
    first.write(0, 20).await;
    has_all(s3.address, first.directory.path(), 20, &[]);
    first.lose();
    let before = s3.names().await;
    let folder = before[0].split('/').nth(2).expect("a generation").to_owned();
    // Buckets store times in whole seconds. Of two generations, the newer one is known only if their seconds differ.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let second = Place::new(s3.address);
    for round in 0..4 {
        second.write(round * 10, round * 10 + 10).await;
        has_all(s3.address, second.directory.path(), round * 10 + 10, &[]);
    }
    let is_data = |name: &&String| !name.contains("/restored-");
    let now = s3.names().await;
    let of_first: Vec<_> =
        now.iter().filter(|name| name.contains(&folder)).filter(is_data).collect();
    assert!(of_first.into_iter().eq(before.iter().filter(is_data)), "{now:?}");
    has_all(s3.address, first.directory.path(), 20, &["--generation", &folder]);
    let nothing = restored(s3.address, &first.path("none"), &["--generation", &"0".repeat(32)]);
    assert!(nothing.expect_err("there is none").contains("has nothing of generation"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_costs_no_write_and_is_caught_up_with() {
    let address = free_port();
    let place = Place::new(address);
    place.write(0, 30).await;
    comes_to(place.address(), "eventlog_storage_shipping_fails", 1).await;
    place.write(30, 60).await;
    assert!(place.log().contains("the archive cannot be copied to s3://"));
    let Some(s3) = S3::start(address).await else { return };
    comes_to(place.address(), "eventlog_storage_shipping_fails", 0).await;
    has_all(s3.address, place.directory.path(), 60, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_never_answers_does_not_hold_up_the_end() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut place = Place::new(silent.local_addr().expect("an address"));
    place.write(0, 1).await;
    // A request that waits for its answer.
    let asking = silent.accept().expect("a request");
    let server = place.server.take().expect("it runs");
    let begun = Instant::now();
    tokio::task::spawn_blocking(move || server.end(Signal::TERM)).await.expect("it ended");
    // A request alone waits for half a minute, and there are several.
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    drop(asking);
}

/// The second one noticed nothing until it had something to ship itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_server_notices_that_a_copy_of_its_directory_is_served_elsewhere() {
    let Some(s3) = S3::start(free_port()).await else { return };
    let mut quiet = Place::new(s3.address);
    quiet.write(0, 20).await;
    has_all(s3.address, quiet.directory.path(), 20, &[]);
    assert_eq!(quiet.server.take().expect("it runs").end(Signal::TERM), Some(0));
    let mut copy = Place::new(s3.address);
    assert_eq!(copy.server.take().expect("it runs").end(Signal::TERM), Some(0));
    let (from, to) = (quiet.path("data"), copy.path("data"));
    std::fs::remove_dir_all(&to).expect("removed");
    let copied = std::process::Command::new("cp").arg("-a").arg(&from).arg(&to).status();
    assert!(copied.expect("cp").success());
    quiet.start();
    comes_to(quiet.address(), "eventlog_storage_shipping_fails", 0).await;
    // What `backup` brings there is no copy's.
    let mut backup = command(&["backup", "--url", quiet.url(), "--token", TOKEN]);
    backup.args(["--to", &format!("s3://{BUCKET}/all/of-it")]);
    at(&mut backup, s3.address);
    let ended = backup.output().expect("it runs");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    copy.start();
    copy.write(20, 30).await;
    comes_to(quiet.address(), "eventlog_storage_shipping_fails", 1).await;
    assert!(quiet.log().contains("a copy of the directory is served elsewhere"));
}
