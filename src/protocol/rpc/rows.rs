//! Arrays of structs: rows that list their fields once, and refer to earlier strings by number.
//!
//! ```text
//! array   uvarint count, rows
//! row     uvarint length, then either 0 and, to the end, (uvarint field id, value)…: a new shape,
//!                              or k and the values of the k-th shape so far
//! value   uvarint c; even: c/2 bytes follow; odd: string (c-1)/2 of those that this field had so far
//! ```
//!
//! Keeps: memory grows with the bytes of the array, by a small factor. Leaves out: references when writing; a writer
//! declares its shape in the first row and uses it in the others.

use std::ops::Range;

use super::fields::{FEWER_FIELDS, FIELDS_MAX, SeenIds};
use super::varint::write_uvarint;
use super::window::{Malformed, Window, text};

/// A field that a row may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) id: u32,
    /// Whether it is a plain string, which later rows may refer to.
    pub(super) is_text: bool,
}

pub(super) const fn bytes_column(id: u32) -> Column {
    Column { id, is_text: false }
}

pub(super) const fn text_column(id: u32) -> Column {
    Column { id, is_text: true }
}

/// The value of a row in a column.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell<'a> {
    Bytes(&'a [u8]),
    Text(&'a str),
}

impl<'a> Cell<'a> {
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Text(text) => text.as_bytes(),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        match self {
            Self::Bytes(bytes) => text(bytes),
            Self::Text(text) => Ok(text),
        }
    }
}

/// Reads rows one after the other. Every row has every column.
#[derive(Debug)]
pub(super) struct Rows<'a, const N: usize> {
    window: Window<'a>,
    left: u64,
    columns: &'static [Column; N],
    shapes: Shapes,
    /// The columns of all shapes; [`UNKNOWN`] for a field that is skipped.
    fields: Vec<u8>,
    /// The strings that each column had.
    texts: [Vec<&'a str>; N],
}

const UNKNOWN: u8 = u8::MAX;

/// The shapes that an array's rows have declared: where each ends in the list of all their fields.
#[derive(Debug, Default)]
pub(super) struct Shapes(Vec<u32>);

impl Shapes {
    /// A shape was declared; now there are this many fields.
    pub(super) fn declare(&mut self, fields: usize) {
        // A frame has at most 2^32 bytes, and each field takes two of them.
        self.0.push(fields as u32);
    }

    /// The range of the fields of `shape`, counted from 1.
    pub(super) fn fields(&self, shape: u64) -> Result<Range<u32>, Malformed> {
        let at = usize::try_from(shape - 1).ok();
        let end = at.and_then(|at| self.0.get(at)).copied();
        let (Some(at), Some(end)) = (at, end) else {
            return Err(Malformed::new("a shape that was declared"));
        };
        let begin = if at == 0 { 0 } else { self.0[at - 1] };
        Ok(begin..end)
    }
}

/// The earlier string with number `at`.
pub(super) fn known<'a>(texts: &[&'a str], at: u64) -> Result<&'a str, Malformed> {
    let text = usize::try_from(at).ok().and_then(|at| texts.get(at));
    text.copied().ok_or(Malformed::new("a string that was there before"))
}

impl<'a, const N: usize> Rows<'a, N> {
    /// The rows in `window`, which ends with them.
    pub(super) fn read(
        mut window: Window<'a>,
        columns: &'static [Column; N],
    ) -> Result<Self, Malformed> {
        let left = window.count()?;
        let texts = [const { Vec::new() }; N];
        Ok(Self { window, left, columns, shapes: Shapes::default(), fields: Vec::new(), texts })
    }

    /// How many rows are unread, according to the writer.
    pub(super) const fn left(&self) -> u64 {
        self.left
    }

    /// The next row; `None` after the last one, which has to end the window.
    pub(super) fn next_row(&mut self) -> Result<Option<[Cell<'a>; N]>, Malformed> {
        if self.left == 0 {
            return self.window.end().map(|()| None);
        }
        self.left -= 1;
        let mut row = Window::new(self.window.sized()?);
        let mut cells = [None; N];
        match row.uvarint()? {
            0 => self.declare(&mut row, &mut cells)?,
            shape => self.reuse(shape, &mut row, &mut cells)?,
        }
        row.end()?;
        let mut full = [Cell::Bytes(&[]); N];
        for (place, cell) in full.iter_mut().zip(cells) {
            *place = cell.ok_or(Malformed::new("a row with every required field"))?;
        }
        Ok(Some(full))
    }

    fn declare(
        &mut self,
        row: &mut Window<'a>,
        cells: &mut [Option<Cell<'a>>; N],
    ) -> Result<(), Malformed> {
        let mut seen = SeenIds::default();
        while !row.is_empty() {
            let id = row.uvarint()?;
            seen.add(id)?;
            if self.fields.len() == FIELDS_MAX {
                return Err(FEWER_FIELDS);
            }
            let column = self.columns.iter().position(|column| u64::from(column.id) == id);
            let field = column.map_or(UNKNOWN, |column| column as u8);
            self.fields.push(field);
            self.cell(field, row, cells)?;
        }
        self.shapes.declare(self.fields.len());
        seen.all_differ()
    }

    fn reuse(
        &mut self,
        shape: u64,
        row: &mut Window<'a>,
        cells: &mut [Option<Cell<'a>>; N],
    ) -> Result<(), Malformed> {
        for field in self.shapes.fields(shape)? {
            self.cell(self.fields[field as usize], row, cells)?;
        }
        Ok(())
    }

    fn cell(
        &mut self,
        field: u8,
        row: &mut Window<'a>,
        cells: &mut [Option<Cell<'a>>; N],
    ) -> Result<(), Malformed> {
        let code = row.uvarint()?;
        let written = if code & 1 == 0 { Some(row.take(code >> 1)?) } else { None };
        if field == UNKNOWN {
            return Ok(());
        }
        let column = usize::from(field);
        let texts = &mut self.texts[column];
        cells[column] = Some(match written {
            Some(bytes) if self.columns[column].is_text => {
                let text = text(bytes)?;
                texts.push(text);
                Cell::Text(text)
            }
            Some(bytes) => Cell::Bytes(bytes),
            None => Cell::Text(known(texts, code >> 1)?),
        });
        Ok(())
    }
}

/// Selects the shape that the first row of an array declared.
pub(super) const FIRST_SHAPE: u8 = 1;

/// Begins a value of `len` bytes in a row; they must follow.
pub(super) fn begin_cell(out: &mut Vec<u8>, len: usize) {
    write_uvarint(out, len as u64 * 2);
}

/// How many bytes a value of `len` bytes takes in a row.
pub(super) const fn cell_len(len: usize) -> usize {
    super::varint::uvarint_len(len as u64 * 2) + len
}

/// Appends a value of a row.
pub(super) fn write_cell(out: &mut Vec<u8>, value: &[u8]) {
    begin_cell(out, value.len());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: [Column; 2] = [text_column(5), bytes_column(6)];

    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, Malformed> {
        let mut rows = Rows::read(Window::new(bytes), &COLUMNS)?;
        let mut found = Vec::new();
        while let Some([name, data]) = rows.next_row()? {
            found.push((name.text()?.to_owned(), data.bytes().to_vec()));
        }
        Ok(found)
    }

    fn array(rows: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![rows.len() as u8];
        for row in rows {
            super::super::varint::write_sized(&mut out, row);
        }
        out
    }

    fn row(name: &str, data: &[u8]) -> (String, Vec<u8>) {
        (name.to_owned(), data.to_vec())
    }

    #[test]
    fn strings_belong_to_the_field_across_shapes() {
        let bytes = array(&[
            &[0, 5, 2, b'a', 6, 2, 1],
            &[0, 6, 0, 5, 2, b'b'],
            &[2, 2, 9, 3],
            &[1, 1, 0],
            &[1, 2, b'a', 0],
            &[1, 5, 0],
        ]);
        let expected = [
            row("a", &[1]),
            row("b", &[]),
            row("b", &[9]),
            row("a", &[]),
            row("a", &[]),
            row("a", &[]),
        ];
        assert_eq!(read(&bytes), Ok(expected.to_vec()));
    }

    #[test]
    fn an_unknown_field_stays_part_of_its_shape() {
        let bytes = array(&[&[0, 9, 4, 1, 2, 5, 2, b'a', 6, 0], &[1, 7, 1, 0]]);
        assert_eq!(read(&bytes), Ok(vec![row("a", &[]), row("a", &[])]));
    }

    #[test]
    fn shapes_have_so_many_fields_together_and_no_more() {
        let shape: &[u8] = &[0, 5, 2, b'a', 6, 0];
        let many = |rows: usize| {
            let mut out = Vec::new();
            write_uvarint(&mut out, rows as u64);
            (0..rows).for_each(|_| super::super::varint::write_sized(&mut out, shape));
            read(&out).map(|rows| rows.len())
        };
        assert_eq!(many(FIELDS_MAX / 2), Ok(FIELDS_MAX / 2));
        assert_eq!(many(FIELDS_MAX / 2 + 1), Err(FEWER_FIELDS));
    }

    #[test]
    fn rows_that_refer_to_nothing_are_refused() {
        let first: &[u8] = &[0, 5, 2, b'a', 6, 0];
        let bad: [&[u8]; 8] = [
            &[2, 2, b'a', 0],
            &[1, 3, 0],
            &[1, 1, 1],
            &[1, 1],
            &[1, 1, 0, 0],
            &[0, 5, 1],
            &[0, 5, 1, 6, 0, 5, 1],
            &[],
        ];
        assert!(read(&array(&[first, &[1, 1, 0]])).is_ok());
        for second in bad {
            assert!(read(&array(&[first, second])).is_err(), "{second:x?}");
        }
        assert!(read(&[]).is_err(), "an empty array has a count");
        assert_eq!(read(&[0]), Ok(Vec::new()));
        assert!(read(&[0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_rows_or_an_error(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }

        #[test]
        fn any_rows_are_read_or_refused(rows in proptest::collection::vec(
            proptest::collection::vec(0..8_u8, 0..12), 0..6,
        )) {
            let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
            let _ = read(&array(&rows));
        }
    }
}
