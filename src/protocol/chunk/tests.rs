use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn limits() -> Limits {
    Limits {
        message_bytes_max: 100,
        chunk_sets_max: 2,
        chunk_set_bytes_max: 300,
        chunk_set_age_max: Duration::from_secs(10),
        ..Limits::default()
    }
}

fn data(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn a_message_is_cut_at_the_chunk_size() {
    assert_eq!(split(0).len(), 0);
    assert_eq!(split(CHUNK_BYTES).len(), 1);
    let parts: Vec<_> = split(2 * CHUNK_BYTES + 1).collect();
    assert_eq!(parts.len(), 3);
    assert_eq!(parts[2], 2 * CHUNK_BYTES..2 * CHUNK_BYTES + 1);
}

#[test]
fn parts_join_in_any_order_and_mixed_with_others() {
    let mut joiner = ChunkJoiner::new(&limits());
    assert_eq!(joiner.push(1, 2, 3, data("c")), Ok(None));
    assert_eq!(joiner.push(2, 0, 2, data("x")), Ok(None));
    assert_eq!(joiner.push(1, 0, 3, data("aa")), Ok(None));
    assert_eq!(joiner.push(2, 1, 2, data("y")), Ok(Some(data("xy"))));
    assert_eq!(joiner.push(1, 1, 3, data("b")), Ok(Some(data("aabc"))));
    assert!(joiner.is_empty());
    // The id is free again.
    assert_eq!(joiner.push(1, 0, 1, data("z")), Ok(Some(data("z"))));
}

#[test]
fn a_repeated_part_is_ignored() {
    let mut joiner = ChunkJoiner::new(&limits());
    for index in [0, 0, 2, 2, 0] {
        assert_eq!(joiner.push(1, index, 3, data("a")), Ok(None));
    }
    assert_eq!(joiner.bytes(), 1 + 1 + WAITING_PART_BYTES);
    assert_eq!(joiner.push(1, 1, 3, data("b")), Ok(Some(data("aba"))));
}

#[test]
fn broken_sets_are_refused() {
    let mut joiner = ChunkJoiner::new(&limits());
    let no_such = |index, total| Err(ChunkError::NoSuchPart { id: 1, index, total });
    assert_eq!(joiner.push(1, 0, 0, data("a")), no_such(0, 0));
    assert_eq!(joiner.push(1, 3, 3, data("a")), no_such(3, 3));
    let empty = ChunkError::EmptyPart { id: 1, index: 0 };
    assert_eq!(joiner.push(1, 0, 3, Bytes::new()), Err(empty));
    assert_eq!(joiner.push(1, 0, 3, data("a")), Ok(None));
    let changed = ChunkError::TotalChanged { id: 1, total: 4, total_before: 3 };
    assert_eq!(joiner.push(1, 1, 4, data("a")), Err(changed));
}

#[test]
fn a_claimed_total_is_not_believed() {
    let mut joiner = ChunkJoiner::new(&limits());
    let too_large = ChunkError::MessageTooLarge { id: 1, message_bytes_max: 100 };
    assert_eq!(joiner.push(1, 0, 101, data("a")), Err(too_large));
    assert_eq!(joiner.push(1, 0, (1 << 53) - 1, data("a")), Err(too_large));
    assert_eq!(joiner.push(1, 0, 1, vec![0; 101].into()), Err(too_large));
    assert_eq!(joiner.push(1, 0, 2, vec![0; 60].into()), Ok(None));
    assert_eq!(joiner.push(1, 1, 2, vec![0; 41].into()), Err(too_large));
    assert_eq!(joiner.push(1, 1, 2, vec![0; 40].into()), Ok(Some(vec![0; 100].into())));
}

#[test]
fn unfinished_sets_are_bounded_in_number_and_bytes() {
    let mut joiner = ChunkJoiner::new(&limits());
    assert_eq!(joiner.push(1, 1, 100, vec![0; 90].into()), Ok(None));
    assert_eq!(joiner.push(2, 1, 100, vec![0; 50].into()), Ok(None));
    let too_many = ChunkError::TooManySets { id: 3, sets_max: 2 };
    assert_eq!(joiner.push(3, 0, 2, data("a")), Err(too_many));
    let too_many = ChunkError::TooManyBytes { id: 2, bytes_max: 300 };
    assert_eq!(joiner.push(2, 2, 100, data("a")), Err(too_many));
    // A part in order takes only its own bytes.
    assert_eq!(joiner.push(2, 0, 100, data("a")), Ok(None));
}

/// A part on a slow line takes longer than the checked period: what counts is that bytes arrive.
#[test]
fn a_set_is_broken_by_too_few_bytes_and_not_by_its_age() {
    let mut joiner = ChunkJoiner::new(&limits());
    assert_eq!(joiner.push(1, 0, 3, data("a")), Ok(None));
    assert_eq!(joiner.expire(50_000, 7_000), Ok(()), "it has just begun");
    assert_eq!(joiner.expire(59_999, 7_000), Ok(()));
    // 1 KiB a second.
    assert_eq!(joiner.expire(60_000, 17_240), Ok(()));
    assert_eq!(joiner.push(1, 1, 3, data("b")), Ok(None));
    let too_slow = ChunkError::TooSlow { id: 1, bytes: 10_239, millis: 10_000 };
    assert_eq!(joiner.expire(70_000, 27_479), Err(too_slow));
    // A finished set has no age.
    assert_eq!(joiner.push(1, 2, 3, data("c")), Ok(Some(data("abc"))));
    assert_eq!(joiner.expire(100_000, 27_479), Ok(()));
}

#[test]
fn a_set_that_is_given_up_makes_room() {
    let mut joiner = ChunkJoiner::new(&limits());
    assert_eq!(joiner.push(1, 1, 2, vec![0; 90].into()), Ok(None));
    assert_eq!(joiner.push(2, 1, 2, data("a")), Ok(None));
    joiner.forget(1);
    assert_eq!(joiner.bytes(), 1 + WAITING_PART_BYTES);
    assert_eq!(joiner.push(2, 0, 2, data("b")), Ok(Some(data("ba"))));
}

#[test]
fn a_waiting_part_does_not_keep_its_frame() {
    let mut joiner = ChunkJoiner::new(&limits());
    let frame = Bytes::from(vec![7; 1_000_000]);
    assert_eq!(joiner.push(1, 1, 2, frame.slice(..1)), Ok(None));
    assert!(frame.is_unique());
}

/// The parts of one message.
type Parts = Vec<Vec<u8>>;

/// Messages, and the order in which their parts are sent, some of them more than once: as message and part.
fn traffic() -> impl Strategy<Value = (Vec<Parts>, Vec<(usize, usize)>)> {
    let part = prop::collection::vec(any::<u8>(), 1..5);
    let messages = prop::collection::vec(prop::collection::vec(part, 1..10), 1..5);
    messages.prop_flat_map(|messages| {
        let each = messages.iter().enumerate();
        let parts: Vec<_> =
            each.flat_map(|(id, parts)| (0..parts.len()).map(move |part| (id, part))).collect();
        let repeats = prop::collection::vec(prop::sample::select(parts.clone()), 0..10);
        let order = repeats
            .prop_flat_map(move |repeats| Just([parts.clone(), repeats].concat()).prop_shuffle());
        (Just(messages), order)
    })
}

proptest! {
    #[test]
    fn what_was_cut_is_joined(len in 0..4 * CHUNK_BYTES) {
        let ranges: Vec<_> = split(len).collect();
        let ends: Vec<usize> = ranges.iter().map(|range| range.end).collect();
        let starts: Vec<usize> = ranges.iter().map(|range| range.start).collect();
        let joined = std::iter::once(0).chain(ends.iter().copied());
        prop_assert!(joined.eq(starts.iter().copied().chain([len])) || len == 0);
        prop_assert!(ranges.iter().all(|range| (1..=CHUNK_BYTES).contains(&range.len())));
        prop_assert!(ranges.iter().rev().skip(1).all(|range| range.len() == CHUNK_BYTES));
    }

    #[test]
    fn any_order_with_repeats_gives_each_message_once((messages, order) in traffic()) {
        let limits = Limits { chunk_sets_max: 5, ..Limits::default() };
        let mut joiner = ChunkJoiner::new(&limits);
        let mut done = vec![false; messages.len()];
        for (id, part) in order {
            // Repeating a part of a finished set would begin a new set under the same id.
            if done[id] {
                continue;
            }
            let parts = &messages[id];
            let data = Bytes::from(parts[part].clone());
            let joined = joiner.push(id as u64, part as u64, parts.len() as u64, data);
            if let Some(message) = joined.expect("a good set") {
                prop_assert_eq!(&message[..], &parts.concat()[..]);
                done[id] = true;
            }
        }
        prop_assert!(done.into_iter().all(|done| done));
        prop_assert!(joiner.is_empty());
    }

    #[test]
    fn whatever_is_pushed_the_limits_hold(
        parts in prop::collection::vec((0..4_u64, 0..6_u64, 0..6_u64, 0..60_usize, 0..9_u64), 0..60),
    ) {
        let mut joiner = ChunkJoiner::new(&limits());
        let (mut now, mut received) = (0, 0);
        for (id, index, total, len, seconds) in parts {
            now += seconds * 1_000;
            received += len as u64;
            let _ = joiner.expire(now, received);
            if let Ok(Some(message)) = joiner.push(id, index, total, vec![1; len].into()) {
                prop_assert!(message.len() <= 100);
            }
            prop_assert!(joiner.bytes() <= 300);
            prop_assert!(joiner.sets.len() <= 2);
        }
    }
}
