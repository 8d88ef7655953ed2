//! Answers that are still valid.
//!
//! Keeps: as many as fit, and the oldest goes first; an expired answer stays known for a moment longer, for a caller
//! who was just given it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::question::QuestionId;

/// What an answer takes in addition to its text.
const ENTRY_BYTES: usize = 256;

/// How long an answer is known after it expires.
const KNOWN_AFTER: Duration = Duration::from_secs(1);

/// Answers, by the question.
pub(super) struct Cache {
    bytes_max: usize,
    bytes: usize,
    answers: HashMap<QuestionId, Held>,
    /// The ids in the order in which they arrived.
    order: BTreeMap<u64, QuestionId>,
    next: u64,
}

struct Held {
    answer: Arc<Answer>,
    until: Instant,
    number: u64,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (answers, order) = (HashMap::new(), BTreeMap::new());
        Self { bytes_max, bytes: 0, answers, order, next: 0 }
    }

    /// The answer to this question, if it is valid at `now`.
    pub(super) fn get(&self, id: &QuestionId, now: Instant) -> Option<Arc<Answer>> {
        let held = self.answers.get(id).filter(|held| now < held.until)?;
        Some(held.answer.clone())
    }

    /// The answer to this question if it is valid or just expired, and until when.
    pub(super) fn known(&self, id: &QuestionId, now: Instant) -> Option<(Arc<Answer>, Instant)> {
        let held = self.answers.get(id).filter(|held| now < held.until + KNOWN_AFTER)?;
        Some((held.answer.clone(), held.until))
    }

    pub(super) fn insert(&mut self, id: QuestionId, answer: Arc<Answer>, now: Instant) {
        self.remove(&id);
        let (until, number) = (now + answer.holds, self.next);
        self.next += 1;
        self.bytes += ENTRY_BYTES + answer.bytes;
        self.order.insert(number, id);
        self.answers.insert(id, Held { answer, until, number });
        while self.bytes > self.bytes_max {
            let Some((_, oldest)) = self.order.first_key_value() else { return };
            let oldest = *oldest;
            self.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, id: &QuestionId) {
        if let Some(Held { answer, number, .. }) = self.answers.remove(id) {
            self.bytes -= ENTRY_BYTES + answer.bytes;
            self.order.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Arc<Answer> {
        Arc::new(Answer::parse(text.as_bytes()).expect("an answer"))
    }

    #[test]
    fn an_answer_counts_until_its_end_and_is_known_a_moment_longer() {
        let mut cache = Cache::new(10_000);
        #[expect(clippy::disallowed_methods, reason = "some time to begin with")]
        let now = Instant::now();
        cache.insert([1; 32], answer(r#"{"allow":true,"ttlSeconds":5}"#), now);
        let end = now + Duration::from_secs(5);
        let before = now + Duration::from_millis(4_999);
        assert!(cache.get(&[1; 32], before).is_some() && cache.get(&[1; 32], end).is_none());
        assert!(cache.get(&[2; 32], now).is_none());
        let (_, until) = cache.known(&[1; 32], end).expect("known");
        assert_eq!(until, end);
        assert!(cache.known(&[1; 32], end + KNOWN_AFTER).is_none());
    }

    #[test]
    fn the_oldest_answers_go_when_there_is_no_room() {
        let text = r#"{"allow":true}"#;
        let mut cache = Cache::new(3 * (ENTRY_BYTES + text.len()));
        #[expect(clippy::disallowed_methods, reason = "some time to begin with")]
        let now = Instant::now();
        for id in [1, 2, 3, 1, 1, 4] {
            cache.insert([id; 32], answer(text), now);
        }
        let there = [1, 2, 3, 4].map(|id| cache.get(&[id; 32], now).is_some());
        assert_eq!(there, [true, false, true, true]);
        assert_eq!((cache.answers.len(), cache.order.len()), (3, 3));
        for id in [1, 3, 4] {
            cache.remove(&[id; 32]);
        }
        assert_eq!(cache.bytes, 0);
    }
}
