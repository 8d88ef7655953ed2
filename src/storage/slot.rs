//! Blocks of 512 bytes that begin with a checksum over their rest.
//!
//! Keeps: a changed block is never accepted as written; a block with a single changed bit is repaired, because each bit
//! changes the sum in a way that no other does.

use std::collections::HashMap;
use std::sync::OnceLock;

/// Also the amount that a disk is assumed to write all or nothing of.
pub(super) const BLOCK_BYTES: usize = 512;

/// Writes the checksum of the rest of `block` to its front.
pub(super) fn close(block: &mut [u8; BLOCK_BYTES], seed: u32) {
    let sum = sum(seed, block);
    block[..4].copy_from_slice(&sum.to_be_bytes());
}

/// Whether `block` is as it was written, possibly after repairing a single bit.
pub(super) fn check(block: &mut [u8; BLOCK_BYTES], seed: u32) -> bool {
    let difference = sum(seed, block) ^ u32_at(block, 0);
    difference == 0 || put_right(block, difference)
}

/// The checksum of what follows the first four bytes.
pub(super) fn sum(seed: u32, block: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new_with_initial(seed);
    sum.update(&block[4..]);
    sum.finalize()
}

/// Changes the one bit of `block` that explains why its sum differs by `difference`, if there is one.
pub(super) fn put_right(block: &mut [u8], difference: u32) -> bool {
    let Some(&bit) = single_bits().get(&difference) else { return false };
    block[bit / 8] ^= 1 << (bit % 8);
    true
}

/// How each single bit changes the sum, whatever the seed and the other bits are.
fn single_bits() -> &'static HashMap<u32, usize> {
    static BITS: OnceLock<HashMap<u32, usize>> = OnceLock::new();
    BITS.get_or_init(|| {
        let mut block = [0; BLOCK_BYTES];
        let none = sum(0, &block);
        (0..BLOCK_BYTES * 8)
            .map(|bit| {
                block[bit / 8] ^= 1 << (bit % 8);
                let difference = sum(0, &block) ^ none ^ u32_at(&block, 0);
                block[bit / 8] = 0;
                (difference, bit)
            })
            .collect()
    })
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(number)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_single_bit_is_put_right_and_two_are_not() {
        let mut block = [0; BLOCK_BYTES];
        block.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 7) as u8);
        close(&mut block, 5);
        for bit in 0..BLOCK_BYTES * 8 {
            let mut changed = block;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&mut changed, 5) && changed == block, "bit {bit}");
            let other = (bit + 77) % (BLOCK_BYTES * 8);
            changed[bit / 8] ^= 1 << (bit % 8);
            changed[other / 8] ^= 1 << (other % 8);
            assert!(!check(&mut changed, 5), "bits {bit} and {other}");
        }
        assert!(!check(&mut block, 6), "another seed");
    }
}
