//! Texts in which a `*` stands for any text, none included.

/// Whether `text` has the form of `pattern`.
///
/// What stands before the first star must begin the text, what stands behind the last must end it, and what stands
/// between is looked for from left to right: taking the first place it fits leaves most for the rest.
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
