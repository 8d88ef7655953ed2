//! What the operator should know about clients that cannot get on: one log line for each cause, not for each attempt.
//!
//! Keeps: a client that retries forever costs one line, even if another stranger sends the same thing a thousand times;
//! all lines together are limited to a few each second, whoever causes them; what is remembered is bounded.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::{Duration, Instant};

use log::Level;
use parking_lot::Mutex;

use crate::model::{PublicKey, key_as_field};
use crate::services::Caller;
use crate::services::identities::{SigningKey, signing_key_to_hex};

/// How many causes are remembered. When there are more, all are forgotten.
const REMEMBERED_MAX: usize = 4_096;

/// Lines that may appear at once after a quiet period.
const BURST: u32 = 50;

/// The time after which one more line may appear.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often the same thing is logged while it continues.
#[derive(Clone, Copy, Debug)]
enum Often {
    Once,
    Hourly,
    Minutely,
}

impl Often {
    /// The time after which it is logged again.
    const fn again(self) -> Option<Duration> {
        match self {
            Self::Once => None,
            Self::Hourly => Some(Duration::from_secs(3_600)),
            Self::Minutely => Some(Duration::from_secs(60)),
        }
    }
}

/// A problem of a client that the operator can solve.
#[derive(Debug)]
pub(crate) struct Complaint {
    about: String,
    often: Often,
    line: String,
    /// The public key that it is about, as a field: hashed if keys are, but not quoted.
    key: Option<String>,
}

impl Complaint {
    /// Logged once.
    pub(crate) fn once(about: String, line: String) -> Self {
        Self { about, often: Often::Once, line, key: None }
    }

    /// Logged once an hour while it continues.
    pub(crate) fn hourly(about: String, line: String) -> Self {
        Self { about, often: Often::Hourly, line, key: None }
    }

    /// Logged once a minute while it continues: a failure that each client meets, as often as it tries again.
    pub(crate) fn minutely(line: String) -> Self {
        Self { about: line.clone(), often: Often::Minutely, line, key: None }
    }

    /// It is about the public key that a client claims.
    pub(crate) fn about_key(self, key: Option<&str>) -> Self {
        Self { key: key.map(key_as_field), ..self }
    }
}

/// About a key without a store, with the command that gives it one, and other ways to do that.
pub(crate) fn no_store(key: &PublicKey, caller: &Caller, how_else: Option<&str>) -> Complaint {
    let (address, path) = (caller.shown_address(), caller.shown_path());
    let or = how_else.map_or_else(String::new, |how| format!("; {how}"));
    let line = format!(
        "the public key {} has no store, and {address} at {path} is refused; to give it one: \
         eventlog-server keys assign {} STORE{or}",
        key.in_log(),
        argument(key)
    );
    Complaint::once(format!("no store: {key}"), line).about_key(Some(key.as_str()))
}

/// About a key that is to be used with a signing key that nobody has pinned, with the command that does it.
pub(crate) fn not_pinned(key: &PublicKey, caller: &Caller, signing_key: &SigningKey) -> Complaint {
    let (address, path) = (caller.shown_address(), caller.shown_path());
    let shown = signing_key_to_hex(signing_key);
    let line = format!(
        "the public key {} has no signing key, and {address} at {path} is refused; to set the one that it has shown, if that \
         is this user's: eventlog-server keys pin {} {shown}",
        key.in_log(),
        argument(key)
    );
    Complaint::once(format!("not pinned: {key} {shown}"), line).about_key(Some(key.as_str()))
}

/// The key for the command; not where the log must not show it.
fn argument(key: &PublicKey) -> String {
    let shown = key.in_log().to_string();
    if shown.starts_with("sha256:") { "KEY".to_owned() } else { for_shell(key.as_str()) }
}

/// `text` as an argument for a shell.
fn for_shell(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if text.chars().all(is_plain) && !text.starts_with('-') {
        return text.to_owned();
    }
    let dashes = if text.starts_with('-') { "-- " } else { "" };
    if text.chars().any(|c| c.is_control() || !(c.is_ascii() || c.is_alphanumeric())) {
        // Half of a byte is a digit.
        let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or_default();
        let escaped = |byte: u8| ['\\', 'x', digit(byte >> 4), digit(byte & 15)];
        let bytes: String = text.bytes().flat_map(escaped).collect();
        return format!("{dashes}$'{bytes}'");
    }
    format!("{dashes}'{}'", text.replace('\'', r"'\''"))
}

/// What was logged recently.
pub(crate) struct Complaints {
    hasher: RandomState,
    /// What is logged once is about keys, what is logged each hour about connections, what is logged each minute about
    /// failures. They are kept apart, so that strangers who never get as far as naming a key cannot suppress other lines.
    once: Mutex<Said>,
    hourly: Mutex<Said>,
    minutely: Mutex<Said>,
}

struct Said {
    /// When something was logged, by the hash of its subject.
    when: HashMap<u64, Instant>,
    /// Lines that may be logged now.
    left: u32,
    /// When this number was last updated.
    counted: Instant,
    /// Lines that were suppressed since the last one.
    left_out: u64,
}

impl Complaints {
    #[expect(clippy::disallowed_methods, reason = "strangers must not fill the disk with lines")]
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let nothing = || Mutex::new(Said::nothing(now));
        Self { hasher: RandomState::new(), once: nothing(), hourly: nothing(), minutely: nothing() }
    }

    /// Logs it, unless that was done already or there are too many lines.
    pub(crate) fn log(&self, complaint: &Complaint) {
        let Complaint { about, often, line, key } = complaint;
        #[expect(
            clippy::disallowed_methods,
            reason = "strangers must not fill the disk with lines"
        )]
        let now = Instant::now();
        let said = match often {
            Often::Once => &self.once,
            Often::Hourly => &self.hourly,
            Often::Minutely => &self.minutely,
        };
        let next = said.lock().next_line(self.hash(about), often.again(), now);
        let level = if next.is_some() { Level::Warn } else { Level::Debug };
        let left_out = match next {
            None | Some(0) => String::new(),
            Some(count) => format!(" ({count} other lines were left out)"),
        };
        match key {
            Some(key) => log::log!(level, key; "{line}{left_out}"),
            None => log::log!(level, "{line}{left_out}"),
        }
    }

    fn hash(&self, about: impl Hash) -> u64 {
        self.hasher.hash_one(about)
    }
}

impl Said {
    fn nothing(now: Instant) -> Self {
        Self { when: HashMap::new(), left: BURST, counted: now, left_out: 0 }
    }

    /// How many lines were suppressed before, if a line about this may appear now.
    fn next_line(&mut self, about: u64, again: Option<Duration>, now: Instant) -> Option<u64> {
        let is_old = |said: Instant| again.is_some_and(|again| now.duration_since(said) >= again);
        if self.when.get(&about).is_some_and(|said| !is_old(*said)) {
            return None;
        }
        let passed = (now.duration_since(self.counted).as_millis() / INTERVAL.as_millis()) as u32;
        self.counted += INTERVAL * passed;
        self.left = self.left.saturating_add(passed).min(BURST);
        if self.left == 0 {
            self.left_out += 1;
            return None;
        }
        self.left -= 1;
        if self.when.len() >= REMEMBERED_MAX {
            self.when.clear();
        }
        self.when.insert(about, now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Option<Duration> = Some(Duration::from_secs(3_600));

    fn said() -> (Said, Instant) {
        let now = Complaints::new().once.into_inner().counted;
        (Said::nothing(now), now)
    }

    #[test]
    fn strangers_keep_nobody_from_hearing_of_a_key() {
        let complaints = Complaints::new();
        for number in 0..1_000 {
            let text = format!("page {number}");
            complaints.log(&Complaint::hourly(text.clone(), text));
        }
        assert_eq!(complaints.hourly.lock().left, 0);
        assert_eq!(complaints.once.lock().left, BURST);
        assert_eq!(complaints.minutely.lock().left, BURST);
    }

    #[test]
    fn a_failure_that_each_client_meets_is_one_line() {
        let complaints = Complaints::new();
        for _ in 0..1_000 {
            complaints.log(&Complaint::minutely("write refused: no database".to_owned()));
        }
        assert_eq!(complaints.minutely.lock().left, BURST - 1);
    }

    #[test]
    fn a_shell_takes_a_name_as_it_is_and_a_terminal_shows_nothing_else() {
        for (name, argument) in [
            ("alice", "alice"),
            ("user:1/a@b.example", "user:1/a@b.example"),
            ("it's $HOME", r"'it'\''s $HOME'"),
            ("-rf", "-- '-rf'"),
            ("größe x", "'größe x'"),
            ("a\n\u{1b}", r"$'\x61\x0a\x1b'"),
            ("a\u{202e}b", r"$'\x61\xe2\x80\xae\x62'"),
        ] {
            assert_eq!(for_shell(name), argument);
        }
        let key = PublicKey::new("a\u{202e}\n").expect("a key");
        let line = no_store(&key, &Caller::default(), None).line;
        assert!(line.is_ascii() && !line.contains('\n'), "{line}");
    }

    #[test]
    fn one_cause_is_one_line_until_its_time_is_over() {
        let (mut said, start) = said();
        for about in [1, 2] {
            assert_eq!(said.next_line(about, HOUR, start), Some(0));
            assert_eq!(said.next_line(about, HOUR, start + Duration::from_secs(3_599)), None);
        }
        assert_eq!(said.next_line(1, HOUR, start + Duration::from_secs(3_600)), Some(0));
        assert_eq!(said.next_line(2, None, start + Duration::from_secs(1 << 30)), None);
    }

    #[test]
    fn many_causes_are_some_lines_and_all_are_counted() {
        let (mut said, start) = said();
        let lines = (0..1_000).filter(|about| said.next_line(*about, None, start).is_some());
        assert_eq!(lines.count(), BURST as usize);
        assert_eq!(said.next_line(2_000, None, start + INTERVAL), Some(950));
        assert_eq!(said.next_line(2_001, None, start + INTERVAL), None);
        // What was suppressed may be logged later.
        assert_eq!(said.next_line(999, None, start + 2 * INTERVAL), Some(1));
        let later = start + 10_000 * INTERVAL;
        let lines = (5_000..6_000).filter(|about| said.next_line(*about, None, later).is_some());
        assert_eq!(lines.count(), BURST as usize);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut said, start) = said();
        for about in 0..3 * REMEMBERED_MAX as u64 {
            said.next_line(about, None, start + INTERVAL * about as u32);
            assert!(said.when.len() <= REMEMBERED_MAX);
        }
    }
}
