//! Who changed what: one line of the log for each change, under the target `audit`, as `name=value`, and with each of
//! these as a field of its own for a log that machines read.
//!
//! Keeps: names and order do not change, because programs read them; text that people chose is quoted, so that nobody
//! can forge another field or line. Leaves out: what clients do, which does not change permissions.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use log::kv::{self, Key, Source, Value, VisitSource};
use log::{Level, Record};

const TARGET: &str = "audit";

/// Who did it.
#[derive(Clone, Debug)]
pub(crate) enum By {
    /// Code in this process.
    Process,
    /// Whoever has the admin token of this name.
    Admin {
        /// From where.
        address: Option<IpAddr>,
        token: Arc<str>,
    },
    /// A caller whose proof says that they are this subject.
    Claim(Option<Box<str>>),
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process => f.write_str("by=process"),
            Self::Admin { address: Some(address), token } => {
                write!(f, "by=admin address={address} token={token:?}")
            }
            Self::Admin { address: None, token } => {
                write!(f, "by=admin address=? token={token:?}")
            }
            Self::Claim(subject) => {
                write!(f, "by=claim subject={:?}", subject.as_deref().unwrap_or_default())
            }
        }
    }
}

/// Logs that it was done: `what` begins with `action=`.
pub(crate) fn note(by: &By, what: fmt::Arguments<'_>) {
    if !log::log_enabled!(target: TARGET, Level::Info) {
        return;
    }
    let line = format!("{what} {by}");
    let fields = Fields::of(&line);
    log::logger().log(
        &Record::builder()
            .level(Level::Info)
            .target(TARGET)
            .module_path(Some(module_path!()))
            .key_values(&fields)
            .args(format_args!("{line}"))
            .build(),
    );
}

/// The fields of a line.
struct Fields<'a>(Vec<(&'a str, Field)>);

#[derive(Debug, PartialEq, Eq)]
enum Field {
    Text(String),
    Number(u64),
    Flag(bool),
}

impl<'a> Fields<'a> {
    fn of(mut line: &'a str) -> Self {
        let mut fields = Vec::new();
        while let Some((name, rest)) = line.split_once('=') {
            let end = end_of_value(rest);
            fields.push((name, Field::of(&rest[..end])));
            line = rest[end..].trim_start();
        }
        Self(fields)
    }
}

/// Where the value ends that `text` begins with: at a space that is neither in a quoted text nor in a list.
fn end_of_value(text: &str) -> usize {
    let (mut in_text, mut in_list, mut is_escaped) = (false, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = in_text,
            '"' => in_text = !in_text,
            '[' | ']' if !in_text => in_list = c == '[',
            ' ' if !in_text && !in_list => return at,
            _ => {}
        }
    }
    text.len()
}

impl Field {
    fn of(value: &str) -> Self {
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        match (quoted, value.parse(), value.parse()) {
            (Some(quoted), ..) => Self::Text(plain(quoted)),
            (None, Ok(number), _) => Self::Number(number),
            (None, _, Ok(flag)) => Self::Flag(flag),
            (None, ..) => Self::Text(value.to_owned()),
        }
    }
}

/// What `{:?}` has quoted.
fn plain(quoted: &str) -> String {
    let (mut text, mut rest) = (String::with_capacity(quoted.len()), quoted.chars());
    while let Some(c) = rest.next() {
        let escaped = if c == '\\' { rest.next() } else { None };
        text.push(match escaped {
            None => c,
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('0') => '\0',
            Some('u') => {
                let digits: String = rest.by_ref().skip(1).take_while(|c| *c != '}').collect();
                let code = u32::from_str_radix(&digits, 16).ok();
                code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            Some(other) => other,
        });
    }
    text
}

impl Source for Fields<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), kv::Error> {
        self.0.iter().try_for_each(|(name, field)| {
            let value = match field {
                Field::Text(text) => Value::from(text.as_str()),
                Field::Number(number) => Value::from(*number),
                Field::Flag(flag) => Value::from(*flag),
            };
            visitor.visit_pair(Key::from_str(name), value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_did_it_cannot_write_a_further_field() {
        let mallory = By::Claim(Some("m\" by=process\n".into()));
        assert_eq!(mallory.to_string(), r#"by=claim subject="m\" by=process\n""#);
        let admin = By::Admin { address: Some([10, 0, 0, 7].into()), token: "ops".into() };
        assert_eq!(admin.to_string(), r#"by=admin address=10.0.0.7 token="ops""#);
    }

    #[test]
    fn each_field_of_a_line_is_one_whatever_people_chose() {
        let name = "a \"quoted\" = [name]\n\\ \u{202e}é\0";
        let subject = By::Claim(Some("m\" by=process\n".into()));
        let line = format!(
            "action=trim store={name:?} wanted=7 force=true to={:?} {subject}",
            [name, "b"]
        );
        let text = |text: &str| Field::Text(text.to_owned());
        let list = format!("{:?}", [name, "b"]);
        let expected = [
            ("action", text("trim")),
            ("store", text(name)),
            ("wanted", Field::Number(7)),
            ("force", Field::Flag(true)),
            ("to", text(&list)),
            ("by", text("claim")),
            ("subject", text("m\" by=process\n")),
        ];
        assert_eq!(Fields::of(&line).0, expected);
        assert_eq!(Fields::of("action=compact key=\"7\" by=process").0[1], ("key", text("7")));
    }
}
