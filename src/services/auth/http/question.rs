//! The question to the application.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::model::PublicKey;
use crate::services::{Caller, Claim};

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Read,
    Write,
}

impl Action {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Read => Self::Write,
            Self::Write => Self::Read,
        }
    }
}

/// A hash over everything that is asked: a question that differs in any respect has another hash. What is remembered
/// under it holds no cookie.
pub(super) type QuestionId = [u8; 32];

/// The question to the application. Cheap to keep and to clone: its data belongs to the caller.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) id: QuestionId,
    caller: Caller,
    key: PublicKey,
    proved: bool,
    action: Action,
}

impl Question {
    pub(super) fn new(claim: Claim<'_>, action: Action, passed: &[Box<str>]) -> Self {
        let (caller, key) = (claim.caller.clone(), claim.key.clone());
        let proved = claim.proof.is_some();
        let mut hash = Sha256::new();
        hash.update([u8::from(proved), u8::from(action == Action::Write)]);
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        add(key.as_str().as_bytes());
        add(plain(caller.path()).as_bytes());
        add(caller.certificate().unwrap_or_default());
        for name in passed {
            values(&caller, name).for_each(&mut add);
            // No value has this length, so the values of one header do not count for the next.
            add(&[]);
            add(&[]);
        }
        Self { id: hash.finalize().into(), caller, key, proved, action }
    }

    /// The body of the request.
    pub(super) fn body(&self, passed: &[Box<str>]) -> Bytes {
        let body = Body {
            public_key: self.key.as_str(),
            proved: self.proved,
            action: self.action,
            path: plain(self.caller.path()),
            certificate_sha256: self.caller.certificate_sha256(),
            headers: Headers { caller: &self.caller, passed },
        };
        // Text can always be written as JSON.
        serde_json::to_vec(&body).unwrap_or_default().into()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    public_key: &'a str,
    proved: bool,
    action: Action,
    path: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_sha256: Option<String>,
    headers: Headers<'a>,
}

/// The passed headers that are present, each once.
struct Headers<'a> {
    caller: &'a Caller,
    passed: &'a [Box<str>],
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let present = self.passed.iter().filter_map(|name| {
            let values: Vec<Cow<'_, str>> =
                values(self.caller, name).map(String::from_utf8_lossy).collect();
            let separator = if &**name == "cookie" { "; " } else { ", " };
            (!values.is_empty()).then(|| (name, values.join(separator)))
        });
        serializer.collect_map(present)
    }
}

/// The path without what makes no difference to where it leads: `/rpc/` and `/%72pc` are `/rpc`.
fn plain(path: &str) -> Cow<'_, str> {
    let path = path.trim_end_matches('/');
    let mut parts = path.split('%');
    let first = parts.next().unwrap_or_default();
    if first.len() == path.len() {
        return Cow::Borrowed(path);
    }
    let mut plain = first.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => plain.extend([&[byte], &part.as_bytes()[2..]].concat()),
            None => plain.extend([b"%", part.as_bytes()].concat()),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
}

/// The values of all headers of this name.
fn values<'a>(caller: &'a Caller, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    caller.headers().filter(move |(other, _)| *other == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::key;

    fn caller(target: &str, headers: &[(&str, &str)]) -> Caller {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        Caller::connected(None, target, headers, None)
    }

    fn ask(caller: &Caller, name: &str, proved: bool, action: Action) -> Question {
        let (key, proof) = (key(name), [7; 32]);
        let claim = Claim { caller, key: &key, proof: proved.then_some(&proof) };
        Question::new(claim, action, &passed())
    }

    fn passed() -> Vec<Box<str>> {
        vec!["cookie".into(), "x-team".into()]
    }

    #[test]
    fn whoever_asks_something_else_in_any_respect_asks_another_question() {
        let ann = [("cookie", "session=1"), ("x-team", "red"), ("user-agent", "a")];
        let asked = |target: &str, headers: &[(&str, &str)]| {
            ask(&caller(target, headers), "k", true, Action::Read).id
        };
        let id = asked("/rpc", &ann);
        // What is not passed on makes no difference.
        assert_eq!(asked("/rpc?token=1", &[ann[0], ann[1], ("user-agent", "b")]), id);
        let same = caller("/rpc", &ann);
        let others = [
            ask(&same, "k", true, Action::Write).id,
            ask(&same, "k", false, Action::Read).id,
            ask(&same, "k2", true, Action::Read).id,
            asked("/eventlog", &ann),
            ask(&caller("/rpc", &ann).with_certificate(Some([1].into())), "k", true, Action::Read)
                .id,
            ask(&caller("/rpc", &ann).with_certificate(Some([2].into())), "k", true, Action::Read)
                .id,
            asked("/rpc", &[("cookie", "session=2"), ann[1]]),
            asked("/rpc", &[ann[1]]),
            asked("/rpc", &[ann[0]]),
            asked("/rpc", &[("cookie", ""), ann[0], ann[1]]),
            asked("/rpc", &[ann[0], ("cookie", "session=1"), ann[1]]),
            asked("/rpc", &[("cookie", "red"), ("x-team", "session=1")]),
            asked("/rpc", &[("cookie", "session=1"), ("cookie", "red")]),
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(*other, id, "{at}");
            assert_eq!(others.iter().filter(|one| *one == other).count(), 1, "{at}");
        }
    }

    /// Otherwise an application that denies something at one path could be asked about the same path in other letters.
    #[test]
    fn a_path_is_told_in_one_way_however_it_was_written() {
        let body =
            |target: &str| ask(&caller(target, &[]), "k", true, Action::Read).body(&passed());
        for target in ["/rpc/", "/%72pc", "/%72%70%63/?a=b", "/rpc?x=/"] {
            assert_eq!(body(target), body("/rpc"), "{target}");
        }
        for (target, path) in
            [("/a%2", "/a%2"), ("/%zz", "/%zz"), ("/%+1", "/%+1"), ("/%C3%BC", "/ü")]
        {
            let told = String::from_utf8(body(target).to_vec()).expect("text");
            assert!(told.contains(&format!("\"path\":\"{path}\"")), "{told}");
        }
    }

    #[test]
    fn the_application_is_told_what_is_asked_and_nothing_else() {
        let headers = [("cookie", "a=1"), ("authorization", "SECRET"), ("cookie", "b=\"2\"")];
        let question = ask(&caller("/rpc?SECRET", &headers), "k\"", true, Action::Write);
        let expected = r#"{"publicKey":"k\"","proved":true,"action":"write","path":"/rpc","headers":{"cookie":"a=1; b=\"2\""}}"#;
        assert_eq!(question.body(&passed()), expected);
        let shows = caller("/rpc", &[]).with_certificate(Some(b"x".as_slice().into()));
        let body = ask(&shows, "k", true, Action::Write).body(&passed());
        let hash = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        let told = format!("\"path\":\"/rpc\",\"certificateSha256\":\"{hash}\",");
        assert!(String::from_utf8_lossy(&body).contains(&told), "{body:?}");
    }
}
