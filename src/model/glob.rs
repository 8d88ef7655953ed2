//! Text patterns in which a `*` stands for any text, including none.

/// Whether `text` matches `pattern`.
///
/// The part before the first star must begin the text, and the part after the last must end it. The parts between are
/// searched from left to right: taking the first place that fits leaves the most text for the rest.
pub(crate) fn glob_matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}
