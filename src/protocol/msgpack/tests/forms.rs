//! Writes requests in forms that no encoder of ours writes: wide heads, other numbers, shuffled and unknown keys.

use bytes::{BufMut, Bytes};
use proptest::prelude::*;

use super::super::{Request, WriteRequest};
use crate::model::EntryRef;

/// Which of the forms that msgpack permits are used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// Which of the heads that can hold a length is used.
    width: u8,
    /// Which of the forms that can hold a number is used.
    number: u8,
    /// By how many places the keys of each map are rotated.
    turn: usize,
    /// Whether every map has an unknown key.
    extra: bool,
    /// Whether every map has its first key twice; the last one counts.
    twice: bool,
}

impl Arbitrary for Form {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        (0..4_u8, 0..5_u8, 0..5_usize, any::<bool>(), any::<bool>())
            .prop_map(|(width, number, turn, extra, twice)| Self {
                width,
                number,
                turn,
                extra,
                twice,
            })
            .boxed()
    }
}

pub(super) fn request_in_form(request: &Request, form: Form) -> Bytes {
    let text = |text: &str| form.text(text);
    let fields = match request {
        Request::Write(WriteRequest { public_key, id, batch }) => vec![
            ("_tag", text("WriteEntriesUnencrypted")),
            ("publicKey", text(public_key.as_str())),
            ("id", form.number(*id)),
            (
                "entries",
                form.list(&batch.iter().map(|entry| form.entry(&entry)).collect::<Vec<_>>()),
            ),
        ],
        Request::RequestChanges { public_key, start, ack, marks } => vec![
            ("_tag", text("RequestChanges")),
            ("publicKey", text(public_key.as_str())),
            ("startSequence", form.number(start.get())),
            ("ack", vec![0xc2 + u8::from(*ack)]),
            ("marks", vec![0xc2 + u8::from(*marks)]),
        ],
        Request::StopChanges { public_key } => {
            vec![("_tag", text("StopChanges")), ("publicKey", text(public_key.as_str()))]
        }
        Request::Chunk { id, index, total, data } => vec![
            ("_tag", text("ChunkedMessage")),
            ("id", form.number(*id)),
            ("part", form.list(&[form.number(*index), form.number(*total)])),
            ("data", form.bytes(data)),
        ],
        Request::Ping { id } => vec![("_tag", text("Ping")), ("id", form.number(*id))],
    };
    form.map(fields).into()
}

impl Form {
    fn entry(self, entry: &EntryRef<'_>) -> Vec<u8> {
        self.map(vec![
            ("id", self.bytes(entry.id.as_bytes())),
            ("event", self.text(entry.event)),
            ("primaryKey", self.text(entry.primary_key)),
            ("payload", self.bytes(entry.payload)),
        ])
    }

    fn map(self, mut fields: Vec<(&str, Vec<u8>)>) -> Vec<u8> {
        let turn = self.turn % fields.len();
        fields.rotate_left(turn);
        if self.twice {
            fields.insert(0, (fields[0].0, self.list(&[self.text("wrong")])));
        }
        if self.extra {
            let extra = self.list(&[self.list(&[self.number(1), self.bytes(b"x")])]);
            fields.insert(1, ("extra", extra));
        }
        let mut out = self.head(fields.len(), 0x80, 16, [None, Some(0xde), Some(0xdf)]);
        for (name, value) in fields {
            out.extend(self.text(name));
            out.extend(value);
        }
        out
    }

    fn list(self, elements: &[Vec<u8>]) -> Vec<u8> {
        let mut out = self.head(elements.len(), 0x90, 16, [None, Some(0xdc), Some(0xdd)]);
        out.extend(elements.concat());
        out
    }

    fn text(self, text: &str) -> Vec<u8> {
        let mut out = self.head(text.len(), 0xa0, 32, [Some(0xd9), Some(0xda), Some(0xdb)]);
        out.extend_from_slice(text.as_bytes());
        out
    }

    fn bytes(self, bytes: &[u8]) -> Vec<u8> {
        let mut out = self.head(bytes.len(), 0, 0, [Some(0xc4), Some(0xc5), Some(0xc6)]);
        out.extend_from_slice(bytes);
        out
    }

    /// A head of the wanted width, or of the next one that can hold `len`.
    fn head(self, len: usize, fixed: u8, fixed_max: usize, wide: [Option<u8>; 3]) -> Vec<u8> {
        let mut out = Vec::new();
        match (self.width, wide) {
            (0, _) if len < fixed_max => out.put_u8(fixed | len as u8),
            (0..=1, [Some(head), ..]) if len <= 0xff => out.put_slice(&[head, len as u8]),
            (0..=2, [_, Some(head), _]) if len <= 0xffff => {
                out.put_u8(head);
                out.put_u16(len as u16);
            }
            (_, [.., head]) => {
                out.put_u8(head.expect("the widest head is always there"));
                out.put_u32(len as u32);
            }
        }
        out
    }

    fn number(self, value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        match self.number {
            0 if value <= 0xffff => {
                out.put_u8(0xcd);
                out.put_u16(value as u16);
            }
            1 if value <= 0x7fff_ffff => {
                out.put_u8(0xd2);
                out.put_u32(value as u32);
            }
            2 => {
                out.put_u8(0xcf);
                out.put_u64(value);
            }
            3 => {
                out.put_u8(0xd3);
                out.put_u64(value);
            }
            _ => {
                out.put_u8(0xcb);
                out.put_f64(value as f64);
            }
        }
        out
    }
}
