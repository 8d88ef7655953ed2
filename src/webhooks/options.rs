//! The options of a webhook, and the check that they can work.

use std::time::Duration;

use hyper::Uri;

use super::Secret;
use crate::model::without_user;
use crate::outgoing::parse_url;

const NAME_BYTES_MAX: usize = 64;

/// The options of a webhook.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// The webhook's positions are kept under this name: letters, digits, `-` and `_`, at most 64.
    pub name: String,
    /// Where entries are sent, as the body of a `POST`, with `http` or `https`.
    pub url: String,
    /// What requests are signed with, all of them.
    pub secrets: Vec<Secret>,
    /// Where it begins when it is first seen.
    pub from: Begin,
    /// Stores: names, in which a `*` stands for any text. Default: all.
    pub stores: Vec<String>,
    /// Events: tags, in which a `*` stands for any text. Default: all.
    pub events: Vec<String>,
    /// Most entries in one request. Default: 100.
    pub entries_max: usize,
    /// Most requests in progress, over all stores. Default: 8.
    pub requests_max: usize,
    /// How long a request may take, from connecting to the end of the answer. Default: 20 s.
    pub timeout: Duration,
    /// Certificates (X.509, DER) of authorities to trust for `https`, besides those that browsers trust. Default: none.
    pub trusted_certificates: Vec<Vec<u8>>,
}

/// Where a webhook begins when it is first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Begin {
    /// With the first entry of every store.
    Start,
    /// With what is committed from then on.
    Now,
}

/// Why the options of a webhook cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// Positions cannot be kept under its name.
    #[error(
        "{0:?} is not a name for a webhook: use letters, digits, - and _, at most {NAME_BYTES_MAX}"
    )]
    Name(String),
    /// Nobody can be reached there.
    #[error("webhook {webhook:?}: {url:?} is not a URL to send to: {reason}")]
    Url {
        /// The webhook's name.
        webhook: String,
        /// What was given, without its user.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A number or list that must not be zero or empty.
    #[error("webhook {webhook:?}: `{option}` {reason}")]
    Empty {
        /// The webhook's name.
        webhook: String,
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl WebhookOptions {
    /// All events of all stores.
    pub fn new(
        name: impl Into<String>,
        url: impl Into<String>,
        secrets: impl Into<Vec<Secret>>,
        from: Begin,
    ) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            secrets: secrets.into(),
            from,
            stores: vec!["*".to_owned()],
            events: vec!["*".to_owned()],
            entries_max: 100,
            requests_max: 8,
            timeout: Duration::from_secs(20),
            trusted_certificates: Vec::new(),
        }
    }

    /// The URL, if all options can work.
    pub(super) fn check(&self) -> Result<Uri, WebhookError> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let length = self.name.len();
        if length == 0 || length > NAME_BYTES_MAX || !self.name.bytes().all(letter) {
            return Err(WebhookError::Name(self.name.clone()));
        }
        let empty = |option, reason| {
            Err(WebhookError::Empty { webhook: self.name.clone(), option, reason })
        };
        for (option, list) in [("stores", &self.stores), ("events", &self.events)] {
            if list.is_empty() || list.iter().any(String::is_empty) {
                return empty(option, "names nothing; \"*\" stands for all");
            }
        }
        if self.secrets.is_empty() {
            return empty("secrets", "is empty: nothing would be signed");
        }
        for (option, number) in
            [("entries_max", self.entries_max), ("requests_max", self.requests_max)]
        {
            if number == 0 {
                return empty(option, "is 0: nothing would be sent");
            }
        }
        if self.timeout.is_zero() {
            return empty("timeout", "is 0: nothing would arrive in time");
        }
        self.url()
    }

    fn url(&self) -> Result<Uri, WebhookError> {
        let wrong = |reason| {
            let (webhook, url) = (self.name.clone(), without_user(&self.url));
            WebhookError::Url { webhook, url, reason }
        };
        parse_url(&self.url).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut WebhookOptions);

    fn options() -> WebhookOptions {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().expect("a secret");
        WebhookOptions::new("mailer", "https://mailer.example:8443/in?a=b", [secret], Begin::Now)
    }

    #[test]
    fn what_cannot_work_is_told_with_the_webhooks_name() {
        assert_eq!(options().check().map(|url| url.to_string()), Ok(options().url));
        let wrong: [(&str, Change); 9] = [
            ("\"a b\"", |it| it.name = "a b".to_owned()),
            ("\"\"", |it| it.name = String::new()),
            ("http://", |it| it.url = "ftp://mailer.example".to_owned()),
            ("cannot be read", |it| it.url = "https://".to_owned()),
            ("a user", |it| it.url = "https://a:b@mailer.example".to_owned()),
            ("`stores`", |it| it.stores = Vec::new()),
            ("`events`", |it| it.events = vec![String::new()]),
            ("`secrets`", |it| it.secrets = Vec::new()),
            ("`requests_max`", |it| it.requests_max = 0),
        ];
        for (says, change) in wrong {
            let mut options = options();
            change(&mut options);
            let error = options.check().expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
