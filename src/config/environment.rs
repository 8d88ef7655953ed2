//! The `EVENTLOG_…` variables of the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::units::Levels;

/// The prefix of all our variables.
const PREFIX: &str = "EVENTLOG_";

/// Variables for the command line or the log, which are not settings.
const OTHERS: [&str; 7] = [
    "EVENTLOG_CONFIG",
    "EVENTLOG_URL",
    "EVENTLOG_LOG",
    "EVENTLOG_TOKEN",
    "EVENTLOG_CA",
    "EVENTLOG_CERT",
    "EVENTLOG_CERT_KEY",
];

/// The one that says what is logged, instead of the setting.
const LOG: &str = "EVENTLOG_LOG";

/// What is wrong with the value of [`LOG`]. Empty, it says nothing.
fn wrong_levels(value: &OsString) -> Option<EnvironmentError> {
    let text = value.to_string_lossy();
    let message = Some(text).filter(|text| !text.is_empty())?.parse::<Levels>().err()?;
    Some(EnvironmentError::Invalid { variable: LOG.to_owned(), message })
}

/// The variables that were not requested yet, and the results of the others.
#[derive(Debug)]
pub(crate) struct Environment {
    left: BTreeMap<String, OsString>,
    taken: Vec<(String, String)>,
    faults: Vec<EnvironmentError>,
}

/// A problem with the environment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvironmentError {
    /// The value is wrong.
    #[error("the environment variable {variable} is wrong: {message}")]
    Invalid {
        /// The variable.
        variable: String,
        /// What is wrong with it.
        message: String,
    },
    /// There is no setting with this name.
    #[error(
        "the environment variable {variable} is not a setting; config.example.toml lists them: `[limits] \
         stall_timeout` is EVENTLOG_LIMITS_STALL_TIMEOUT"
    )]
    Unknown {
        /// The variable.
        variable: String,
    },
}

impl Environment {
    /// Our variables among `variables`.
    pub(crate) fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut faults = Vec::new();
        let named = variables.into_iter().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            if name == LOG {
                faults.extend(wrong_levels(&value));
            }
            let ours = name.starts_with(PREFIX) && !OTHERS.contains(&name.as_str());
            ours.then_some((name, value))
        });
        let mut left: BTreeMap<_, _> = named.collect();
        let links: Vec<String> =
            left.keys().filter(|name| is_service_link(name, &left)).cloned().collect();
        links.iter().for_each(|link| drop(left.remove(link)));
        Self { left, taken: Vec::new(), faults }
    }

    /// The value of `variable`, which counts as known from now on.
    pub(super) fn take(&mut self, variable: &str) -> Option<String> {
        let Ok(text) = self.left.remove(variable)?.into_string() else {
            let message = "it is not UTF-8".to_owned();
            self.refuse(EnvironmentError::Invalid { variable: variable.to_owned(), message });
            return None;
        };
        self.taken.push((variable.to_owned(), text.clone()));
        Some(text)
    }

    /// Something is wrong with a variable.
    pub(super) fn refuse(&mut self, fault: EnvironmentError) {
        self.faults.push(fault);
    }

    /// The variables that were requested, and everything that is wrong. A variable that nobody requested is wrong:
    /// otherwise a misspelt setting would silently have no effect.
    pub(super) fn finish(self) -> (Vec<(String, String)>, Vec<EnvironmentError>) {
        let Self { left, taken, mut faults } = self;
        faults.extend(left.into_keys().map(|variable| EnvironmentError::Unknown { variable }));
        (taken, faults)
    }
}

/// Whether Kubernetes or Docker made this variable for a service named `eventlog` or `eventlog-…`; an error about it
/// would not help anybody who runs such a service. These variables are recognized by values that people do not write: a
/// port that is a URL, or a host next to the port. So `EVENTLOG_LISTEN_PORT=7420` is not such a variable but a mistake.
fn is_service_link(name: &str, all: &BTreeMap<String, OsString>) -> bool {
    let is_url = |port: &str| {
        let value = all.get(port).and_then(|value| value.to_str());
        value.is_some_and(|value| {
            ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
        })
    };
    if let Some(service) = name.strip_suffix("_SERVICE_HOST") {
        return all.contains_key(&format!("{service}_SERVICE_PORT"));
    }
    if let Some((service, _)) = name.split_once("_SERVICE_PORT") {
        return all.contains_key(&format!("{service}_SERVICE_HOST"));
    }
    // `…_PORT`, and `…_PORT_7420_TCP` followed by `_PROTO`, `_PORT` and `_ADDR`.
    let Some((service, rest)) = name.split_once("_PORT") else { return false };
    match rest.strip_prefix('_') {
        None => rest.is_empty() && is_url(name),
        Some(rest) => {
            rest.starts_with(|first: char| first.is_ascii_digit())
                && is_url(&format!("{service}_PORT"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(pairs.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn a_variable_nobody_asked_for_is_an_error() {
        let mut environment =
            environment(&[("EVENTLOG_LISTEN", "a"), ("EVENTLOG_LISSTEN", "b"), ("PATH", "c")]);
        assert_eq!(environment.take("EVENTLOG_LISTEN"), Some("a".to_owned()));
        assert_eq!(environment.take("EVENTLOG_DATA_DIR"), None);
        let unknown = EnvironmentError::Unknown { variable: "EVENTLOG_LISSTEN".to_owned() };
        let taken = ("EVENTLOG_LISTEN".to_owned(), "a".to_owned());
        assert_eq!(environment.finish(), (vec![taken], vec![unknown]));
    }

    #[test]
    fn variables_of_the_command_line_and_of_orchestrators_are_left_alone() {
        let environment = environment(&[
            ("EVENTLOG_LOG", "debug"),
            ("EVENTLOG_URL", "ws://x"),
            ("EVENTLOG_CONFIG", "x.toml"),
            ("EVENTLOG_SERVICE_HOST", "10.0.0.1"),
            ("EVENTLOG_SERVICE_PORT", "7420"),
            ("EVENTLOG_SERVICE_PORT_WS", "7420"),
            ("EVENTLOG_PORT", "tcp://10.0.0.1:7420"),
            ("EVENTLOG_PORT_7420_TCP", "tcp://10.0.0.1:7420"),
            ("EVENTLOG_PORT_7420_TCP_ADDR", "10.0.0.1"),
            ("EVENTLOG_PORT_7420_TCP_PORT", "7420"),
            ("EVENTLOG_PORT_7420_TCP_PROTO", "tcp"),
            ("EVENTLOG_SERVER_SERVICE_HOST", "10.0.0.1"),
            ("EVENTLOG_SERVER_SERVICE_PORT", "7420"),
        ]);
        assert_eq!(environment.finish(), (Vec::new(), Vec::new()));
    }

    #[test]
    fn what_only_looks_like_an_orchestrators_is_an_error() {
        for (name, value) in [
            ("EVENTLOG_LISTEN_PORT", "7420"),
            ("EVENTLOG_PORT", "7420"),
            ("EVENTLOG_SERVICE_PORT", "7420"),
            ("EVENTLOG_SERVICE_HOST", "0.0.0.0"),
            ("EVENTLOG_TCP_USER_TIMEOUT", "1s"),
            ("EVENTLOG_PORT_7420_TCP", "tcp://10.0.0.1:7420"),
        ] {
            let unknown = EnvironmentError::Unknown { variable: name.to_owned() };
            assert_eq!(environment(&[(name, value)]).finish().1, [unknown]);
        }
    }
}
