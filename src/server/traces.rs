//! Sends traces of writes to a collector of OpenTelemetry: OTLP over HTTP, as JSON.
//!
//! Keeps: no writer ever waits for a collector: traces that it does not accept in time are dropped, and the log says
//! how many. Leaves out: what is measured (`actors::trace`).

mod spans;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ureq::Agent;

use crate::actors::trace::{Finished, Sink, send_to};
use crate::model::{Secret, without_user};

/// How many traces wait for their request. Further ones are dropped.
const WAITING_MAX: usize = 4_096;
/// The maximum number of traces in a request.
const REQUEST_MAX: usize = 512;
/// How long the first trace of a request waits for others.
const EVERY: Duration = Duration::from_secs(2);
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often the log says that requests fail.
const SAID_EVERY: Duration = Duration::from_secs(60 * 60);

/// The destination of traces.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// The address at which the collector accepts traces, such as `http://127.0.0.1:4318/v1/traces`.
    pub url: String,
    /// Names and values of additional headers of the requests, such as a token of the collector.
    pub headers: Vec<(String, Secret)>,
    /// The name of the server in the traces.
    pub service: String,
    /// The part of all writes that is traced, above 0 and at most 1.
    pub ratio: f64,
}

/// Traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// No write would be traced.
    #[error("the part of writes that is traced is above 0 and at most 1, and not {0}")]
    Ratio(f64),
    /// Another collector was already set.
    #[error("traces of this process go somewhere already")]
    Already,
    /// Its thread could not be started.
    #[error("no thread can be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Sends traces for as long as the process lives.
pub struct Traces {
    to: SyncSender<Message>,
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

enum Message {
    Trace(Box<Finished>),
    /// Requests that everything before it is sent now.
    Flush(SyncSender<()>),
}

impl Traces {
    /// Traces writes of all servers of this process from now on. It can be called once per process.
    pub fn start(options: TraceOptions) -> Result<Self, TraceError> {
        // This includes NaN.
        if !(options.ratio > 0.0 && options.ratio <= 1.0) {
            return Err(TraceError::Ratio(options.ratio));
        }
        #[expect(clippy::cast_sign_loss, reason = "the ratio is above 0")]
        let every = (1.0 / options.ratio).round() as u64;
        let (to, from) = sync_channel(WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let (sender, counted) = (to.clone(), Arc::clone(&dropped));
        let put = move |trace| {
            if sender.try_send(Message::Trace(Box::new(trace))).is_err() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        };
        let count = AtomicU64::new(0);
        if !send_to(Sink { every, put: Box::new(put), count }) {
            return Err(TraceError::Already);
        }
        let exporter = Exporter::new(options, dropped);
        std::thread::Builder::new().name("traces".to_owned()).spawn(move || exporter.run(&from))?;
        Ok(Self { to })
    }

    /// Sends all waiting traces, and waits for at most `patience`. Blocks.
    pub fn flush(&self, patience: Duration) {
        let (done, is_done) = sync_channel(1);
        if self.to.try_send(Message::Flush(done)).is_ok() {
            // Traces that are not sent by then are lost.
            let _ = is_done.recv_timeout(patience);
        }
    }
}

/// The state of the thread.
struct Exporter {
    agent: Agent,
    options: TraceOptions,
    /// Traces that did not fit, or that the collector did not accept.
    dropped: Arc<AtomicU64>,
}

impl Exporter {
    fn new(options: TraceOptions, dropped: Arc<AtomicU64>) -> Self {
        let mut config = Agent::config_builder().timeout_global(Some(TIMEOUT)).max_redirects(0);
        if options.url.starts_with("http://") {
            config = config.proxy(None);
        }
        Self { agent: config.build().into(), options, dropped }
    }

    fn run(&self, from: &Receiver<Message>) {
        let mut said: Option<Instant> = None;
        while let Ok(first) = from.recv() {
            let (traces, flush) = collect(first, from);
            if let Err(error) = self.send(&traces) {
                self.dropped.fetch_add(traces.len() as u64, Ordering::Relaxed);
                let now = now();
                if said.is_none_or(|said| now.duration_since(said) >= SAID_EVERY) {
                    said = Some(now);
                    let dropped = self.dropped.swap(0, Ordering::Relaxed);
                    // A query may be a secret as well.
                    let url = self.options.url.split('?').next().unwrap_or_default();
                    let url = without_user(url);
                    log::warn!(
                        "{url} does not take traces: {error}; {dropped} traces are lost so far"
                    );
                }
            }
            if let Some(flush) = flush {
                // The caller may be gone.
                let _ = flush.send(());
            }
        }
    }

    fn send(&self, traces: &[Finished]) -> Result<(), ureq::Error> {
        if traces.is_empty() {
            return Ok(());
        }
        let body = spans::request(&self.options.service, traces);
        let mut request = self.agent.post(self.options.url.as_str());
        for (name, value) in &self.options.headers {
            request = request.header(name.as_str(), value.expose());
        }
        request.header("content-type", "application/json").send(body.to_string())?;
        Ok(())
    }
}

/// `first` and the traces that follow, until a request is full, has waited long enough, or must be sent at once.
fn collect(first: Message, from: &Receiver<Message>) -> (Vec<Finished>, Option<SyncSender<()>>) {
    let until = now() + EVERY;
    let (mut traces, mut next) = (Vec::new(), Ok(first));
    loop {
        match next {
            Ok(Message::Trace(trace)) => traces.push(*trace),
            Ok(Message::Flush(done)) => return (traces, Some(done)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return (traces, None);
            }
        }
        if traces.len() >= REQUEST_MAX {
            return (traces, None);
        }
        next = from.recv_timeout(until.saturating_duration_since(now()));
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own waits for collectors")]
fn now() -> Instant {
    Instant::now()
}
