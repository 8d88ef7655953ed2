//! What a server asks of its bucket: names, checksums, and who it says that it is.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Place, TOKEN, has_all, restored};
use crate::binary::process::{command, data};
use crate::support::between::{Asked, Between, Instead};
use crate::support::random::Random;
use crate::support::s3::{S3, at, free_port};
use crate::support::server::comes_to;
use crate::support::socket::Socket;
use crate::support::{batch, entry, http, key};

const PATIENCE: Duration = Duration::from_secs(180);

/// Forwards everything.
async fn watched(bucket: SocketAddr) -> Between {
    Between::start(bucket, |_| None).await
}

/// Waits until this is true.
async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Place {
    /// Brings everything that is written into the archive.
    async fn archive(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = http::post(self.address(), "/admin/backup", TOKEN).await;
            if answer.starts_with("HTTP/1.1 200") {
                return;
            }
            assert!(Instant::now() < deadline, "{answer}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Writes so many entries of nearly a mebibyte, which no compression makes smaller.
    async fn write_large(&self, seed: u64, count: usize) {
        let mut socket = Socket::connect(self.url()).await;
        let mut random = Random::new(seed);
        for n in 0..count {
            let bytes: Vec<u8> = (0..900 << 10).map(|_| random.below(256) as u8).collect();
            socket.write(&key("alice"), n as u64, &batch(&[entry("Note", "large", &bytes)])).await;
            socket.next_ack().await;
        }
    }

    /// From the next start on the archive keeps no more than it has to.
    fn keep_little(&self) {
        let path = self.path("config.toml");
        let config = std::fs::read_to_string(&path).expect("a file");
        std::fs::write(path, config + "bytes_max = \"1B\"\n").expect("written");
    }
}

/// The objects that were written or removed. `removed` says which of the two.
fn changed(between: &Between, removed: bool) -> BTreeSet<String> {
    let asked = between.asked();
    let these = asked.iter().filter(|one| one.removes() == removed);
    these.flat_map(Asked::changes).collect()
}

fn generation(name: &str) -> &str {
    name.strip_prefix("all/of-it/").and_then(|name| name.split('/').next()).expect("a generation")
}

/// Both archives number their files from 1, so whoever removed a file of the other one would find it.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_prefix_prune_their_own_files_alone() {
    let Some(s3) = S3::start(free_port()).await else { return };
    let ways = [watched(s3.address).await, watched(s3.address).await];
    let mut places = ways.each_ref().map(|way| Place::new(way.address));
    for round in 0..3 {
        for place in &places {
            place.write(round * 10, round * 10 + 10).await;
        }
        tokio::join!(places[0].archive(), places[1].archive());
    }
    let shipped = |way: &Between| {
        changed(way, false).iter().filter(|name| name.ends_with("/00000003.log.zst")).count() == 1
    };
    until("both ship", || ways.iter().all(shipped)).await;
    for place in &mut places {
        assert_eq!(place.server.take().expect("it runs").end(Signal::TERM), Some(0));
        place.keep_little();
        place.start();
        place.write(30, 40).await;
    }
    tokio::join!(places[0].archive(), places[1].archive());
    let pruned = |way: &Between| {
        let removed = changed(way, true);
        (1..=3).all(|n| removed.iter().any(|name| name.ends_with(&format!("/{n:08}.log.zst"))))
    };
    until("both prune", || ways.iter().all(pruned)).await;
    let mut all = Vec::new();
    for (place, way) in places.iter().zip(&ways) {
        let (written, removed) = (changed(way, false), changed(way, true));
        let own: BTreeSet<&str> =
            written.iter().chain(&removed).map(|name| generation(name)).collect();
        assert_eq!(own.len(), 1, "{own:?}: {removed:?}");
        let own = (*own.first().expect("one")).to_owned();
        has_all(s3.address, place.directory.path(), 40, &["--generation", &own]);
        all.push(own);
    }
    assert_ne!(all[0], all[1]);
    let names = s3.names().await;
    for own in &all {
        let has = |end: &str| names.iter().any(|name| name.contains(own) && name.ends_with(end));
        assert!(has(".base.zst") && !has("/00000001.log.zst"), "{names:?}");
    }
}

/// What S3 answers if a bucket has a default retention and a write has no checksum.
fn wants_checksums(asked: &Asked) -> Instead {
    let is_write = asked.method == "PUT" && !asked.body.is_empty();
    let has = |name: &&String| name.starts_with("x-amz-checksum-") || *name == "content-md5";
    (is_write && asked.headers.keys().find(has).is_none()).then(|| {
        let text = "<Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- HTTP header is required for \
                    Put Object requests with Object Lock parameters</Message></Error>";
        ("400 Bad Request", text.to_owned())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_a_default_retention_takes_what_is_shipped() {
    let Some(s3) = S3::start(free_port()).await else { return };
    let way = Between::start(s3.address, wants_checksums).await;
    let mut place = Place::new(way.address);
    place.write(0, 20).await;
    has_all(s3.address, place.directory.path(), 20, &[]);
    // A file above 8 MiB goes there in parts. On a slow machine it may be archived before it is that large.
    let in_parts = || way.asked().iter().any(|one| one.path.contains("uploadId="));
    let mut large = 0;
    while !in_parts() {
        assert!(large < 10, "no file in parts");
        large += 1;
        place.write_large(large, 12).await;
        place.archive().await;
        let file = |name: &&String| name.ends_with(".log.zst") && !name.contains("/tail-");
        let files = || changed(&way, false).iter().filter(file).count() as u64;
        until("the file comes there", || in_parts() || files() >= large).await;
        comes_to(place.address(), "eventlog_storage_shipping_fails", 0).await;
    }
    assert_eq!(place.server.take().expect("it runs").end(Signal::TERM), Some(0));
    let keys = restored(s3.address, &place.path("back"), &[]).expect("it is whole");
    assert_eq!(keys.len(), 20 + 12 * large as usize);
}

/// Not every store knows them.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_demands_no_checksums_gets_none() {
    let Some(s3) = S3::start(free_port()).await else { return };
    let way = watched(s3.address).await;
    let place = Place::new(way.address);
    place.write(0, 5).await;
    has_all(s3.address, place.directory.path(), 5, &[]);
    let asked = way.asked();
    let has = |one: &Asked| one.headers.contains_key("x-amz-checksum-sha256");
    assert!(!asked.iter().filter(|one| one.method == "PUT").any(has));
}

const ROLE: &str = "/latest/meta-data/iam/security-credentials/";

/// Credentials of a role that expire at once, so that each request asks for others.
fn credentials(number: usize) -> String {
    let number = number + 1;
    format!(
        r#"{{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"ROLE{number}","SecretAccessKey":"CANARY-role","Token":"CANARY-token",
        "Expiration":"2020-01-01T00:00:00Z"}}"#
    )
}

/// Checks that the bucket got the credentials of the role, always new ones, and the log none of it.
async fn ships_as_a_role(s3: &S3, way: &Between, mut place: Place) {
    place.write(0, 20).await;
    has_all(s3.address, place.directory.path(), 20, &[]);
    let by = |asked: &Asked| asked.headers.get("authorization").cloned().unwrap_or_default();
    let asked = way.asked();
    let signed: Vec<_> = asked.iter().filter(|one| one.method == "PUT").collect();
    assert!(signed.len() > 1 && signed.iter().all(|one| by(one).contains("Credential=ROLE")));
    let token = |one: &&Asked| {
        one.headers.get("x-amz-security-token").map(String::as_str) == Some("CANARY-token")
    };
    assert!(signed.iter().all(token), "{signed:?}");
    let who: BTreeSet<_> = signed.iter().map(|one| by(one)).collect();
    assert!(who.len() > 1, "they were not asked for again: {who:?}");
    place.server.take().expect("it runs").end(Signal::TERM);
    assert!(!place.log().contains("CANARY"), "a secret is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_the_machine_may_write_to_the_bucket() {
    let Some(s3) = S3::start(free_port()).await else { return };
    let way = watched(s3.address).await;
    let given = Arc::new(AtomicUsize::new(0));
    // IMDSv2: without a session's token it says nothing.
    let metadata = Between::start(s3.address, move |asked| {
        let token = asked.headers.get("x-aws-ec2-metadata-token").map(String::as_str);
        Some(match (&*asked.method, &*asked.path) {
            ("PUT", "/latest/api/token") => ("200 OK", "SESSION".to_owned()),
            _ if token != Some("SESSION") => ("401 Unauthorized", String::new()),
            ("GET", ROLE) => ("200 OK", "shipper".to_owned()),
            ("GET", path) if path == format!("{ROLE}shipper") => {
                ("200 OK", credentials(given.fetch_add(1, Ordering::Relaxed)))
            }
            _ => ("404 Not Found", String::new()),
        })
    })
    .await;
    let address = format!("http://{}", metadata.address);
    let place = Place::with(way.address, vec![("AWS_METADATA_ENDPOINT", address)]);
    ships_as_a_role(&s3, &way, place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_a_pod_may_write_to_the_bucket() {
    let Some(s3) = S3::start(free_port()).await else { return };
    let way = watched(s3.address).await;
    let given = Arc::new(AtomicUsize::new(0));
    let agent = Between::start(s3.address, move |asked| {
        let is_ours = asked.headers.get("authorization").map(String::as_str) == Some("CANARY-pod");
        Some(match &*asked.path {
            "/v1/credentials" if is_ours => {
                ("200 OK", credentials(given.fetch_add(1, Ordering::Relaxed)))
            }
            _ => ("401 Unauthorized", String::new()),
        })
    })
    .await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "CANARY-pod").expect("written");
    let environment = vec![
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{}/v1/credentials", agent.address)),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.path().display().to_string()),
    ];
    ships_as_a_role(&s3, &way, Place::with(way.address, environment)).await;
}

/// With a token of Kubernetes or of a CI: the security token service gives the credentials.
#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_may_write_to_the_bucket() {
    let Some(s3) = S3::start(free_port()).await else { return };
    let way = watched(s3.address).await;
    let given = Arc::new(AtomicUsize::new(0));
    let service = Between::start(s3.address, move |asked| {
        let asks = |what: &str| asked.path.contains(what);
        let is_ours = asks("Action=AssumeRoleWithWebIdentity")
            && asks("RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fshipper")
            && asks("WebIdentityToken=CANARY-web");
        let number = given.fetch_add(1, Ordering::Relaxed) + 1;
        Some(if is_ours {
            let text = format!(
                "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
                 <AccessKeyId>ROLE{number}</AccessKeyId><SecretAccessKey>CANARY-role</SecretAccessKey>\
                 <SessionToken>CANARY-token</SessionToken><Expiration>2020-01-01T00:00:00Z</Expiration>\
                 </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
            );
            ("200 OK", text)
        } else {
            ("403 Forbidden", String::new())
        })
    })
    .await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "CANARY-web").expect("written");
    let environment = vec![
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/shipper".to_owned()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.path().display().to_string()),
        ("AWS_ENDPOINT_URL_STS", format!("http://{}", service.address)),
    ];
    ships_as_a_role(&s3, &way, Place::with(way.address, environment)).await;
}

/// The answer of the bucket was printed as it came, in XML.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_does_not_exist_is_named_in_words() {
    let Some(s3) = S3::start(free_port()).await else { return };
    let target = tempfile::tempdir().expect("a directory");
    let to = target.path().join("to");
    let mut restore = command(&["restore", "--from", "s3://nowhere/all", "--data-dir", data(&to)]);
    at(&mut restore, s3.address);
    let ended = restore.output().expect("it runs");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success());
    let is_said = said.contains("NoSuchBucket: The specified bucket does not exist");
    assert!(is_said && !said.contains('<'), "{said}");
}
