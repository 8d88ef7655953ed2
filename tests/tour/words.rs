//! As much of a shell's grammar as is needed to see where a command ends and what it calls.

/// Whether a command continues in the next line.
pub fn open(command: &str) -> bool {
    let last = command.lines().last().unwrap_or_default();
    if command.contains("<<") {
        let word = command.split("<<").nth(1).unwrap_or_default().trim_start_matches('-');
        let word = word.split_whitespace().next().unwrap_or_default().trim_matches(['\'', '"']);
        return !word.is_empty() && (last.trim() != word || command.lines().count() == 1);
    }
    last.ends_with('\\') || last.ends_with('|') || scan(command).1
}

/// The words of each simple command of a command line, without quotes and comments.
pub fn commands(line: &str) -> Vec<Vec<String>> {
    let commands = scan(line.split("<<").next().unwrap_or_default()).0;
    commands.into_iter().filter(|words| !words.is_empty()).collect()
}

/// Whether a word sets a variable.
pub fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// The arguments with which a command calls this program, if it does.
pub fn ours(words: &[String]) -> Option<&[String]> {
    let is_ours = |word: &String| {
        ["eventlog-server", "eventlog"].contains(&word.rsplit('/').next().unwrap_or_default())
    };
    let first = words.iter().position(|word| !is_assignment(word))?;
    is_ours(&words[first]).then(|| &words[first + 1..])
}

/// Whether a command runs until somebody ends it.
pub fn stays(command: &str) -> bool {
    commands(command).iter().any(|words| {
        let has = |word: &str| words.iter().any(|one| one == word);
        match ours(words).and_then(<[_]>::first).map(String::as_str) {
            Some("serve") => !has("--help"),
            Some("tail") => !has("--count"),
            _ => words[0] == "curl" && (has("-N") || has("-sN")),
        }
    })
}

/// The words of each simple command, and whether a quote is open in the end.
fn scan(text: &str) -> (Vec<Vec<String>>, bool) {
    let (mut commands, mut word, mut quote) = (vec![vec![]], None::<String>, None);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => match chars.next() {
                Some('\n') | None => {}
                Some(next) => word.get_or_insert_default().push(next),
            },
            (None, '#') if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            (None, '|' | ';' | '&' | '(' | ')' | '\n') => {
                commands.last_mut().expect("never empty").extend(word.take());
                commands.push(vec![]);
            }
            (None, c) if c.is_whitespace() => {
                commands.last_mut().expect("never empty").extend(word.take());
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    commands.last_mut().expect("never empty").extend(word);
    (commands, quote.is_some())
}
