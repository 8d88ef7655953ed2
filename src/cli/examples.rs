//! The examples in the help, as lines that can be copied: one that is wider than the terminal goes on in the next line
//! behind a backslash, and its comment comes before it.
//!
//! Keeps: nothing is broken within quotes. Leaves out: all other text of the help, which clap wraps.

use clap::Command;

use super::screen;

/// The width that clap wraps to, if the terminal is not narrower.
pub(super) const COLUMNS_MAX: usize = 100;
/// What begins a block of examples.
const HEADS: [&str; 2] = ["Examples", "Try it out"];
const INDENT: &str = "  ";
const FURTHER: &str = "      ";

/// `command` with examples that fit the terminal, and so all commands below it.
pub(super) fn fitted(command: Command) -> Command {
    let columns = screen::columns().unwrap_or(COLUMNS_MAX).min(COLUMNS_MAX);
    fit(command, columns)
}

fn fit(command: Command, columns: usize) -> Command {
    let after = command.get_after_help().map(|text| fit_text(&text.to_string(), columns));
    let command = command.mut_subcommands(|below| fit(below, columns));
    match after {
        Some(after) => command.after_help(after),
        None => command,
    }
}

fn fit_text(text: &str, columns: usize) -> String {
    let mut is_example = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if !line.starts_with(INDENT) {
            is_example = HEADS.iter().any(|head| line.starts_with(head));
        }
        if is_example && line.chars().count() > columns {
            fit_line(line, columns, &mut lines);
        } else {
            lines.push(line.to_owned());
        }
    }
    lines.join("\n")
}

fn fit_line(line: &str, columns: usize, lines: &mut Vec<String>) {
    let (command, comment) = match line.split_once(" # ") {
        Some((command, comment)) => (command, comment.split_whitespace().collect()),
        None => (line, Vec::new()),
    };
    fill(&comment, columns, ("  # ", "  # ", ""), lines);
    fill(&words(command), columns, (INDENT, FURTHER, " \\"), lines);
}

/// Appends lines of these words: the first begins in one way, others in another, and all but the last end with `end`.
fn fill(
    words: &[&str],
    columns: usize,
    (first, further, end): (&str, &str, &str),
    lines: &mut Vec<String>,
) {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for (at, word) in words.iter().enumerate() {
        let end_bytes = if at + 1 == words.len() { 0 } else { end.len() };
        let wanted = line.chars().count() + 1 + word.chars().count() + end_bytes;
        if !is_empty && wanted > columns {
            let done = std::mem::replace(&mut line, further.to_owned());
            let fits = done.chars().count() + end.len() <= columns;
            // Behind a word that is wider than the terminal, clap would break the line at the space.
            lines.push(done + if fits { end } else { end.trim_start() });
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    if !is_empty {
        lines.push(line);
    }
}

/// What spaces separate that are not within quotes.
fn words(command: &str) -> Vec<&str> {
    let mut quote = None;
    let is_between = |c: char| {
        match quote {
            Some(mark) if mark == c => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(_) | None => {}
        }
        c == ' ' && quote.is_none()
    };
    command.split(is_between).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_that_is_too_wide_goes_on_behind_a_backslash() {
        let text = "About it, in a line that clap wraps by itself, however long it is.\n\
                    Examples:\n  short\n  write --payload '{\"text\": \"hi there\"}' --key alice   # what it does\n\
                    Environment:\n  EVENTLOG_URL   the server that commands talk to";
        let fitted = "About it, in a line that clap wraps by itself, however long it is.\n\
                      Examples:\n  short\n  # what it does\n  write --payload \\\n      \
                      '{\"text\": \"hi there\"}' \\\n      --key alice\n\
                      Environment:\n  EVENTLOG_URL   the server that commands talk to";
        assert_eq!(fit_text(text, 31), fitted);
        assert_eq!(fit_text(text, 200), text);
        let wide = "Examples:\n  echo '{\"text\": \"much too wide\"}' | write";
        let fitted = "Examples:\n  echo \\\n      '{\"text\": \"much too wide\"}'\\\n      | write";
        assert_eq!(fit_text(wide, 20), fitted);
    }
}
