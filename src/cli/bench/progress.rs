//! A line on standard error that shows the progress, once a second.

use std::io::IsTerminal;
use std::time::Duration;

use super::figures::Figures;
use super::report::grouped;

#[derive(Default)]
pub(super) struct Progress {
    acked: u64,
    delivered: u64,
    seconds: u64,
    /// The total duration in seconds, if that is known.
    of: Option<u64>,
}

impl Progress {
    /// For something that takes this long.
    pub(super) fn lasting(duration: Option<Duration>) -> Self {
        Self { of: duration.map(|duration| duration.as_secs()), ..Self::default() }
    }

    /// Shows how many there were since the last call; must be called once a second, from when they are counted.
    pub(super) fn show(&mut self, figures: &Figures) {
        self.seconds += 1;
        let mut line = match self.of {
            Some(of) => format!("{} of {of} s", self.seconds),
            None => format!("{} s", self.seconds),
        };
        for (what, before, now) in [
            ("entries acknowledged", &mut self.acked, figures.acks.entries),
            ("delivered", &mut self.delivered, figures.deliveries.entries),
        ] {
            if now > *before {
                line = format!("{line}  {}/s {what}", grouped((now - *before) as f64));
            }
            *before = now;
        }
        Self::say(&line);
    }

    /// Shows what is being done, instead of the previous line; only on a terminal.
    pub(super) fn say(what: &str) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{what}");
        }
    }
}
