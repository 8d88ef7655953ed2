//! A line on standard error that says how it goes, once a second.

use std::io::IsTerminal;

use super::figures::{Counts, Figures};
use super::report::grouped;

#[derive(Default)]
pub(super) struct Progress {
    acks: Counts,
    deliveries: Counts,
    seconds: u64,
}

impl Progress {
    /// Says how many there were since the last call; to be called once a second, from when they are counted.
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
        Self::say(&line);
    }

    /// Says what is done, in place of what was said before.
    pub(super) fn say(what: &str) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{what}");
        } else if !what.is_empty() {
            eprintln!("{what}");
        }
    }
}
