//! One fault in the files of a log, of every kind: no frame is ever wrong, and none is missing unreported.

use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;

use super::ground::{Example, append, files, folder, new, options, reopen, reopen_damaged, verify};
use crate::storage::commit_log::Position;

static EXAMPLE: LazyLock<Example> = LazyLock::new(Example::new);

const BLOCK: usize = 512;

/// Something that happens to one file.
#[derive(Clone, Debug)]
enum Fault {
    Truncated(Index),
    Removed,
    /// The content of another file, or its own earlier content.
    Replaced(Index),
    BlockLost(Index),
    BlockDoubled(Index, Index),
    BlocksSwapped(Index, Index),
    Garbage(Index, Vec<u8>),
}

fn faults() -> impl Strategy<Value = Fault> {
    let index = any::<Index>;
    prop_oneof![
        index().prop_map(Fault::Truncated),
        Just(Fault::Removed),
        index().prop_map(Fault::Replaced),
        index().prop_map(Fault::BlockLost),
        (index(), index()).prop_map(|(from, to)| Fault::BlockDoubled(from, to)),
        (index(), index()).prop_map(|(one, other)| Fault::BlocksSwapped(one, other)),
        (index(), proptest::collection::vec(any::<u8>(), 2..2_000))
            .prop_map(|(at, bytes)| Fault::Garbage(at, bytes)),
    ]
}

impl Fault {
    fn happen(&self, path: &PathBuf, mut bytes: Vec<u8>) {
        let block = |index: &Index| index.index(bytes.len() / BLOCK) * BLOCK;
        match self {
            Self::Truncated(at) => bytes.truncate(at.index(bytes.len())),
            Self::Removed => return std::fs::remove_file(path).expect("removed"),
            Self::Replaced(by) => bytes = by.get(&EXAMPLE.earlier).1.clone(),
            Self::BlockLost(at) => {
                let at = block(at);
                bytes[at..at + BLOCK].fill(0);
            }
            Self::BlockDoubled(from, to) => {
                let (from, to) = (block(from), block(to));
                bytes.copy_within(from..from + BLOCK, to);
            }
            Self::BlocksSwapped(one, other) => {
                let (one, other) = (block(one), block(other));
                let held = bytes[one..one + BLOCK].to_vec();
                bytes.copy_within(other..other + BLOCK, one);
                bytes[other..other + BLOCK].copy_from_slice(&held);
            }
            Self::Garbage(at, garbage) => {
                let at = at.index(bytes.len());
                let end = bytes.len().min(at + garbage.len());
                bytes[at..end].copy_from_slice(&garbage[..end - at]);
            }
        }
        std::fs::write(path, bytes).expect("written");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_fault_in_one_file_makes_a_frame_wrong_or_lets_it_go_without_a_word(
        file: Index, fault in faults(),
    ) {
        let (_copy, options) = EXAMPLE.copy();
        let files = files(&options.folder);
        let (path, bytes) = file.get(&files);
        fault.happen(path, bytes.clone());
        let verified = verify(&options, Position(EXAMPLE.from), Position(0)).expect("readable");
        let mut opened = reopen_damaged(&options, EXAMPLE.from);
        let mut seen: Vec<_> =
            (1..=EXAMPLE.from).map(|number| (Position(number), EXAMPLE.appended[number as usize - 1].clone())).collect();
        seen.append(&mut opened.frames);
        opened.frames = seen;
        opened.assert_honest(&EXAMPLE.appended);
        prop_assert_eq!(&verified.damages, &opened.damages);
        if path.ends_with("acked") {
            prop_assert_eq!(&opened.damages, &[]);
        }
    }

    #[test]
    fn a_single_changed_bit_anywhere_loses_nothing(file: Index, bit: Index) {
        let (_copy, options) = EXAMPLE.copy();
        let files = files(&options.folder);
        let (path, bytes) = file.get(&files);
        let (mut bytes, bit) = (bytes.clone(), bit.index(bytes.len() * 8));
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(path, bytes).expect("written");
        let opened = reopen(&options, EXAMPLE.from);
        let expected = EXAMPLE.appended.iter().skip(EXAMPLE.from as usize);
        prop_assert!(opened.frames.iter().map(|(_, body)| body).eq(expected));
        // What was repaired was written back.
        drop(opened);
        prop_assert_eq!(reopen(&options, EXAMPLE.from).log.repaired, 0);
    }

    #[test]
    fn a_frame_that_was_cut_off_is_there_whole_or_not_at_all(
        bytes in 0_usize..9_000, blocks: u32, earlier in 0_u64..4,
    ) {
        let folder = folder();
        let options = options(folder.path());
        let mut log = new(&options);
        // In a used file there are blocks of an earlier life after the end.
        let mut appended: Vec<Vec<u8>> = Vec::new();
        for number in 0..30 * earlier {
            appended.push(vec![number as u8; 700]);
            append(&mut log, &appended[number as usize]);
            log.files.release(Position(number), |_| Ok(())).expect("released");
        }
        drop(log);
        let mut log = reopen(&options, appended.len() as u64).log;
        appended.push(vec![1; 700]);
        append(&mut log, &appended[appended.len() - 1]);
        let note = || std::fs::read(options.folder.join("acked")).expect("a note");
        while note().windows(8).all(|window| window != (appended.len() as u64).to_be_bytes()) {
            std::thread::yield_now();
        }
        let (noted, before) = (note(), files(&options.folder));
        let body = vec![9; bytes];
        append(&mut log, &body);
        drop(log);
        std::fs::write(options.folder.join("acked"), noted).expect("written");
        // Any of the blocks that this has changed may have stayed as they were, but not always all of them.
        for (path, now) in files(&options.folder) {
            let Some((_, before)) = before.iter().find(|(before, _)| *before == path) else { continue };
            let mut mixed = now.clone();
            let changed = (0..now.len() / BLOCK).map(|block| block * BLOCK..(block + 1) * BLOCK)
                .filter(|block| now[block.clone()] != before[block.clone()]);
            for (index, block) in changed.enumerate() {
                if blocks >> (index % 32) & 1 == 0 {
                    mixed[block.clone()].copy_from_slice(&before[block]);
                }
            }
            std::fs::write(path, mixed).expect("written");
        }
        let opened = reopen(&options, appended.len() as u64 - 1);
        let given: Vec<_> = opened.frames.iter().map(|(_, body)| body).collect();
        let cut = vec![&appended[appended.len() - 1]];
        let whole = vec![&appended[appended.len() - 1], &body];
        prop_assert!(given == cut || given == whole, "{} frames", given.len());
    }
}
