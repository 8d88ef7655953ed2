//! The application decides who may do what, and is asked over HTTP: so its own login decides, with cookies too.
//!
//! Keeps: a question without an answer is refused, and asked again at the next request; an answer counts for exactly
//! what was asked, every passed header included, and for as long as it says; whatever callers do, the application gets
//! a bounded number of questions at a time, and each of them once. Leaves out: what an answer allows
//! ([`Rights`](super::Rights)), and asking again when it expires, which sessions do ([`Auth::holds_until`]).

mod answer;
mod asking;
mod cache;
mod options;
mod question;

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use self::answer::Answer;
use self::asking::{Asking, now};
use self::question::{Action, Question};
use crate::model::{Batch, StoreId};
use crate::services::identities::SigningKey;
use crate::services::{Auth, AuthError, AuthReason, Claim, Figure};

pub use self::options::{HttpError, HttpOptions};
pub use crate::outgoing::{InvalidSecret, Secret, Signing};

/// An [`Auth`] that asks the application.
pub struct HttpAuth {
    asking: Asking,
}

impl HttpAuth {
    /// Checks that the options can work. Does not ask anything yet.
    pub fn new(options: HttpOptions) -> Result<Self, HttpError> {
        let url = options.check()?;
        let passed = options.headers.iter().map(|name| name.to_ascii_lowercase().into());
        let passed = passed.collect();
        Ok(Self { asking: Asking::start(url, passed, options)? })
    }

    /// What questions are signed with; it can be replaced while the server runs.
    pub fn signing(&self) -> Signing {
        self.asking.signing().clone()
    }

    fn question(&self, claim: Claim<'_>, action: Action) -> Question {
        Question::new(claim, action, self.asking.passed())
    }

    /// The application's answer, if it allows something.
    async fn ask(&self, claim: Claim<'_>, action: Action) -> Result<Arc<Answer>, AuthError> {
        let refuse = |reason, message: &str| {
            Err(AuthError { reason, key: claim.key.clone(), message: message.into() })
        };
        let Some(answer) = self.asking.ask(&self.question(claim, action)).await else {
            return refuse(
                AuthReason::Unavailable,
                "the application did not answer; try again later",
            );
        };
        let Some(store) = answer.store() else {
            return Ok(answer);
        };
        // Which of the two a key gets must not depend on what it is used for first.
        let other = self.asking.known(&self.question(claim, action.other()));
        match other.as_ref().and_then(|(other, _)| other.store()) {
            Some(other) if other != store => {
                refuse(AuthReason::Forbidden, "the answers for reading and writing name two stores")
            }
            Some(_) | None => Ok(answer),
        }
    }

    /// What was answered to a claim that was just allowed.
    fn said<T>(&self, claim: Claim<'_>, what: impl Fn(&Answer) -> Option<T>) -> Option<T> {
        let actions = [Action::Write, Action::Read].into_iter();
        let mut known =
            actions.filter_map(|action| self.asking.known(&self.question(claim, action)));
        known.find_map(|(answer, _)| what(&answer))
    }
}

impl Auth for HttpAuth {
    fn authorize_write<'a>(
        &'a self,
        claim: Claim<'a>,
        entries: &'a Batch,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        let asked = self.ask(claim, Action::Write);
        async move { asked.await?.check_write(claim.key, entries) }.boxed()
    }

    fn authorize_read<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        let asked = self.ask(claim, Action::Read);
        async move { asked.await?.check_read(claim.key) }.boxed()
    }

    /// Whoever may read or write with a key may be that key.
    fn authorize_identity<'a>(&'a self, claim: Claim<'a>) -> BoxFuture<'a, Result<(), AuthError>> {
        async move {
            let reads = self.ask(claim, Action::Read).await;
            match reads.and_then(|answer| answer.check_use(claim.key)) {
                Err(refused) if refused.reason == AuthReason::Forbidden => {
                    self.ask(claim, Action::Write).await?.check_use(claim.key)
                }
                answered => answered,
            }
        }
        .boxed()
    }

    fn holds_until(&self, claim: Claim<'_>) -> Option<Instant> {
        let known = self.asking.known(&self.question(claim, Action::Read));
        // Of an answer that is not known any more, this is the safe side.
        Some(known.map_or_else(now, |(_, until)| until))
    }

    fn signing_key_of(&self, claim: Claim<'_>) -> Option<SigningKey> {
        self.said(claim, Answer::signing_key)
    }

    fn subject_of(&self, claim: Claim<'_>) -> Option<Arc<str>> {
        self.said(claim, |answer| answer.subject.clone())
    }

    fn store_of(&self, claim: Claim<'_>) -> Option<StoreId> {
        self.said(claim, |answer| answer.store().cloned())
    }

    fn figures(&self) -> Vec<Figure> {
        self.asking.figures().to_vec()
    }
}
