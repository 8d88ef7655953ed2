//! The `[[compaction]]` rules as compactors.

use std::time::Duration;

use eventlog_server::model::Limits;
use eventlog_server::processing::compaction::{
    Compaction, CompactionGuard, DuplicateEvent, EventPattern, Strategy,
};
use parking_lot::Mutex;

use crate::config::{CompactionRule, CompactionStrategy};

/// The rules that count; they last as long as this.
pub(super) struct Rules {
    compaction: Compaction,
    guards: Mutex<Vec<CompactionGuard>>,
}

impl Rules {
    pub(super) fn new(rules: &[CompactionRule], limits: &Limits) -> Result<Self, DuplicateEvent> {
        let new = Self { compaction: Compaction::new(limits), guards: Mutex::default() };
        new.replace(rules)?;
        Ok(new)
    }

    /// For the server.
    pub(super) fn compaction(&self) -> Compaction {
        self.compaction.clone()
    }

    /// These count from now on, for those who begin to read.
    pub(super) fn replace(&self, rules: &[CompactionRule]) -> Result<(), DuplicateEvent> {
        self.compaction.replace(&mut self.guards.lock(), rules.iter().map(compactor))
    }
}

/// Whether two of the rules are about the same event.
pub(super) fn check(rules: &[CompactionRule]) -> Result<(), DuplicateEvent> {
    Rules::new(rules, &Limits::default()).map(drop)
}

fn compactor(rule: &CompactionRule) -> (Vec<EventPattern>, Duration, Strategy) {
    let CompactionRule { events, older_than, strategy } = rule;
    let events = events.iter().map(|event| EventPattern::glob(event.as_str())).collect();
    let strategy = match strategy {
        CompactionStrategy::KeepLatest => Strategy::KeepLatest,
        CompactionStrategy::Drop => Strategy::Drop,
    };
    (events, older_than.0, strategy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Span;

    fn rule(event: &str) -> CompactionRule {
        CompactionRule {
            events: vec![event.to_owned()],
            older_than: Span(Duration::from_secs(1)),
            strategy: CompactionStrategy::Drop,
        }
    }

    #[test]
    fn an_event_in_two_rules_is_refused_and_the_earlier_rules_stay() {
        let rules = Rules::new(&[rule("Todo*"), rule("Note*")], &Limits::default());
        let rules = rules.expect("apart");
        assert_eq!(rules.guards.lock().len(), 2);
        let error = rules.replace(&[rule("Todo*"), rule("TodoAdded")]).expect_err("refused");
        assert!(error.to_string().contains("TodoAdded"), "{error}");
        assert_eq!(rules.guards.lock().len(), 2);
        // The same events as before are no conflict with what is replaced.
        rules.replace(&[rule("Todo*")]).expect("replaced");
        assert_eq!(rules.guards.lock().len(), 1);
        rules.replace(&[]).expect("replaced");
        assert!(rules.compaction.is_empty());
    }
}
