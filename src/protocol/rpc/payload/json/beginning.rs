//! The beginning of the JSON for a payload that is too long to be shown whole.
//!
//! Keeps: it reads little more than it shows, however long the payload is; where all of it fits, the result is that of
//! `decode`. What is left out can make a difference: the beginning of a text is a text, whatever comes behind it.

use serde_json::Value;

use super::super::super::fields::SeenIds;
use super::super::super::frame::open;
use super::super::super::ids::VARIANT;
use super::super::super::window::{Malformed, Window};
use super::super::{kind, member};
use super::Names;
use super::decode::{DEPTH_MAX, FIELD_ID_MIN, Guess, NOT_THIS, hexadecimal, is_control, plain};

/// Values up to this many bytes are read whole.
const SMALL_BYTES: usize = 2_048;

/// A letter takes at most so many bytes.
const LETTER_BYTES_MAX: usize = 4;

/// At most `bytes_max` bytes of what [`guess`](super::guess) makes of `payload`. `None` if that is not one complete
/// frame.
pub fn guess_beginning(payload: &[u8], names: &Names, bytes_max: usize) -> Option<String> {
    let bytes = open(payload).ok()?.rest();
    let guess = Guess { names };
    let mut shown = Beginning { guess, out: String::new(), bytes_max };
    shown.cell(bytes, DEPTH_MAX);
    let mut out = shown.out;
    let end = (0..=bytes_max.min(out.len())).rev().find(|at| out.is_char_boundary(*at));
    out.truncate(end.unwrap_or(0));
    Some(out)
}

struct Beginning<'a> {
    guess: Guess<'a>,
    out: String,
    bytes_max: usize,
}

impl Beginning<'_> {
    const fn is_full(&self) -> bool {
        self.out.len() > self.bytes_max
    }

    /// How many bytes are still wanted, and one more, so that what follows them is missed.
    const fn left(&self) -> usize {
        self.bytes_max.saturating_sub(self.out.len()).saturating_add(1)
    }

    fn put(&mut self, value: &Value) {
        self.out.push_str(&value.to_string());
    }

    /// A value of a row, or of the payload itself.
    fn cell(&mut self, bytes: &[u8], depth: usize) {
        if bytes.len() > SMALL_BYTES {
            return self.long(bytes, depth);
        }
        let value = self.guess.whole(bytes, depth).unwrap_or_else(|_| hexadecimal(bytes));
        self.put(&value);
    }

    /// A value of a field.
    fn sized(&mut self, bytes: &[u8], depth: usize) {
        if bytes.len() > SMALL_BYTES {
            return self.long(bytes, depth);
        }
        let value = self.guess.sized_or_bytes(bytes, depth);
        self.put(&value);
    }

    fn long(&mut self, bytes: &[u8], depth: usize) {
        type Try<'a> = fn(&mut Beginning<'a>, &[u8], usize) -> Result<(), Malformed>;
        let begin = self.out.len();
        let tries: [Try<'_>; 4] =
            [Self::structure, |this, bytes, _| this.text(bytes), Self::member, Self::array];
        if let Some(depth) = depth.checked_sub(1) {
            for read in tries {
                if read(self, bytes, depth).is_ok() {
                    return;
                }
                self.out.truncate(begin);
            }
        }
        let shown = &bytes[..bytes.len().min(self.left())];
        self.put(&hexadecimal(shown));
    }

    fn structure(&mut self, bytes: &[u8], depth: usize) -> Result<(), Malformed> {
        self.out.push('{');
        self.fields(bytes, depth)
    }

    /// Fields, and the end of the struct.
    fn fields(&mut self, bytes: &[u8], depth: usize) -> Result<(), Malformed> {
        let (mut window, mut seen) = (Window::new(bytes), SeenIds::default());
        while !window.is_empty() {
            if self.is_full() {
                return Ok(());
            }
            let (id, kind) = window.field_tag()?;
            if id < FIELD_ID_MIN {
                return Err(NOT_THIS);
            }
            seen.add(u64::from(id))?;
            self.name(id);
            match kind {
                kind::SIZED => self.sized(window.sized()?, depth),
                kind => self.put(&plain(kind, &mut window)?),
            }
        }
        seen.all_differ()?;
        self.out.push('}');
        Ok(())
    }

    fn name(&mut self, id: u32) {
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        let name = self.guess.names.name(id);
        self.put(&Value::from(name));
        self.out.push(':');
    }

    fn text(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let most = self.left().saturating_add(LETTER_BYTES_MAX);
        let shown = &bytes[..bytes.len().min(most)];
        let text = match std::str::from_utf8(shown) {
            Ok(text) => text,
            // A letter is cut.
            Err(error) if error.error_len().is_none() && shown.len() < bytes.len() => {
                std::str::from_utf8(&shown[..error.valid_up_to()]).map_err(|_| NOT_THIS)?
            }
            Err(_) => return Err(NOT_THIS),
        };
        if text.contains(is_control) {
            return Err(NOT_THIS);
        }
        self.put(&Value::from(text));
        Ok(())
    }

    fn member(&mut self, bytes: &[u8], depth: usize) -> Result<(), Malformed> {
        let (member, rest) = bytes.split_first().ok_or(NOT_THIS)?;
        match (*member, rest) {
            (member::TEXT, rest) => self.text(rest),
            (member::BYTES, rest) => {
                let shown = &rest[..rest.len().min(self.left())];
                self.put(&hexadecimal(shown));
                Ok(())
            }
            (member::STRUCT, rest) => self.structure(rest, depth),
            (member::ARRAY, rest) => self.array(rest, depth),
            (VARIANT, [a, b, c, d, rest @ ..]) => {
                let tag = format!("#{:08x}", u32::from_le_bytes([*a, *b, *c, *d]));
                self.out.push_str("{\"_tag\":");
                self.put(&Value::from(tag));
                self.fields(rest, depth)
            }
            _ => Err(NOT_THIS),
        }
    }

    /// An array of structs or of texts, as its first element is.
    fn array(&mut self, bytes: &[u8], depth: usize) -> Result<(), Malformed> {
        let mut window = Window::new(bytes);
        let (count, mut are_rows) = (window.count()?, None);
        self.out.push('[');
        for number in 0..count {
            if self.is_full() {
                return Ok(());
            }
            if number > 0 {
                self.out.push(',');
            }
            let (element, begin) = (window.sized()?, self.out.len());
            let is_row = are_rows != Some(false) && self.row(element, depth).is_ok();
            if !is_row {
                if are_rows == Some(true) {
                    return Err(NOT_THIS);
                }
                self.out.truncate(begin);
                self.text(element)?;
            }
            are_rows = Some(is_row);
        }
        window.end()?;
        self.out.push(']');
        Ok(())
    }

    fn row(&mut self, row: &[u8], depth: usize) -> Result<(), Malformed> {
        let mut window = Window::new(row);
        if window.uvarint()? != 0 {
            return Err(NOT_THIS);
        }
        self.out.push('{');
        while !window.is_empty() {
            if self.is_full() {
                return Ok(());
            }
            let id = u32::try_from(window.uvarint()?).map_err(|_| NOT_THIS)?;
            let code = window.uvarint()?;
            if id < FIELD_ID_MIN || code & 1 == 1 {
                return Err(NOT_THIS);
            }
            self.name(id);
            self.cell(window.take(code >> 1)?, depth);
        }
        self.out.push('}');
        Ok(())
    }
}
