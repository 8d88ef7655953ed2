//! Traces of writes, configured by the standard environment variables of OpenTelemetry.

use std::env::VarError;
use std::time::Duration;

use eventlog_server::model::{Secret, without_user};
use eventlog_server::server::{TraceError, TraceOptions, Traces};

/// How long the end of the server waits for a collector.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// The part of the writes that is traced by default.
const RATIO: f64 = 0.01;

/// The environment contains wrong settings.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum WrongTraces {
    /// A variable.
    #[error("the environment variable {name} is wrong: {message}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The traces cannot be sent.
    #[error(transparent)]
    Start(#[from] TraceError),
}

/// Starts to trace writes, if a collector is configured.
pub(super) fn start() -> Result<Option<Traces>, WrongTraces> {
    let is_off = variable("OTEL_SDK_DISABLED")?.is_some_and(|off| off == "true")
        || variable("OTEL_TRACES_EXPORTER")?.is_some_and(|exporter| exporter == "none");
    let url = match variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")? {
        Some(url) => Some(url),
        None => variable("OTEL_EXPORTER_OTLP_ENDPOINT")?
            .map(|base| format!("{}/v1/traces", base.trim_end_matches('/'))),
    };
    let Some(url) = url.filter(|_| !is_off) else { return Ok(None) };
    let ratio = match variable("OTEL_TRACES_SAMPLER_ARG")? {
        None => RATIO,
        Some(text) => text.parse().map_err(|_| WrongTraces::Variable {
            name: "OTEL_TRACES_SAMPLER_ARG",
            message: format!("{text:?} is no number between 0 and 1"),
        })?,
    };
    let service = variable("OTEL_SERVICE_NAME")?.unwrap_or_else(|| "eventlog-server".to_owned());
    let headers = headers()?;
    let shown = without_user(url.split('?').next().unwrap_or_default());
    log::info!("traces of writes go to {shown}, one of {:.0}", 1.0 / ratio);
    Ok(Some(Traces::start(TraceOptions { url, headers, service, ratio })?))
}

/// A variable that is not empty.
fn variable(name: &'static str) -> Result<Option<String>, WrongTraces> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => {
            Err(WrongTraces::Variable { name, message: "it is no UTF-8".to_owned() })
        }
    }
}

/// `name=value`, separated by commas. Values may be secrets, and are not shown.
fn headers() -> Result<Vec<(String, Secret)>, WrongTraces> {
    const NAME: &str = "OTEL_EXPORTER_OTLP_HEADERS";
    let text = variable(NAME)?.unwrap_or_default();
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let header = |pair: &str| {
        let wrong = || WrongTraces::Variable {
            name: NAME,
            message: "it has to be name=value, with commas between several".to_owned(),
        };
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        // Values are URL-encoded, as the specification requires.
        let value = value.trim().replace("%20", " ");
        Ok((name.trim().to_owned(), Secret::new(value)))
    };
    pairs.map(header).collect()
}
