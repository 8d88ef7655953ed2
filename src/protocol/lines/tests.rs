//! What is written is read back, and what is wrong is named.

use proptest::prelude::*;

use super::*;
use crate::model::{EntryId, EntryRef, Origin, PublicKey};

fn line(text: &str) -> Result<Line, String> {
    Line::parse(text).map_err(|error| error.to_string())
}

fn put(sequence: u64, entry: &EntryRef<'_>, origin: &Origin) -> String {
    let mut out = String::new();
    put_entry(&mut out, (Sequence::new(sequence).expect("a sequence"), None), entry, origin);
    out
}

const ID: &str = "018bcfe5-6800-70e1-8101-010101010101";

fn id() -> EntryId {
    ID.parse().expect("a UUID")
}

#[test]
fn an_entry_is_a_line_with_its_bytes_and_what_they_look_like() {
    let payload = b"\x81\xa4text\xa2hi";
    let entry = EntryRef { id: id(), event: "No\"te", primary_key: "n\n1", payload };
    let alice = Origin::Client(PublicKey::new("alice").expect("a key"));
    assert_eq!(
        put(12, &entry, &alice),
        format!(
            "{{\"sequence\":12,\"id\":\"{ID}\",\"event\":\"No\\\"te\",\"primaryKey\":\"n\\n1\",\"createdAt\":1700000000000,\
             \"origin\":{{\"publicKey\":\"alice\"}},\"payloadBase64\":\"gaR0ZXh0omhp\",\"payload\":{{\"text\":\"hi\"}}}}\n"
        )
    );
    let mut known = String::new();
    put_entry(&mut known, (Sequence::FIRST, Some(1_700_000_000_950)), &entry, &alice);
    assert!(known.contains(r#""createdAt":1700000000000,"committedBy":1700000000950,"origin""#));
    assert!(matches!(line(&known), Ok(Line::Entry(_))));
    let bytes = EntryRef { payload: b"\x81\xa1a\xc4\x01\xff", ..entry };
    let server = put(1, &bytes, &Origin::Server { run_handlers: false });
    assert!(server.contains(r#""origin":{"runHandlers":false}"#), "{server}");
    assert!(server.ends_with("\"payload\":{\"a\":\"/w==\"}}\n"), "{server}");
    let frame = EntryRef {
        payload: b"\x11\x20\xd0\xbc\xda\x97\x21\x02AA\xe0\x86\xb9\x85\x34\x02k1",
        ..entry
    };
    assert!(put(1, &frame, &alice).contains("AA"), "what Effect's clients write is shown");
    let raw = EntryRef { payload: b"hello", ..entry };
    assert!(!put(1, &raw, &alice).contains("\"payload\":"));
}

#[test]
fn a_large_payload_is_not_shown() {
    let payload = [vec![0xdb, 0, 0x10, 0, 1], vec![b'a'; (1 << 20) + 1]].concat();
    let entry = EntryRef { id: id(), event: "E", primary_key: "", payload: &payload };
    let line = put(1, &entry, &Origin::Server { run_handlers: true });
    assert!(!line.contains("\"payload\":") && line.len() < 1_500_000, "{}", line.len());
}

#[test]
fn lines_of_stores_are_read_back() {
    let team = StoreId::new("te\"am\n").expect("a store");
    let head = Head {
        store: team.clone(),
        remote_id: RemoteId::from_bytes([0xab; 16]),
        from: Sequence::FIRST,
        head: Sequence::MAX,
        filter: "event=No*te".to_owned(),
    };
    let all = Head { filter: String::new(), ..head.clone() };
    let end = End { store: team, entries: 3 };
    let complete = Complete { stores: 2, entries: 5 };
    let mut out = String::new();
    put_head(&mut out, &head);
    put_head(&mut out, &all);
    put_end(&mut out, &end);
    put_complete(&mut out, complete);
    let read: Vec<Line> = out.lines().map(|text| line(text).expect(text)).collect();
    let expected = [Line::Head(head), Line::Head(all), Line::End(end), Line::Complete(complete)];
    assert_eq!(read, expected);
}

#[test]
fn what_databases_write_is_read() {
    let text = format!(r#"{{"id":"{ID}","event":"E","primaryKey":"k","payloadHex":"00fFA1"}}"#);
    let Ok(Line::Entry(LineEntry { sequence: None, entry })) = line(&text) else {
        panic!("{text}")
    };
    assert_eq!((entry.id, &entry.payload[..]), (id(), &[0, 255, 0xa1][..]));
    // As SQLite writes a blob.
    let plain = text.replace('-', "").to_uppercase().replace("PRIMARYKEY", "primaryKey");
    let plain = plain.replace("\"ID\"", "\"id\"").replace("EVENT", "event");
    let plain = plain.replace("PAYLOADHEX", "payloadHex");
    assert!(line(&plain).is_ok(), "{plain}: {:?}", line(&plain));
}

#[test]
fn what_is_wrong_is_named() {
    let head = r#""storeId":"a","remoteId":"00000000000000000000000000000000","from":1,"head":2}"#;
    let good = format!(r#""id":"{ID}","event":"E","primaryKey":"""#);
    for (text, reason) in [
        (String::new(), "not a JSON object"),
        ("[1]".to_owned(), "not a JSON object"),
        ("{".to_owned(), "EOF"),
        ("{}".to_owned(), "missing field `id`"),
        (format!(r#"{{"export":2,{head}"#), "version 2"),
        (format!(r#"{{"export":1,{}"#, head.replace("\"a\"", "\"\"")), "storeId"),
        (format!(r#"{{"export":1,{}"#, head.replace("00000000\",", "\",")), "remoteId"),
        (format!(r#"{{"export":1,{}"#, head.replace(":2}", ":9007199254740992}")), "2^53-1"),
        (r#"{"end":"a"}"#.to_owned(), "entries"),
        (r#"{"complete":false,"stores":1,"entries":1}"#.to_owned(), "complete"),
        (format!("{{{good}}}"), "payloadBase64"),
        (format!("{{{good},\"payload\":1}}"), "payloadBase64"),
        (format!("{{{good},\"payloadBase64\":\"a\"}}"), "payloadBase64"),
        (format!("{{{good},\"payloadHex\":\"0\"}}"), "payloadHex"),
        (format!("{{{good},\"payloadHex\":\"0g\"}}"), "payloadHex"),
        (format!("{{{good},\"payloadHex\":\"+1\"}}"), "payloadHex"),
        (format!("{{{good},\"payloadHex\":\"\",\"primary_key\":1}}"), "primary_key"),
        (format!("{{{good},\"payloadHex\":\"\"}} x"), "trailing"),
        (format!("{{{},\"payloadHex\":\"\"}}", good.replace(ID, "1")), "not a UUID"),
        (format!("{{{},\"payloadHex\":\"\"}}", good.replace("\"E\"", "\"\"")), "empty"),
    ] {
        let error = line(&text).expect_err(&text);
        assert!(error.contains(reason), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn any_entry_is_read_back(
        id: [u8; 16], event in ".+", primary_key: String, payload: Vec<u8>, sequence in 0..=INTEGER_MAX,
        key in "[^\0]{1,9}", run_handlers: Option<bool>,
    ) {
        let id = EntryId::from_bytes(id);
        let entry = EntryRef { id, event: &event, primary_key: &primary_key, payload: &payload };
        let origin = run_handlers.map_or_else(
            || Origin::Client(PublicKey::new(key).expect("a key")),
            |run_handlers| Origin::Server { run_handlers },
        );
        let text = put(sequence, &entry, &origin);
        prop_assert_eq!(text.matches('\n').count(), 1, "{}", text);
        let sequence = Some(Sequence::new(sequence).expect("a sequence"));
        let expected = Line::Entry(LineEntry { sequence, entry: entry.to_entry() });
        prop_assert_eq!(line(&text), Ok(expected));
        // It is JSON for every reader.
        prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn nothing_panics(text: String, bytes in "\\{\"(export|end|complete|id)\":.{0,30}") {
        let _ = (line(&text), line(&bytes));
    }
}
