//! Structs: fields by id and kind, in any order, to the end of a window.
//!
//! Keeps: a field that is unknown, or has a kind that its type does not use, is skipped; an id that occurs twice, known
//! or not, is an error; so are a missing required field, and more fields than any type has.

use super::varint::{sized_len, uvarint_len, write_int, write_natural, write_sized, write_uvarint};
use super::window::{Malformed, Window, natural};

/// How the value of a field follows its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Preceded by its length.
    Sized = 0,
    /// As an int.
    Int = 1,
}

/// A field that a struct may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) id: u32,
    pub(super) kind: Kind,
}

pub(super) const fn sized(id: u32) -> Field {
    Field { id, kind: Kind::Sized }
}

pub(super) const fn int(id: u32) -> Field {
    Field { id, kind: Kind::Int }
}

/// The values of the requested fields of a struct, in the requested order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a, const N: usize>([Option<Value<'a>>; N]);

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Sized(&'a [u8]),
    Int(i64),
}

const MISSING: Malformed = Malformed::new("every required field");

impl<'a, const N: usize> Fields<'a, N> {
    /// Reads to the end of `window`.
    pub(super) fn read(mut window: Window<'a>, known: &[Field; N]) -> Result<Self, Malformed> {
        let mut values = [None; N];
        let mut seen = SeenIds::default();
        while !window.is_empty() {
            let (id, kind) = window.field_tag()?;
            seen.add(u64::from(id))?;
            let at = known.iter().position(|field| field.id == id && field.kind as u8 == kind);
            match at {
                Some(at) => {
                    values[at] = Some(match known[at].kind {
                        Kind::Sized => Value::Sized(window.sized()?),
                        Kind::Int => Value::Int(window.int()?),
                    });
                }
                None => skip_field(&mut window, id, kind)?,
            }
        }
        seen.all_differ()?;
        Ok(Self(values))
    }

    /// The window of a sized field.
    pub(super) fn sized(&self, at: usize) -> Result<&'a [u8], Malformed> {
        self.optional(at).ok_or(MISSING)
    }

    /// The window of a sized field, if there is one.
    pub(super) fn optional(&self, at: usize) -> Option<&'a [u8]> {
        match self.0[at] {
            Some(Value::Sized(bytes)) => Some(bytes),
            Some(Value::Int(_)) | None => None,
        }
    }

    /// The value of an int field.
    pub(super) fn int(&self, at: usize) -> Result<i64, Malformed> {
        match self.0[at] {
            Some(Value::Int(value)) => Ok(value),
            Some(Value::Sized(_)) | None => Err(MISSING),
        }
    }

    /// The value of an int field that cannot be negative.
    pub(super) fn natural(&self, at: usize) -> Result<u64, Malformed> {
        natural(self.int(at)?)
    }
}

/// Skips a field by its kind.
pub(super) fn skip_field(window: &mut Window<'_>, id: u32, kind: u8) -> Result<(), Malformed> {
    match kind {
        0 => window.sized().map(drop),
        _ if id == 0 => Err(Malformed::new("an extra block with a length")),
        1 => window.skip_varint(),
        2 => window.take(8).map(drop),
        5 => window.skip_varint().and_then(|()| window.skip_varint()),
        6 => window.take(4).map(drop),
        // Three kinds are left: false, true and empty, which have no bytes of their own.
        _ => Ok(()),
    }
}

/// Most fields of a struct, known or not: something is kept for each of them, and it may take only one byte.
pub(super) const FIELDS_MAX: usize = 4_096;

/// There are more of them.
pub(super) const FEWER_FIELDS: Malformed = Malformed::new("fewer fields");

/// Finds out whether an id occurs twice; allocates only if there are more than a few.
#[derive(Debug, Default)]
pub(super) struct SeenIds {
    few: [u64; 8],
    count: usize,
    more: Vec<u64>,
}

impl SeenIds {
    /// An error if there are too many.
    pub(super) fn add(&mut self, id: u64) -> Result<(), Malformed> {
        match self.few.get_mut(self.count) {
            Some(place) => *place = id,
            None if self.count == FIELDS_MAX => return Err(FEWER_FIELDS),
            None => self.more.push(id),
        }
        self.count += 1;
        Ok(())
    }

    /// An error if an id was added twice.
    pub(super) fn all_differ(mut self) -> Result<(), Malformed> {
        let few = &mut self.few[..self.count.min(8)];
        let ids = if self.more.is_empty() {
            few
        } else {
            self.more.extend_from_slice(few);
            &mut self.more[..]
        };
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Malformed::new("every field once"));
        }
        Ok(())
    }
}

/// The contents of an optional field: `value` reads what it holds if that has the member kind `kind`.
///
/// Absent, present but undefined, and of an unknown kind are all `None`.
pub(super) fn optional<'a, T>(
    bytes: Option<&'a [u8]>,
    kind: u8,
    value: impl FnOnce(&'a [u8]) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    let Some(bytes) = bytes else { return Ok(None) };
    let mut window = Window::new(bytes);
    match window.byte()? {
        found if found == kind => value(window.rest()).map(Some),
        member::UNDEFINED => window.end().map(|()| None),
        _ => Ok(None),
    }
}

/// What precedes a member of a union that is not a variant.
pub(super) mod member {
    pub(in super::super) const BOOLEAN: u8 = 1;
    pub(in super::super) const UNDEFINED: u8 = 3;
    pub(in super::super) const NUMBER: u8 = 4;
    pub(in super::super) const TEXT: u8 = 5;
}

const fn tag(id: u32, kind: Kind) -> u64 {
    id as u64 * 8 + kind as u64
}

/// How many bytes a sized field takes whose value takes `value_len`.
pub(super) const fn sized_field_len(id: u32, value_len: usize) -> usize {
    uvarint_len(tag(id, Kind::Sized)) + sized_len(value_len)
}

/// Begins a sized field whose value takes `value_len` bytes; the value must follow.
pub(super) fn begin_sized_field(out: &mut Vec<u8>, id: u32, value_len: usize) {
    write_uvarint(out, tag(id, Kind::Sized));
    write_uvarint(out, value_len as u64);
}

/// Appends a sized field.
pub(super) fn write_sized_field(out: &mut Vec<u8>, id: u32, value: &[u8]) {
    write_uvarint(out, tag(id, Kind::Sized));
    write_sized(out, value);
}

/// Appends an int field.
pub(super) fn write_int_field(out: &mut Vec<u8>, id: u32, value: i64) {
    write_uvarint(out, tag(id, Kind::Int));
    write_int(out, value);
}

/// Appends an int field whose value cannot be negative.
pub(super) fn write_natural_field(out: &mut Vec<u8>, id: u32, value: u64) {
    write_uvarint(out, tag(id, Kind::Int));
    write_natural(out, value);
}

/// Appends an optional text field; nothing if it is absent.
pub(super) fn write_optional_text(out: &mut Vec<u8>, id: u32, value: Option<&str>) {
    if let Some(value) = value {
        begin_sized_field(out, id, 1 + value.len());
        out.push(member::TEXT);
        out.extend_from_slice(value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: [Field; 2] = [sized(7), int(9)];

    fn read(bytes: &[u8]) -> Result<(Option<Vec<u8>>, Option<i64>), Malformed> {
        let fields = Fields::read(Window::new(bytes), &KNOWN)?;
        Ok((fields.optional(0).map(<[u8]>::to_vec), fields.int(1).ok()))
    }

    /// One field of each kind with the id 8.
    const UNKNOWN: [&[u8]; 8] = [
        &[8 * 8, 2, 1, 1],
        &[8 * 8 + 1, 0x80, 0x80, 0],
        &[8 * 8 + 2, 1, 1, 1, 1, 1, 1, 1, 1],
        &[8 * 8 + 3],
        &[8 * 8 + 4],
        &[8 * 8 + 5, 0x80, 1, 1],
        &[8 * 8 + 6, 1, 1, 1, 1],
        &[8 * 8 + 7],
    ];

    #[test]
    fn unknown_fields_of_every_kind_are_passed_over() {
        for unknown in UNKNOWN {
            let bytes = [&[7 * 8, 1, b'x'], unknown, &[9 * 8 + 1, 4]].concat();
            assert_eq!(read(&bytes), Ok((Some(b"x".to_vec()), Some(2))), "{unknown:x?}");
            assert!(read(&[&bytes[..], unknown].concat()).is_err(), "twice: {unknown:x?}");
        }
    }

    #[test]
    fn a_known_field_of_another_kind_is_absent_and_still_seen() {
        assert_eq!(read(&[7 * 8 + 1, 2, 9 * 8, 1, 4]), Ok((None, None)));
        assert!(read(&[7 * 8 + 1, 2, 7 * 8, 0]).is_err());
    }

    #[test]
    fn id_zero_is_the_extra_block_and_has_a_length() {
        assert_eq!(read(&[0, 1, 0xff]), Ok((None, None)));
        for kind in 1..8 {
            assert!(read(&[kind, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        }
    }

    #[test]
    fn a_repetition_is_found_among_many_ids() {
        let mut ids = SeenIds::default();
        (0..100).try_for_each(|id| ids.add(id)).expect("few");
        assert_eq!(ids.all_differ(), Ok(()));
        let mut ids = SeenIds::default();
        (0..100).chain([3]).try_for_each(|id| ids.add(id)).expect("few");
        assert!(ids.all_differ().is_err());
    }

    #[test]
    fn a_struct_has_so_many_fields_and_no_more() {
        let mut ids = SeenIds::default();
        (0..FIELDS_MAX as u64).try_for_each(|id| ids.add(id)).expect("as many as there may be");
        assert_eq!(ids.add(FIELDS_MAX as u64), Err(FEWER_FIELDS));
        assert_eq!(read(&vec![8 + 7; FIELDS_MAX + 1]), Err(FEWER_FIELDS));
    }

    #[test]
    fn undefined_and_unknown_members_are_absent() {
        let read = |bytes| optional(Some(bytes), member::NUMBER, |bytes: &[u8]| Ok(bytes.len()));
        assert_eq!(read(&[4, 1, 1]), Ok(Some(2)));
        assert_eq!(read(&[3]), Ok(None));
        assert_eq!(read(&[5, 1]), Ok(None));
        assert!(read(&[]).is_err());
        assert!(read(&[3, 0]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_fields_or_an_error(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }

        #[test]
        fn lengths_are_what_is_written(id: u32, sized: Vec<u8>) {
            let mut out = Vec::new();
            write_sized_field(&mut out, id, &sized);
            prop_assert_eq!(out.len(), sized_field_len(id, sized.len()));
        }
    }
}
