//! A bucket of an object store that speaks S3, as a place for the files of archives.
//!
//! Keeps: each call ends, whatever the other side does; an object is written only under an unused name; credentials are
//! never shown. Leaves out: which files (`ship`), and what is made from them (`fetch`).
//!
//! ```text
//! PREFIX/<generation>/directory                                what has to be known besides
//! PREFIX/<generation>/00000016.log.zst                         a file of the archive, as it is there
//! PREFIX/<generation>/tail-<first change>-<last change>.log.zst  what no file of the archive had yet
//! PREFIX/<generation>/restored-1                               a directory was made of them
//! ```

mod credentials;
mod fetch;
mod http;
mod kept;
mod ship;

use std::cell::OnceCell;
use std::io::{self, Read, Write};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::path::Path as ObjectPath;
use object_store::{
    Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::Instant;

pub(super) use fetch::{FetchError, Shipped, fetch, generations};
pub(super) use kept::Kept;
pub(super) use ship::{ShipError, Shipper, names_here};

use crate::config::BucketAddress;

/// What is larger is written in parts of this size, in bytes.
const PART_BYTES: usize = 8 << 20;

/// How long a request that writes or lists may take, with its retries.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the stream of an object may pause while it is read.
const SILENCE: Duration = Duration::from_secs(60);

/// When a process that ends gives up its requests, once that is known.
pub(super) type Until = watch::Receiver<Option<Instant>>;

/// A bucket, below a prefix. Each call blocks.
pub(super) struct Bucket {
    runtime: Runtime,
    store: AmazonS3,
    /// Sends a checksum with everything it writes, once the bucket has demanded that.
    checked: OnceCell<AmazonS3>,
    address: BucketAddress,
    /// When requests are given up, however long they may take otherwise. See [`Bucket::until`].
    until: Option<Until>,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// The name after the prefix: folder and file.
    pub(super) name: String,
    pub(super) bytes: u64,
    /// When it was written, according to the store: milliseconds since 1970.
    pub(super) modified_millis: u64,
}

/// A request to the bucket failed.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {cause}")]
pub(super) struct BucketError {
    address: BucketAddress,
    cause: String,
}

/// Waits until the moment that is sent here.
async fn passed(until: Option<Until>) {
    if let Some(mut until) = until
        && let Ok(end) = until.wait_for(Option::is_some).await.map(|end| *end)
        && let Some(end) = end
    {
        return tokio::time::sleep_until(end).await;
    }
    std::future::pending::<()>().await;
}

impl Bucket {
    /// The bucket at `address`, with the endpoint, region and credentials from the environment, from a file, or from
    /// this machine's role. Makes no request yet.
    pub(super) fn open(address: &BucketAddress) -> Result<Self, BucketError> {
        let failed = |cause: String| BucketError { address: address.clone(), cause };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(error.to_string()))?;
        let store = build(address, false).map_err(failed)?;
        let (address, checked) = (address.clone(), OnceCell::new());
        Ok(Self { runtime, store, checked, address, until: None })
    }

    /// Requests fail at the moment that is sent to `until`, also those that wait then.
    pub(super) fn until(self, until: Until) -> Self {
        Self { until: Some(until), ..self }
    }

    /// Whether a write failed with `error` because the bucket demands a checksum, which not every store knows. Each
    /// later write has one, so it may be tried again.
    pub(super) fn demands_checksums(&self, error: &BucketError) -> bool {
        let cause = error.cause.to_lowercase();
        if self.checked.get().is_some()
            || !["checksum", "content-md5"].iter().any(|it| cause.contains(it))
        {
            return false;
        }
        let with_checksums = build(&self.address, true);
        with_checksums.is_ok_and(|store| self.checked.set(store).is_ok())
    }

    /// What objects are written with.
    fn writer(&self) -> &AmazonS3 {
        self.checked.get().unwrap_or(&self.store)
    }

    fn path(&self, name: &str) -> ObjectPath {
        let prefix = self.address.prefix.trim_matches('/');
        if prefix.is_empty() { name.into() } else { format!("{prefix}/{name}").into() }
    }

    fn failed(&self, cause: impl Into<String>) -> BucketError {
        BucketError { address: self.address.clone(), cause: cause.into() }
    }

    /// Waits for `work`, for a limited time.
    fn run<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, BucketError> {
        let late = || self.failed(format!("it did not answer within {PATIENCE:?}"));
        let given_up = || self.failed("it did not answer before this process ended".to_owned());
        self.runtime.block_on(async {
            tokio::select! {
                timed = tokio::time::timeout(PATIENCE, work) => timed.map_err(|_| late()),
                () = passed(self.until.clone()) => Err(given_up()),
            }
        })
    }

    /// The objects in `folder`, or all of them.
    pub(super) fn list(&self, folder: Option<&str>) -> Result<Vec<Object>, BucketError> {
        let (whole, below) = (self.path(""), self.path(folder.unwrap_or("")));
        let prefix = whole.as_ref().trim_matches('/').to_owned();
        let listed = self.run(self.store.list(Some(&below)).try_collect::<Vec<_>>())?;
        let listed = listed.map_err(|error| self.failed(said(&error)))?;
        let object = |meta: object_store::ObjectMeta| {
            let name = meta.location.as_ref().strip_prefix(&*prefix)?.trim_start_matches('/');
            let modified = meta.last_modified.timestamp_millis();
            Some(Object {
                name: name.to_owned(),
                bytes: meta.size,
                modified_millis: u64::try_from(modified).unwrap_or(0),
            })
        };
        Ok(listed.into_iter().filter_map(object).collect())
    }

    /// Writes `from`, which has this many bytes, to the object `name`. Returns false if the object exists; it is not
    /// changed then.
    pub(super) fn put_new(
        &self,
        name: &str,
        from: &mut dyn Read,
        bytes: u64,
    ) -> Result<bool, BucketError> {
        let path = self.path(name);
        let part = self.part(from)?;
        let written = if part.len() < PART_BYTES {
            if part.len() as u64 != bytes {
                return Err(self.failed(format!("{name} ends after {} bytes", part.len())));
            }
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            self.run(self.writer().put_opts(&path, part.into(), options))?.map(drop)
        } else {
            match self.run(self.store.head(&path))? {
                Err(Error::NotFound { .. }) => {}
                Ok(_) => return Ok(false),
                Err(error) => return Err(self.failed(said(&error))),
            }
            self.put_parts(&path, part, from, bytes)?
        };
        match written {
            Ok(()) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.failed(said(&error))),
        }
    }

    /// Like [`Bucket::put_new`], with a short text.
    pub(super) fn put_text(&self, name: &str, text: &[u8]) -> Result<bool, BucketError> {
        let put = || self.put_new(name, &mut &*text, text.len() as u64);
        match put() {
            Err(error) if self.demands_checksums(&error) => put(),
            put => put,
        }
    }

    /// Writes an object in parts. Only one part is in memory at a time. The object is stored whole or not at all.
    fn put_parts(
        &self,
        path: &ObjectPath,
        first: Vec<u8>,
        from: &mut dyn Read,
        bytes: u64,
    ) -> Result<Result<(), Error>, BucketError> {
        let begun = self.run(self.writer().put_multipart(path))?;
        let mut upload = match begun {
            Ok(upload) => upload,
            Err(error) => return Ok(Err(error)),
        };
        let (mut part, mut written) = (first, 0);
        let done = loop {
            written += part.len() as u64;
            if let Err(error) = self.run(upload.put_part(part.into()))? {
                break Err(error);
            }
            part = self.part(from)?;
            if part.is_empty() {
                break Ok(());
            }
        };
        if done.is_ok() && written == bytes {
            return Ok(self.run(upload.complete())?.map(drop));
        }
        // If this fails, the store removes the parts.
        drop(self.run(upload.abort())?);
        done.map(|()| Err(self.failed(format!("{path} ends after {written} bytes"))))
            .map_or_else(|error| Ok(Err(error)), |short: Result<(), BucketError>| short.map(Ok))
    }

    fn part(&self, from: &mut dyn Read) -> Result<Vec<u8>, BucketError> {
        let mut part = Vec::new();
        let read = from.take(PART_BYTES as u64).read_to_end(&mut part);
        read.map_err(|error| self.failed(error.to_string()))?;
        Ok(part)
    }

    /// Reads an object.
    pub(super) fn get(&self, name: &str, to: &mut dyn Write) -> Result<(), BucketError> {
        let path = self.path(name);
        let got = self.run(self.store.get_opts(&path, GetOptions::default()))?;
        let mut parts = got.map_err(|error| self.failed(said(&error)))?.into_stream();
        loop {
            let next = async { tokio::time::timeout(SILENCE, parts.next()).await };
            let next = self.runtime.block_on(next);
            match next.map_err(|_| self.failed(format!("no data of {name} arrives")))? {
                None => return Ok(()),
                Some(part) => {
                    let part = part.map_err(|error| self.failed(said(&error)))?;
                    let written = to.write_all(&part);
                    written.map_err(|error: io::Error| self.failed(error.to_string()))?;
                }
            }
        }
    }

    /// Removes an object, if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<(), BucketError> {
        match self.run(self.store.delete(&self.path(name)))? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(said(&error))),
        }
    }
}

/// The store at `address`, as the environment describes it.
fn build(address: &BucketAddress, with_checksums: bool) -> Result<AmazonS3, String> {
    let retry = RetryConfig {
        max_retries: 3,
        retry_timeout: Duration::from_secs(15),
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&address.bucket)
        .with_retry(retry)
        // An endpoint without TLS was chosen on purpose.
        .with_allow_http(true)
        .with_http_connector(http::Connector);
    if with_checksums {
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    if let Some(found) = credentials::of_file()? {
        builder = builder.with_access_key_id(found.id).with_secret_access_key(found.secret);
        if let Some(token) = found.token {
            builder = builder.with_token(token);
        }
    }
    builder.build().map_err(|error| said(&error))
}

/// An error and its causes in one line.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    without_xml(&line).unwrap_or(line)
}

/// `text` with the code and the message of an answer in XML instead of that answer. `None` if it has none.
fn without_xml(text: &str) -> Option<String> {
    let (before, answer) = text.split_once("<Error>")?;
    let before = before.split_once("<?xml").map_or(before, |(before, _)| before);
    let (code, message) = (kept::between(answer, "Code")?, kept::between(answer, "Message")?);
    Some(format!("{before}{code}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_xml_is_said_in_words() {
        let text = "404 Not Found: <?xml version=\"1.0\"?> <Error> <Code>NoSuchBucket</Code> \
                    <Message>It does not exist</Message> <BucketName>b</BucketName> </Error>";
        let said = without_xml(text);
        assert_eq!(said.as_deref(), Some("404 Not Found: NoSuchBucket: It does not exist"));
        assert_eq!(without_xml("a plain <error>"), None);
    }
}
