//! Asks the application, and remembers its answers.
//!
//! Keeps: the same question is in progress only once, however many wait for it; a question without an answer in time is
//! refused, and the time in the queue counts. A thread of its own asks, so that no session has to run for another one's
//! answer. Whoever is given an answer gets one that is valid at that moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use hyper::{StatusCode, Uri};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

use super::answer::Answer;
use super::cache::Cache;
use super::options::{HttpError, HttpOptions};
use super::question::{Question, QuestionId};
use crate::model::seldom::Seldom;
use crate::outgoing::{Post, Signing};
use crate::services::Figure;

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;

/// How much memory remembered answers may take. Refusals are kept separately: strangers could cause any number of them.
const ALLOWED_BYTES_MAX: usize = 32 << 20;
const REFUSED_BYTES_MAX: usize = 4 << 20;

/// Most questions that wait for their turn.
const WAITING_MAX: usize = 10_000;

/// How often somebody asks who comes too late for each answer.
const LATE_MAX: usize = 4;

/// Asks from a thread of its own, which ends when this is dropped.
pub(super) struct Asking {
    inner: Arc<Inner>,
    runtime: Handle,
    _stop: oneshot::Sender<()>,
}

struct Inner {
    post: Post,
    /// The address without its secret parts.
    shown: String,
    passed: Vec<Box<str>>,
    timeout: Duration,
    permits: Semaphore,
    state: Mutex<State>,
    failures: Seldom,
    asked_count: AtomicU64,
    failed_count: AtomicU64,
}

struct State {
    allowed: Cache,
    refused: Cache,
    under_way: HashMap<QuestionId, Waiting>,
}

/// `None` means that there is no answer.
type Waiting = Shared<BoxFuture<'static, Option<Arc<Answer>>>>;

enum Found {
    Answer(Arc<Answer>),
    Waiting(Waiting),
}

/// Removes a question from the list when there is nothing left to wait for, for whatever reason.
struct UnderWay(Arc<Inner>, QuestionId);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.state.lock().under_way.remove(&self.1);
    }
}

impl Asking {
    pub(super) fn start(
        url: Uri,
        passed: Vec<Box<str>>,
        options: HttpOptions,
    ) -> Result<Self, HttpError> {
        let failed = |error: std::io::Error| HttpError::Thread(error.to_string());
        let runtime = Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("auth-http".to_owned());
        // Ends when the sender is dropped.
        thread.spawn(move || runtime.block_on(stopped).is_ok()).map_err(failed)?;
        let host = url.authority().map_or("", |authority| authority.as_str());
        let inner = Inner {
            shown: format!("{}://{host}{}", url.scheme_str().unwrap_or_default(), url.path()),
            passed,
            timeout: options.timeout,
            permits: Semaphore::new(options.requests_max),
            state: Mutex::new(State {
                allowed: Cache::new(ALLOWED_BYTES_MAX),
                refused: Cache::new(REFUSED_BYTES_MAX),
                under_way: HashMap::new(),
            }),
            failures: Seldom::every(Duration::from_secs(1)),
            asked_count: AtomicU64::new(0),
            failed_count: AtomicU64::new(0),
            post: Post::new(url, options.secrets, &options.trusted_certificates),
        };
        Ok(Self { inner: Arc::new(inner), runtime: handle, _stop: stop })
    }

    /// The headers that are passed on, in lower case.
    pub(super) fn passed(&self) -> &[Box<str>] {
        &self.inner.passed
    }

    pub(super) fn signing(&self) -> &Signing {
        self.inner.post.signing()
    }

    /// The application's answer, new or remembered; `None` if there is none. It is valid when this returns, so it is
    /// [`known`](Self::known) for a moment: whoever waited for it may be polled long after it came, and then it is asked
    /// for again.
    pub(super) async fn ask(&self, question: &Question) -> Option<Arc<Answer>> {
        for _ in 0..LATE_MAX {
            match self.find(question)? {
                Found::Answer(answer) => return Some(answer),
                Found::Waiting(waiting) => waiting.await?,
            };
        }
        self.inner.failed("its answers end before they are used");
        None
    }

    /// The answer, or what to wait for.
    fn find(&self, question: &Question) -> Option<Found> {
        let (id, mut state) = (question.id, self.inner.state.lock());
        if let Some(answer) = state.get(&id) {
            return Some(Found::Answer(answer));
        }
        if let Some(waiting) = state.under_way.get(&id) {
            return Some(Found::Waiting(waiting.clone()));
        }
        if state.under_way.len() >= WAITING_MAX {
            self.inner.failed("too many questions wait for it");
            return None;
        }
        let under_way = UnderWay(self.inner.clone(), id);
        let asked = self.runtime.spawn(self.inner.clone().ask(question.clone(), under_way));
        // It is gone if it panicked, or this is dropped.
        let waiting = asked.map(|answer| answer.ok().flatten()).boxed().shared();
        state.under_way.insert(id, waiting.clone());
        Some(Found::Waiting(waiting))
    }

    /// How often the application was asked, and how often without success.
    pub(super) fn figures(&self) -> [Figure; 2] {
        let value = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let asked = ("callback_asked", "Questions to the application", &self.inner.asked_count);
        let failed =
            ("callback_failed", "Questions without a good answer", &self.inner.failed_count);
        [asked, failed].map(|(name, help, count)| Figure { name, help, value: value(count) })
    }

    /// What the application has answered, and until when that counts, or counted until a moment ago.
    pub(super) fn known(&self, question: &Question) -> Option<(Arc<Answer>, Instant)> {
        let (state, now) = (self.inner.state.lock(), now());
        let known = state.allowed.known(&question.id, now);
        known.or_else(|| state.refused.known(&question.id, now))
    }
}

impl State {
    fn get(&self, id: &QuestionId) -> Option<Arc<Answer>> {
        let now = now();
        self.allowed.get(id, now).or_else(|| self.refused.get(id, now))
    }

    fn insert(&mut self, id: QuestionId, answer: &Arc<Answer>) {
        let (into, other) = if answer.allows() {
            (&mut self.allowed, &mut self.refused)
        } else {
            (&mut self.refused, &mut self.allowed)
        };
        into.insert(id, answer.clone(), now());
        other.remove(&id);
    }
}

impl Inner {
    async fn ask(self: Arc<Self>, question: Question, under_way: UnderWay) -> Option<Arc<Answer>> {
        self.asked_count.fetch_add(1, Ordering::Relaxed);
        let asked = tokio::time::timeout(self.timeout, self.exchange(&question)).await;
        let late = |_| Err(format!("it did not answer within {:?}", self.timeout));
        match asked.unwrap_or_else(late) {
            Ok(answer) => {
                let answer = Arc::new(answer);
                self.state.lock().insert(question.id, &answer);
                // Only after it is remembered: a request between the two would ask again.
                drop(under_way);
                Some(answer)
            }
            Err(why) => {
                self.failed(&why);
                None
            }
        }
    }

    async fn exchange(&self, question: &Question) -> Result<Answer, String> {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        let id = format!("msg_{}", Uuid::now_v7().simple());
        let body = question.body(&self.passed);
        let send = || {
            #[expect(clippy::disallowed_methods, reason = "it is compared with another clock")]
            let now = SystemTime::now();
            self.post.send((&id, body.clone()), now, self.timeout, ANSWER_BYTES_MAX)
        };
        let answer = match send().await {
            Err(error) if error.broke => send().await,
            answered => answered,
        };
        let answer = answer.map_err(|error| error.to_string())?;
        match (answer.status, answer.body) {
            (StatusCode::OK, Some(body)) => {
                Answer::parse(&body).map_err(|why| format!("its answer is invalid: {why}"))
            }
            (StatusCode::OK, None) => Err("its answer is too long, or broke off".to_owned()),
            (status, _) if status.is_redirection() => {
                Err(format!("it answered {status}, but redirects are not followed"))
            }
            (status, _) => Err(format!("it answered {status}, but only 200 counts")),
        }
    }

    /// Logs that somebody is refused because there is no answer, or counts it for the next line.
    fn failed(&self, why: &str) {
        self.failed_count.fetch_add(1, Ordering::Relaxed);
        if let Some(unsaid) = self.failures.next_line(now()) {
            let shown = &self.shown;
            log::warn!(
                "{shown} does not say who may do what: {why} ({unsaid} more since the last such line)"
            );
        }
    }
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
