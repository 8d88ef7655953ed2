//! Text in a form that PostgreSQL can hold: everything but U+0000.
//!
//! Keeps: any text of a client is accepted, comes back unchanged, and sorts in the same way (byte by byte, before and
//! after). Text without U+0000 and U+0001, which is nearly all there is, is stored unchanged.
//!
//! ```text
//! U+0000    U+0001 U+0001
//! U+0001    U+0001 U+0002
//! ```

use std::borrow::Cow;

const MARK: char = '\u{1}';

/// `text` in the form for a table.
pub(crate) fn to_column(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', MARK]) {
        return Cow::Borrowed(text);
    }
    let mut column = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        match letter {
            '\0' => column.push_str("\u{1}\u{1}"),
            MARK => column.push_str("\u{1}\u{2}"),
            letter => column.push(letter),
        }
    }
    Cow::Owned(column)
}

/// The text of the column value `column`. A value that [`to_column`] never writes is taken unchanged.
pub(crate) fn from_column(column: &str) -> Cow<'_, str> {
    if !column.contains(MARK) {
        return Cow::Borrowed(column);
    }
    let mut text = String::with_capacity(column.len());
    let mut letters = column.chars().peekable();
    while let Some(letter) = letters.next() {
        let escaped = match letters.peek() {
            Some('\u{1}') if letter == MARK => Some('\0'),
            Some('\u{2}') if letter == MARK => Some(MARK),
            _ => None,
        };
        if escaped.is_some() {
            letters.next();
        }
        text.push(escaped.unwrap_or(letter));
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_comes_back_and_sorts_as_it_did(
            one in "[\u{0}\u{1}\u{2}a]{0,6}", other in "[\u{0}\u{1}\u{2}a]{0,6}", any: String,
        ) {
            for text in [&one, &other, &any] {
                let column = to_column(text);
                prop_assert!(!column.contains('\0'));
                prop_assert_eq!(&*from_column(&column), &**text);
            }
            prop_assert_eq!(to_column(&one).cmp(&to_column(&other)), one.cmp(&other));
        }
    }

    #[test]
    fn what_others_wrote_is_taken_as_it_is() {
        for text in ["\u{1}", "a\u{1}b", "\u{1}\u{3}", "ä"] {
            assert_eq!(from_column(text), text);
        }
    }
}
