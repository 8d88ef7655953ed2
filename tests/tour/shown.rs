//! Compares what a page shows with the output.

/// Whether these lines are the output; a line `…` stands for any lines.
pub fn all(shown: &[String], printed: &[String]) -> bool {
    let blank = |line: &&String| line.trim().is_empty();
    match (shown.split_first(), printed.split_first()) {
        (None, _) => printed.iter().all(|line| blank(&line)),
        (Some((first, rest)), _) if first.trim() == "…" => {
            (0..=printed.len()).any(|skipped| all(rest, &printed[skipped..]))
        }
        (Some((first, rest)), Some((next, after))) if line(first, next) => all(rest, after),
        (Some(_), _) => shown.iter().all(|line| blank(&line)) && printed.is_empty(),
    }
}

/// Whether this line was printed; `…` stands for any text, and varying parts match others of their kind.
pub fn line(shown: &str, printed: &str) -> bool {
    let (shown, printed) = (alike(shown.trim_end()), alike(printed.trim_end()));
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = shown.rsplit_once('…').map(|(_, last)| last) else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    printed.ends_with(last)
}

/// `text` with each digit of times, UUIDs, durations and long hexadecimal numbers replaced by `0`.
fn alike(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || ":-.".contains(c);
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, unit) = stable(&rest[..end], &rest[end..]);
        out.push_str(&word);
        rest = &rest[end + unit..];
    }
    out + rest
}

/// One word, or the placeholder for its kind; and how much of the following word is its unit.
fn stable(word: &str, next: &str) -> (String, usize) {
    let bare = word.trim_end_matches(['.', ':']);
    let hexadecimal = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let is_time = bare.len() >= 20 && bare.as_bytes()[10] == b'T' && bare.ends_with('Z');
    let units = ["ms", "µs", "us", "ns", "s", "min", "h"];
    let number = |text: &str| text.parse::<f64>().is_ok();
    let has_unit = units.iter().any(|unit| bare.strip_suffix(unit).is_some_and(number));
    let unit = next.strip_prefix(' ').and_then(|next| next.split([' ', ',', ';', ')']).next());
    let unit = unit.filter(|unit| units.contains(unit) && number(word));
    if is_time {
        (word.replace(bare, "<time>"), 0)
    } else if bare.len() >= 16 && hexadecimal(bare) {
        (word.replace(bare, "<hex>"), 0)
    } else if has_unit {
        (word.replace(bare, "<duration>"), 0)
    } else if let Some(unit) = unit {
        ("<duration>".to_owned(), unit.len() + 1)
    } else {
        (word.to_owned(), 0)
    }
}
