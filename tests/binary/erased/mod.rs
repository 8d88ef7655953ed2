//! Erased content leaves the files of a running server, of one that is killed meanwhile, and of a bucket. `erase --verify` reports that.

mod restored;
mod spilled;
mod trimmed;
mod within;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::{TempDir, tempdir};

use crate::support::process::{Process, binary};
use crate::support::s3::{BUCKET, S3, at, free_port};
use crate::support::socket::Socket;
use crate::support::{batch, entry, http, key};

const TOKEN: &str = "only-for-this-test";
const SECRET: &str = "the diagnosis of somebody";

struct Place {
    directory: TempDir,
    more: String,
    bucket: Option<SocketAddr>,
}

impl Place {
    fn new(more: &str) -> Self {
        Self { directory: tempdir().expect("a directory"), more: more.to_owned(), bucket: None }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn serve(&self, clean_after: &str) -> Process {
        let config = self.directory.path().join("config.toml");
        let more = &self.more;
        let text = format!("[erase]\nclean_after = \"{clean_after}\"\n{more}");
        std::fs::write(&config, text).expect("written");
        let mut command = self.command(&["serve", "--dev", "--listen", "127.0.0.1:0"]);
        command.arg("--config").arg(config).arg("--data-dir").arg(self.data());
        Process::start(command)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = binary();
        command.env("EVENTLOG_ADMIN_TOKEN", TOKEN).args(arguments);
        if let Some(bucket) = self.bucket {
            at(&mut command, bucket);
        }
        command
    }

    fn verify(&self, server: Option<&Process>, more: &[&str]) -> (bool, String) {
        let mut verify = self.command(&["erase", "--verify"]);
        match server {
            Some(server) => verify.args(["--url", &server.url]),
            None => verify.arg("--data-dir").arg(self.data()),
        };
        verify.args(more);
        run(verify)
    }

    fn well(&self, arguments: &[&str], server: &Process) -> String {
        let mut command = self.command(arguments);
        command.args(["--url", &server.url]);
        let (done, said) = run(command);
        assert!(done, "{said}");
        said
    }
}

fn run(mut command: Command) -> (bool, String) {
    let ended = command.output().expect("it runs");
    let said = [&ended.stdout[..], &ended.stderr].concat();
    (ended.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn address(server: &Process) -> SocketAddr {
    let address = server.url.trim_start_matches("ws://").trim_end_matches("/eventlog");
    address.parse().expect("an address")
}

async fn write(server: &Process, person: &str) {
    let mut socket = Socket::connect(&server.url).await;
    let is_secret = |n: usize| n == 7 && person == "somebody";
    let payload =
        |n: usize| if is_secret(n) { SECRET.as_bytes().to_vec() } else { vec![n as u8; 200] };
    let name = |n: usize| if n == 7 { person.to_owned() } else { n.to_string() };
    let entries: Vec<_> = (0..50).map(|n| entry("Note", &name(n), &payload(n))).collect();
    socket.write(&key("alice"), 1, &batch(&entries)).await;
    socket.next_ack().await;
}

async fn is_clean(server: &Process) {
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    while !http::get(address(server), "/metrics")
        .await
        .contains("\neventlog_storage_erased_remains 0")
    {
        assert!(std::time::Instant::now() < deadline, "files still have some");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The files with the text, found without the server's code.
fn files_with(directory: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
            continue;
        }
        // The server may have removed it meanwhile.
        let Ok(mut bytes) = std::fs::read(&path) else { continue };
        let name = path.display().to_string();
        if name.strip_suffix(".zst").is_some() {
            bytes = zstd::decode_all(&bytes[..]).expect("zstd");
        }
        if has(&bytes, text.as_bytes()) {
            found.push(name);
        }
    }
    found
}

/// Most of a log file, and all of a ballast, is zeros.
fn has(bytes: &[u8], text: &[u8]) -> bool {
    static ZEROS: [u8; 4_096] = [0; 4_096];
    let parts = bytes.chunks(ZEROS.len() - text.len()).enumerate();
    let mut parts = parts.map(|(n, part)| {
        let begin = n * (ZEROS.len() - text.len());
        &bytes[begin..bytes.len().min(begin + part.len() + text.len())]
    });
    parts.any(|part| {
        *part != ZEROS[..part.len()] && part.windows(text.len()).any(|part| part == text)
    })
}

const ERASE: [&str; 6] = ["erase", "--yes", "--store", "default", "--primary-key", "somebody"];

#[tokio::test]
async fn no_file_has_what_was_erased_and_a_backup_says_that_it_does() {
    let place = Place::new("");
    let backups = place.directory.path().join("backups");
    let backups = backups.to_str().expect("text");
    let server = place.serve("1h");
    write(&server, "somebody").await;
    place.well(&["backup", "--to", backups], &server);
    assert!(files_with(&place.data(), SECRET).len() > 1);
    place.well(&ERASE, &server);
    let (clean, said) = place.verify(Some(&server), &["--text", SECRET]);
    let archive = said.lines().find(|line| line.starts_with("archive ")).unwrap_or_default();
    assert!(!clean && archive.ends_with("with content of erased entries"), "{said}");
    assert!(said.contains("still have to be cleaned") && said.contains("once the text"), "{said}");
    drop(server);
    // It continues after a kill.
    let server = place.serve("0s");
    is_clean(&server).await;
    assert_eq!(files_with(&place.data(), SECRET), Vec::<String>::new());
    let (clean, said) = place.verify(Some(&server), &["--text", SECRET]);
    assert!(clean && said.contains("1 erased entry is known\n"), "{said}");
    let (clean, said) = place.verify(Some(&server), &["--backups", backups]);
    assert!(!clean && said.contains("1 record; it has them until it is removed"), "{said}");
    let (clean, said) = place.verify(Some(&server), &["--backups", backups, "--json"]);
    let report = said.lines().find(|line| line.starts_with('{')).expect("an object");
    let report: serde_json::Value = serde_json::from_str(report).expect("JSON");
    assert!(!clean && report["entries"] == 1 && report["places"][0]["held"] == 0, "{report}");
    assert!(report["backups"][0]["isHeld"] == true && report["left"][0] == backups, "{report}");
    write(&server, "else").await;
    place.well(&["backup", "--to", backups, "--keep", "1"], &server);
    let (clean, said) = place.verify(Some(&server), &["--backups", backups]);
    assert!(clean, "{said}");
    // Whoever forgets --verify does not erase.
    let mut careless = place.command(&["erase", "--yes", "--store", "default", "--text", "else"]);
    careless.args(["--url", &server.url]);
    let (done, said) = run(careless);
    assert!(!done && said.contains("need --verify"), "{said}");
    drop(server);
    let (clean, said) = place.verify(None, &["--text", SECRET, "--backups", backups]);
    assert!(clean, "{said}");
    // Other files in the directory are searched too.
    std::fs::write(place.data().join("notes"), SECRET).expect("written");
    let (clean, said) = place.verify(None, &["--text", SECRET]);
    assert!(!clean && said.contains("other files") && said.contains("data/notes"), "{said}");
}

#[tokio::test]
async fn a_kill_in_the_middle_leaves_nothing_behind() {
    let place = Place::new("");
    for round in 0..3_u64 {
        let server = place.serve("0s");
        write(&server, "somebody").await;
        place.well(&ERASE, &server);
        tokio::time::sleep(Duration::from_millis(round * 70)).await;
        drop(server);
        let server = place.serve("0s");
        is_clean(&server).await;
        assert_eq!(files_with(&place.data(), SECRET), Vec::<String>::new(), "round {round}");
        let mut socket = Socket::connect(&server.url).await;
        socket.subscribe(&key("bob"), 0).await;
        let count = 49 * (round as usize + 1);
        assert_eq!(socket.next_joined_entries(count).await.len(), count);
        drop(server);
        let (clean, said) = place.verify(None, &["--text", SECRET]);
        assert!(clean, "{said}");
    }
    let mut rebuild = place.command(&["rebuild", "--data-dir"]);
    rebuild.arg(place.data());
    let (done, said) = run(rebuild);
    assert!(done, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_bucket_are_written_again_and_the_old_ones_go() {
    let Some(s3) = S3::start(free_port()).await else { return };
    let to = format!("s3://{BUCKET}/some");
    let mut place = Place::new(&format!("[archive]\nto = \"{to}\"\nship_every = \"100ms\"\n"));
    place.bucket = Some(s3.address);
    let server = place.serve("0s");
    write(&server, "somebody").await;
    place.well(
        &["backup", "--to", place.directory.path().join("b").to_str().expect("text")],
        &server,
    );
    let has = async |what: &str, is: bool| {
        let deadline = std::time::Instant::now() + Duration::from_secs(120);
        while s3.names().await.iter().any(|name| name.ends_with(what)) != is {
            assert!(std::time::Instant::now() < deadline, "{what}: {:?}", s3.names().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    has("/00000001.log.zst", true).await;
    place.well(&ERASE, &server);
    is_clean(&server).await;
    has("/00000001.log.zst", false).await;
    has("/00000001.2.log.zst", true).await;
    // Tails that the archive has by now are removed in the next round.
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    loop {
        let (clean, said) = place.verify(Some(&server), &["--backups", &to]);
        if clean {
            assert!(said.contains(": clean\n") && !said.contains("keeps what is"), "{said}");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{said}");
    }
    let versions = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    let put = http::request(s3.address, &format!("PUT /{BUCKET}?versioning"), "", versions).await;
    assert!(put.contains("200 "), "{put}");
    let (_, said) = place.verify(Some(&server), &["--backups", &to]);
    assert!(said.contains("keeps what is removed, by its own rules: versioning is on"), "{said}");
    let locked = "x-amz-bucket-object-lock-enabled: true\r\n";
    let put = http::request(s3.address, "PUT /locked", locked, "").await;
    assert!(put.contains("200 "), "{put}");
    // Whoever erases is told, with or without this.
    for (bucket, expected) in [(BUCKET, "versioning is on"), ("locked", "object lock is on")] {
        let to = format!("s3://{bucket}/other");
        let mut place = Place::new(&format!("[archive]\nto = \"{to}\"\nship_every = \"100ms\"\n"));
        place.bucket = Some(s3.address);
        let server = place.serve("1h");
        write(&server, "somebody").await;
        let deadline = std::time::Instant::now() + Duration::from_secs(120);
        loop {
            let said = place.well(&ERASE, &server);
            if said.contains(&format!("{to} keeps what is removed, by its own rules: {expected};"))
            {
                break;
            }
            assert!(said.contains("was not asked yet whether it keeps what is removed"), "{said}");
            assert!(std::time::Instant::now() < deadline, "{said}");
        }
        let (_, said) = place.verify(Some(&server), &["--backups", &to]);
        assert!(said.contains(&format!("bucket {to} keeps what is removed")), "{said}");
    }
}
