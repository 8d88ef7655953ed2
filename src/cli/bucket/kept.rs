//! Whether a bucket keeps what is removed from it: versioning, and object lock.
//!
//! Keeps: what cannot be asked is reported as unknown, and never as a bucket that keeps nothing. Leaves out: what keeping it means for
//! erased entries (`cli::erase`).

use std::fmt;
use std::time::Duration;

use futures_util::StreamExt;
use object_store::ClientOptions;
use object_store::client::{HttpConnector as _, HttpRequest, HttpRequestBody};
use object_store::path::Path as ObjectPath;
use object_store::signer::{Method, SignedUrlOptions, Signer};
use object_store::{Error, ObjectStore, ObjectStoreExt};

use super::{Bucket, BucketError, http, said};

/// A signature is valid for this long.
const SIGNED_FOR: Duration = Duration::from_secs(60);
/// About so much of an answer is read, in bytes: it is a few lines of XML.
const ANSWER_BYTES_MAX: usize = 1 << 16;

/// The status and the text of an answer, or why there is none.
type Answer = Result<(u16, String), String>;

/// What happens to an object that is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Kept {
    /// It is gone.
    No,
    /// The bucket keeps it, for this reason.
    Yes(String),
    /// The bucket does not say, for this reason.
    Unknown(String),
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("does not keep what is removed"),
            Self::Yes(how) => write!(f, "keeps what is removed, by its own rules: {how}"),
            Self::Unknown(why) => {
                write!(
                    f,
                    "does not say whether it keeps what is removed (versioning, object lock): {why}"
                )
            }
        }
    }
}

impl Bucket {
    /// Asks the bucket for its versioning and its object lock. If it does not say, the newest version of an object shows what it can.
    pub(in crate::cli) fn keeps_what_is_removed(&self) -> Result<Kept, BucketError> {
        let asked = |what| self.configuration(what).map_err(|error| error.to_string());
        match judge(&asked("versioning"), &asked("object-lock")) {
            Kept::Unknown(_) if self.has_versions()? => {
                Ok(Kept::Yes("objects have versions".to_owned()))
            }
            kept => Ok(kept),
        }
    }

    /// The status and the text of the bucket's answer about this part of its configuration.
    fn configuration(&self, what: &str) -> Result<(u16, String), BucketError> {
        let options = SignedUrlOptions::default().with_query([(what, "")]);
        let whole = ObjectPath::default();
        let url = self.store.signed_url_opts(Method::GET, &whole, SIGNED_FOR, &options);
        let url = self.run(url)?.map_err(|error| self.failed(said(&error)))?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        let uri = url.as_str().parse();
        *request.uri_mut() = uri.map_err(|_| self.failed("its address is malformed"))?;
        let answer = async {
            let client = http::Connector.connect(&ClientOptions::default())?;
            let answered = client.execute(request).await.map_err(generic)?;
            let status = answered.status().as_u16();
            let (mut parts, mut text) = (answered.into_body().bytes_stream(), Vec::new());
            while let Some(part) = parts.next().await
                && text.len() < ANSWER_BYTES_MAX
            {
                text.extend_from_slice(&part.map_err(generic)?);
            }
            Ok((status, String::from_utf8_lossy(&text).into_owned()))
        };
        self.run(answer)?.map_err(|error| self.failed(said(&error)))
    }

    /// Whether an object has a version. Once suspended, the bucket calls new ones `null`.
    fn has_versions(&self) -> Result<bool, BucketError> {
        let below = self.path("");
        let found = async {
            let Some(first) = self.store.list(Some(&below)).next().await else { return Ok(None) };
            self.store.head(&first?.location).await.map(Some)
        };
        match self.run(found)? {
            Ok(meta) => Ok(meta.and_then(|meta| meta.version).is_some_and(|it| it != "null")),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failed(said(&error))),
        }
    }
}

fn generic(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic { store: "S3", source: Box::new(error) }
}

/// What the answers about versioning and object lock mean.
fn judge(versioning: &Answer, lock: &Answer) -> Kept {
    if let Ok((200, lock)) = lock
        && between(lock, "ObjectLockEnabled") == Some("Enabled")
    {
        let mode = between(lock, "Mode").map_or(String::new(), |mode| format!(", {mode}"));
        let length = ["Days", "Years"].iter().find_map(|unit| {
            between(lock, unit).map(|count| format!(" for {count} {}", unit.to_lowercase()))
        });
        return Kept::Yes(format!("object lock is on{mode}{}", length.unwrap_or_default()));
    }
    let versioning = match versioning {
        Ok((200, versioning)) => versioning,
        Ok((status, _)) => return Kept::Unknown(format!("it answered {status}")),
        Err(why) => return Kept::Unknown(why.clone()),
    };
    match between(versioning, "Status") {
        Some("Enabled") => Kept::Yes("versioning is on".to_owned()),
        Some(_) => Kept::Yes("versioning was on, and what it kept then stays".to_owned()),
        None => Kept::No,
    }
}

/// The text of the first element with this name.
pub(super) fn between<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once('<').map(|(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_unknown_and_what_is_said_is_named() {
        let kept = |versioning: (u16, &str), lock: (u16, &str)| {
            let answer = |(status, text): (u16, &str)| Ok((status, text.to_owned()));
            judge(&answer(versioning), &answer(lock))
        };
        let yes = |how: &str| Kept::Yes(how.to_owned());
        let no_lock = (404, "<Error><Code>ObjectLockConfigurationNotFoundError</Code></Error>");
        let never = "<VersioningConfiguration xmlns=\"x\"/>";
        assert_eq!(kept((200, never), no_lock), Kept::No);
        let status = |status: &str| {
            format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>")
        };
        assert_eq!(kept((200, &status("Enabled")), no_lock), yes("versioning is on"));
        let suspended = kept((200, &status("Suspended")), no_lock);
        assert_eq!(suspended, yes("versioning was on, and what it kept then stays"));
        let lock = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>";
        let ruled = format!(
            "{lock}<Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>30</Days></DefaultRetention></Rule>"
        );
        assert_eq!(
            kept((200, &status("Enabled")), (200, &ruled)),
            yes("object lock is on, COMPLIANCE for 30 days")
        );
        assert_eq!(kept((403, ""), (200, lock)), yes("object lock is on"));
        for refused in [403, 501] {
            let answered = kept((refused, ""), (refused, ""));
            assert_eq!(answered, Kept::Unknown(format!("it answered {refused}")));
        }
    }
}
