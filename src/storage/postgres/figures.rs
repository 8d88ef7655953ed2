//! Figures about the database for operators, counted here.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::storage::Figure;

/// A number that grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) statements: Count,
    pub(super) overtaken: Count,
    pub(super) known: Count,
    pub(super) locked: Count,
    pub(super) caught_up: Count,
}

impl Counted {
    pub(super) fn figures(&self) -> Vec<Figure> {
        let figure = |name, help, count: &Count| Figure { name, help, value: count.get() };
        vec![
            figure(
                "statements_total",
                "Statements that append, each for all stores that waited",
                &self.statements,
            ),
            figure(
                "overtaken_total",
                "Appends of one store that another node was faster than, and that were placed again",
                &self.overtaken,
            ),
            figure(
                "known_total",
                "Appends of one store that were placed again since an id was there already",
                &self.known,
            ),
            figure(
                "locked_total",
                "Times that a store was locked for its appends after it was overtaken",
                &self.locked,
            ),
            figure(
                "caught_up_total",
                "Times that a store took in what another node had appended",
                &self.caught_up,
            ),
        ]
    }
}
