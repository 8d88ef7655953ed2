//! The `[[compaction]]` rules as compactors.

use eventlog_server::model::Limits;
use eventlog_server::processing::compaction::{
    Compaction, CompactionGuard, DuplicateEvent, EventPattern, Strategy,
};

use crate::config::{CompactionRule, CompactionStrategy};

/// Registers each rule; they last as long as the guards.
pub(super) fn register(
    rules: &[CompactionRule],
    limits: &Limits,
) -> Result<(Compaction, Vec<CompactionGuard>), DuplicateEvent> {
    let compaction = Compaction::new(limits);
    let guards = rules.iter().map(|rule| {
        let CompactionRule { events, older_than, strategy } = rule;
        let events = events.iter().map(|event| EventPattern::glob(event.as_str()));
        let strategy = match strategy {
            CompactionStrategy::KeepLatest => Strategy::KeepLatest,
            CompactionStrategy::Drop => Strategy::Drop,
        };
        compaction.register(events, older_than.0, strategy)
    });
    let guards = guards.collect::<Result<_, _>>()?;
    Ok((compaction, guards))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn an_event_in_two_rules_is_refused() {
        let limits = Limits::default();
        let (_, guards) = register(&[rule("Todo*"), rule("Note*")], &limits).expect("apart");
        assert_eq!(guards.len(), 2);
        let error = register(&[rule("Todo*"), rule("TodoAdded")], &limits).expect_err("refused");
        assert!(error.to_string().contains("TodoAdded"), "{error}");
    }
}
