//! What asking the application needs, and the check that it can work.

use std::net::IpAddr;
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderName;

use super::Secret;
use crate::model::without_user;
use crate::outgoing::parse_url;

/// How the application is asked.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Where: https, or http on this machine.
    pub url: String,
    /// What questions are signed with, all of them.
    pub secrets: Vec<Secret>,
    /// The headers of the handshake that are passed on. By default none.
    pub headers: Vec<String>,
    /// A question without an answer after this long is refused. By default 5 s.
    pub timeout: Duration,
    /// Most questions in progress at a time. By default 32.
    pub requests_max: usize,
    /// Whether `url` may be http for other machines too. Then whoever is on the network path can decide who may do
    /// what. By default not.
    pub allow_http: bool,
    /// Certificates (X.509, DER) of authorities to trust for https, in addition to those that browsers trust. By
    /// default none.
    pub trusted_certificates: Vec<Vec<u8>>,
}

/// The options are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// This URL cannot be used.
    #[error("`url` cannot be {url:?}: {reason}")]
    Url {
        /// The URL in the options, without its user.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A header name that is not valid.
    #[error("`headers`: {0:?} is not the name of a header")]
    Header(String),
    /// A number or list that must not be zero or empty.
    #[error("`{option}` {reason}")]
    Empty {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The thread that asks cannot be started.
    #[error("the thread that asks cannot be started: {0}")]
    Thread(String),
}

impl HttpOptions {
    /// The default options.
    pub fn new(url: impl Into<String>, secrets: impl Into<Vec<Secret>>) -> Self {
        Self {
            url: url.into(),
            secrets: secrets.into(),
            headers: Vec::new(),
            timeout: Duration::from_secs(5),
            requests_max: 32,
            allow_http: false,
            trusted_certificates: Vec::new(),
        }
    }

    /// The URL, if all options can work.
    pub(super) fn check(&self) -> Result<Uri, HttpError> {
        let empty = |option, reason| Err(HttpError::Empty { option, reason });
        if self.secrets.is_empty() {
            return empty(
                "secret",
                "is needed to sign questions; set it, or EVENTLOG_AUTH_HTTP_SECRET, or `secret_file`",
            );
        }
        if self.requests_max == 0 {
            return empty("requests_max", "is 0: no question would be asked");
        }
        if self.timeout.is_zero() {
            return empty("timeout", "is 0: no answer would come in time");
        }
        if let Some(wrong) = self.headers.iter().find(|name| name.parse::<HeaderName>().is_err()) {
            return Err(HttpError::Header(wrong.clone()));
        }
        let wrong = |reason| HttpError::Url { url: without_user(&self.url), reason };
        let url = parse_url(&self.url).map_err(wrong)?;
        if url.scheme_str() == Some("http") && !self.allow_http && !is_here(&url) {
            return Err(wrong(
                "anyone on the network path could decide who may do what; write https://, or allow_http = \
                 true",
            ));
        }
        Ok(url)
    }
}

/// Whether it is on this machine.
fn is_here(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host == "localhost" || address.is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> HttpOptions {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().expect("a secret");
        HttpOptions { headers: vec!["Cookie".to_owned()], ..HttpOptions::new(url, [secret]) }
    }

    #[test]
    fn the_application_is_asked_over_https_or_on_this_machine() {
        for url in [
            "https://app.example/a?b=c",
            "http://127.0.0.1:1",
            "http://[::1]/",
            "http://localhost:3000/a",
        ] {
            assert_eq!(options(url).check().map(drop), Ok(()), "{url}");
        }
        for url in ["http://app.example/", "http://127.0.0.1.app.example/", "http://10.0.0.1/"] {
            assert!(options(url).check().is_err(), "{url}");
            let allowed = HttpOptions { allow_http: true, ..options(url) };
            assert_eq!(allowed.check().map(drop), Ok(()), "{url}");
        }
        for url in ["", "app.example", "ftp://app.example", "https://u:p@app.example", "https://"] {
            assert!(HttpOptions { allow_http: true, ..options(url) }.check().is_err(), "{url}");
        }
    }

    #[test]
    fn what_cannot_work_is_told() {
        type Change = fn(&mut HttpOptions);
        let wrong: [(&str, Change); 4] = [
            ("`secret`", |it| it.secrets.clear()),
            ("`requests_max`", |it| it.requests_max = 0),
            ("`timeout`", |it| it.timeout = Duration::ZERO),
            ("\"a b\"", |it| it.headers = vec!["a b".to_owned()]),
        ];
        for (says, change) in wrong {
            let mut options = options("https://app.example");
            change(&mut options);
            let error = options.check().expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
