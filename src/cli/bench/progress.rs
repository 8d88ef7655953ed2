//! A line on the terminal that says how it goes, once a second.

use std::io::{IsTerminal, Write};

use super::figures::{Counts, Figures};
use super::report::grouped;

pub(super) struct Progress {
    acks: Counts,
    deliveries: Counts,
    seconds: u64,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(figures: &Figures) -> Self {
        Self {
            acks: figures.acks.counts(),
            deliveries: figures.deliveries.counts(),
            seconds: 0,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Says how many there were since the last call; to be called once a second.
    pub(super) fn show(&mut self, figures: &Figures) {
        self.seconds += 1;
        let (acks, deliveries) = (figures.acks.counts(), figures.deliveries.counts());
        let mut line = format!("{} s", self.seconds);
        let parts = [
            ("entries acknowledged", acks.entries - self.acks.entries),
            ("delivered", deliveries.entries - self.deliveries.entries),
        ];
        for (what, count) in parts.into_iter().filter(|(_, count)| *count > 0) {
            line = format!("{line}  {}/s {what}", grouped(count as f64));
        }
        (self.acks, self.deliveries) = (acks, deliveries);
        if self.terminal {
            eprint!("\r\x1b[K{line}");
            // A terminal that is gone misses nothing.
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    /// Says what is done before anything is counted.
    pub(super) fn begin(what: &str) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{what}");
        } else {
            eprintln!("{what}");
        }
    }

    /// Takes the line back.
    pub(super) fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}
