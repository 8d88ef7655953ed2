//! Lines of an input, one at a time.

use std::io::{self, BufRead, BufReader, Read};

use eventlog_server::model::StoreId;
use eventlog_server::protocol::lines::{Line, WrongLine};

/// The largest entry that a server accepts by default fits, whatever its names are.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// How much is read at a time, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// No head is longer: it has the name of a store and the patterns of a selection.
const HEAD_BYTES_MAX: u64 = 1 << 20;

/// The memory of a longer line is released after it, in bytes.
const KEEP_BYTES: usize = 4 << 20;

/// A line cannot be imported. The lines before it were read.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum LineError {
    /// It is not a valid line.
    #[error("line {line}: {cause}")]
    Wrong {
        /// Its number, from one.
        line: u64,
        /// What is wrong.
        cause: WrongLine,
    },
    /// It is out of place.
    #[error("line {line}: {what}")]
    OutOfPlace {
        /// Its number, from one.
        line: u64,
        /// Why.
        what: String,
    },
    /// It has no end.
    #[error("line {line} is longer than 256 MiB")]
    TooLong {
        /// Its number, from one.
        line: u64,
    },
    /// It cannot be read.
    #[error("line {line} cannot be read: {cause}")]
    Unreadable {
        /// Its number, from one.
        line: u64,
        /// What went wrong.
        cause: io::Error,
    },
}

/// The first store whose lines `input` has, and another one, if there is one. What is no valid head is left to [`Lines`].
pub(super) fn stores(input: impl Read) -> io::Result<(Option<StoreId>, Option<StoreId>)> {
    let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
    let (mut first, mut line) = (None, Vec::new());
    loop {
        line.clear();
        let read = input.by_ref().take(HEAD_BYTES_MAX).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok((first, None));
        }
        if line.last() != Some(&b'\n') {
            // Only an entry is so long.
            input.skip_until(b'\n')?;
        } else if line.starts_with(br#"{"export":"#)
            && let Some(Line::Head(head)) =
                std::str::from_utf8(&line).ok().and_then(|text| Line::parse(text).ok())
        {
            match &first {
                Some(known) if *known != head.store => return Ok((first, Some(head.store))),
                _ => first = Some(head.store),
            }
        }
    }
}

/// The lines of an input, in order.
pub(super) struct Lines {
    input: BufReader<Box<dyn Read>>,
    number: u64,
    text: Vec<u8>,
}

impl Lines {
    pub(super) fn new(input: Box<dyn Read>) -> Self {
        let input = BufReader::with_capacity(BUFFER_BYTES, input);
        Self { input, number: 0, text: Vec::new() }
    }

    /// The next line with its number; blank lines are skipped. `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Line)>, LineError> {
        loop {
            self.text.clear();
            self.text.shrink_to(KEEP_BYTES);
            self.number += 1;
            let line = self.number;
            let mut limited = self.input.by_ref().take(LINE_BYTES_MAX);
            let read = limited.read_until(b'\n', &mut self.text);
            let read = read.map_err(|cause| LineError::Unreadable { line, cause })?;
            if read as u64 == LINE_BYTES_MAX && self.text.last() != Some(&b'\n') {
                return Err(LineError::TooLong { line });
            }
            if read == 0 {
                return Ok(None);
            }
            let text = std::str::from_utf8(&self.text)
                .map_err(|error| WrongLine::Json(error.to_string()))
                .map_err(|cause| LineError::Wrong { line, cause })?;
            if !text.trim().is_empty() {
                let parsed = Line::parse(text);
                let parsed = parsed.map_err(|cause| LineError::Wrong { line, cause })?;
                return Ok(Some((line, parsed)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_and_blank_ones_passed_over() {
        let id = "018bcfe5-6800-70e1-8101-010101010101";
        let good = format!(r#"{{"id":"{id}","event":"E","primaryKey":"","payloadHex":""}}"#);
        let text = format!("{good}\n\n  \r\n{good}\r\nnonsense\n{good}\n");
        let mut lines = Lines::new(Box::new(io::Cursor::new(text)));
        let mut number = || lines.next().map(|line| line.map(|(number, _)| number));
        assert_eq!(number().expect("a line"), Some(1));
        assert_eq!(number().expect("a line"), Some(4));
        assert!(matches!(number(), Err(LineError::Wrong { line: 5, .. })));
        let mut cut = Lines::new(Box::new(io::Cursor::new(good[..good.len() - 1].to_owned())));
        assert!(matches!(cut.next(), Err(LineError::Wrong { line: 1, .. })));
        let mut bytes = Lines::new(Box::new(&b"\xff\n"[..]));
        assert!(matches!(bytes.next(), Err(LineError::Wrong { line: 1, .. })));
        assert!(matches!(Lines::new(Box::new(&b""[..])).next(), Ok(None)));
    }

    #[test]
    fn the_stores_of_an_input_are_found_behind_entries_of_any_length() {
        let head = |store: &str| {
            format!(
                r#"{{"export":1,"storeId":"{store}","remoteId":"{}","from":1,"head":2}}"#,
                "0".repeat(32)
            )
        };
        let found = |text: &str| {
            let (first, second) = stores(text.as_bytes()).expect("it is read");
            let name = |store: Option<StoreId>| store.map(|store| store.as_str().to_owned());
            (name(first), name(second))
        };
        let (a, b, long) = (head("a"), head("b"), "x".repeat(3 << 20));
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(found(""), (None, None));
        assert_eq!(found(&format!("{a}\n{long}\n{a}\n")), (some("a"), None));
        assert_eq!(found(&format!("{a}\n{long}\n\n{b}\n{a}")), (some("a"), some("b")));
    }

    #[test]
    fn a_line_without_an_end_is_not_read_for_ever() {
        let mut lines = Lines::new(Box::new(io::repeat(b' ')));
        assert!(matches!(lines.next(), Err(LineError::TooLong { line: 1 })));
    }
}
