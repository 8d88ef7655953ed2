//! Values as people read them on a terminal.

use std::borrow::Cow;
use std::fmt::{Display, Write};

use jiff::Timestamp;

/// Whether a terminal acts on it instead of showing it: control characters, line breaks, and characters that change the
/// direction of the following text.
fn is_acted_on(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` without anything that a terminal would act on: such characters are escaped.
pub(super) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |line, c| line.extend(c.escape_default()))
}

/// JSON in one line, with the same meaning but without anything that a terminal would act on: such characters occur
/// only in texts, where JSON can escape them.
pub(super) fn json_line(json: &str) -> Cow<'_, str> {
    // Writing to a `String` does not fail; none of these characters has more than four digits.
    escaped(json, |line, c| {
        let _ = write!(line, "\\u{:04x}", u32::from(c));
    })
}

/// A JSON value as [`json_line`] shows it.
pub(super) fn json_text(value: &impl Display) -> String {
    json_line(&value.to_string()).into_owned()
}

/// Lines of text, each as shown by [`one_line`].
pub(super) fn lines(text: &str) -> String {
    text.split('\n').map(one_line).collect::<Vec<_>>().join("\n")
}

fn escaped(text: &str, escape: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if !text.chars().any(is_acted_on) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().fold(String::new(), |mut line, c| {
        if is_acted_on(c) {
            escape(&mut line, c);
        } else {
            line.push(c);
        }
        line
    });
    Cow::Owned(escaped)
}

/// `bytes` in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a `String` does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes that `text` writes in hexadecimal, in either case, ignoring white space and a leading `0x`.
pub(super) fn parse_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let digits = digits.strip_prefix(&['0', 'x']).unwrap_or(&digits);
    let wrong = |c: char| format!("{c:?} is not a hexadecimal digit");
    let digits = digits.iter().map(|c| c.to_digit(16).ok_or_else(|| wrong(*c)));
    let digits: Vec<u32> = digits.collect::<Result<_, _>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err(format!("{} hexadecimal digits are not whole bytes", digits.len()));
    }
    Ok(digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

/// A time as RFC 3339 in UTC, from Unix milliseconds; a time beyond the year 9999 stays a number.
pub(super) fn timestamp(unix_ms: u64) -> String {
    let moment = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    moment.map_or_else(|| format!("{unix_ms}ms"), |moment| format!("{moment:.3}"))
}

/// Parses a time that people write; returns Unix milliseconds.
pub(super) fn parse_moment(text: &str) -> Result<u64, String> {
    let time: Timestamp =
        text.parse().map_err(|_| "this is not a time such as 2026-03-01T12:00:00Z".to_owned())?;
    u64::try_from(time.as_millisecond()).map_err(|_| "before 1970".to_owned())
}

/// So many of something: `1 entry`, `2 entries`.
pub(super) fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// [`counted`] entries.
pub(super) fn entries(count: u64) -> String {
    counted(count, "entry", "entries")
}

/// [`counted`] files.
pub(super) fn files(count: u64) -> String {
    counted(count, "file", "files")
}

/// [`counted`] stores.
pub(super) fn stores(count: u64) -> String {
    counted(count, "store", "stores")
}

/// A number of bytes with about three digits.
pub(super) fn people_bytes(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fitting = units.iter().find(|(_, shift)| bytes >= 1 << shift);
    fitting.map_or_else(
        || format!("{bytes} B"),
        |(unit, shift)| format!("{:.1} {unit}", bytes as f64 / f64::from(1 << shift)),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_rfc_3339() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000_000, "2023-11-14T22:13:20.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            ((1 << 48) - 1, "281474976710655ms"),
        ] {
            assert_eq!(timestamp(unix_ms), text);
        }
    }

    #[test]
    fn a_terminal_gets_nothing_to_act_on() {
        assert_eq!(one_line("Grüße 🦀"), "Grüße 🦀");
        assert_eq!(one_line("a\u{1b}[2Jb\nc\u{9b}d"), "a\\u{1b}[2Jb\\nc\\u{9b}d");
        assert_eq!(one_line("a\u{202e}b\u{2066}\u{2028}"), "a\\u{202e}b\\u{2066}\\u{2028}");
        assert_eq!(lines("one\ntwo\r\u{9b}"), "one\ntwo\\r\\u{9b}");
    }

    #[test]
    fn json_says_the_same_without_anything_to_act_on() {
        let text = "a\u{7f}\u{9b}\u{202e}\\\u{2069}ü🦀\n";
        let json = serde_json::to_string(text).expect("JSON");
        let line = json_line(&json);
        assert!(!line.chars().any(is_acted_on) && line.contains("\\u202e"), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).expect("JSON"), text);
    }

    #[test]
    fn hexadecimal_is_read_generously() {
        assert_eq!(parse_hex("0x00 fF\n1a"), Ok(vec![0, 255, 26]));
        assert_eq!(parse_hex(""), Ok(vec![]));
        for wrong in ["0", "0g", "0x0", "ä0"] {
            assert!(parse_hex(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn hexadecimal_round_trips(bytes: Vec<u8>) {
            prop_assert_eq!(parse_hex(&hex(&bytes)), Ok(bytes));
        }

        #[test]
        fn no_line_has_control_characters(text: String) {
            prop_assert!(!one_line(&text).chars().any(is_acted_on));
        }
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 2].map(entries), ["0 entries", "1 entry", "2 entries"]);
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!(people_bytes(0), "0 B");
        assert_eq!(people_bytes(1_536), "1.5 KiB");
        assert_eq!(people_bytes(16 << 20), "16.0 MiB");
        assert_eq!(people_bytes(5 << 40), "5120.0 GiB");
    }
}
