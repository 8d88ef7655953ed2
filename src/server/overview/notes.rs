//! What is not well, in words, and what to do about it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::history::Troubles;
use crate::processing::GroupStatus;
use crate::storage::Figure;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Clients are harmed, or will be.
    Bad,
    /// Somebody should look.
    Warn,
    /// Worth knowing.
    Info,
}

/// One thing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note {
    level: Level,
    what: String,
    to_do: String,
}

impl Note {
    pub(super) fn to_json(&self) -> Value {
        let level = match self.level {
            Level::Bad => "bad",
            Level::Warn => "warn",
            Level::Info => "info",
        };
        json!({ "level": level, "what": self.what, "toDo": self.to_do })
    }
}

/// What is known of the server.
pub(super) struct Facts<'a> {
    pub(super) not_ready: Option<String>,
    /// What writes wait for.
    pub(super) held_up: Option<Arc<str>>,
    pub(super) draining: bool,
    pub(super) figures: &'a [Figure],
    pub(super) groups: &'a [GroupStatus],
    pub(super) groups_failed: Option<String>,
    /// In the last hour.
    pub(super) hour: Troubles,
    /// Connections that wait for space for their messages.
    pub(super) waiting: usize,
}

impl Facts<'_> {
    fn figure(&self, name: &str) -> Option<u64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    fn is(&self, name: &str) -> bool {
        self.figure(name) == Some(1)
    }
}

use Level::{Bad, Info, Warn};

/// What the storage reports with a figure that is 1.
const FLAGS: &[(&str, Level, &str, &str)] = &[
    (
        "checkpoints_fail",
        Bad,
        "The database cannot be written. Writes go on from memory until 128 MiB wait, then they are refused.",
        "Look at the server's log: the disk is full or fails. The server retries every five seconds.",
    ),
    (
        "damage_found",
        Bad,
        "The server read something other than what was written.",
        "Run `eventlog-server verify` on the data directory, and check the disk. The next start rebuilds the \
         database (docs/FAULTS.md).",
    ),
    (
        "directory_is_copy",
        Bad,
        "The data directory is a copy of another one.",
        "If another server runs on the original, stop one of the two at once. If the original is gone for good, remove the file `place`.",
    ),
    (
        "disk_is_low",
        Bad,
        "There is little space left on the disk.",
        "Free some space, or use a larger disk. Below disk_full_bytes new entries are refused.",
    ),
    (
        "disk_is_full",
        Bad,
        "The disk is nearly full: new entries are refused.",
        "Free some space, or use a larger disk. The server takes entries again within a minute.",
    ),
    (
        "archive_fails",
        Warn,
        "Finished log files cannot be archived.",
        "Look at the folder of [archive]. Until it can be written, it may be impossible to rebuild a damaged \
         database.",
    ),
    (
        "archive_is_incomplete",
        Warn,
        "The archive is incomplete.",
        "A further base is written within the hour. If it is not, look at the log, and at [archive] bytes_max.",
    ),
    (
        "log_files_fail",
        Warn,
        "The server cannot make a log file ahead of time.",
        "Free some space: when the file in use is full, writes are refused.",
    ),
    (
        "backup_fails",
        Warn,
        "The last backup that was due failed.",
        "Look at the server's log, and at the destination of the backups (docs/DATA.md).",
    ),
];

/// All notes, the worst first.
pub(super) fn notes(facts: &Facts<'_>) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut note = |level, what: String, to_do: &str| {
        notes.push(Note { level, what, to_do: to_do.to_owned() });
    };
    if let Some(why) = &facts.not_ready {
        let what = format!("The server takes no writes: {why}.");
        note(
            Bad,
            what,
            "Clients keep what they write and send it later. Look at the server's log; /readyz is 503 until \
             this is over.",
        );
    }
    if let Some(why) = &facts.held_up {
        note(
            Bad,
            format!("Writes wait: {why}."),
            "Bring a standby back, or change synchronous_standby_names: the wait has no end of its own \
             (docs/CLUSTER.md).",
        );
    }
    if facts.draining {
        note(
            Info,
            "The server is stopping.".to_owned(),
            "Clients reconnect elsewhere, or here when it is back.",
        );
    }
    for (name, level, what, to_do) in FLAGS {
        if facts.is(name) {
            note(*level, (*what).to_owned(), to_do);
        }
    }
    if facts.figure("disk_free_bytes").is_some()
        && facts.figure("backup_made_seconds").is_none()
        && !facts.is("backup_fails")
    {
        note(
            Info,
            "No backup was made since the start.".to_owned(),
            "Make one with `eventlog-server backup`, or let the server make them: [backup] in the \
             configuration (docs/DATA.md).",
        );
    }
    hour(&facts.hour, &mut note);
    if facts.waiting > 0 {
        let what =
            format!("Connections that wait for space for their messages: {}.", facts.waiting);
        note(
            Warn,
            what,
            "Many large messages come at once. If it lasts, raise unfinished_bytes_max (docs/STRANGERS.md).",
        );
    }
    groups(facts, &mut note);
    notes.sort_by_key(|note| note.level);
    notes
}

/// What went wrong in the last hour.
fn hour(hour: &Troubles, note: &mut impl FnMut(Level, String, &str)) {
    let said: [(u64, Level, &str, &str); 5] = [
        (
            hour.appends_failed,
            Bad,
            "Writes that failed at the disk",
            "Look at the server's log. Failed writes were refused, and clients send them again.",
        ),
        (
            hour.connections_stalled,
            Warn,
            "Connections that were cut off because they did not read",
            "A slow network or proxy, or an application that stops reading.",
        ),
        (
            hour.connections_refused,
            Warn,
            "Connections that were refused",
            "The log says whom and why: a wrong token, an origin that is not listed, or too many connections.",
        ),
        (
            hour.requests_refused,
            Warn,
            "Requests that were refused",
            "Most often a key has no store, or a token is wrong. The log says who is refused and why.",
        ),
        (
            hour.admin_tokens_refused,
            Warn,
            "Wrong admin tokens",
            "Somebody mistypes or guesses a token. The log has the addresses.",
        ),
    ];
    for (count, level, what, to_do) in said {
        if count > 0 {
            note(level, format!("{what} in the last hour: {count}."), to_do);
        }
    }
}

fn groups(facts: &Facts<'_>, note: &mut impl FnMut(Level, String, &str)) {
    if let Some(why) = &facts.groups_failed {
        note(
            Bad,
            format!("The state of groups of handlers is unknown: {why}."),
            "Look at the server's log.",
        );
    }
    for group in facts.groups {
        let name = &group.name;
        let letters = group.dead_letters;
        if group.full {
            let what = format!(
                "The group {name:?} has {letters} dead letters, as many as it keeps, and pauses."
            );
            note(Bad, what, "See why they failed, then retry or dismiss them under Processing.");
        } else if letters > 0 {
            let what = format!("Dead letters of the group {name:?}: {letters}.");
            note(Warn, what, "See why under Processing, then retry or dismiss them.");
        }
        if group.paused {
            let what = format!("The group {name:?} is paused, {} entries behind.", group.lag);
            note(Warn, what, "Somebody paused it; resume it under Processing.");
        }
        for (store, error) in &group.refused {
            let what = format!("The group {name:?} is stuck in the store {store:?}: {error}.");
            note(Bad, what, "Rewind it to continue (docs/PROCESSING.md).");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts<'a>(figures: &'a [Figure], groups: &'a [GroupStatus]) -> Facts<'a> {
        Facts {
            not_ready: None,
            held_up: None,
            draining: false,
            figures,
            groups,
            groups_failed: None,
            hour: Troubles::default(),
            waiting: 0,
        }
    }

    fn figure(name: &'static str, value: u64) -> Figure {
        Figure { name, help: "", value }
    }

    #[test]
    fn nothing_is_said_of_a_server_that_is_well() {
        let figures = [
            figure("disk_free_bytes", 9),
            figure("backup_made_seconds", 9),
            figure("disk_is_low", 0),
        ];
        assert_eq!(notes(&facts(&figures, &[])), []);
    }

    #[test]
    fn each_thing_that_is_not_well_is_said_with_what_to_do_and_the_worst_comes_first() {
        let group = GroupStatus {
            name: "mail".into(),
            runs: true,
            paused: true,
            full: false,
            dead_letters: 2,
            stores_behind: 1,
            lag: 7,
            refused: Vec::new(),
        };
        let figures: Vec<Figure> = FLAGS.iter().map(|(name, ..)| figure(name, 1)).collect();
        let groups = [group];
        let mut facts = facts(&figures, &groups);
        facts.hour.requests_refused = 3;
        facts.not_ready = Some("the disk is full".to_owned());
        facts.held_up = Some("no standby".into());
        facts.waiting = 1;
        let notes = notes(&facts);
        assert_eq!(notes.len(), FLAGS.len() + 6);
        assert!(notes.is_sorted_by_key(|note| note.level));
        assert!(notes[0].what.contains("the disk is full"), "{notes:?}");
        assert!(notes.iter().all(|note| !note.to_do.is_empty()));
        let text = format!("{notes:?}");
        for part in [
            "Dead letters of the group \\\"mail\\\": 2.",
            "7 entries behind",
            "Requests that were refused in the last hour: 3.",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
