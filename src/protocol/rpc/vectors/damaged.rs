//! Golden frames with a few bytes changed, cut off or inserted: they are read or refused, and nothing worse.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::decoded::decode;
use super::{Vector, all};

/// What is done to a frame: where, with which byte.
#[derive(Clone, Debug)]
enum Damage {
    Replace(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    CutOff(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let byte =
        || prop_oneof![select(&[0_u8, 1, 2, 4, 5, 9, 10, 0x7f, 0x80, 0xff][..]), any::<u8>()];
    prop_oneof![
        4 => (any::<Index>(), byte()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        2 => (any::<Index>(), byte()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        2 => any::<Index>().prop_map(Damage::Remove),
        1 => any::<Index>().prop_map(Damage::CutOff),
    ]
}

/// The body of the frame, damaged, with its length corrected: so the damage reaches the readers.
fn damaged(frame: &[u8], damages: &[Damage]) -> Vec<u8> {
    let head = frame.iter().position(|byte| *byte < 0x80).map_or(0, |at| at + 1);
    let mut body = frame[head..].to_vec();
    for damage in damages {
        match damage {
            _ if body.is_empty() => {}
            Damage::Replace(at, byte) => *at.get_mut(&mut body) = *byte,
            Damage::Insert(at, byte) => body.insert(at.index(body.len()), *byte),
            Damage::Remove(at) => drop(body.remove(at.index(body.len()))),
            Damage::CutOff(at) => body.truncate(at.index(body.len())),
        }
    }
    let mut out = Vec::new();
    super::super::varint::write_sized(&mut out, &body);
    out
}

/// The smaller frames of both files.
fn frames() -> Vec<(String, Vec<u8>)> {
    let small = all().into_iter().filter(|vector| vector.frame.len() < 800);
    small.map(|Vector { schema, frame, .. }| (schema, frame)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn damaged_frames_are_read_or_refused(
        (schema, frame) in select(frames()),
        damages in proptest::collection::vec(damage(), 1..4),
    ) {
        let damaged = damaged(&frame, &damages);
        if decode(&schema, &damaged).is_ok()
            && let Some(ours) = super::encoded::encode(&schema, &damaged)
        {
            prop_assert_eq!(decode(&schema, &ours), decode(&schema, &damaged));
        }
    }

    #[test]
    fn arbitrary_frames_are_read_or_refused(
        (schema, _) in select(frames()),
        body in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let head: &[u8] = if schema == "Envelope" { &super::super::ids::FINGERPRINT } else { &[] };
        let first = if schema == "Envelope" { 0x21 } else { 0x20 };
        let mut frame = Vec::new();
        super::super::varint::write_sized(&mut frame, &[&[first], head, &body].concat());
        let _ = decode(&schema, &frame);
    }
}
