//! Writes that are small on the wire and large once they are written out.

use super::rpc::DEFAULT;

/// The numbers of the fields on the wire.
const EVENT: u64 = 0xfe30_d09f;
const ID: u64 = 0x3738_6ae0;
const PAYLOAD: u64 = 0x330f_77a5;
const PRIMARY_KEY: u64 = 0xc63e_3210;
const ENTRIES: u64 = 0x6f58_82f3;
const PUBLIC_KEY: u64 = 0xf40a_06ff;
const STORE_ID: u64 = 0x4ca3_8853;

fn uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A frame with this content.
pub fn frame(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 8);
    uvarint(&mut out, value.len() as u64 + 1);
    out.push(0x20);
    out.extend_from_slice(value);
    out
}

/// A write of `rows` entries that share one key of `key_bytes` bytes, which is written out only in the first.
pub fn write(key_bytes: usize, rows: u64) -> Vec<u8> {
    let (key, mut array) = (vec![b'k'; key_bytes], Vec::new());
    uvarint(&mut array, rows);
    for number in 0..rows {
        let id =
            (0x0192_0000_0000_7000_8000_0000_0000_0000_u128 + u128::from(number)).to_be_bytes();
        let mut row = vec![u8::from(number > 0)];
        for (field, bytes) in
            [(EVENT, &b"E"[..]), (ID, &id), (PRIMARY_KEY, &key), (PAYLOAD, &[1, 0x20])]
        {
            if number == 0 {
                uvarint(&mut row, field);
            } else if matches!(field, EVENT | PRIMARY_KEY) {
                row.push(1);
                continue;
            }
            uvarint(&mut row, bytes.len() as u64 * 2);
            row.extend_from_slice(bytes);
        }
        sized(&mut array, &row);
    }
    let mut value = Vec::new();
    for (field, bytes) in
        [(STORE_ID, DEFAULT.as_bytes()), (ENTRIES, &array), (PUBLIC_KEY, b"alice")]
    {
        uvarint(&mut value, field * 8);
        sized(&mut value, bytes);
    }
    frame(&value)
}
