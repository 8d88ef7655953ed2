//! The numbers that replace names on this wire. They are computed from the names at compile time, and tested against
//! the numbers that Effect's peers send.

/// The id of a struct's field: the 32-bit FNV-1a hash of its name.
macro_rules! fields {
    ($($constant:ident = $name:literal, $id:literal;)*) => {
        $(pub(super) const $constant: u32 = field_id($name);)*

        #[cfg(test)]
        const FIELDS: &[(&str, u32)] = &[$(($name, $id)),*];
    };
}

fields! {
    ALGORITHM = "algorithm", 0x1c45_696a;
    BATCHES = "batches", 0xc664_1b6b;
    CHALLENGE = "challenge", 0x00e7_903e;
    CODE = "code", 0xf931_6cf4;
    COMPACTION = "compaction", 0x89df_79c8;
    DATA = "data", 0xd872_e2a5;
    ENTRIES = "entries", 0x6f58_82f3;
    ENTRY = "entry", 0xcac3_d793;
    ENTRY_ID = "entryId", 0xa6e5_987e;
    EVENT = "event", 0xfe30_d09f;
    FIRST_SEQUENCE = "firstSequence", 0xb5e4_b3cc;
    ID = "id", 0x3738_6ae0;
    MESSAGE = "message", 0x24f2_08e4;
    PART = "part", 0x7c78_3614;
    PAYLOAD = "payload", 0x330f_77a5;
    PRIMARY_KEY = "primaryKey", 0xc63e_3210;
    PUBLIC_KEY = "publicKey", 0xf40a_06ff;
    REMOTE_ID = "remoteId", 0xaef0_723e;
    REMOTE_SEQUENCE = "remoteSequence", 0xd441_3922;
    REQUEST_TAG = "requestTag", 0xa551_b92a;
    SEQUENCE = "sequence", 0x3c43_ef68;
    SIGNATURE = "signature", 0x5fab_696d;
    SIGNING_PUBLIC_KEY = "signingPublicKey", 0xf72f_179c;
    START_SEQUENCE = "startSequence", 0x76db_9f86;
    STORE_ID = "storeId", 0x4ca3_8853;
    TAG = "_tag", 0x7289_ae0e;
}

/// What precedes a member of a union that is a struct with a `_tag`.
pub(super) const VARIANT: u8 = 0x0a;
/// Hash of the variant `Single`.
pub(super) const SINGLE: u32 = variant_hash("Single");
/// Hash of the variant `Chunked`.
pub(super) const CHUNKED: u32 = variant_hash("Chunked");
/// Hash of the variant `EventLogProtocolError`.
pub(super) const PROTOCOL_ERROR: u32 = variant_hash("EventLogProtocolError");

/// Says that an envelope has the layout that this module knows; an FNV-1a hash of that layout.
pub(super) const FINGERPRINT: [u8; 8] = [0xa7, 0x1f, 0xbf, 0x48, 0x86, 0x12, 0xff, 0x6b];

/// First byte of a frame with field ids in it.
pub(super) const DEFAULT_HEADER: u8 = 0x20;
/// First byte of a frame without field ids, followed by a fingerprint.
pub(super) const FINGERPRINT_HEADER: u8 = 0x21;

/// The id of the field `name`.
pub(super) const fn field_id(name: &str) -> u32 {
    fnv1a(FNV_BASIS, name.as_bytes())
}

/// The hash of the variant whose `_tag` is `tag`.
pub(super) const fn variant_hash(tag: &str) -> u32 {
    let mut hash = fnv1a(FNV_BASIS, &[1, 4, 0, 0, 0]);
    hash = fnv1a(hash, b"_tag\x01");
    hash = fnv1a(hash, &(tag.len() as u32).to_le_bytes());
    fnv1a(hash, tag.as_bytes())
}

const FNV_BASIS: u32 = 0x811c_9dc5;

const fn fnv1a(mut hash: u32, bytes: &[u8]) -> u32 {
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_id_is_the_hash_of_its_name() {
        for (name, id) in FIELDS {
            assert_eq!(field_id(name), *id, "{name}");
        }
    }

    #[test]
    fn every_variant_hash_is_that_of_its_tag() {
        assert_eq!([SINGLE, CHUNKED, PROTOCOL_ERROR], [0xc640_300c, 0x85c3_bb47, 0x46bb_7369]);
    }

    /// What the layout hash is computed from.
    enum Layout {
        Leaf(u8),
        True,
        Struct(Vec<(&'static str, bool, Layout)>),
        Array(Box<Layout>),
        Tuple(Vec<Layout>),
        /// Variants by tag, in the order of their hashes, then the other members.
        Union(Vec<(Option<&'static str>, Layout)>),
    }

    fn hash(layout: &Layout) -> [u8; 8] {
        let mut text = Vec::new();
        match layout {
            Layout::Leaf(kind) => text.push(*kind),
            Layout::True => text.extend_from_slice(b"\x19\x01\x01\x03\x04true"),
            Layout::Struct(fields) => {
                let mut fields: Vec<_> = fields
                    .iter()
                    .map(|(name, optional, of)| (field_id(name), optional, of))
                    .collect();
                fields.sort_by_key(|(id, ..)| *id);
                text.extend_from_slice(&[0x11, fields.len() as u8]);
                for (id, optional, of) in fields {
                    text.extend_from_slice(&id.to_le_bytes());
                    text.push(u8::from(*optional));
                    text.extend_from_slice(&hash(of));
                }
                text.push(0);
            }
            Layout::Array(of) => {
                text.extend_from_slice(&[0x12, 0, 1]);
                text.extend_from_slice(&hash(of));
            }
            Layout::Tuple(of) => {
                text.extend_from_slice(&[0x12, of.len() as u8]);
                for element in of {
                    text.push(0);
                    text.extend_from_slice(&hash(element));
                }
                text.push(0);
            }
            Layout::Union(members) => {
                text.extend_from_slice(&[0x13, members.len() as u8]);
                for (tag, of) in members {
                    match tag {
                        Some(tag) => {
                            text.extend_from_slice(&[1, 0]);
                            text.extend_from_slice(&variant_hash(tag).to_le_bytes());
                        }
                        None => text.push(0),
                    }
                    text.extend_from_slice(&hash(of));
                }
            }
        }
        let fnv64 = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        fnv64.to_le_bytes()
    }

    #[test]
    fn the_fingerprint_is_the_hash_of_the_envelope() {
        use Layout::{Array, Leaf, Struct, True, Tuple, Union};
        const BOOLEAN: u8 = 1;
        const UNDEFINED: u8 = 3;
        const NUMBER: u8 = 4;
        const TEXT: u8 = 6;
        const BYTES: u8 = 8;
        let id = || Union(vec![(None, Leaf(NUMBER)), (None, Leaf(TEXT))]);
        let maybe_text = || Union(vec![(None, Leaf(UNDEFINED)), (None, Leaf(TEXT))]);
        let maybe = |of| Union(vec![(None, of), (None, Leaf(UNDEFINED))]);
        let request = Struct(vec![
            ("id", false, id()),
            ("tag", false, Leaf(TEXT)),
            ("payload", false, Leaf(BYTES)),
            ("headers", false, Array(Box::new(Tuple(vec![Leaf(TEXT), Leaf(TEXT)])))),
            ("isNotification", true, maybe(True)),
            ("discard", true, maybe(True)),
            ("traceId", true, maybe_text()),
            ("spanId", true, maybe_text()),
            ("sampled", true, maybe(Leaf(BOOLEAN))),
        ]);
        let mut members = vec![
            ("Request", request),
            ("Ack", Struct(vec![("requestId", false, id())])),
            ("Interrupt", Struct(vec![("requestId", false, id())])),
            ("Ping", Struct(vec![])),
            ("Eof", Struct(vec![])),
            ("Chunk", Struct(vec![("requestId", false, id()), ("values", false, Leaf(BYTES))])),
            ("Exit", Struct(vec![("requestId", false, id()), ("exit", false, Leaf(BYTES))])),
            ("Defect", Struct(vec![("defect", false, Leaf(BYTES))])),
            ("Pong", Struct(vec![])),
        ];
        members.sort_by_key(|(tag, _)| variant_hash(tag));
        let order: Vec<_> = members.iter().map(|(tag, _)| *tag).collect();
        let selectors =
            ["Ack", "Exit", "Defect", "Ping", "Eof", "Chunk", "Pong", "Request", "Interrupt"];
        assert_eq!(order, selectors);
        let envelope = Union(members.into_iter().map(|(tag, of)| (Some(tag), of)).collect());
        assert_eq!(hash(&envelope), FINGERPRINT);
    }
}
